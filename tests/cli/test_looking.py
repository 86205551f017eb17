"""status, doctor, sources and prompts as they are typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmdet.prompts import PROMPTS
from llmdet.sources import SOURCES
from tests.cli.conftest import Made, Typed


def test_status_shows_tables_and_answers(typed: Typed, made: Made) -> None:
    done = typed("status", "--workspace", made.workspace)
    assert done.code == 0
    for shown in ("records/coco", "captions/coco", "groundingcap", "1 crowd", "finished"):
        assert shown in done.out
    said = typed("status", "--workspace", made.workspace, "--json").json
    assert {table["table"]: table["rows"] for table in said["tables"] if table["finished"]}["groundingcap"] == 4
    assert sorted((one["ledger"].split("-")[0], one["answered"]) for one in said["ledgers"]) == [
        ("image", 4),
        ("region", 4),
    ]


def test_status_of_nothing_is_an_error(typed: Typed, here: Path) -> None:
    done = typed("status", "--workspace", "none")
    assert done.code == 1
    assert done.error.startswith(f"no workspace at {here / 'none'}; start one with: ")


def test_doctor_verifies_a_whole_workspace(typed: Typed, made: Made) -> None:
    said = typed("doctor", "--workspace", made.workspace, "--verify", "--json").json
    assert [one["level"] for one in said["findings"] if one["subject"] == "files"] == ["ok"]
    assert said["ok"] + said["warn"] + said["fail"] == len(said["findings"])


def test_doctor_ends_with_1_where_something_is_broken(typed: Typed, here: Path) -> None:
    done = typed("doctor", "--workspace", ".", RAY_ADDRESS="127.0.0.1:1")
    assert done.code == 1
    assert "RAY_ADDRESS 127.0.0.1:1 does not answer" in done.out
    assert "unset RAY_ADDRESS" in done.out


def test_sources_and_prompts_are_those_of_the_package(typed: Typed) -> None:
    assert [one["name"] for one in typed("sources", "--json").json["sources"]] == sorted(SOURCES)
    assert [one["name"] for one in typed("prompts", "--json").json["prompts"]] == sorted(PROMPTS)


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_every_source_says_what_it_reads_and_its_fields(typed: Typed, name: str) -> None:
    done = typed("sources", name, "--json")
    (source,) = done.json["sources"]
    assert source["summary"].endswith((".", ")", ":"))
    assert source["fields"]["name"].startswith("str, ")
    assert "http" in source["about"] or source["about"].count("\n") > 2


def test_a_source_that_is_not_there_is_an_error(typed: Typed) -> None:
    done = typed("sources", "cocoa")
    assert done.code == 1
    assert done.error.startswith("no source 'cocoa'; there are: ")
