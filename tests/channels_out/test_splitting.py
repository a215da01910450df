"""Long texts in parts."""

from __future__ import annotations

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from channels_out import splitting
from channels_out.splitting import UNITS, split
from tests.sizes import times

ALPHABET = st.sampled_from(
    [
        *"abcdefghij",
        *"  \n\n\t.!?,",
        "\r\n",
        "\u00a0",
        "。",
        "é",
        "e\u0301",
        "👨‍👩‍👧",
        "🇵🇪",
        "🇵",
        "ก็",
        "\u200d",
        "क्ष",
        "한",
        "\ud83d",
    ]
)
TEXTS = st.lists(ALPHABET | st.text(max_size=3), max_size=120).map("".join)
LIMITS = st.integers(4, 60)
LONG = 100_000  # characters, which make 63 parts and more: work that grows with their square would be seen at once


def graphemes(text: str) -> list[str]:
    return [match[0] for match in regex.finditer(r"\X", text)]


def boundaries(text: str) -> set[int]:
    return {0, *(match.end() for match in regex.finditer(r"\X", text))}


@pytest.mark.parametrize(
    ("text", "limit", "parts"),
    [
        ("Short.", 10, ["Short."]),
        ("exactly ten", 11, ["exactly ten"]),
        ("One two three four", 10, ["One two ", "three four"]),
        ("It is so. It was so. It will be.", 24, ["It is so. It was so. ", "It will be."]),
        ("Is it? (Yes.) And that is why it is", 20, ["Is it? (Yes.) ", "And that is why it ", "is"]),
        ("First one.\n\nSecond. Third one here", 24, ["First one.\n\nSecond. ", "Third one here"]),
        ("First one is long.\n\nSecond. Third", 28, ["First one is long.\n\n", "Second. Third"]),
        ("- eggs\n- milk\n- flour\n- butter", 24, ["- eggs\n- milk\n- flour\n", "- butter"]),
        ("我今天去了市场。买了苹果和香蕉。", 10, ["我今天去了市场。", "买了苹果和香蕉。"]),
        ("abcdefghijklmno", 6, ["abcdef", "ghijkl", "mno"]),
        ("word https://example.org/abcdefghijk", 12, ["word ", "https://exam", "ple.org/abcd", "efghijk"]),
        ("👨‍👩‍👧👨‍👩‍👧👨‍👩‍👧", 12, ["👨‍👩‍👧👨‍👩‍👧", "👨‍👩‍👧"]),
        ("🇵🇪🇧🇷🇲🇽", 5, ["🇵🇪🇧🇷", "🇲🇽"]),
        ("abcd\r\nef", 5, ["abcd", "\r\nef"]),
        ("", 10, []),
        (" \n ", 10, []),
        (" " * 30 + "hello", 10, ["hello"]),
        (" " * 35 + "hello", 10, ["     hello"]),
        ("hello" + " " * 30, 10, ["hello     "]),
        ("hello" + " " * 30 + "world", 10, ["hello     ", "     world"]),
    ],
)
def test_it_cuts_where_it_hurts_least(text: str, limit: int, parts: list[str]) -> None:
    assert split(text, limit) == parts


@pytest.mark.parametrize(
    ("unit", "parts"),
    [
        ("characters", ["ééé👍👍"]),
        ("utf-16 units", ["ééé👍", "👍"]),
        ("utf-8 bytes", ["ééé", "👍", "👍"]),
    ],
)
def test_it_counts_as_the_provider_does(unit: str, parts: list[str]) -> None:
    assert split("ééé👍👍", 6, unit) == parts


@pytest.mark.parametrize(("limit", "unit"), [(3, "characters"), (0, "characters"), (-1, "characters"), (10, "lines")])
def test_a_limit_or_unit_that_cannot_be_is_an_error(limit: int, unit: str) -> None:
    with pytest.raises(ValueError, match="Cannot split"):
        split("text", limit, unit)


@settings(max_examples=times(200, 3_000), deadline=None)
@given(text=TEXTS, limit=LIMITS, unit=st.sampled_from(sorted(UNITS)))
def test_the_parts_are_the_text(text: str, limit: int, unit: str) -> None:
    parts = split(text, limit, unit)
    measure = UNITS[unit]
    cuts = boundaries(text)
    position = 0
    for part in parts:
        assert measure(part) <= limit
        assert part.strip()
        found = text.index(part, position)
        assert not text[position:found].strip()  # only whitespace is ever left out
        position = found
        for edge in (position, position + len(part)):
            assert edge in cuts or max(map(measure, graphemes(text))) > limit
        position += len(part)
    assert not text[position:].strip()


@settings(max_examples=times(200, 3_000), deadline=None)
@given(text=TEXTS, limit=LIMITS)
def test_nothing_is_left_out_unless_a_part_would_be_blank(text: str, limit: int) -> None:
    text = text.rstrip()
    runs = regex.findall(r"\s+\X?", text)  # a run of whitespace and what follows it
    if max(map(len, [*runs, *graphemes(text)]), default=0) <= limit // 2:
        assert "".join(split(text, limit)) == text


@pytest.mark.parametrize("unit", sorted(UNITS))
@pytest.mark.parametrize(
    "pattern",
    [
        "word ",
        "x",
        "e\u0301",
        "\u0301",
        "\u200d",
        ".",
        ".)",
        "a.",
        "\n",
        "\n ",
        " ",
        "\t x",
        "。",
        "🇵",
        "👍\u200d",
        "a" + " " * 5000,
        "x" * 5000 + " ",
        "One sentence. " * 40 + "\n\n",
    ],
)
def test_a_long_text_takes_work_in_proportion(pattern: str, unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work is counted in characters examined for graphemes: at most twice the text, and a window for a part."""
    text = (pattern * (LONG // len(pattern) + 1))[:LONG]
    looked_at = 0
    genuine = splitting._cuts

    def counted(text: str, start: int, limit: int, measure: object) -> list[int]:
        nonlocal looked_at
        cuts = genuine(text, start, limit, measure)  # type: ignore[arg-type]
        looked_at += min(len(text) - start, limit + 1)
        return cuts

    monkeypatch.setattr(splitting, "_cuts", counted)
    limit = 1600
    parts = split(text, limit, unit)
    assert looked_at <= 12 * len(text)
    assert [part for part in parts if UNITS[unit](part) > limit] == []
    assert [part for part in parts if not part.strip()] == []
    assert regex.sub(r"\s", "", "".join(parts)) == regex.sub(r"\s", "", text)
