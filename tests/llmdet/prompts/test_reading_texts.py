"""Answers in plain words, about one box and about a whole picture: what is read of each.

Expected is the caption, or the reason word of the AnswerError.
"""

import pytest

from llmdet.prompts import PROMPTS
from llmdet.prompts.prompt import AnswerError, Ask

CUP = "a red cup with a white handle"

# name, answer, caption of the one box
REGION = [
    ("as asked", CUP, CUP),
    ("full stop", CUP + ".", CUP + "."),
    ("white space around", f"\n\n  {CUP}  \n", CUP),
    ("white space inside", "a red  cup\twith a white handle", CUP),
    ("double quotes", f'"{CUP}"', CUP),
    ("single quotes", f"'{CUP}'", CUP),
    ("curly quotes", f"\u201c{CUP}\u201d", CUP),
    ("quotes in quotes", f"\"'{CUP}'\"", CUP),
    ("backquotes", f"`{CUP}`", CUP),
    ("a quote inside", 'a sign that says "STOP"', 'a sign that says "STOP"'),
    ("quotes at both ends of a part", '"TEA" on a cup', '"TEA" on a cup'),
    ("label", f"Caption: {CUP}", CUP),
    ("label in bold", f"**Caption:** {CUP}", CUP),
    ("label in two words", f"Short caption: {CUP}", CUP),
    ("label in capitals", f"CAPTION : {CUP}", CUP),
    ("label and quotes", f'Description: "{CUP}"', CUP),
    ("introduction on its own line", f"Sure! Here is a caption:\n{CUP}", CUP),
    ("introduction and blank line", f"Here is the caption you asked for:\n\n{CUP}\n", CUP),
    ("explanation below", f"{CUP}\n\nThe box shows a cup because of its handle.", CUP),
    ("two captions", f"{CUP}\na cup on a table", CUP),
    ("only an introduction", "The thing is:", "The thing is:"),
    ("fence", f"```\n{CUP}\n```", CUP),
    ("fence with language", f"```text\n{CUP}\n```", CUP),
    ("fence and JSON", f'```json\n{{"caption": "{CUP}"}}\n```', CUP),
    ("JSON object", f'{{"caption":"{CUP}"}}', CUP),
    ("JSON object with an id", f'{{"id":1,"caption":"{CUP}"}}', CUP),
    ("JSON list of an object", f'[{{"id":4,"caption":"{CUP}"}}]', CUP),
    ("JSON list of strings", f'["{CUP}","a mug"]', CUP),
    ("JSON nested", f'{{"result":{{"caption":"{CUP}"}}}}', CUP),
    ("JSON with single quotes", f"{{'caption': '{CUP}',}}", CUP),
    ("JSON with null", '{"caption":null}', "answer_incomplete"),
    ("JSON cut", '{"caption":"a red cup wi', "answer_incomplete"),
    ("empty JSON", "{}", "answer_incomplete"),
    ("box in front", f"[96, 120, 160, 192] {CUP}", CUP),
    ("box and colon in front", f"[96, 120, 160, 192]: {CUP}", CUP),
    ("box with a name in front", f"Box [96, 120, 160, 192]: {CUP}", CUP),
    ("box of Qwen2-VL in front", f"<|box_start|>(96,120),(160,192)<|box_end|> {CUP}", CUP),
    ("box of InternVL behind", f"{CUP} <box>[[96, 120, 160, 192]]</box>", CUP),
    ("fractions behind", f"{CUP} [0.15, 0.25, 0.25, 0.40]", CUP),
    ("pairs behind", f"{CUP} (96,120),(160,192)", CUP),
    ("a wooden box stays", "a wooden box [96, 120, 160, 192]", "a wooden box"),
    ("figures that are no box", "a clock (12, 3) on a wall", "a clock (12, 3) on a wall"),
    ("a box only", "[96, 120, 160, 192]", "answer_empty"),
    ("a box with a name only", "Box 1: [96, 120, 160, 192]", "answer_empty"),
    ("nothing", "", "answer_empty"),
    ("white space only", " \n\t", "answer_empty"),
    ("dots only", "...", "answer_empty"),
    ("figures only", "1234", "answer_empty"),
    ("words for nothing", "None.", "answer_empty"),
    ("N/A", "N/A", "answer_empty"),
    ("chat marks", f"<|im_start|>{CUP}<|im_end|>", CUP),
    ("end of sequence", f"{CUP}</s>", CUP),
    ("thoughts", f"<think>It is a cup.\nRed.</think>\n{CUP}", CUP),
    ("thoughts only", "<think>It is a cup.</think>", "answer_empty"),
    ("control characters", "a red\x00 cup\x07 with a\x1b white handle", CUP),
    ("line ends of Windows", f"{CUP}\r\nmore\r\n", CUP),
    ("bytes that were no text", "a red \udc80cup with a white handle", CUP),
    ("a bracket at the beginning", "[EXIT] sign above a door", "[EXIT] sign above a door"),
    ("dash in front", f"- {CUP}", CUP),
    ("accents stay", "a caf\u00e9 table", "a caf\u00e9 table"),
    ("another script stays", "\u8d64\u3044\u30ab\u30c3\u30d7", "\u8d64\u3044\u30ab\u30c3\u30d7"),
]

LONG = "A dog lies on a rug. Beside it stands a red cup.\n\nBehind them is a wall."

# name, answer, description of the picture
IMAGE = [
    ("as asked", "A dog lies on a rug.", "A dog lies on a rug."),
    ("paragraphs stay", LONG, LONG),
    ("white space around", f"\n {LONG} \n", LONG),
    ("line ends of Windows", LONG.replace("\n", "\r\n"), LONG),
    ("line ends of old Macs", LONG.replace("\n", "\r"), LONG),
    ("fence", f"```\n{LONG}\n```", LONG),
    ("fence with language", f"```markdown\n{LONG}\n```", LONG),
    ("fence with tildes", f"~~~\n{LONG}\n~~~", LONG),
    ("fence that never closes", f"```text\n{LONG}", LONG),
    ("fence on one line", "```A dog lies on a rug.```", "A dog lies on a rug."),
    ("quotes around all", '"A dog lies on a rug."', "A dog lies on a rug."),
    ("curly quotes around all", "\u201cA dog lies on a rug.\u201d", "A dog lies on a rug."),
    ("quotes inside", 'A sign says "STOP" in red.', 'A sign says "STOP" in red.'),
    ("a quote at the beginning", '"STOP" stands on a sign.', '"STOP" stands on a sign.'),
    ("JSON object", '{"caption": "A dog lies on a rug."}', "A dog lies on a rug."),
    ("JSON object, another key", '{"description": "A dog lies on a rug."}', "A dog lies on a rug."),
    ("JSON object, a key of its own", '{"what_I_see": "A dog lies on a rug."}', "A dog lies on a rug."),
    ("JSON in a fence", '```json\n{"caption": "A dog lies on a rug."}\n```', "A dog lies on a rug."),
    ("JSON with line breaks", '{"caption": "A dog.\\nA cup."}', "A dog.\nA cup."),
    ("JSON with raw line breaks", '{"caption": "A dog.\nA cup."}', "A dog.\nA cup."),
    ("JSON list of sentences", '["A dog lies on a rug.", "A cup is red."]', "A dog lies on a rug.\nA cup is red."),
    ("JSON nested", '{"image": {"caption": "A dog lies on a rug."}}', "A dog lies on a rug."),
    ("JSON with single quotes", "{'caption': 'The dog's rug is blue.'}", "The dog's rug is blue."),
    ("JSON cut", '{"caption": "A dog lies on a', "answer_incomplete"),
    ("JSON with null", '{"caption": null}', "answer_incomplete"),
    ("empty JSON", "{}", "answer_incomplete"),
    ("empty list", "[]", "answer_incomplete"),
    ("a bracket in the text", "A sign reads [EXIT] in green.", "A sign reads [EXIT] in green."),
    ("a bracket at the beginning", "[EXIT] stands on a sign.", "[EXIT] stands on a sign."),
    ("braces in the text", "Graffiti shows {x} on a wall.", "Graffiti shows {x} on a wall."),
    ("nothing", "", "answer_empty"),
    ("white space only", " \n\t ", "answer_empty"),
    ("control characters only", "\x00\x01\x02", "answer_empty"),
    ("figures only", "0 0 0 0", "answer_empty"),
    ("dots only", "...", "answer_empty"),
    ("word for nothing", "null", "answer_empty"),
    ("a box only", "[0, 0, 1000, 1000]", "answer_empty"),
    ("chat marks", "<|im_start|>assistant\nA dog lies on a rug.<|im_end|>", "A dog lies on a rug."),
    ("end of sequence", "A dog lies on a rug.</s>", "A dog lies on a rug."),
    ("end of turn", "A dog lies on a rug.<|eot_id|>", "A dog lies on a rug."),
    ("thoughts", "<think>\nA dog? Yes.\n</think>\n\nA dog lies on a rug.", "A dog lies on a rug."),
    ("thoughts whose beginning was cut", "A dog? Yes.</think>A dog lies on a rug.", "A dog lies on a rug."),
    ("thoughts only", "<think>A dog.</think>", "answer_empty"),
    ("control characters", "A dog\x00 lies\x07 on a rug.", "A dog lies on a rug."),
    ("bytes that were no text", "A dog \udcfflies on a rug.", "A dog lies on a rug."),
    ("list items stay, for the rules", "- A dog\n- A cup", "- A dog\n- A cup"),
    ("introduction stays, for the rules", "Here is it:\nA dog lies.", "Here is it:\nA dog lies."),
    ("refusal stays, for the rules", "I'm sorry, I can't help.", "I'm sorry, I can't help."),
    ("cut sentence stays, for the rules", "A dog lies on a", "A dog lies on a"),
    (
        "another script stays",
        "\u72ac\u304c\u5bdd\u3066\u3044\u308b\u3002",
        "\u72ac\u304c\u5bdd\u3066\u3044\u308b\u3002",
    ),
    ("a sign in the picture stays", "The label reads 120 V (60, 50).", "The label reads 120 V (60, 50)."),
]


def said(prompt: str, answer: str) -> str | None:
    try:
        (text,) = PROMPTS[prompt]().parse(Ask("what?", boxes=(0,)), answer)
    except AnswerError as error:
        return error.reason
    return text


@pytest.mark.parametrize("prompt", ["region-each", "region-crop"])
@pytest.mark.parametrize(("name", "answer", "expected"), REGION, ids=[case[0] for case in REGION])
def test_an_answer_about_a_box_is_read(name: str, answer: str, expected: str, prompt: str) -> None:
    assert said(prompt, answer) == expected


@pytest.mark.parametrize("prompt", ["image-detailed", "image-short", "image-hints"])
@pytest.mark.parametrize(("name", "answer", "expected"), IMAGE, ids=[case[0] for case in IMAGE])
def test_an_answer_about_a_picture_is_read(name: str, answer: str, expected: str, prompt: str) -> None:
    assert said(prompt, answer) == expected


def test_each_table_has_forty_rows() -> None:
    assert min(len(REGION), len(IMAGE)) >= 40
    assert len({case[1] for case in REGION}) == len(REGION)
    assert len({case[1] for case in IMAGE}) == len(IMAGE)
