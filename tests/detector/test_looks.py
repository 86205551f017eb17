"""Prompts of their own for the images of a batch."""

import numpy as np
import pytest
import torch
from PIL import Image

from detector import checkpoint
from detector.config import quickstart_model
from detector.looks import Look, look, looks_for_names, looks_for_spans, model_size
from detector.predict import Detector

TOKENIZER = checkpoint.tiny_tokenizer()


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.set_num_threads(1)
    parts = checkpoint.start(quickstart_model(), seed=0)
    parts.model.eval()
    return Detector(parts)


def photo(seed: int, width: int = 128, height: int = 128) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def words(one: Look) -> list[str]:
    """The tokens of each phrase of a prompt."""
    return [" ".join(TOKENIZER.convert_ids_to_tokens(one.ids[row])) for row in one.tokens]


def test_names_that_do_not_fit_one_prompt_are_asked_in_several() -> None:
    names = ["red square", "dog " * 300, "blue star", "cup"]
    looks = looks_for_names(TOKENIZER, names, 256)
    assert [one.phrases for one in looks] == [(0,), (2, 3)]
    assert words(looks[1]) == ["blue star", "cup"]
    assert [one.phrases for one in looks_for_names(TOKENIZER, names, 256, most=1)] == [(0,), (2,), (3,)]
    assert looks_for_names(TOKENIZER, [], 256) == []


def test_spans_of_a_text_are_phrases_of_it() -> None:
    text = "A red square is near a blue star. The square is small."
    (one,) = looks_for_spans(TOKENIZER, text, [[(0, 12), (34, 44)], [(21, 32)]], 256)
    assert one.phrases == (0, 1)
    assert words(one) == ["a red square the square", "a blue star"]


def test_a_long_text_is_cut_between_sentences_and_no_phrase_is_lost() -> None:
    sentence = "A red square is near a blue star. "
    text = sentence * 12
    spans = [
        [(i * len(sentence), i * len(sentence) + 12) for i in range(12)],
        [(11 * len(sentence) + 21, len(text) - 2)],
    ]
    looks = looks_for_spans(TOKENIZER, text, spans, 40)
    assert max(len(one.ids) for one in looks) <= 40
    assert " ".join(w for one in looks for p, w in zip(one.phrases, words(one), strict=True) if p == 0) == " ".join(
        ["a red square"] * 12
    )
    assert words(looks[-1])[-1] == "a blue star"


def test_a_phrase_that_no_prompt_holds_is_left_out_alone() -> None:
    text = "The cup. " + "dog " * 60 + "and a blue star."
    star = (text.index("a blue"), len(text) - 1)
    looks = looks_for_spans(TOKENIZER, text, [[(9, 9 + 4 * 60 - 1)], [(0, 7)], [star]], 32)
    assert sorted(number for one in looks for number in one.phrases) == [1, 2]


def test_images_with_prompts_of_their_own_answer_as_alone(detector: Detector) -> None:
    images = [photo(1), photo(2)]
    looks = [looks_for_names(TOKENIZER, names, 256)[0] for names in (["red square", "dog"], ["blue star", "cup"])]
    assert len(looks[0].ids) == len(looks[1].ids)
    together = look(detector, images, looks)
    for seen, image, names in zip(together, images, (["red square", "dog"], ["blue star", "cup"]), strict=True):
        found = detector.detect([image], names, top_k=10_000)[0]
        assert seen.scores.shape == (30, 2)
        assert np.sort(seen.scores.ravel())[::-1] == pytest.approx(found.scores, abs=1e-6)
        best = np.unravel_index(seen.scores.argmax(), seen.scores.shape)
        assert seen.boxes[best[0]] == pytest.approx(found.boxes[0], abs=1e-3)
        assert names[best[1]] == found.phrases[0]


def test_the_size_that_the_model_sees(detector: Detector) -> None:
    seen = detector.parts.pixels(photo(3, 90, 60)).shape[1:]
    assert model_size(detector, (90, 60)) == seen
