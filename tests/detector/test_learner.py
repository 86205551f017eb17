"""One step: in one part or in several it is the same; what is not a number is named and not learned."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from detector import checkpoint
from detector.config import CriterionSettings, TrainSettings
from detector.data import Batch, GroundingDataset, TrainData, loader
from detector.group import Group
from detector.learner import Learned, Learner, TrainingError, compile_layers
from detector.optimizers import build_optimizer
from detector.samplers import StepSampler, order_of
from tests.detector import example_run
from tests.detector.example_run import MODEL, settings


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainData:
    torch.set_num_threads(1)
    return example_run.data(tmp_path_factory.mktemp("world"))


def fresh(plan: TrainSettings) -> Learner:
    parts = checkpoint.start(MODEL, 0)
    parts.model.train()
    group = Group(0, 1, torch.device("cpu"))
    return Learner(parts, build_optimizer(parts, plan), None, plan, group, parts.model, None)


def batches(data: TrainData, learner: Learner) -> list[Batch]:
    """Of the first step."""
    plan, parts = learner.settings, learner.parts
    dataset = GroundingDataset(data, parts.tokenizer, parts.pixels, 256, plan.seed)
    found = iter(loader(dataset, StepSampler(order_of(dataset.table, plan), plan), 30, 0))
    return [next(found) for _ in range(plan.accumulate)]


def learn(data: TrainData, plan: TrainSettings) -> tuple[Learned, Sequence[Batch], Learner]:
    learner = fresh(plan)
    mine = batches(data, learner)
    return learner.learn(0, mine), mine, learner


def test_a_step_in_parts_is_the_step_of_the_whole_batch(data: TrainData) -> None:
    plan = settings(1, batch_size=6, weight_decay=0.0)
    whole, seen, first = learn(data, plan)
    parts, mine, second = learn(data, replace(plan, accumulate=3))
    assert [len(batch.names) for batch in mine] == [2, 2, 2]
    assert [name for batch in mine for name in batch.names] == list(seen[0].names)
    assert len({sum(batch.targets.counts) for batch in mine}) > 1  # so that a mean of means would differ
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)
    assert parts.parts == pytest.approx(whole.parts, rel=1e-4)
    assert parts.gradient == pytest.approx(whole.gradient, rel=1e-4)
    for a, b in zip(first.parts.model.parameters(), second.parts.model.parameters(), strict=True):
        if a.grad is not None and b.grad is not None:
            assert torch.allclose(a.grad, b.grad, rtol=1e-3, atol=1e-4 * float(a.grad.abs().max()) + 1e-7)


def test_what_is_not_a_number_is_named_and_not_learned(data: TrainData) -> None:
    learner = fresh(settings(1, criterion=CriterionSettings(l1_weight=float("nan"))))
    before = [weight.detach().clone() for weight in learner.parts.model.parameters()]
    mine = batches(data, learner)
    with pytest.raises(TrainingError, match=r"gradient norm nan and loss nan at step 1; records: w/\d/0, w/\d/0\. "):
        learner.learn(0, mine)
    assert all(torch.equal(a, b) for a, b in zip(before, learner.parts.model.parameters(), strict=True))


def test_a_loss_that_is_infinite_stops_training_too(data: TrainData, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = fresh(settings(1))
    mine = batches(data, learner)
    monkeypatch.setattr(Learner, "_differentiate", lambda self, batches: (float("inf"), {}))
    with pytest.raises(TrainingError, match=r"loss inf at step 8; records: w/"):
        learner.learn(7, mine)


def test_only_the_process_whose_loss_is_odd_names_its_records(data: TrainData, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = fresh(settings(1))
    mine = batches(data, learner)
    monkeypatch.setattr(Group, "gather", lambda self, value: [value, (float("nan"), ("w/far/0",))])
    with pytest.raises(TrainingError, match=r"loss 1, nan at step 1; records: w/far/0\. "):
        learner._require_finite(0, 1.0, float("nan"), mine)


def test_the_work_of_a_pixel_is_counted_and_leaves_no_gradient(data: TrainData) -> None:
    learner = fresh(settings(1))
    (batch,) = batches(data, learner)
    assert 1e3 < learner.flops_of_pixel(batch) < 1e7
    assert all(weight.grad is None for weight in learner.parts.model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_model_takes_the_same_step(data: TrainData, backend: str) -> None:
    """`aot_eager` captures the same graphs and runs them as they are, `inductor` makes code of them."""
    plan = settings(1, batch_size=4)
    plain, mine, learner = learn(data, plan)
    compiled = fresh(plan)
    compile_layers(compiled.parts.model, backend)
    torch._dynamo.reset()
    found = compiled.learn(0, mine)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 3  # backbone, encoder layer, decoder layer
    assert found.parts == pytest.approx(plain.parts, rel=1e-4)
    assert found.gradient == pytest.approx(plain.gradient, rel=1e-3)
    assert list(compiled.parts.model.state_dict()) == list(learner.parts.model.state_dict())
