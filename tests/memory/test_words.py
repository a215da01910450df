"""Tests of words, of guessing a text's language, and of snippets."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory import snippets
from memory.languages import KNOWN, configuration
from memory.text import one_line, storable
from memory.words import BYTES, LONGEST, QUERY_TERMS, WordQuery, fold, indexable, parse_query, words, words_with_offsets

TEXT = st.text(max_size=200) | st.text("aé1ß你カ😀ж ضقá\u0301-\"'@&|!:*()<>\x00", max_size=200)


# --- words -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Order A-123/45, please!", ["order", "a", "123", "45", "please"]),
        ("Élève à l'hôtel", ["eleve", "a", "l", "hotel"]),
        ("STRASSE Straße", ["strasse", "strasse"]),
        ("我的 包裹", ["我", "的", "包", "裹"]),
        ("iPhone15 包裹15", ["iphone15", "包", "裹", "15"]),
        ("Việt Nam", ["viet", "nam"]),
        ("мой ёж", ["мой", "еж"]),
        ("शिकायत", ["शिकायत"]),
        ("مُحَمَّد", ["محمد"]),
        ("😀 & | ! :*", []),
        ("", []),
    ],
)
def test_a_text_is_cut_into_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@given(TEXT)
def test_a_word_holds_nothing_that_means_something_in_a_query(text: str) -> None:
    for start, end, word in words_with_offsets(text):
        assert 0 <= start < end <= len(text)
        assert word
        assert word == fold(word)
        assert len(word) <= LONGEST
        assert not set(word) & set("\"'@&|!:*()<>- \x00")
    assert words(text) == [word for _, _, word in words_with_offsets(text)]


def test_what_is_indexed_is_bounded_and_holds_every_word_once_at_least() -> None:
    many = " ".join(f"w{number}" for number in range(30_000))
    assert indexable([many]).split() == many.split()
    assert indexable(["again " * 100_000]).split().count("again") == 16_001
    assert len(indexable([" ".join(f"{number:x}" * 9 for number in range(99_999))]).encode()) <= BYTES
    assert len(indexable(["你好" * 90_000, "ж" * 90_000]).encode()) <= BYTES
    assert indexable(["", " "]) == ""


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("broken kettle", WordQuery((("broken",), ("kettle",)))),
        ('"broken kettle" tea', WordQuery((("broken", "kettle"), ("tea",)))),
        ("“broken kettle”", WordQuery((("broken", "kettle"),))),
        ("a-123/45", WordQuery((("a", "123", "45"),))),
        ('kettle -tea -"hot water"', WordQuery((("kettle",),), (("tea",), ("hot", "water")))),
        ("kettle kettle OR", WordQuery((("kettle",), ("or",)))),
        ("-kettle", WordQuery((), (("kettle",),))),
        ('"unfinished business', WordQuery((("unfinished",), ("business",)))),
        ("--", WordQuery()),
        ("\x00\ud800", WordQuery()),
    ],
)
def test_a_query_is_understood(query: str, expected: WordQuery) -> None:
    assert parse_query(query) == expected


@given(TEXT)
def test_a_query_never_raises_and_becomes_nothing_but_quoted_words(query: str) -> None:
    for term in parse_query(query).websearch.split('"')[1::2]:
        # Together: a mark that a letter was taken apart into (Thai's vowel am) may stand alone the second time.
        assert "".join(words(term)) == "".join(term.split())


def test_a_huge_query_is_bounded() -> None:
    assert len(parse_query("word" * 100_000).wanted) == 1
    assert len(parse_query(" ".join(map(str, range(100_000)))).wanted) == QUERY_TERMS


def test_a_megabyte_is_cut_in_no_time() -> None:
    begun = time.monotonic()
    for text in ("word " * 200_000, "слово " * 100_000, "字" * 300_000, '"' * 1_000_000, "́" * 500_000):
        words(text)
        parse_query(text)
    assert time.monotonic() - begun < 10


# --- languages -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("tag", "text", "expected"),
    [
        ("de", "whatever the text is", "german"),
        ("pt-BR", "", "portuguese"),
        ("EN_us", "", "english"),
        ("ja", "荷物はいつ届きますか", "simple"),
        ("", "Hello, when will my parcel arrive? Can you help me with that please", "english"),
        ("", "Hallo, wann kommt mein Paket? Ich habe noch nichts", "german"),
        ("", "Bonjour, je voudrais savoir où est ma commande, merci", "french"),
        ("", "Hola, no me ha llegado el paquete, ¿cuándo llega por favor?", "spanish"),
        ("", "Ciao, quando arriva il mio pacco? Grazie", "italian"),
        ("", "Olá, quando chega a minha encomenda? Obrigado, não recebi", "portuguese"),
        ("", "Hallo, wanneer komt mijn bestelling? Ik heb het niet", "dutch"),
        ("", "Здравствуйте, где моя посылка?", "russian"),
        ("", "أين طردي من فضلك", "arabic"),
        ("", "Πού είναι το δέμα μου;", "greek"),
        ("", "Order 66, ok", "simple"),
        ("", "ok 👍", "simple"),
        ("xx-klingon", "", "simple"),
        ("", "", "simple"),
    ],
)
def test_the_language_is_given_or_guessed(tag: str, text: str, expected: str) -> None:
    assert configuration(tag, text) == expected


@given(TEXT, TEXT)
def test_there_is_always_a_configuration(tag: str, text: str) -> None:
    assert configuration(tag, text) in KNOWN


@pytest.mark.django_db
def test_postgresql_has_every_configuration() -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT cfgname FROM pg_ts_config")
        assert set(KNOWN) <= {name for (name,) in cursor.fetchall()}


# --- snippets --------------------------------------------------------------------------------------------------------
def shown(texts: list[tuple[int | None, str]], *asked: str) -> tuple[int | None, str, list[str]]:
    snippet = snippets.best_snippet(snippets.snippet_sources(texts), {word: word for word in asked})
    return snippet.position, snippet.text, [snippet.text[start:end] for start, end in snippet.highlights]


def test_the_entry_that_holds_most_of_what_was_asked_for_is_shown() -> None:
    texts: list[tuple[int | None, str]] = [
        (None, "red green blue"),
        (3, "a red one"),
        (4, "Red and GREEN"),
        (5, "green"),
    ]
    assert shown(texts, "red", "green") == (4, "Red and GREEN", ["Red", "GREEN"])
    assert shown(texts, "blue") == (None, "red green blue", ["blue"])
    assert shown(texts[1:], "purple") == (3, "a red one", [])


def test_a_long_entry_is_cut_around_the_word() -> None:
    position, text, marked = shown([(3, "word " * 500 + "the Kettle\nis here" + " word" * 500)], "kettle")
    assert position == 3
    assert text.startswith("…word ")
    assert "the Kettle is here word" in text
    assert text.endswith("…")
    assert len(text) <= snippets.LONGEST + 2
    assert marked == ["Kettle"]


@given(st.lists(st.tuples(st.integers(1, 9), TEXT), min_size=1, max_size=5))
def test_highlights_are_always_the_words_that_were_asked_for(texts: list[tuple[int | None, str]]) -> None:
    asked = words(texts[0][1])[:3]
    _, text, marked = shown(texts, *asked)
    assert {fold(word) for word in marked} <= set(asked)
    assert len(text) <= snippets.LONGEST + 2


# --- text ------------------------------------------------------------------------------------------------------------
@given(st.text())
def test_text_on_one_line_is_bounded(text: str) -> None:
    line = one_line(text, 40)
    assert len(line) <= 40
    assert "\n" not in line


def test_text_that_postgresql_cannot_keep_is_made_so_that_it_can() -> None:
    assert storable("a\x00b\ud83dc😀") == "a\ufffdb\ufffdc😀"
