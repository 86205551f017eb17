"""The real vLLM with a tiny model: what it is asked, what it computes, and what happens when it dies."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import orjson
import psutil
import pytest
from PIL import Image

from llmdet.prompts.prompt import Prompt
from llmdet.record import Box, Record, Region
from pipelines import stop
from pipelines.engines.engine import STOPPED, Answer, Answerer, Job, Request, request_id
from pipelines.engines.lmm import Sampling
from pipelines.engines.vllm import PRESETS, VllmEngine
from pipelines.ledger import Ledger
from tests.pipelines.engines.tiny_vlm import write_tiny_vlm

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed (extra: vllm)"),
]

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "HF_HUB_OFFLINE": "1",
}
GREEDY = Sampling(temperature=0.0, max_tokens=16)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_vlm(tmp_path_factory.mktemp("model") / "tiny"))


def engine_of(model: str, **fields: object) -> VllmEngine:
    settings = {"dtype": "float32", "enforce_eager": True, "max_model_len": 4096, "block_size": 32, "max_num_seqs": 16}
    return VllmEngine(model=model, environment=ENVIRONMENT, **{**settings, **fields})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def started(model: str) -> Iterator[Answerer]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        answerer = engine_of(model, sampling=GREEDY, watchdog_s=5.0).start()
        yield answerer
        answerer.close()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("photos") / "noise.png"
    Image.effect_noise((640, 480), 80).convert("RGB").save(path)
    return str(path)


def record(boxes: int = 8) -> Record:
    found = tuple(Box((40.0 * i, 10.0, 40.0 * i + 60.0, 200.0), order=i) for i in range(boxes))
    regions = (Region(("dog",), ((0, 3),), found),)
    return Record("s/1/0", "s", "1", "0", "detection", "noise.png", "s", 640, 480, "dog. ", regions)


def job_of(prompt: Prompt, one: Record, photo: str) -> Job:
    asks = prompt.render(one)
    one = replace(one, image=Path(photo).name)  # pictures are told apart by their records
    return Job(one, photo, tuple(Request(request_id("l", photo, ask), prompt.task, ask) for ask in asks))


def computed(answers: list[Answer]) -> int:
    """Prompt tokens that went through the model."""
    assert not any(answer.error for answer in answers), answers
    return sum(answer.prompt_tokens - answer.cached_tokens for answer in answers)


def test_an_answer_under_a_schema_parses_and_says_something_of_every_box(
    started: Answerer, model: str, photo: str
) -> None:
    prompt = engine_of(model).prompts()["region"]
    job = job_of(prompt, record(), photo)
    ((answer,),) = started.answer([job])
    assert [item["id"] for item in orjson.loads(answer.text)] == list(range(1, 9))
    assert all(prompt.parse(job.requests[0].ask, answer.text))


def test_pictures_cost_what_was_predicted(started: Answerer, model: str, photo: str) -> None:
    before = started.usage()
    started.answer([job_of(engine_of(model).prompts()["image"], record(), photo)])
    after = started.usage()
    assert after.image_tokens - before.image_tokens == 391  # 644x476 pixels: 23 x 17
    assert after.image_tokens_predicted - before.image_tokens_predicted == 391


def test_a_failure_is_the_answer_of_its_own_request(started: Answerer, model: str, photo: str, tmp_path: Path) -> None:
    prompt = engine_of(model).prompts()["image"]
    job = job_of(prompt, record(), photo)
    (request,) = job.requests
    long = replace(job, requests=(replace(request, ask=replace(request.ask, text="colour " * 5000)),))
    gone = replace(job, image=str(tmp_path / "gone.jpg"))
    ((fine,), (too_long,), (missing,)) = started.answer([job, long, gone])
    assert (fine.error, bool(fine.text)) == ("", True)
    assert (too_long.error, missing.error) == ("prompt_too_long", "image_missing")


def test_a_view_that_is_too_narrow_harms_no_other(started: Answerer, model: str, photo: str) -> None:
    prompt = engine_of(model, region_prompt="region-crop").prompts()["region"]
    one = record(boxes=2)
    wide, _ = one.boxes
    narrow = replace(wide, xyxy=(0.0, 0.0, 1.0, 480.0), order=1)
    job = job_of(prompt, replace(one, regions=(replace(one.regions[0], boxes=(wide, narrow)),)), photo)
    assert [answer.error for answer in started.answer([job])[0]] == ["", "image_too_narrow"]


def test_the_end_of_a_run_does_not_wait_for_the_rest(
    started: Answerer, model: str, photo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(engine_of(model).prompts()["image"], record(), photo)
    monkeypatch.setattr(stop, "stopping", lambda: True)
    monkeypatch.setattr(stop, "_LOOK_S", 0.2)
    monkeypatch.setattr(stop, "ANSWER_S", 0.2)
    answers = [answer for told in started.answer([job] * 64) for answer in told]
    assert STOPPED in answers
    assert not any(answer.error for answer in answers if answer != STOPPED)
    monkeypatch.undo()
    assert [answer.error for answer in started.answer([job])[0]] == [""]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_an_engine_that_dies_or_hangs_is_started_again(
    started: Answerer, model: str, photo: str, number: signal.Signals
) -> None:
    job = job_of(engine_of(model).prompts()["image"], record(), photo)
    before = started.answer([job])
    cores = [child for child in psutil.Process().children() if "EngineCor" in child.name() + "".join(child.cmdline())]
    assert cores
    for process in cores:
        os.kill(process.pid, number)
    assert [answer.text for answer in started.answer([job])[0]] == [answer.text for answer in before[0]]


def test_a_picture_is_computed_once_for_all_its_boxes(started: Answerer, model: str, tmp_path: Path) -> None:
    plain = engine_of(model, sampling=GREEDY, enable_prefix_caching=False).start()
    asked = {name: engine_of(model, region_prompt=name).prompts()["region"] for name in ("region-each", "region-batch")}
    counts: dict[str, int] = dict.fromkeys(("each, no cache", "each", "batch"), 0)
    for number in range(4):
        photo = str(tmp_path / f"{number}.png")
        Image.effect_noise((640, 480), 40 + 20 * number).convert("RGB").save(photo)
        each, batch = (job_of(prompt, record(), photo) for prompt in asked.values())
        without, cached, whole = plain.answer([each])[0], started.answer([each])[0], started.answer([batch])[0]
        assert [one.text for one in cached] == [one.text for one in without]
        # The picture is in the cache by now: what a batch alone would compute is its whole prompt.
        counts["batch"] += sum(answer.prompt_tokens for answer in whole)
        counts["each"] += computed(cached)
        counts["each, no cache"] += computed(without)
    plain.close()  # type: ignore[attr-defined]
    print(counts)  # told with -s: the figures of benchmarks/README.md
    assert counts["batch"] * 5 <= counts["each, no cache"]
    assert counts["each"] * 3 <= counts["each, no cache"]


def test_presets_stand_behind_fields_that_are_given(model: str) -> None:
    assert PRESETS["72b"]["tensor_parallel"] == 4
    assert engine_of(model, preset="72b", max_num_seqs=None).arguments()["max_num_seqs"] == 128
    assert engine_of(model, preset="72b").arguments()["max_num_seqs"] == 16


def _caption(model: str, samples: Path, workspace: Path) -> subprocess.Popen[str]:
    coco = samples / "coco" / "coco_tiny_val"
    settings = {
        "dtype": "float32",
        "enforce_eager": "true",
        "max_model_len": "4096",
        "block_size": "32",
        "max_num_seqs": "16",
        "chunk_images": "4",
        "chunks": "2",
        "sampling.max_tokens": "32",
        "environment": orjson.dumps(ENVIRONMENT).decode(),
    }
    command = [
        sys.executable,
        "-m",
        "cli",
        "caption",
        "--source",
        "coco",
        "--limit",
        "40",
        "--engine",
        "vllm",
        "--json",
    ]
    command += [
        "--annotations",
        str(coco / "annotations" / "instances_val2017.json"),
        "--images",
        str(coco / "val2017"),
    ]
    command += ["--model", model, "--workspace", str(workspace)]
    command += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _kill_after_parts(driver: subprocess.Popen[str], workspace: Path, parts: int, alone: bool) -> None:
    """SIGKILL to a driver once so many response files are there; its workers then notice, or die with it."""
    while len(list(workspace.glob("responses/coco/*/part-*.parquet"))) < parts:
        assert driver.poll() is None, "it ended before it could be killed"
        time.sleep(0.1)
    family = psutil.Process(driver.pid).children(recursive=True)
    for process in [psutil.Process(driver.pid), *([] if alone else family)]:
        process.kill()
    driver.wait()
    _, alive = psutil.wait_procs(family, timeout=120)
    assert alive == []


@pytest.mark.timeout(900)
def test_forty_photos_are_described_once_although_the_run_is_killed_twice(
    model: str, samples: Path, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    _kill_after_parts(_caption(model, samples, workspace), workspace, parts=3, alone=False)
    _kill_after_parts(_caption(model, samples, workspace), workspace, parts=9, alone=True)
    output, _ = (last := _caption(model, samples, workspace)).communicate(timeout=600)
    assert last.returncode == 0, output
    done = orjson.loads(output.splitlines()[-1])
    ledgers = {task: Ledger(url) for task, url in done["ledgers"].items()}
    rows = {
        task: [row for name in ledger.names() for row in ledger.read(name).to_pylist()]
        for task, ledger in ledgers.items()
    }
    asked = [row["request_id"] for both in rows.values() for row in both]
    assert len(asked) == len(set(asked)) == done["requests"] == done["answered"]
    assert len(rows["image"]) == 40
    assert not [row for both in rows.values() for row in both if row["error"]]
    for row in rows["region"]:  # the schema holds: every answer is whole JSON
        assert all(set(item) == {"id", "caption"} for item in orjson.loads(row["text"]))
