"""Records for the tests of exports: one written by hand with everything in it, and a strategy for random ones."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from llmdet.record import Box, Caption, Link, Provenance, Record, Region
from llmdet.sources.source import Category, SourceInfo

# Drawing a record takes a hundredth of a second; a folder that all examples write to is meant.
few = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

LMM = Provenance("lmm", "image.detailed@2", "ab", "Qwen/Qwen2-VL", "main", "vllm", "0.27", '{"temperature":0.7}')

PETS = SourceInfo(
    "pets",
    "coco",
    "CC0",
    "https://pets.example",
    "/data/pets",
    (Category(7, "dog"), Category(2, "cat"), Category(9, "tv")),
)

FULL = Record(
    id="pets/12/0",
    source="pets",
    image_id="12",
    text_id="0",
    kind="detection",
    image="a/12.jpg",
    root="pets",
    width=100,
    height=80,
    text="dog. tv. cat. ",
    regions=(
        Region(
            ("dog",),
            ((0, 3),),
            (
                Box((1.5, 2.0, 30.25, 40.0), 2, annotation_id="31", area=700.5, mask="[[1.5,2,30,2,30,40]]"),
                Box((5.0, 6.0, 7.5, 80.0), 0, "pseudo", 0.5, "32", caption=Caption('a "brown" dog\non grass')),
            ),
            7,
        ),
        Region(("cat",), ((9, 12),), (Box((0.1, 0.2, 50.0, 60.0), 1, annotation_id="33"),), 2),
    ),
    negatives=((5, 7),),
    exhaustive=True,
    captions=(
        Caption("A dog beside a cat.", "A dog beside a cat!", LMM, "q1", 1, 285, 9, (Link((2, 5), 0, 1),)),
        Caption("Two pets."),
    ),
    tags=("dog", "grass"),
    split="train",
    licence="CC0",
    origin="https://pets.example",
    extra={"coco_url": "http://images.cocodataset.org/train2017/12.jpg"},
)

SENTENCE = Record(
    id="flickr/7/0",
    source="flickr",
    image_id="7",
    text_id="0",
    kind="grounding",
    image="7.jpg",
    root="flickr",
    width=500,
    height=375,
    text='A man in a "café" waves to a man.',
    regions=(
        Region(("A man", "a man"), ((0, 5), (27, 32)), (Box((10.0, 20.0, 30.0, 40.0)),)),
        Region(("café",), ((12, 16),), ()),
    ),
)


def coordinates(limit: float) -> st.SearchStrategy[float]:
    return st.one_of(
        st.floats(-50, limit + 50, allow_nan=False, allow_infinity=False), st.integers(0, int(limit)).map(float)
    )


@st.composite
def box_of(draw: Any, width: int, height: int) -> tuple[float, float, float, float]:
    x1, x2 = sorted((draw(coordinates(width)), draw(coordinates(width))))
    y1, y2 = sorted((draw(coordinates(height)), draw(coordinates(height))))
    return x1, y1, x2, y2


captions = st.builds(
    Caption,
    text=st.text(max_size=30),
    raw=st.text(max_size=10),
    provenance=st.sampled_from([Provenance(), LMM]),
    request_id=st.text(max_size=4),
    attempt=st.integers(0, 9),
    prompt_tokens=st.none() | st.integers(0, 5000),
    answer_tokens=st.none() | st.integers(0, 5000),
    links=st.lists(
        st.builds(
            Link,
            span=st.tuples(st.integers(0, 9), st.integers(0, 9)),
            region=st.integers(0, 9),
            box=st.none() | st.integers(0, 9),
        ),
        max_size=2,
    ).map(tuple),
)


@st.composite
def records(draw: Any, kind: str | None = None, crowds: bool = True) -> Record:
    """Any record that the schema allows, valid or not: exporters must not care."""
    width, height = draw(st.integers(1, 2000)), draw(st.integers(1, 2000))
    words = draw(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=5))
    text, spans = "", []
    for word in words:
        spans.append((len(text), len(text) + len(word)))
        text += word + ". "
    boxes = st.builds(
        Box,
        xyxy=box_of(width, height),
        order=st.integers(0, 20),
        origin=st.sampled_from(["human", "pseudo"]),
        score=st.none() | st.floats(0, 1),
        annotation_id=st.none() | st.integers(0, 2**40).map(str),
        area=st.none() | st.floats(0, 1e6),
        crowd=st.booleans() if crowds else st.just(False),
        mask=st.none() | st.just("[[1,2,3,4,5,6]]"),
        caption=st.none() | captions,
    )
    regions = [
        Region(
            tuple(words[i] for i in chosen),
            tuple(spans[i] for i in chosen),
            tuple(draw(st.lists(boxes, max_size=3))),
            category,
        )
        for chosen, category in draw(
            st.lists(
                st.tuples(
                    st.lists(st.integers(0, len(words) - 1), min_size=1, max_size=2, unique=True).map(sorted),
                    st.sampled_from([2, 7, 9]),
                ),
                max_size=4,
            )
        )
    ]
    number = draw(st.integers(0, 10**9))
    return Record(
        id=f"pets/{number}/0",
        source="pets",
        image_id=str(number),
        text_id="0",
        kind=kind or draw(st.sampled_from(["detection", "grounding"])),  # type: ignore[arg-type]
        image=f"{number}.jpg",
        root="pets",
        width=width,
        height=height,
        text=text,
        regions=tuple(regions),
        negatives=tuple(draw(st.lists(st.sampled_from(spans), max_size=2))),
        exhaustive=draw(st.booleans()),
        captions=tuple(draw(st.lists(captions, max_size=2))),
        tags=tuple(draw(st.lists(st.text(max_size=5), max_size=3))),
        flags=tuple(draw(st.lists(st.text(max_size=5), max_size=2))),
        orientation=draw(st.sampled_from(["stored", "applied"])),
        image_sha256=draw(st.none() | st.just("ab" * 32)),
        split=draw(st.sampled_from(["", "train"])),
        extra=draw(st.dictionaries(st.text(max_size=5), st.integers(-9, 9) | st.text(max_size=5), max_size=2)),
    )
