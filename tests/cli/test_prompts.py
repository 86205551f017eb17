"""prompts as it is typed: all of them with a line each, one of them word for word."""

from __future__ import annotations

import orjson
import pytest

from llmdet.prompts import PROMPTS
from llmdet.prompts.example import EXAMPLE, prompt_hash
from tests.cli.conftest import Typed


def test_the_list_has_every_prompt_with_its_hash_and_who_uses_it(typed: Typed) -> None:
    done = typed("prompts")
    lines = {line.split()[1]: line for line in done.out.splitlines() if "-" in line and line.startswith("│")}
    assert set(lines) == set(PROMPTS)
    assert all(prompt_hash(PROMPTS[name]()) in line for name, line in lines.items())
    assert "template" in lines["template-image"].split("│")[-2]
    said = {one["name"]: one for one in typed("prompts", "--json").json["prompts"]}
    assert said["region-batch"]["task"] == "region"
    assert said["template-region"]["engines"] == ["template"]
    assert "vllm" in said["image-detailed"]["engines"]
    assert "vllm" in said["region-batch"]["engines"]
    assert said["image-short"]["engines"] == []


@pytest.mark.parametrize("name", sorted(PROMPTS))
def test_one_prompt_is_shown_word_for_word(typed: Typed, name: str) -> None:
    out = typed("prompts", name).out
    shown = " ".join(out.split())
    prompt = PROMPTS[name]()
    for ask in prompt.render(EXAMPLE):
        assert " ".join(ask.text.split()) in shown
        # Long lines are folded where there is no space, too.
        assert "".join(ask.schema.split()) in "".join(out.split())
    assert f"version {prompt.version}, hash {prompt_hash(prompt)}" in shown


def test_json_of_one_prompt_has_its_questions(typed: Typed) -> None:
    (one,) = typed("prompts", "region-mark", "--json").json["prompts"]
    (ask,) = one["asks"]
    (expected,) = PROMPTS["region-mark"]().render(EXAMPLE)
    assert ask["text"] == expected.text
    assert orjson.loads(ask["schema"])["minItems"] == 3
    assert ask["view"]["numbers"] == [1, 2, 3]
    assert one["fields"]["max_boxes"] == "int, 16"


def test_a_prompt_that_is_not_there_is_an_error(typed: Typed) -> None:
    done = typed("prompts", "region")
    assert done.code == 1
    assert done.error.startswith("no prompt 'region'; there are: image-detailed, ")
