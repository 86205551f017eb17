"""COCO-O: COCO's 80 categories in six domains that are no photos of COCO's kind; the mean AP is what papers report.

https://github.com/alibaba/easyrobust/tree/main/benchmarks/coco_o (Mao et al. 2023): each domain is a folder with
`annotations/instances_val2017.json` and `val2017/`.
"""

from __future__ import annotations

from detector.metrics import several

DOMAINS = ("cartoon", "handmake", "painting", "sketch", "tattoo", "weather")


def evaluate(domains: several.Sets) -> dict[str, float]:
    """`AP`, the mean of the six domains, and `<domain>/AP` and so on, 0..1; takes (truth, detections) by domain.

    Raises FormatError where a domain is missing.
    """
    return several.evaluate(DOMAINS, domains, "COCO-O")
