"""What becomes of errors, faults and Ctrl-C: the exit codes that scripts rely on."""

import json
from contextlib import suppress

import pytest
import typer

from cli.progress import Lines, _clock
from cli.screen import screen
from llmdet.errors import FormatError


def leave(failure: BaseException, as_json: bool = False) -> int:
    with pytest.raises(typer.Exit) as caught, screen("merge", "somewhere", as_json):
        raise failure
    return caught.value.exit_code


def test_an_error_of_ours_is_one_line_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert leave(FormatError("a.json is not\n JSON")) == 1
    assert capsys.readouterr() == ("", "error: a.json is not JSON\n")


def test_an_error_of_the_machine_is_one_line_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert leave(PermissionError(13, "Permission denied", "/root/x")) == 1
    assert capsys.readouterr().err == "error: [Errno 13] Permission denied: '/root/x'\n"


def test_a_missing_extra_says_how_to_install_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert leave(ModuleNotFoundError("No module named 'torch'", name="torch")) == 1
    assert capsys.readouterr().err == "error: torch is not installed; run: pip install 'llmdet-data[train]'\n"


def test_a_bug_stays_a_traceback() -> None:
    with pytest.raises(ZeroDivisionError), screen("merge", "somewhere", False):
        raise ZeroDivisionError
    with pytest.raises(ModuleNotFoundError), screen("merge", "somewhere", False):
        raise ModuleNotFoundError("No module named 'llmdet.gone'", name="llmdet.gone")


@pytest.mark.parametrize("signal", [KeyboardInterrupt(), SystemExit(0), SystemExit(1)])
def test_ctrl_c_is_one_line_and_exit_code_130(capsys: pytest.CaptureFixture[str], signal: BaseException) -> None:
    assert leave(signal) == 130
    assert capsys.readouterr() == ("", "\ninterrupted; the same command goes on where this one stopped\n")


def test_an_error_is_in_the_json_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/tmp")
    leave(FormatError("no"), as_json=True)
    said = json.loads(capsys.readouterr().out)
    assert said.pop("seconds") < 5
    assert said == {"command": "merge", "workspace": "/tmp/somewhere", "error": "no"}


def test_too_many_faults_show_the_result_and_end_with_3(capsys: pytest.CaptureFixture[str]) -> None:
    def merge() -> None:
        with screen("merge", "somewhere", False) as out:
            out.shown.append("1 record")
            out.too_many_faults.append("merge: 9 of 10 failed")

    with pytest.raises(typer.Exit) as caught:
        merge()
    assert caught.value.exit_code == 3
    assert capsys.readouterr() == ("1 record\n", "error: merge: 9 of 10 failed\n")


def test_a_url_that_nothing_can_open_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as caught, screen("merge", "s4://bucket/run", False):
        raise AssertionError("must not begin")
    assert caught.value.exit_code == 1
    assert capsys.readouterr().err == "error: --workspace s4://bucket/run: Protocol not known: s4\n"


def test_progress_in_a_log_is_lines_with_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines(every_s=0)
    with lines.stage("caption coco") as report:
        report(0, 4)
        report(4, 4)
        report(5, None)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[:4] == [
        "caption coco: started",
        "caption coco: 0 done",
        "caption coco: 4 of 4, about 0:00 left",
        "caption coco: 5 done",
    ]
    assert said.err.splitlines()[4].startswith("caption coco: done in 0.0 s")


def test_the_time_left_counts_from_the_first_report(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on from step 400 after a minute of loading, 2 steps a second."""
    clock = iter([0.0, 60.0, 70.0, 71.0])
    monkeypatch.setattr("cli.progress.time.monotonic", lambda: next(clock))
    with Lines(every_s=0).stage("train") as report:
        report(400, 1000)
        report(420, 1000)
    said = capsys.readouterr().err.splitlines()
    assert said[1:3] == ["train: 400 of 1000", "train: 420 of 1000, about 4:50 left"]


def test_a_stage_that_failed_is_not_called_done(capsys: pytest.CaptureFixture[str]) -> None:
    with suppress(FormatError), Lines().stage("merge"):
        raise FormatError("no")
    assert capsys.readouterr().err == "merge: started\n"


@pytest.mark.parametrize(("seconds", "shown"), [(7.4, "0:07"), (750, "12:30"), (3900, "1:05:00"), (59.6, "1:00")])
def test_time_left_reads_like_a_clock(seconds: float, shown: str) -> None:
    assert _clock(seconds) == shown
