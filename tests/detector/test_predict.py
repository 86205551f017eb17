"""Prediction: scores, several prompts, batches, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from detector import checkpoint
from detector.asked import Asked
from detector.config import quickstart_model
from detector.predict import Detections, Detector, coco_rows, phrase_scores
from llmdet.errors import SettingError

NAMES = ["red square", "blue star", "dog"]


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.set_num_threads(1)
    parts = checkpoint.start(quickstart_model(), seed=0)
    parts.model.eval()
    return Detector(parts)


def photo(seed: int, width: int = 128, height: int = 128) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_a_phrase_scores_the_mean_probability_of_its_tokens() -> None:
    logits = torch.tensor([[[0.0, 2.0, -1.0, 3.0]], [[1.0, -2.0, 0.5, float("-inf")]]])
    tokens = np.array([[True, True, False, False], [False, False, True, False]])
    found = phrase_scores(logits, tokens)
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    expected = [[[(0.5 + sigmoid(2)) / 2, sigmoid(-1)]], [[(sigmoid(1) + sigmoid(-2)) / 2, sigmoid(0.5)]]]
    assert found.numpy() == pytest.approx(np.array(expected), abs=1e-6)


def test_boxes_lie_in_the_image_best_first_and_carry_their_names(detector: Detector) -> None:
    found = detector.detect([photo(0, 200, 100)], NAMES, top_k=40)[0]
    assert len(found.scores) == 40
    assert (np.diff(found.scores) <= 0).all()
    assert (found.boxes >= 0).all()
    assert (found.boxes <= [200, 100, 200, 100]).all()
    assert found.phrases == [NAMES[label] for label in found.labels]


def test_a_text_is_a_list_of_names(detector: Detector) -> None:
    a = detector.detect([photo(1)], "red square. Blue star . dog")[0]
    b = detector.detect([photo(1)], NAMES)[0]
    assert a.names == ("red square", "Blue star", "dog")
    assert np.array_equal(a.boxes, b.boxes)
    assert np.array_equal(a.scores, b.scores)


def test_images_of_several_sizes_in_a_batch_answer_as_alone(detector: Detector) -> None:
    images = [photo(2), photo(3, 128, 64), photo(4, 90, 128)]
    together = detector.detect(images, NAMES, top_k=20, batch_size=3)
    alone = detector.detect(images, NAMES, top_k=20, batch_size=1)
    for a, b in zip(together, alone, strict=True):
        assert a.scores == pytest.approx(b.scores, abs=1e-5)


def test_names_beyond_one_prompt_are_asked_in_several(detector: Detector) -> None:
    names = [f"thing number {number}" for number in range(120)]  # far more than 256 tokens
    found = detector.detect([photo(5)], names, top_k=10_000)[0]
    assert set(found.labels.tolist()) == set(range(120))
    few = detector.detect([photo(5)], NAMES, names_per_prompt=1, top_k=1000)[0]
    single = [detector.detect([photo(5)], [name])[0] for name in NAMES]
    for label, one in enumerate(single):
        mine = few.scores[(few.labels == label) & (few.scores > 0)]
        assert np.sort(mine)[::-1] == pytest.approx(np.sort(one.scores)[::-1], abs=1e-6)


def test_prompts_that_hold_all_names_answer_as_one_prompt(detector: Detector) -> None:
    images = [photo(7), photo(8)]
    one = detector.detect(images, NAMES, top_k=50)
    for options in ({"names_per_prompt": 3}, {"names_per_prompt": 80, "top_k_per": "chunk"}):
        several = detector.detect(images, NAMES, top_k=50, **options)  # type: ignore[arg-type]
        for a, b in zip(one, several, strict=True):
            assert np.array_equal(a.boxes, b.boxes)
            assert np.array_equal(a.scores, b.scores)
            assert np.array_equal(a.labels, b.labels)


def test_pairs_are_kept_of_each_prompt_or_of_the_image(detector: Detector) -> None:
    names = [f"thing {number}" for number in range(7)]
    whole = detector.detect([photo(9)], names, names_per_prompt=3, top_k=10_000)[0]
    of_image = detector.detect([photo(9)], names, names_per_prompt=3, top_k=5)[0]
    assert np.array_equal(of_image.scores, whole.scores[:5])
    of_chunk = detector.detect([photo(9)], names, names_per_prompt=3, top_k=5, top_k_per="chunk")[0]
    assert np.bincount(of_chunk.labels // 3).tolist() == [5, 5, 5]
    for chunk in range(3):
        best = whole.scores[whole.labels // 3 == chunk][:5]
        assert np.array_equal(of_chunk.scores[of_chunk.labels // 3 == chunk], best)


def test_1203_names_are_31_prompts_of_40(detector: Detector) -> None:
    prompts = detector.prompts([f"a {number}" for number in range(1203)], 40)
    assert [len(prompt.tokens) for prompt in prompts] == [40] * 30 + [3]


def test_words_around_a_name_are_read_and_not_scored(detector: Detector) -> None:
    asked = Asked("package", "there is a ", "  on the porch")
    (prompt,) = detector.prompts([Asked("dog"), asked])
    tokenizer = detector.parts.tokenizer
    assert tokenizer.decode(prompt.ids[prompt.tokens[1]]) == "package"
    assert "porch" in tokenizer.decode(prompt.ids)
    assert detector.detect([photo(10)], [asked])[0].names == ("package",)


def test_unusable_names_are_refused(detector: Detector) -> None:
    with pytest.raises(SettingError, match="at least one name"):
        detector.detect([photo(6)], " . ")
    with pytest.raises(SettingError, match="alone exceeds 256 tokens"):
        detector.detect([photo(6)], ["dog", "x" * 90 + " " + "y " * 300])


def test_a_threshold_keeps_what_reaches_it() -> None:
    found = Detections(np.zeros((3, 4)), np.array([0.9, 0.5, 0.1]), np.array([0, 1, 0]), ("a", "b"))
    assert found.above(0.5).phrases == ["a", "b"]


def test_rows_of_a_result_file_are_xywh_with_the_sets_own_ids() -> None:
    found = Detections(np.array([[1.0, 2.0, 4.0, 8.0]]), np.array([0.5]), np.array([1]), ("a", "b"))
    assert coco_rows(7, found, [3, 90]) == [
        {"image_id": 7, "category_id": 90, "bbox": [1.0, 2.0, 3.0, 6.0], "score": 0.5}
    ]
