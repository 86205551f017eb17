from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from llmdet.errors import MissingError, SettingError
from llmdet.record import Box, Caption, Link, Provenance, Record, Region
from llmdet.rules.chain import build_chain, run_chain
from llmdet.rules.links import LinkPhrases
from llmdet.tagging import missing_nltk_data, tagger

PLAIN = LinkPhrases(parser="pattern")
DOG = Region(("A dog",), ((0, 5),), (Box((10, 10, 90, 90)),))
MAN = Region(("a man",), ((12, 17),), (Box((200, 10, 290, 90)),))
RECORD = Record(
    "s/1/0", "s", "1", "0", "grounding", "1.jpg", "s", 300, 100, "A dog bites a man .", (DOG, MAN),
    captions=(Caption("The photo shows a brown dog. A man shouts at the dog."),),
)  # fmt: skip


def spans(record: Record, index: int = 0) -> dict[str, tuple[int, int | None]]:
    caption = record.captions[index]
    return {caption.text[slice(*link.span)]: (link.region, link.box) for link in caption.links}


def test_captions_get_links_and_the_rest_of_the_record_stays() -> None:
    linked = PLAIN(RECORD)
    assert spans(linked) == {"a brown dog": (0, 0), "A man": (1, 0), "the dog": (0, 0)}
    bare = tuple(replace(caption, links=()) for caption in linked.captions)
    assert replace(linked, captions=bare) == RECORD
    assert PLAIN(linked) is linked


def test_stale_links_go() -> None:
    stale = replace(RECORD, captions=(Caption("Rain falls.", links=(Link((0, 4), 1, 0),)),))
    assert PLAIN(stale).captions[0].links == ()


def test_a_caption_that_is_the_text_itself_has_the_regions_spans() -> None:
    own = replace(RECORD, captions=(Caption(RECORD.text),))
    assert PLAIN(own).captions[0].links == (Link((0, 5), 0, 0), Link((12, 17), 1, 0))


def test_classes_of_a_detection_record_are_no_sentence() -> None:
    regions = (
        Region(("dog",), ((0, 3),), (Box((10, 10, 90, 90)), Box((200, 10, 290, 90)))),
        Region(("person",), ((5, 11),), (Box((200, 10, 290, 90)),)),
    )
    record = replace(RECORD, kind="detection", text="dog. person. ", regions=regions)
    assert spans(PLAIN(record)) == {"a brown dog": (0, None), "A man": (1, 0), "the dog": (0, None)}


def test_the_choice_is_made_once_and_travels() -> None:
    resolved = LinkPhrases().resolved()
    assert resolved.parser == ("pattern" if missing_nltk_data() else "nltk")
    assert resolved.resolved() == pickle.loads(pickle.dumps(resolved)) == resolved
    with pytest.raises(SettingError, match="resolved"):
        LinkPhrases()(RECORD)


def test_a_machine_without_the_parser_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    import nltk.data

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    tagger.cache_clear()
    try:
        with pytest.raises(MissingError, match=r"nltk\.downloader"):
            LinkPhrases(parser="nltk").resolved()
        with pytest.raises(MissingError, match=r"nltk\.downloader"):
            LinkPhrases(parser="nltk").prepare()
        assert LinkPhrases().resolved().parser == "pattern"
    finally:
        tagger.cache_clear()


def test_links_come_after_all_rules_that_change_a_text() -> None:
    with pytest.raises(SettingError, match="LinkPhrases must come after RemoveSpeculation"):
        build_chain({"links": {"parser": "pattern"}, "speculation": {}})
    chain = build_chain({"speculation": {}, "links": {"parser": "pattern"}})
    said = Caption("A dog sits near a man, possibly in a park.", provenance=Provenance(origin="lmm"))
    refined, _ = run_chain(chain, replace(RECORD, captions=(said,)))
    assert refined is not None
    assert refined.captions[0].text == "A dog sits near a man."
    assert spans(refined) == {"A dog": (0, 0), "a man": (1, 0)}
