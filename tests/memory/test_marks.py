"""The marks before the assistant's messages, and how they are taken out of what a model writes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory import marks
from memory.context import STAFF_MARK, may_become_mark, without_marks

MARKS = [
    STAFF_MARK,
    marks.staff_mark("María Gómez"),
    marks.NEXT_MARK,
    *(
        marks.delivery_mark(each)
        for each in (
            marks.SENDING_FAILED,
            marks.CANCELLED,
            marks.DELIVERY_UNKNOWN,
            marks.partly_delivered(2, 3),
            marks.template_instead("n" * 500),
        )
    ),
]
ORDINARY = [
    "",
    "Hello",
    "[Note] Hello",
    "[",
    "[W",
    "Hi [Not delivered] there",
    "[Not deliverable] x",
    "(Not delivered)",
]


def streamed(text: str) -> str:
    """Return what a reader sees of the text if it comes letter by letter, as an engine passes it on."""
    held = ""
    for number, letter in enumerate(text):
        held += letter
        if not may_become_mark(held):
            return without_marks(held) + text[number + 1 :]
    return without_marks(held)


@pytest.mark.parametrize("mark", MARKS)
def test_a_copied_mark_is_taken_out_whole_and_streamed(mark: str) -> None:
    for text in (f"{mark}Hello", f"{mark.strip()}\nHello", f" {mark}{STAFF_MARK}Hello", f"{mark.lower()}Hello"):
        assert without_marks(text) == streamed(text) == "Hello"
    assert without_marks(mark) == streamed(mark.strip()) == ""


@pytest.mark.parametrize("text", ORDINARY)
def test_other_words_stay_as_they_are(text: str) -> None:
    assert without_marks(text) == streamed(text) == text


def test_a_stream_waits_no_longer_than_a_mark_is_possible() -> None:
    assert [may_become_mark(text) for text in ("", " ", "[", "[Writ", "[Written by a human colleague, Ma")] == [
        True
    ] * 5
    assert [may_become_mark(text) for text in ("H", "[H", "[Written off", "(", "[Not delivered] H")] == [False] * 5
    assert may_become_mark("[Not delivered" + " x" * 200) is False
    assert may_become_mark("[Not delivered\n") is False


@given(
    st.text("[] \nNotdelivrWbyahumcg,:xX") | st.sampled_from(MARKS), st.sampled_from([*MARKS, "", "[Not"]), st.text()
)
def test_a_stream_shows_what_the_whole_text_shows(first: str, second: str, rest: str) -> None:
    text = first + second + rest
    assert streamed(text) == without_marks(text)
    assert without_marks(without_marks(text)) == without_marks(text)


@given(st.text())
def test_no_name_ends_its_mark(name: str) -> None:
    mark = marks.staff_mark(name)
    assert (mark.count("["), mark.count("]"), mark.endswith("] ")) == (1, 1, True)
    assert len(mark.splitlines()) == 1
    assert without_marks(f"{mark}Hello") == "Hello"
