"""Estimating and shortening."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory.text import estimate_tokens, shorten
from tests.memory.token_counts import COUNTS, VOCABULARIES

# Hypothesis's own text is mostly rare characters: people's words are mixed in so that each script gets its turn.
TEXT = (
    st.text()
    | st.text("abc de.,1")
    | st.text("привет ")
    | st.text("你好、カタ한국")
    | st.text("😀👍🏽 ok")
    | st.text("aB3/+= ", min_size=40)
)


# Latin letters in a language that older vocabularies hardly know, and emoji in Tekken, which has none.
UNDERESTIMATED = {"Swahili": 1.4, "emoji": 1.35}


@pytest.mark.parametrize(("name", "text", "counts"), COUNTS, ids=[name for name, _, _ in COUNTS])
def test_no_vocabulary_in_use_makes_many_more_tokens_than_estimated(
    name: str, text: str, counts: tuple[int, ...]
) -> None:
    over = {vocabulary: count / estimate_tokens(text) for vocabulary, count in zip(VOCABULARIES, counts, strict=True)}
    assert max(over.values()) <= UNDERESTIMATED.get(name, 1.15), over


def test_common_languages_are_not_estimated_at_twice_their_tokens() -> None:
    counted = {name: (estimate_tokens(text), min(counts)) for name, text, counts in COUNTS}
    for name in ("English", "Spanish", "German", "Swahili", "Russian"):
        estimated, least = counted[name]
        assert estimated <= 1.75 * least, name


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("a", 1), (" ", 1), ("7", 1), ("😀", 3), ("క", 2)])
def test_the_shortest_texts_have_whole_tokens(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens


def test_a_long_run_without_blanks_counts_as_noise_and_a_sentence_does_not() -> None:
    run = "x" * 24
    assert estimate_tokens(run) > 2 * estimate_tokens(run[:23])
    assert estimate_tokens("Donaudampfschiff fährt los") <= 12


@given(TEXT, TEXT)
def test_a_text_takes_no_less_than_each_of_its_pieces(one: str, other: str) -> None:
    assert max(estimate_tokens(one), estimate_tokens(other)) <= estimate_tokens(one + other)


@given(TEXT, st.sampled_from([" ", "\n", "\n\n"]), TEXT)
def test_a_text_takes_no_more_than_its_pieces_where_it_is_cut_at_a_blank(one: str, blank: str, other: str) -> None:
    assert estimate_tokens(one + blank + other) <= estimate_tokens(one + blank) + estimate_tokens(other)


@given(TEXT.map(lambda text: text * 9), st.integers(-5, 200))
def test_a_shortened_text_fits_and_says_what_is_missing(text: str, tokens: int) -> None:
    short = shorten(text, tokens)
    if estimate_tokens(text) <= tokens:
        assert short == text
    elif short:
        assert estimate_tokens(short) <= tokens
        head, mark, tail = short.rpartition("\n[… ")[0], short.rpartition("\n[… ")[2], short.rpartition(" …]\n")[2]
        missing = int(mark.partition(" ")[0].replace(",", ""))
        assert text.startswith(head)
        assert text.endswith(tail)
        assert len(head) + missing + len(tail) == len(text)


def test_as_much_as_fits_is_kept() -> None:
    short = shorten("word " * 10_000, 500)
    assert 480 <= estimate_tokens(short) <= 500


def test_there_is_nothing_where_not_even_the_mark_fits() -> None:
    assert shorten("word " * 100, 5) == ""


def test_half_a_surrogate_pair_is_no_trouble() -> None:
    assert estimate_tokens("\ud83d") == 3


def test_a_huge_text_takes_no_time() -> None:
    begun = time.perf_counter()
    shorten("Zwölf Boxkämpfer 你好 😀 " * 50_000, 4_000)  # 1.2 million characters
    assert time.perf_counter() - begun < 30, "its cost would grow with the square of its length"
