from __future__ import annotations

import torch

from pipelines.engines.drawing import OwnLength, SeededDraw

CPU = torch.device("cpu")
LOGITS = torch.tensor([0.0, 1.0, 2.0, -1.0, 0.5])


def row(seed: int = 0, temperature: float = 1.0, top_p: float = 1.0) -> dict[str, float]:
    return {"seed": seed, "temperature": temperature, "top_p": top_p}


def draws(rows: list[dict[str, float]], steps: int) -> torch.Tensor:
    """Tokens that greedy decoding would choose, (rows, steps), when the model always says LOGITS."""
    draw = SeededDraw(rows, CPU)
    scores = LOGITS.expand(len(rows), -1)
    return torch.stack([draw(torch.zeros(len(rows), 1), scores).argmax(-1) for _ in range(steps)], dim=1)


def shares(rows: list[dict[str, float]]) -> torch.Tensor:
    """How often each of the five words is drawn."""
    found = draws(rows, 40).flatten()
    return torch.bincount(found, minlength=5) / len(found)


def test_draws_are_distributed_as_softmax_says() -> None:
    for temperature in (0.5, 1.0, 2.0):
        found = shares([row(seed, temperature) for seed in range(500)])  # 20,000 draws: 0.0035 is one sigma
        assert torch.allclose(found, (LOGITS / temperature).softmax(0), atol=0.014)


def test_the_unlikely_rest_is_never_drawn() -> None:
    # softmax: .08, .22, .59, .03, .13; the two likeliest are needed for 0.7, and hold .59 / .81 and .22 / .81
    found = shares([row(seed, top_p=0.7) for seed in range(200)])
    assert found[[0, 3, 4]].sum() == 0
    assert abs(found[2].item() - 0.731) < 0.02
    assert set(draws([row(7, top_p=1e-9)], 200)[0].tolist()) == {2}


def test_a_row_draws_the_same_whoever_stands_beside_it() -> None:
    alone = draws([row(3)], 50)[0]
    assert torch.equal(draws([row(1), row(3), row(4, 0.3)], 50)[1], alone)
    assert not torch.equal(draws([row(4)], 50)[0], alone)


def test_temperature_zero_is_the_likeliest_word() -> None:
    assert set(draws([row(1, 0.0), row(2)], 50)[0].tolist()) == {2}


def test_each_row_ends_at_its_own_limit() -> None:
    own = OwnLength(10, [1, 3], CPU)
    ended = [own(torch.zeros(2, length), torch.zeros(2, 5)).tolist() for length in (10, 11, 12, 13)]
    assert ended == [[False, False], [True, False], [True, False], [True, True]]
