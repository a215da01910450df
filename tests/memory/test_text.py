"""Estimating and shortening."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory.text import estimate_tokens, shorten

# Hypothesis's own text is mostly rare characters: people's words are mixed in so that each script gets its turn.
TEXT = st.text() | st.text("abc de.,1") | st.text("привет ") | st.text("你好、カタ한국") | st.text("😀👍🏽 ok")


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        # bounds from what the vocabularies of common models make of these sentences
        ("Good morning, could you tell me when my parcel will arrive?", 12, 18),
        ("Guten Morgen, können Sie mir sagen, wann mein Paket ankommt?", 14, 22),
        ("Доброе утро, подскажите, когда придёт моя посылка?", 14, 30),
        ("早上好，请问我的包裹什么时候到？", 9, 17),
        ("おはようございます。荷物はいつ届きますか？", 10, 20),
        ("👍🏽🎉", 4, 10),
        ("4111 1111 1111 1111", 6, 13),
        ("", 0, 0),
        ("a", 1, 1),
    ],
)
def test_the_estimate_is_near_what_tokenizers_make(text: str, least: int, most: int) -> None:
    assert least <= estimate_tokens(text) <= most


@given(TEXT, TEXT)
def test_a_text_takes_no_more_than_its_pieces_and_no_less_than_each(one: str, other: str) -> None:
    both = estimate_tokens(one + other)
    assert max(estimate_tokens(one), estimate_tokens(other)) <= both <= estimate_tokens(one) + estimate_tokens(other)


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
    assert estimate_tokens("\ud83d") == 2


def test_a_huge_text_takes_no_time() -> None:
    begun = time.perf_counter()
    shorten("Zwölf Boxkämpfer 你好 😀 " * 50_000, 4_000)  # 1.2 million characters
    assert time.perf_counter() - begun < 30, "its cost would grow with the square of its length"
