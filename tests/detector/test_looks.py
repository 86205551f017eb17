"""Prompts of their own for the images of a batch."""

import numpy as np
import pytest
import torch
from PIL import Image

from detector import checkpoint
from detector.config import quickstart_model
from detector.looks import Look, find, look, looks_for_names, looks_for_spans, model_size
from detector.predict import Detector
from llmdet.errors import SettingError
from llmdet.questions import ask, of_names, of_spans

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


# --- find ----------------------------------------------------------------------------------------------------------


def test_names_are_found_as_detect_finds_them(detector: Detector) -> None:
    images = [photo(1), photo(2, 96, 64)]
    question = of_names(["red square", "dog"])
    ours = find(detector, images, question, top_k=20)
    theirs = detector.detect(images, ["red square", "dog"], top_k=20)
    for one, other in zip(ours, theirs, strict=True):
        assert np.array_equal(one.boxes, other.boxes)
        assert one.phrases == other.phrases


def test_spans_of_the_text_of_names_score_as_the_names(detector: Detector) -> None:
    names = of_names(["red square", "dog"])
    spans = of_spans(names.text, names.spans)
    ours = find(detector, [photo(1), photo(2, 96, 64)], spans, top_k=20, batch_size=1)
    theirs = find(detector, [photo(1), photo(2, 96, 64)], names, top_k=20)
    for one, other in zip(ours, theirs, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-6)
        assert one.boxes == pytest.approx(other.boxes, abs=1e-3)
        assert one.labels.tolist() == other.labels.tolist()


def test_a_phrase_of_several_places_scores_the_mean_of_all_its_tokens(detector: Detector) -> None:
    text = "A dog sees a cat."
    apart = find(detector, [photo(3)], of_spans(text, [[(2, 5)], [(13, 16)]]), top_k=1000)[0]
    (seen,) = look(detector, [photo(3)], looks_for_spans(TOKENIZER, text, [[(2, 5)], [(13, 16)]], 256))
    both = find(detector, [photo(3)], of_spans(text, [[(2, 5), (13, 16)]]), top_k=1000)[0]
    assert np.sort(both.scores) == pytest.approx(np.sort(seen.scores.mean(axis=1)), abs=1e-6)
    assert sorted(apart.scores) == pytest.approx(sorted(seen.scores.ravel()), abs=1e-6)
    assert set(both.phrases) == {"dog / cat"}


def test_words_of_place_rank_the_boxes_of_an_expression_and_leave_their_scores(detector: Detector) -> None:
    question = ask("the dog on the left.", "referring", parser="pattern")
    assert question.spans == (((0, 7),),)
    (seen,) = look(detector, [photo(4)], looks_for_spans(TOKENIZER, question.text, question.spans, 256))
    x = (seen.boxes[:, 0] + seen.boxes[:, 2]) / 2 / 128
    best = int(np.argmax(seen.scores[:, 0] + 1 + 0.7 * (1 - x)))
    found = find(detector, [photo(4)], question, top_k=1)[0]
    assert found.boxes[0] == pytest.approx(seen.boxes[best], abs=1e-3)
    assert found.scores[0] == pytest.approx(seen.scores[best, 0], abs=1e-6)
    assert found.phrases == ["the dog on the left"]


def test_an_expression_by_its_best_token(detector: Detector) -> None:
    question = ask("the dog on the left.", "referring", parser="pattern")
    words = [[(0, 3)], [(4, 7)], [(8, 10)], [(11, 14)], [(15, 19)]]
    (seen,) = look(detector, [photo(4)], looks_for_spans(TOKENIZER, question.text, words, 256))
    found = find(detector, [photo(4)], question, top_k=1, protocol="mm_grounding_dino")[0]
    best = int(np.argmax(seen.scores.max(axis=1)))
    assert found.scores[0] == pytest.approx(seen.scores[best].max(), abs=1e-6)
    assert found.boxes[0] == pytest.approx(seen.boxes[best], abs=1e-3)


def test_a_long_text_is_found_in_pieces(detector: Detector) -> None:
    text = "A red square is near a blue star. " * 40
    question = ask(text, "grounding", parser="pattern")
    found = find(detector, [photo(5)], question, top_k=100_000)[0]
    assert set(found.labels.tolist()) == set(range(80))


def test_a_phrase_that_no_prompt_holds_is_told(detector: Detector) -> None:
    with pytest.raises(SettingError, match="alone exceeds 256 tokens"):
        find(detector, [photo(5)], ask("dog " * 300, "grounding", parser="pattern"))
