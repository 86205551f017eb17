"""Errors on their way out of a worker."""

from __future__ import annotations

import orjson
import pytest

from llmdet.errors import FormatError, ImageError, LlmdetError
from pipelines.parts import Packed, Row, raise_failure


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (FormatError("not JSON"), FormatError, "not JSON"),
        (ImageError("image_empty", "a.jpg has zero bytes"), LlmdetError, "image_empty: a.jpg has zero bytes"),
        (OSError(28, "No space left on device"), LlmdetError, "No space left on device"),
        (PermissionError(13, "Permission denied"), LlmdetError, "Permission denied"),
    ],
)
def test_what_is_no_bug_comes_out_of_a_worker_as_one_line(error: Exception, kind: type[Exception], says: str) -> None:
    def work(row: Row) -> Row:
        raise error

    result = Packed(work)({})
    with pytest.raises(kind, match=says):
        raise_failure(orjson.loads(result["result"]))


def test_a_bug_in_a_worker_keeps_its_trace() -> None:
    def work(row: Row) -> Row:
        raise KeyError("id")

    with pytest.raises(KeyError):
        Packed(work)({})
