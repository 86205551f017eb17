from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from llmdet.errors import BusyError, ExtraError, SettingError
from llmdet.workspace import Workspace, to_parquet
from pipelines import doctor as module
from pipelines.doctor import Finding, doctor, gpus, require_extra
from pipelines.lease import hold
from pipelines.ledger import Ledger
from tests.pipelines.test_status import ROWS, answer, write_table


def about(found: list[Finding], subject: str) -> list[Finding]:
    return [one for one in found if one.subject == subject]


def verified(workspace: Workspace) -> list[Finding]:
    return about(doctor(workspace, verify=True), "files")


def test_this_environment_is_in_order() -> None:
    found = doctor()
    assert [one for one in found if one.level == "fail"] == []
    assert {"python", "core", "packages", "gpu", "ray", "recipes"} <= {one.subject for one in found}
    assert all("\n" not in one.text + one.hint for one in found)


def test_whole_files_are_one_line(workspace: Workspace) -> None:
    write_table(workspace)
    Ledger(workspace.responses("coco", "image", "f" * 16)).append(0, 0, [answer(1)])
    assert verified(workspace) == [Finding("ok", "files", f"2 checked in {workspace.url}, all whole")]


def test_a_changed_byte_in_a_table_is_found(workspace: Workspace) -> None:
    write_table(workspace)
    path = Path(workspace.records("coco").url, workspace.records("coco").listing()[0])
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    (found,) = verified(workspace)
    assert found.level == "fail"
    assert found.text == f"{path} is damaged: its checksum does not fit its content"
    assert found.hint.endswith("doctor --verify --remove-damaged; then run: llmdet-data ingest --source coco")


def test_a_missing_part_is_found(workspace: Workspace) -> None:
    write_table(workspace)
    path = Path(workspace.records("coco").url, workspace.records("coco").listing()[0])
    path.unlink()
    (found,) = verified(workspace)
    assert found.text == f"{path} is missing"


def test_another_file_in_the_place_of_a_part_is_found(workspace: Workspace) -> None:
    write_table(workspace)
    path = Path(workspace.records("coco").url, workspace.records("coco").listing()[0])
    path.write_bytes(to_parquet(ROWS.slice(0, 1)))
    (found,) = verified(workspace)
    assert found.text == f"{path} is not the file that the manifest promises"


def test_a_damaged_part_of_a_table_that_is_not_finished_is_found(workspace: Workspace) -> None:
    table = workspace.asks("coco")
    part = table.write_part(0, "e" * 16, ROWS)
    assert verified(workspace)[0].level == "ok"
    Path(table.url, part.name).write_bytes(b"PAR1")
    (found,) = verified(workspace)
    assert found.text.endswith("is damaged: its checksum does not fit its content")


def test_nothing_is_removed_while_somebody_writes(workspace: Workspace) -> None:
    ledger = Ledger(workspace.responses("coco", "image", "f" * 16))
    ledger.append(0, 0, [answer(1)])
    path = Path(ledger.url, ledger.names()[0])
    path.write_bytes(b"PAR1")
    with hold(ledger.url), pytest.raises(BusyError, match=f"pid {os.getpid()}.* is writing to {ledger.url}"):
        doctor(workspace, verify=True, remove=True)
    assert path.exists()
    (found,) = about(doctor(workspace, verify=True, remove=True), "files")
    assert (found.level, found.text.endswith(": removed"), path.exists()) == ("warn", True, False)


def test_a_broken_manifest_is_found(workspace: Workspace) -> None:
    write_table(workspace)
    Path(workspace.records("coco").url, "manifest.json").write_text('{"stage": "ingest"}')
    (found,) = verified(workspace)
    assert found.level == "fail"
    assert found.text.endswith("manifest.json is damaged: it is no manifest")


def test_a_cut_file_of_a_ledger_is_found(workspace: Workspace) -> None:
    ledger = Ledger(workspace.responses("coco", "image", "f" * 16))
    ledger.append(0, 0, [answer(1)])
    path = Path(ledger.url, ledger.names()[0])
    path.write_bytes(path.read_bytes()[:-5])
    (found,) = verified(workspace)
    assert (found.level, found.text) == ("fail", f"{path} is damaged: its checksum does not fit its content")
    assert found.hint.endswith("llmdet-data caption --source coco (only its requests are asked again)")


def test_a_package_of_the_same_name_in_the_way_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "_place", lambda room: tmp_path / room if room == "detector" else module_folder(room))
    monkeypatch.setattr("importlib.metadata.packages_distributions", lambda: {"detector": ["otherdet", "llmdet_data"]})
    (found,) = about(doctor(), "packages")
    assert found.level == "fail"
    assert found.text.startswith(f"package detector is found in {tmp_path / 'detector'}, not in ")
    assert found.text.endswith("(otherdet put it there)")


def test_another_owner_of_a_name_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.packages_distributions", lambda: {"cli": ["other-cli", "llmdet-data"]})
    first, second = about(doctor(), "packages")
    assert (first.level, first.text) == ("warn", "other-cli also has a package cli; ours is found first")
    assert second.level == "ok"


def module_folder(room: str) -> Path:
    return Path(module.__file__).resolve().parent.parent / room


def test_a_missing_extra_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.EXTRAS, "openai", ("no_such_module_here",))
    (found,) = about(doctor(), "extra openai")
    assert found.text == "not installed: no_such_module_here"
    assert found.hint.endswith("pip install 'llmdet-data[openai]'")
    with pytest.raises(ExtraError, match=r"pip install 'llmdet-data\[openai\]'"):
        require_extra("openai")


def test_a_ray_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        (found,) = about(doctor(), "ray")
        assert (found.level, found.text.split("; ")[1]) == ("ok", f"{address} answers")
    (found,) = about(doctor(), "ray")
    assert found.level == "fail"
    assert "does not answer" in found.text


def test_gpus_are_those_that_nvidia_smi_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771 MiB'\necho 'NVIDIA H200, 143771 MiB'\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert gpus() == ["NVIDIA H200, 143771 MiB"] * 2
    tool.write_text("#!/bin/sh\necho 'no driver'\nexit 9\n")
    assert gpus() == []


def test_little_disk_is_told(monkeypatch: pytest.MonkeyPatch, workspace: Workspace) -> None:
    monkeypatch.setattr(module, "LOW_DISK", 2**62)
    (found,) = about(doctor(workspace), "workspace")
    assert (found.level, found.hint) == ("warn", "make room, or choose another --workspace")
    monkeypatch.setattr(module, "NO_DISK", 2**62)
    assert about(doctor(workspace), "workspace")[0].level == "fail"


def test_a_url_has_no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    assert about(doctor(Workspace.at("memory://run")), "workspace")[0].level == "ok"


def test_a_data_set_is_looked_for_below_the_data_root(tmp_path: Path) -> None:
    (tmp_path / "coco" / "annotations").mkdir(parents=True)
    (tmp_path / "coco" / "annotations" / "instances_train2017.json").write_text("{}")
    found = {one.subject: one.level for one in doctor(source="coco", data_root=str(tmp_path))}
    assert (found["coco annotations"], found["coco photos"]) == ("ok", "fail")
    with pytest.raises(SettingError, match="no source 'cocoa' has a usual layout; there are: "):
        doctor(source="cocoa")
