"""The running mean of weights, beside a plain loop."""

import pytest
import torch
from torch import nn

from detector.averages import Averages


def test_the_mean_follows_fast_at_first_and_is_shown_only_inside_the_block() -> None:
    weight, still = nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.zeros(1), requires_grad=False)
    averages = Averages({"weight": weight, "still": still}, decay=0.5)
    expected = [1.0, 2.0]
    for step in range(20):
        with torch.no_grad():
            weight.add_(step)
        averages.update(step)
        kept = min(0.5, (1 + step) / (10 + step))
        expected = [kept * mean + (1 - kept) * now for mean, now in zip(expected, weight.tolist(), strict=True)]
    now = weight.tolist()
    with averages.shown() as learned:
        assert weight.tolist() == pytest.approx(expected)
        assert learned["weight"].tolist() == now
        assert learned.keys() == {"weight"}
    assert weight.tolist() == now


def test_weights_come_back_after_an_error() -> None:
    weight = nn.Parameter(torch.zeros(1))
    averages = Averages({"weight": weight}, decay=0.9)
    with torch.no_grad():
        weight.fill_(3.0)
    with pytest.raises(OSError, match="full"), averages.shown():
        raise OSError("full")
    assert weight.tolist() == [3.0]
