from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from llmdet.errors import LlmdetError, MissingError, SettingError
from llmdet.prompts.region import RegionCrop
from llmdet.rejects import Reject
from llmdet.workspace import Table, Workspace
from pipelines import stop
from pipelines.caption import CaptionSettings, caption
from pipelines.engines import ENGINES
from pipelines.engines.chat import Failure, answer_of, seconds_until
from pipelines.engines.engine import STOPPED, Answer, fingerprint_of
from pipelines.engines.openai import OpenAiEngine
from pipelines.recipe import engine_of
from tests.pipelines.engines.fault_server import FAULTS, FaultServer
from tests.pipelines.engines.jobs import job, write_photos, write_shown_records

ROOT = Path(__file__).resolve().parents[3]
KEY = "sk-test-0123456789abcdefghij"
QUICK = {"backoff_s": 0.01, "timeout_s": 20.0, "image_prompt": "image-short"}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", 8)


def engine(*servers: FaultServer, **values: Any) -> OpenAiEngine:
    given: dict[str, Any] = {**QUICK, "model": "tiny", "base_url": tuple(one.url for one in servers)}
    return OpenAiEngine(**{**given, **values})


@contextmanager
def started(one: OpenAiEngine) -> Iterator[Any]:
    answerer: Any = one.start()
    try:
        yield answerer
    finally:
        answerer.close()


def ask(one: OpenAiEngine, folder: Path, count: int = 1, **values: Any) -> list[Answer]:
    """The answers to all requests about the first photos."""
    with started(one) as answerer:
        return [answer for told in answerer.answer([job(folder, i, **values) for i in range(count)]) for answer in told]


# --- a request and its answer ---------------------------------------------------------------------------------------


def test_a_request_shows_the_picture_first_and_carries_sampling_and_schema(photos: Path) -> None:
    with FaultServer() as server:
        answers = ask(engine(server), photos)
    assert [answer.error for answer in answers] == ["", ""]
    assert (answers[0].prompt_tokens, answers[0].cached_tokens, answers[0].answer_tokens) == (30, 20, 10)
    assert answers[0].text == "A dog lies on green grass beside a small red ball in the sun."
    asked = job(photos, 0)
    bodies = {call.name: call.body for call in server.calls}
    for request in asked.requests:
        body = bodies[request.id.hex()]
        assert (body["model"], body["seed"], body["temperature"], body["top_p"]) == ("tiny", request.seed, 0.2, 0.9)
        assert body["max_tokens"] == request.ask.max_tokens
        kinds = [part["type"] for part in body["messages"][0]["content"]]
        assert kinds == ["image_url", "text"]
        assert body["messages"][0]["content"][1]["text"] == request.ask.text
    region = bodies[asked.requests[1].id.hex()]["response_format"]
    assert region["json_schema"]["schema"]["minItems"] == 2
    assert "response_format" not in bodies[asked.requests[0].id.hex()]


def test_every_view_travels_at_the_size_of_the_model(photos: Path) -> None:
    with FaultServer() as server:
        one = engine(server, image_format="png", family="qwen2_vl", min_pixels=56 * 56)
        ask(one, photos, prompts=(RegionCrop(), one.prompts()["image"]))
    sizes = Counter(_shown(call.picture).size for call in server.calls)
    # boxes 10 x 20 and 10 x 20 px with a padding of a tenth, scaled up to 56 x 56 px; the photo of 100 x 80 px
    assert sizes == {(56, 84): 2, (112, 84): 1}
    whole = next(_shown(call.picture) for call in server.calls if _shown(call.picture).size == (112, 84))
    assert whole.format == "PNG"
    assert whole.getpixel((5, 5)) == pytest.approx((0, 0, 0), abs=3)


def _shown(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.partition("base64,")[2])))


def test_the_end_of_a_run_does_not_wait_for_the_rest(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop, "stopping", lambda: True)
    monkeypatch.setattr(stop, "ANSWER_S", 0.5)
    with FaultServer(delay_s=0.4) as server:
        begun = time.monotonic()
        answers = ask(engine(server, concurrency=2), photos, count=8)
    assert time.monotonic() - begun < 3  # all of them would take 3.2 s
    said = [answer for answer in answers if answer != STOPPED]
    assert not any(answer.error for answer in said)
    assert 2 <= len(said) < 16


def test_extra_fields_are_sent_and_null_ones_left_out(photos: Path) -> None:
    extra = {"seed": None, "max_tokens": None, "max_completion_tokens": 50, "chat_template_kwargs": {"x": 1}}
    with FaultServer() as server:
        ask(engine(server, extra=extra, structured="json_object"), photos)
    body = server.calls[-1].body
    assert (body["max_completion_tokens"], body["chat_template_kwargs"]) == (50, {"x": 1})
    assert not {"seed", "max_tokens"} & set(body)
    assert {str(call.body.get("response_format")) for call in server.calls} == {"None", "{'type': 'json_object'}"}


@pytest.mark.parametrize(
    ("status", "body", "reason", "again"),
    [
        (400, '{"error": {"message": "maximum context length is 512 tokens"}}', "prompt_too_long", False),
        (400, '{"error": {"code": "content_policy_violation"}}', "refused", False),
        (401, '{"error": {"message": "no key"}}', "key_refused", False),
        (404, "not here", "model_missing", False),
        (413, "", "prompt_too_long", False),
        (429, "[]", "rate_limited", True),
        (503, "null", "server_error", True),
        (200, "[]", "answer_unreadable", True),
        (200, '{"choices": []}', "answer_unreadable", True),
        (200, '{"choices": [{"message": "hello"}]}', "answer_unreadable", True),
        (200, '{"choices": [{"message": {"content": null}, "finish_reason": "length"}]}', "answer_empty", False),
        (200, '{"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]}', "answer_empty", True),
        (200, '{"choices": [{"message": {"content": "x"}, "finish_reason": "content_filter"}]}', "refused", False),
        (200, '{"choices": [{"message": {"content": null, "refusal": "I cannot"}}]}', "refused", False),
    ],
)
def test_replies_without_an_answer_have_a_reason(status: int, body: str, reason: str, again: bool) -> None:
    with pytest.raises(Failure) as caught:
        answer_of(status, {}, body.encode())
    assert (caught.value.reason, caught.value.again) == (reason, again)


def test_text_in_parts_and_without_usage_is_read() -> None:
    body = b'{"choices": [{"message": {"content": [{"type": "text", "text": "a"}, {"text": "b"}]}}], "usage": null}'
    assert answer_of(200, {}, body) == Answer("ab")


# --- tries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_tried_again_and_then_has_its_reason(photos: Path, fault: str) -> None:
    with FaultServer(hopeless=lambda name: True, faults=[fault]) as server:
        answers = ask(engine(server, attempts=3, timeout_s=0.3 if fault == "hang" else 20), photos)
    assert [answer.error for answer in answers] == [FAULTS[fault]] * 2
    assert all(answer.detail.startswith("3 tries, the last: ") for answer in answers)
    assert set(server.tries().values()) == {3}


def test_retry_after_is_read_in_both_forms() -> None:
    soon = datetime.now(UTC) + timedelta(seconds=30)
    assert seconds_until("2") == 2
    assert seconds_until(format_datetime(soon, usegmt=True)) == pytest.approx(30, abs=1.1)
    assert seconds_until(soon.strftime("%a %b %d %H:%M:%S %Y")) == pytest.approx(30, abs=1.1)
    assert [seconds_until(text) for text in (None, "", "-5", "soon", "Sun, 06 Nov 1994 08:49:37 GMT")] == [0] * 5


@pytest.mark.parametrize(("said", "longest", "least", "most"), [("1", 60.0, 1.0, 3.0), ("3600", 0.4, 0.4, 3.0)])
def test_retry_after_is_obeyed_up_to_a_limit(
    photos: Path, said: str, longest: float, least: float, most: float
) -> None:
    with FaultServer(hopeless=lambda name: True, faults=["rate_limit"], retry_after=said) as server:
        answers = ask(engine(server, attempts=2, longest_wait_s=longest), photos)
    assert {answer.error for answer in answers} == {"rate_limited"}
    for name in server.tries():
        first, second = (call.at for call in server.calls if call.name == name)
        assert least <= second - first < most


def test_no_more_requests_at_once_than_asked_for(photos: Path) -> None:
    with FaultServer(delay_s=0.02) as server:
        answers = ask(engine(server, concurrency=3), photos, 8)
    assert {answer.error for answer in answers} == {""}
    assert server.most == 3


def test_what_is_spent_ends_the_asking(photos: Path) -> None:
    with FaultServer() as server:
        answers = ask(engine(server, concurrency=1, max_total_tokens=100), photos, 8)
    # 40 tokens a request: the third one passes the limit
    assert Counter(answer.error for answer in answers) == {"": 3, "budget": 13}
    assert len(server.tries()) == 3


def test_a_photo_that_cannot_be_opened_fails_alone(photos: Path) -> None:
    (photos / "1.jpg").write_bytes(b"no picture")
    with FaultServer() as server:
        answers = ask(engine(server), photos, 3)
    assert [answer.error for answer in answers] == ["", "", "image_unreadable", "image_unreadable", "", ""]


# --- addresses ------------------------------------------------------------------------------------------------------


def test_all_requests_of_an_image_go_to_one_address_and_to_another_when_it_is_down(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 40)
    with FaultServer() as one, FaultServer() as two, started(engine(one, two)) as answerer:
        jobs = [job(photos, i) for i in range(40)]
        answerer.answer(jobs)
        shown = {request.id.hex(): asked.image for asked in jobs for request in asked.requests}
        homes = [Counter(shown[call.name] for call in server.calls) for server in (one, two)]
        assert all(count == 2 for home in homes for count in home.values())
        assert sum(map(len, homes)) == 40
        assert min(map(len, homes)) >= 10
        one.stop()
        before = len(two.calls)
        again = answerer.answer(jobs)
        assert {answer.error for told in again for answer in told} == {""}
        assert len(two.calls) - before == 80


def test_an_address_that_is_down_at_the_start_is_no_hindrance(photos: Path) -> None:
    with FaultServer() as gone:
        pass
    with FaultServer() as server:
        answers = ask(engine(gone, server), photos, 8)
        assert {answer.error for answer in answers} == {""}
    with pytest.raises(MissingError, match=r"no server answers at http://127.0.0.1:\d+/v1: ClientConnectorError"):
        engine(gone).start()


def test_a_server_that_is_gone_does_not_make_every_request_wait(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 100)
    with FaultServer() as server, started(engine(server, backoff_s=0.1)) as answerer:
        jobs = [job(photos, i) for i in range(100)]
        server.stop()
        answers = [answer for told in answerer.answer(jobs) for answer in told]
    assert {answer.error for answer in answers} == {"connection_failed"}
    once = [answer for answer in answers if not answer.detail.startswith("5 tries")]
    assert len(once) > 140  # but for those that were under way when it was found out


def test_a_name_that_the_server_does_not_know_is_one_line() -> None:
    with FaultServer(models=["big", "small"], status=404) as server:
        with pytest.raises(SettingError, match="has no model 'tiny'; it has: big, small"):
            engine(server).start()
        server.models = []
        with pytest.raises(SettingError, match="does the address end with /v1"):
            engine(server).start()
    with FaultServer(models=["big"]) as server, started(engine(server)):
        assert server.calls[0].name == "greeting"  # a model that is served though it is not listed


# --- settings -------------------------------------------------------------------------------------------------------


def test_addresses_in_one_text_or_in_a_list_are_the_same() -> None:
    written = engine_of("openai", {"model": "m", "base_url": "http://a/v1/, http://b/v1"})
    listed = engine_of("openai", {"model": "m", "base_url": ["http://a/v1", "http://b/v1", "http://a/v1"]})
    assert isinstance(written, OpenAiEngine)
    assert isinstance(listed, OpenAiEngine)
    assert written.urls == listed.urls == ("http://a/v1", "http://b/v1")
    assert written.identity() == listed.identity()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"base_url": "localhost:8000"}, "http://"),
        ({"base_url": "https://me:secret@host/v1"}, "must not hold a name, password"),
        ({"base_url": "https://host/v1?api-key=secret"}, "must not hold a name, password"),
        ({"api_key_variable": "sk-secret"}, "name of an environment variable"),
        ({"attempts": 0}, "attempts must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused_and_not_repeated(values: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingError, match=says) as caught:
        engine_of("openai", {"model": "m", "base_url": "http://a/v1", **values})
    assert "secret" not in str(caught.value)


def test_without_address_or_model_it_says_which_option(tmp_path: Path) -> None:
    for values, option in (({"model": "m"}, "--base-url"), ({"base_url": "http://a/v1"}, "--model")):
        with pytest.raises(LlmdetError, match=option):
            engine_of("openai", values).identity()


@pytest.mark.parametrize(
    ("name", "unit", "factor"),
    [("Qwen/Qwen2.5-VL-7B-Instruct", "pixel", 28), ("qwen3-vl-30b", "thousandth", 32), ("gpt-x", "thousandth", 28)],
)
def test_the_family_is_guessed_from_the_name(name: str, unit: str, factor: int) -> None:
    frame = engine_of("openai", {"model": name, "base_url": "http://a/v1"}).frame()  # type: ignore[attr-defined]
    assert (frame.unit, frame.factor) == (unit, factor)


def test_what_changes_answers_changes_the_ledger_and_what_does_not_does_not() -> None:
    def ledger(**values: Any) -> str:
        one = OpenAiEngine(**{"model": "m", "base_url": "http://a/v1", **values})
        return fingerprint_of(one.prompts()["image"], one.identity())

    same = [ledger(), ledger(base_url="http://b/v1"), ledger(concurrency=5, timeout_s=9.0, attempts=2, processes=3)]
    assert len(set(same)) == 1
    others = [{"model": "n"}, {"revision": "2"}, {"jpeg_quality": 70}, {"image_format": "png"}, {"extra": {"top_k": 5}}]
    others += [{"structured": "none"}, {"family": "qwen2_vl"}, {"max_pixels": 99999}]
    assert len({ledger(**one) for one in others} | {same[0]}) == len(others) + 1


# --- whole runs -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_through_faults_is_complete_and_the_next_asks_only_what_failed(
    ray_local: None, workspace: Workspace, tmp_path: Path, left_out: Callable[[Table], list[Reject]]
) -> None:
    write_shown_records(workspace, tmp_path / "photos", 150)
    settings = CaptionSettings(chunk_images=20)
    with FaultServer(share=0.3, hopeless=lambda name: int(name[:2], 16) < 20) as server:
        one = engine(server, attempts=4, timeout_s=1.5)
        done = caption(workspace, "hand", one, settings)
        failed = {name: FAULTS[fault] for name, fault in server.last().items() if fault}
        tries = server.tries()
        assert (done.requests, len(tries), done.answered) == (300, 300, 300 - len(failed))
        assert len(failed) >= 10
        assert done.faults == Counter(failed.values())
        assert max(tries.values()) == 4
        assert {tries[name] for name in failed} == {4}
        assert (done.prompt_tokens, done.answer_tokens) == (30 * done.answered, 10 * done.answered)
        rows = left_out(workspace.rejects("caption", "hand"))
        assert {(row.level, row.kind, row.stage) for row in rows} == {("request", "fault", "caption")}
        assert Counter(row.reason for row in rows) == Counter(failed.values())
        assert all("4 tries, the last: " in row.detail for row in rows)

        server.calls.clear()
        server.share, server.hopeless = 0.0, lambda name: False
        last = caption(workspace, "hand", one, settings)
        assert (last.answered, last.faults) == (300, {})
        assert server.tries() == Counter(list(failed))
        assert left_out(workspace.rejects("caption", "hand")) == []


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Where a Ray keeps its logs and sockets: a socket's path has at most 107 characters."""
    with tempfile.TemporaryDirectory(prefix="r") as folder:
        yield Path(folder)


@pytest.mark.slow
def test_the_key_reaches_the_server_and_nothing_else(tmp_path: Path, ray_folder: Path) -> None:
    workspace = Workspace.at(str(tmp_path / "w"))
    write_shown_records(workspace, tmp_path / "photos", 4)
    words = ["caption", "--source", "hand", "--engine", "openai"]
    with FaultServer(status=400, says='{"error": {"message": "you sent {key}, which is bad"}}') as server:
        words += ["--model", "tiny", "--base-url", server.url, "--workspace", "w", "--json"]
        there = {"OPENAI_API_KEY": KEY, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": str(ray_folder)}
        command = [sys.executable, "-m", "cli", *words]
        done = subprocess.run(command, cwd=tmp_path, env={**os.environ, **there}, capture_output=True)
    assert done.returncode == 3, done.stderr.decode()
    assert b'"refused"' in done.stdout
    assert {call.authorization for call in server.calls} == {f"Bearer {KEY}"}
    assert KEY.encode() not in done.stdout + done.stderr
    files = [path for folder in (tmp_path, ray_folder) for path in folder.rglob("*") if path.is_file()]
    assert {"rejects", "logs"} <= {parent.name for path in files for parent in path.parents}
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
    details = {row["detail"] for part in workspace.rejects("caption", "hand").batches() for row in part.to_pylist()}
    assert details == {"HTTP 400: you sent Bearer [key], which is bad"}


def test_it_is_an_engine_of_the_command_line() -> None:
    assert ENGINES["openai"] is OpenAiEngine
