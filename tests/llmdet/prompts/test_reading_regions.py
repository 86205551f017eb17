"""Answers about several boxes, as models give them: what is read of each.

Boxes 1, 2 and 3 were asked about unless a row says otherwise. Expected is a caption or None per box, or the reason
word of the AnswerError.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdet.prompts import PROMPTS
from llmdet.prompts.loose_json import Listing, Object, read
from llmdet.prompts.prompt import AnswerError, Ask
from llmdet.prompts.region import RegionBatch

Expected = list[str | None] | list[str] | str
A, B, C = "a red cup", "a blue bowl", "a sleeping dog"
ALL = [A, B, C]
GOOD = '[{"id":1,"caption":"a red cup"},{"id":2,"caption":"a blue bowl"},{"id":3,"caption":"a sleeping dog"}]'


@dataclass(frozen=True)
class Case:
    name: str
    answer: str
    expected: Expected
    boxes: tuple[int, ...] = (0, 1, 2)


CASES = [
    Case("as asked", GOOD, ALL),
    Case("white space", GOOD.replace("{", "\n  {\n    ").replace(",", " ,\n") + "\n\n", ALL),
    # --- what stands around
    Case("fence", f"```json\n{GOOD}\n```", ALL),
    Case("fence without language", f"```\n{GOOD}\n```", ALL),
    Case("fence on one line", f"```json {GOOD} ```", ALL),
    Case("fence that never closes", f"```json\n{GOOD}", ALL),
    Case("prose before", f"Sure! Here are the captions for the three boxes:\n{GOOD}", ALL),
    Case("prose after", f"{GOOD}\nLet me know if you want longer ones.", ALL),
    Case("prose with a bracket before", f"Boxes [1] to [3] are captioned as follows. {GOOD}", ALL),
    Case("thoughts before", f"<think>Box 1 is [100, 20, 30, 40], a cup.</think>\n\n{GOOD}", ALL),
    Case("thoughts whose beginning was cut", f"so box 1 is a cup.\n</think>{GOOD}", ALL),
    Case("chat marks", f"<|im_start|>assistant\n{GOOD}<|im_end|>", ALL),
    Case("given twice", f"{GOOD}\n\nFinal answer:\n{GOOD}", ALL),
    # --- ids
    Case("one missing", '[{"id":1,"caption":"a red cup"},{"id":3,"caption":"a sleeping dog"}]', [A, None, C]),
    Case("other order", '[{"id":3,"caption":"a sleeping dog"},{"id":1,"caption":"a red cup"}]', [A, None, C]),
    Case("doubled, first one wins", GOOD.replace('"id":3', '"id":2'), [A, B, None]),
    Case(
        "doubled, first one empty",
        '[{"id":1,"caption":""},{"id":1,"caption":"a red cup"},{"id":2,"caption":"a blue bowl"}]',
        [A, B, None],
    ),
    Case("extra ids", GOOD[:-1] + ',{"id":4,"caption":"a chair"},{"id":17,"caption":"a wall"}]', ALL),
    Case("only other ids", '[{"id":7,"caption":"a chair"}]', "answer_incomplete"),
    Case("negative id", '[{"id":-1,"caption":"a chair"},{"id":2,"caption":"a blue bowl"}]', [None, B, None]),
    Case("ids as strings", GOOD.replace(":1,", ':"1",').replace(":2,", ':"2",'), ALL),
    Case("ids with words", GOOD.replace(":1,", ':"Box 1",').replace(":2,", ':"box_2",').replace(":3,", ':"#3",'), ALL),
    Case("ids as decimals", GOOD.replace(":1,", ":1.0,").replace(":2,", ":2.0,"), ALL),
    Case("counted from 0", GOOD.replace(":1,", ":0,").replace(":2,", ":1,").replace(":3,", ":2,"), ALL),
    Case(
        "counted from 0, one missing", '[{"id":0,"caption":"a red cup"},{"id":1,"caption":"x y"}]', "answer_ids_wrong"
    ),
    Case("counted from 0 to 3", GOOD[:-1] + ',{"id":0,"caption":"a wall"}]', "answer_ids_wrong"),
    Case(
        "number of a box in its first question",
        '[{"id":4,"caption":"a red cup"},{"id":8,"caption":"a blue bowl"}]',
        [A, B],
        (3, 7),
    ),
    Case("second question of a record", GOOD, ALL, (16, 17, 18)),
    Case(
        "asked again, counted from 1",
        '[{"id":1,"caption":"a red cup"},{"id":2,"caption":"a blue bowl"}]',
        "answer_incomplete",
        (3, 7),
    ),
    # --- keys and shapes
    Case("other keys", GOOD.replace('"id"', '"box_id"').replace('"caption"', '"description"'), ALL),
    Case("keys in capitals", GOOD.replace('"id"', '"ID"').replace('"caption"', '"Caption"'), ALL),
    Case("a key of its own", GOOD.replace('"caption"', '"what_it_is"'), ALL),
    Case("wrapped in an object", f'{{"captions": {GOOD}}}', ALL),
    Case("wrapped twice", f'{{"result": {{"boxes": {GOOD}, "count": 3}}}}', ALL),
    Case("one object by id", '{"1":"a red cup","2":"a blue bowl","3":"a sleeping dog"}', ALL),
    Case("one object by name of box", '{"box 1":"a red cup","Box_2":"a blue bowl","box3":"a sleeping dog"}', ALL),
    Case(
        "objects by id",
        '{"1":{"caption":"a red cup"},"2":{"caption":null},"3":{"text":"a sleeping dog"}}',
        [A, None, C],
    ),
    Case(
        "nested caption",
        '[{"id":1,"caption":{"text":"a red cup"}},{"id":2,"caption":["a blue bowl","a dish"]}]',
        [A, B, None],
    ),
    Case("pairs", '[[1,"a red cup"],[2,"a blue bowl"],[3,"a sleeping dog"]]', ALL),
    Case("one object a line", GOOD.strip("[]").replace("},{", "}\n{"), ALL),
    Case("plain strings, as many as boxes", '["a red cup","a blue bowl","a sleeping dog"]', ALL),
    Case("plain strings, too few", '["a red cup","a blue bowl"]', "answer_incomplete"),
    Case(
        "objects without ids, as many as boxes",
        GOOD.replace('"id":1,', "").replace('"id":2,', "").replace('"id":3,', ""),
        ALL,
    ),
    Case("a single object", '{"id":2,"caption":"a blue bowl"}', [None, B, None]),
    Case("numbered lines", "1. a red cup\n2) a blue bowl\n3: a sleeping dog", ALL),
    Case("lines of boxes", "Box 1: a red cup\n**Box 2**: a blue bowl\n- [3] a sleeping dog", ALL),
    Case("one box, plain sentence", "A red cup.", ["A red cup."], (5,)),
    # --- echoes and nothing
    Case("echoed boxes as a member", GOOD.replace('"caption"', '"bbox_2d":[10,20,300,400],"caption"'), ALL),
    Case("echoed boxes under the id's name", GOOD.replace('"caption"', '"box":[10,20,300,400],"caption"'), ALL),
    Case(
        "echoed boxes in the text",
        GOOD.replace('"a red', '"[10, 20, 300, 400]: a red').replace("bowl", "bowl (1,2),(3,4)"),
        ALL,
    ),
    Case(
        "echoed boxes instead of a caption",
        '[{"id":1,"caption":"[10, 20, 300, 400]"},{"id":2,"caption":"a blue bowl"}]',
        [None, B, None],
    ),
    Case("echoed boxes only", '[{"id":1,"bbox_2d":[10,20,300,400]},{"id":2,"bbox_2d":[1,2,3,4]}]', "answer_incomplete"),
    Case(
        "lines of echoed boxes", "1: [96, 120, 160, 192] a red cup\n2: [176, 120, 240, 190] a blue bowl", [A, B, None]
    ),
    Case("null", GOOD.replace('"a blue bowl"', "null"), [A, None, C]),
    Case("None of Python", GOOD.replace('"a blue bowl"', "None"), [A, None, C]),
    Case("words for nothing", GOOD.replace("a blue bowl", "N/A").replace("a red cup", " "), [None, None, C]),
    Case("all empty", '[{"id":1,"caption":""},{"id":2,"caption":"..."},{"id":3,"caption":null}]', "answer_incomplete"),
    Case("empty list", "[]", "answer_incomplete"),
    Case("nothing", "", "answer_empty"),
    Case("white space only", " \n\t ", "answer_empty"),
    Case("control characters only", "\x00\x07\x1b", "answer_empty"),
    Case("prose only", "I cannot see any boxes in this picture.", "answer_not_json"),
    Case("an error page", "<html><body>502 Bad Gateway</body></html>", "answer_not_json"),
    # --- broken JSON
    Case("cut inside a caption", GOOD[: GOOD.index("sleeping")], [A, B, None]),
    Case("cut behind a caption", GOOD[: GOOD.index('"},{"id":3') + 1], [A, None, None]),
    Case("cut between objects", GOOD[: GOOD.index('{"id":3')], [A, B, None]),
    Case("cut inside an id", '[{"id":1,"caption":"a red cup"},{"id":1', [A, None, None]),
    Case("cut in the first caption", '[{"id":1,"caption":"a red', "answer_incomplete"),
    Case("cut object by id", '{"1":"a red cup","2":"a blue bowl","3":"a sleep', [A, B, None]),
    Case("cut inside an escape", '[{"id":1,"caption":"a red cup"},{"id":2,"caption":"a caf\\u00', [A, None, None]),
    Case("the end is missing", GOOD[:-1], ALL),
    Case("trailing commas", GOOD.replace('"}', '",}').replace("}]", "},]"), ALL),
    Case("missing commas", GOOD.replace("},{", "} {").replace(',"caption"', ' "caption"'), ALL),
    Case("single quotes", GOOD.replace('"', "'"), ALL),
    Case(
        "single quotes and an apostrophe", "[{'id': 1, 'caption': 'a dog's red cup'}]", ["a dog's red cup", None, None]
    ),
    Case("curly quotes", GOOD.replace('"a', "\u201ca").replace('"}', "\u201d}"), ALL),
    Case("keys without quotes", GOOD.replace('"id"', "id").replace('"caption"', "caption"), ALL),
    Case("no quotes at all", "[{id: 1, caption: a red cup}, {id: 2, caption: a blue bowl}]", [A, B, None]),
    Case(
        "quotes inside, not escaped",
        GOOD.replace("red cup", 'cup that says "TEA" on it'),
        ['a cup that says "TEA" on it', B, C],
    ),
    Case("quotes inside, escaped", GOOD.replace("red cup", 'cup that says \\"TEA\\"'), ['a cup that says "TEA"', B, C]),
    Case(
        "escapes",
        '[{"id":1,"caption":"a caf\\u00e9 sign\\nwith \\ud83d\\ude00 on it\\/"}]',
        ["a caf\u00e9 sign with \U0001f600 on it/", None, None],
    ),
    Case("half a surrogate", '[{"id":1,"caption":"a \\ud83dred cup"}]', [A, None, None]),
    Case("raw control characters", GOOD.replace("red cup", "red\n\tcup\x07").replace("blue ", "blue\r\n"), ALL),
    Case("a byte order mark", "\ufeff" + GOOD, ALL),
    Case(
        "braces in a caption", GOOD.replace("a red cup", "a sign with {x} and [y]"), ["a sign with {x} and [y]", B, C]
    ),
    Case("brackets mixed up", GOOD.replace("}]", "]}"), ALL),
    Case("quotes around the quotes", GOOD.replace("a red cup", "'a red cup'"), ALL),
    Case("label in a caption", GOOD.replace("a red cup", "Caption: a red cup"), ALL),
    Case("endless brackets", "[" * 5000, "answer_incomplete"),
    Case("endless braces", "{" * 5000, "answer_incomplete"),
    Case(
        "endless repetition, then cut",
        '[{"id":1,"caption":"a red cup"},{"id":2,"caption":"' + "very " * 4000,
        [A, None, None],
    ),
    Case(
        "not a number",
        '[{"id":NaN,"caption":"a red cup"},{"id":2,"caption":"a blue bowl"},{"id":1e999,"caption":"x y"}]',
        [None, B, None],
    ),
]


@pytest.mark.parametrize("prompt", ["region-batch", "region-mark"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_answer_is_read(case: Case, prompt: str) -> None:
    ask = Ask("which?", boxes=case.boxes)
    try:
        said: Expected = PROMPTS[prompt]().parse(ask, case.answer)
    except AnswerError as error:
        said = error.reason
    assert said == case.expected


def test_an_answer_of_a_hundred_kilobytes_is_read_at_once() -> None:
    answer = "[" + ",".join(
        f'{{"id":{i % 40},"caption":"thing \\"{i}\\" of many, \'all\' alike"}}' for i in range(1, 2000)
    )
    said = RegionBatch().parse(Ask("", boxes=tuple(range(16))), answer.replace('"id":0', '"id":99'))
    assert said[15] == "thing \"16\" of many, 'all' alike"


PIECES = st.sampled_from(
    ["[", "]", "{", "}", '"', "'", ":", ",", "\\", "\\u", "1", "id", "caption", " ", "\n", "a cup", "null", "<box>"]
)


@given(st.lists(PIECES, max_size=40).map("".join) | st.text(max_size=60))
def test_any_answer_is_read_or_refused_with_a_reason(answer: str) -> None:
    for name, kind in PROMPTS.items():
        if name.startswith("template"):
            continue
        boxes = (0, 1, 2) if name in ("region-batch", "region-mark") else (0,)
        try:
            texts = kind().parse(Ask("what?", boxes=boxes), answer)
        except AnswerError as error:
            texts = [error.reason]
        assert len(texts) in (1, len(boxes))
        assert any(texts)


# --- the reader of loose JSON ---------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.integers(-(10**9), 10**9).map(float) | st.text(st.characters(codec="utf-8"), max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def plain(value: object) -> object:
    if isinstance(value, Listing):
        return [plain(one) for one in value.values]
    if isinstance(value, Object):
        return {key: plain(one) for key, one in value.members}
    return value


@given(st.lists(JSON, max_size=4), st.sampled_from([0, orjson.OPT_INDENT_2]))
def test_real_json_is_read_as_json(value: list[object], option: int) -> None:
    (found,) = read(orjson.dumps(value, option=option).decode())
    assert plain(found) == value


def test_what_was_cut_is_left_out_and_the_rest_is_kept() -> None:
    assert plain(Listing(tuple(read('x [1, "a", {"k": "v", "w": "u')))) == [[1.0, "a", {"k": "v"}]]
    assert plain(Listing(tuple(read('[1, 2] and {"a": {"b": [tru')))) == [[1.0, 2.0], {"a": {"b": []}}]
