"""What a record is: the data model, the public formats, and the rules that keep captions honest.

Pure Python on numpy, pyarrow, polars and pillow. Nothing here imports ray or torch.
"""

__version__ = "0.1.0"
