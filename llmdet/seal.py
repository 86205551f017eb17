"""A parquet file that carries its own checksum: one flipped bit anywhere in it is found, without any second file.

The SHA-256 stands right before the footer, in a gap that parquet allows: the footer is found from the end of a file,
and everything else by the offsets that it holds. Other readers do not see the checksum.
"""

from __future__ import annotations

import hashlib

_SIZE = 32  # bytes of the checksum
_TAIL = 8  # length of the footer in 4 bytes, little endian, then "PAR1"


def seal(data: bytes) -> bytes:
    """A parquet file with its checksum put in."""
    footer = _footer(data)
    return data[:footer] + hashlib.sha256(data).digest() + data[footer:]


def is_whole(data: bytes) -> bool:
    """Whether these are the very bytes that `seal` returned."""
    return sha256_of_whole(data) is not None


def sha256_of_whole(data: bytes) -> str | None:
    """The SHA-256 of a sealed file in hexadecimal digits, or None where these are not the bytes that `seal` returned.

    Content is hashed once for both.
    """
    footer = _footer(data)
    if not _SIZE <= footer <= len(data):
        return None
    view = memoryview(data)
    file = hashlib.sha256(view[: footer - _SIZE])
    content = file.copy()
    content.update(view[footer:])
    if content.digest() != view[footer - _SIZE : footer]:
        return None
    file.update(view[footer - _SIZE :])
    return file.hexdigest()


def _footer(data: bytes) -> int:
    """Where the footer starts."""
    return len(data) - _TAIL - int.from_bytes(data[-_TAIL:-4], "little")
