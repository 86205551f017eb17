from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmdet.errors import MissingError, SettingError
from llmdet.lemmas import singular
from llmdet.phrases import Parser, ParserName, Phrase, resolve_parser
from llmdet.tagging import missing_nltk_data, split_words, tag_text, tagger

BOTH: tuple[ParserName, ...] = ("nltk", "pattern")
needs_nltk = pytest.mark.skipif(bool(missing_nltk_data()), reason="needs nltk's data: set NLTK_DATA")
each_parser = pytest.mark.parametrize(
    "parser", [pytest.param("nltk", marks=needs_nltk), "pattern"], ids=["nltk", "pattern"]
)

CAPTIONS = (
    "Two young men in blue shirts and a woman with a black dog's leash stand near the 19th-century church.",
    'A sign that reads "No parking" hangs over the door; it isn\'t locked, and the U.S. flag flies above.',
    "Dr. Smith's white coat hangs on a hook. A T-shirt, three socks (all red) and $5.50 lie on the floor.",
    "A caf\u00e9 in \u0130stanbul \u2014 \u201cChez Zo\u00eb\u201d \u2014 with several people eating cr\u00eapes.",
    "a little girl climbing the stairs to her playhouse",
)


def found(parser: ParserName, text: str) -> list[str]:
    return [phrase.text for phrase in Parser(parser).phrases(text)]


def only(parser: ParserName, text: str) -> Phrase:
    (phrase,) = Parser(parser).phrases(text)
    return phrase


@each_parser
def test_phrases_stand_where_they_say(parser: ParserName) -> None:
    for text in CAPTIONS:
        parsed = Parser(parser).parse(text)
        assert len(parsed.phrases) >= 3
        for phrase in parsed.phrases:
            assert text[slice(*phrase.span)] == phrase.text
            assert text[slice(*phrase.head_span)].lower() == phrase.head
            assert phrase.span[0] <= phrase.head_span[0] < phrase.head_span[1] <= phrase.span[1]
        assert all(text[slice(*token.span)] == token.text for token in parsed.tokens)
        spans = [phrase.span for phrase in parsed.phrases]
        assert all(first[1] <= second[0] for first, second in pairwise(spans))


@settings(deadline=None, max_examples=150)
@given(st.text(max_size=200))
def test_any_text_has_words_that_cover_all_but_white_space(text: str) -> None:
    spans = split_words(text)
    assert all(first[1] <= second[0] for first, second in pairwise(spans))
    covered = "".join(text[start:end] for start, end in spans)
    assert covered == "".join(text.split())
    for phrase in Parser("pattern").phrases(text):
        assert text[slice(*phrase.span)] == phrase.text


@each_parser
def test_a_caption_falls_into_its_phrases(parser: ParserName) -> None:
    text = "A man in a black and white striped shirt holds his hat near the dog's bowl and two smiling girls."
    assert found(parser, text) == [
        "A man", "a black and white striped shirt", "his hat", "the dog", "bowl", "two smiling girls",
    ]  # fmt: skip
    assert found(parser, "A man wearing glasses holds a book.") == ["A man", "glasses", "a book"]


@each_parser
def test_number_and_kind_are_read_from_the_words(parser: ParserName) -> None:
    two = only(parser, "two small dogs")
    assert (two.head, two.lemma, two.plural, two.count) == ("dogs", "dog", True, 2)
    assert (two.words, two.determiner, two.modifiers) == (("two", "small", "dogs"), "", ("small",))
    another = only(parser, "another woman")
    assert (another.lemma, another.plural, another.count, another.determiner) == ("woman", False, 1, "another")
    assert (only(parser, "the dog").count, only(parser, "several dogs").count) == (None, None)
    assert only(parser, "12 dogs").count == 12
    jeans = only(parser, "the blue jeans")
    assert (jeans.lemma, jeans.plural) == ("jeans", False)


@each_parser
@pytest.mark.parametrize(
    ("text", "head", "plural", "count"),
    [
        ("a group of people", "people", True, None),
        ("a couple of dogs", "dogs", True, 2),
        ("a piece of cake", "cake", False, 1),
        ("three slices of pizza", "pizza", True, 3),
        ("a glass of red wine", "glass", False, 1),
    ],
)
def test_measures_and_groups_give_way_to_what_they_are_of(
    parser: ParserName, text: str, head: str, plural: bool, count: int | None
) -> None:
    phrase = only(parser, text)
    assert (phrase.text, phrase.head, phrase.plural, phrase.count) == (text, head, plural, count)


@needs_nltk
def test_a_verb_that_the_tagger_takes_for_a_noun_ends_the_phrase() -> None:
    assert dict(tagged("nltk", "A small brown puppy sits beneath the table"))["sits"] == "NNS"
    assert found("nltk", "A small brown puppy sits beneath the table") == ["A small brown puppy", "the table"]


def tagged(parser: ParserName, text: str) -> list[tuple[str, str]]:
    return [(token.text, token.tag) for token in tag_text(text, parser)]


# --- against nltk itself -------------------------------------------------------------------------------------------


@needs_nltk
def test_tags_are_those_of_nltk() -> None:
    from nltk.tag.perceptron import PerceptronTagger

    theirs = PerceptronTagger()
    words = [word for text in CAPTIONS for word in text.split()]
    odd = ["--", "-x", "2024", "3rd", "a-b", "\u00e9", "x", "'s", "``", "1,000", "A"]
    for batch in ([], ["dog"], words, odd, words[::-1], odd + words):
        assert tagger("nltk")(batch) == [tag for _, tag in theirs.tag(batch)]


@needs_nltk
@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from("the a dogs run red man running in of and Two his , . orange light left".split())))
def test_tags_of_any_sequence_are_those_of_nltk(words: list[str]) -> None:
    import nltk

    assert tagger("nltk")(words) == [tag for _, tag in nltk.pos_tag(words)]


@needs_nltk
def test_glip_phrases_are_those_of_nltks_chunker() -> None:
    import nltk

    chunker = nltk.RegexpParser("NP: {<DT>?<JJ.*>*<NN.*>+}")
    for text in ("There is two cat and a remote in the picture", *CAPTIONS[:3], CAPTIONS[4]):
        tree = chunker.parse(nltk.pos_tag(nltk.word_tokenize(text.lower())))
        theirs = [[word for word, _ in part.leaves()] for part in tree.subtrees() if part.label() == "NP"]
        phrases = Parser("nltk").phrases(text, "glip")
        assert [[word.replace('"', "''") for word in phrase.words] for phrase in phrases] == [
            [word.replace("``", "''") for word in words] for words in theirs
        ]
        assert all(text[slice(*phrase.span)] == phrase.text for phrase in phrases)


@needs_nltk
def test_the_published_example_of_glip() -> None:
    phrases = Parser("nltk").phrases("There is two cat and a remote in the picture", "glip")
    assert [phrase.text for phrase in phrases] == ["cat", "a remote", "the picture"]


@needs_nltk
def test_the_subject_is_the_first_phrase_that_is_no_stop_word() -> None:
    import nltk

    chunker = nltk.RegexpParser("NP: {<DT>?<JJ>*<NN|NNS>}")
    for text in ("the left man in a blue shirt", "bottom right zebra", "i see a tall glass of beer", *CAPTIONS[:3]):
        tree = chunker.parse(nltk.pos_tag(nltk.word_tokenize(text)))
        names = [" ".join(word for word, _ in part.leaves()) for part in tree if isinstance(part, nltk.Tree)]
        theirs = [name for name in names if name != "i"][:1]
        assert [phrase.text for phrase in Parser("nltk").phrases(text, "subject")] == theirs


@needs_nltk
def test_words_are_split_as_nltk_splits_a_sentence() -> None:
    import nltk

    for text in (CAPTIONS[0], CAPTIONS[1], CAPTIONS[4], "The man's dogs won't eat 3.5 kg, they've eaten (all)."):
        ours = [text[slice(*span)].replace('"', "''") for span in split_words(text)]
        assert ours == [word.replace("``", "''") for word in nltk.word_tokenize(text)]


# --- the choice of the parser --------------------------------------------------------------------------------------


@pytest.fixture
def without_data(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    import nltk.data

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])


def test_without_data_auto_is_pattern_and_nltk_says_what_to_run(without_data: None) -> None:
    assert resolve_parser("auto") == resolve_parser("pattern") == "pattern"
    with pytest.raises(
        MissingError, match=r"python -m nltk\.downloader punkt_tab averaged_perceptron_tagger_eng"
    ) as raised:
        resolve_parser("nltk")
    assert "\n" not in str(raised.value)


def test_a_parser_never_stands_in_for_another(without_data: None) -> None:
    tagger.cache_clear()
    try:
        with pytest.raises(MissingError, match="averaged_perceptron_tagger_eng"):
            Parser("nltk").phrases("a dog")
    finally:
        tagger.cache_clear()


@needs_nltk
def test_with_data_auto_is_nltk() -> None:
    assert resolve_parser() == resolve_parser("nltk") == "nltk"


def test_an_unknown_parser_is_refused() -> None:
    with pytest.raises(SettingError, match="auto, nltk or pattern"):
        resolve_parser("spacy")  # type: ignore[arg-type]


# --- lemmas, odd texts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("many", "one"),
    [
        ("dogs", "dog"), ("women", "woman"), ("men", "man"), ("policemen", "policeman"), ("children", "child"),
        ("people", "person"), ("buses", "bus"), ("benches", "bench"), ("horses", "horse"), ("houses", "house"),
        ("shoes", "shoe"), ("tomatoes", "tomato"), ("bushes", "bush"), ("boxes", "box"), ("glasses", "glasses"),
        ("ladies", "lady"), ("movies", "movie"), ("ties", "tie"), ("knives", "knife"), ("grass", "grass"),
        ("bus", "bus"), ("tennis", "tennis"), ("dress", "dress"), ("dresses", "dress"), ("sheep", "sheep"),
        ("feet", "foot"), ("specimen", "specimen"), ("jeans", "jeans"), ("bookshelves", "bookshelf"),
    ],
)  # fmt: skip
def test_singulars(many: str, one: str) -> None:
    assert singular(many) == one
    assert singular(one) == one


@each_parser
@pytest.mark.parametrize(
    "text",
    ["," * 20_000, "a " * 10_000, "\u2603\U0001f600" * 10_000, "\0" * 20_000, "a red " * 3_333, "dog " * 5_000,
     "x" * 20_000, "a-" * 10_000, "U." * 10_000, "'s" * 10_000, "\u05d0 " * 10_000, "a group of " * 1_800],
    ids=["commas", "articles", "emoji", "nulls", "adjectives", "nouns", "word", "hyphens", "initials", "owners",
         "hebrew", "groups"],
)  # fmt: skip
def test_odd_texts_take_bounded_time(parser: ParserName, text: str) -> None:
    tagger(parser)(["warm"])
    started = time.process_time()
    for phrase in Parser(parser).phrases(text):
        assert text[slice(*phrase.span)] == phrase.text
    assert time.process_time() - started < 1


def test_words_without_a_noun_cost_time_in_proportion() -> None:
    def seconds(count: int) -> float:
        started = time.process_time()
        assert Parser("pattern").parse("red " * count).phrases == ()
        return time.process_time() - started

    seconds(10)  # loads the lexicon
    assert seconds(8000) < 20 * max(seconds(1000), 0.01)  # in proportion: 8 times; by the square: 64 times
