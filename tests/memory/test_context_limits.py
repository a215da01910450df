"""The prompt at its limits: what fits to the last token is in, and what would say too little is left out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from memory.context import (
    FACT_LENGTH,
    MINIMUM_BUDGET,
    WORTH_SHORTENING,
    ConversationView,
    Prompt,
    PromptEntry,
    PromptPart,
    build_prompt,
    token_budget,
)

ADA = ConversationView("You are Ada.")


def spent(prompt: Prompt) -> int:
    return sum(part.tokens for part in prompt.parts)


def talk(count: int) -> list[PromptEntry]:
    return [
        PromptEntry("ai" if number % 2 else "user", f"{number} " + "word " * 40, position=number + 3)
        for number in range(count)
    ]


@pytest.mark.parametrize("count", [41, 42], ids=["the person last", "the assistant last"])
@pytest.mark.parametrize("contact", [[("Name", "Ann")], []], ids=["with background", "without"])
def test_what_fits_to_the_last_token_is_in(count, contact):
    view = replace(ADA, entries=talk(count), contact=contact)
    whole = build_prompt(replace(view, budget=100_000))
    assert spent(whole) > MINIMUM_BUDGET
    enough = spent(whole) + (0 if contact else room_of_the_stand_in())
    notes = [part.note for part in build_prompt(replace(view, budget=enough)).parts if part.note]
    assert notes == []
    smaller = build_prompt(replace(view, budget=enough - 1))
    assert [bool(part.note) for part in smaller.parts if part.note] == [True]
    assert spent(smaller) < enough


def room_of_the_stand_in() -> int:
    """Return the tokens that are kept for a sentence of Convo's before the entries, and not needed in the end."""
    view = replace(ADA, entries=[PromptEntry("ai", "Hi")])
    return next(part.tokens for part in build_prompt(view).parts if part.name == "stand_in")


def test_an_entry_that_would_be_shortened_to_too_little_is_left_out():
    view = replace(ADA, entries=[PromptEntry("user", "word " * 400, position=3), PromptEntry("user", "Hi", position=4)])
    kept: list[int] = []
    left_out = 0
    system = spent(build_prompt(replace(view, entries=[])))
    for window in range(400, 700):
        parts = build_prompt(replace(view, window=window)).parts
        shortened = [part.tokens for part in parts if part.position == 3]
        kept += shortened
        left_out += not shortened
    assert min(kept) >= WORTH_SHORTENING
    assert system < 400
    assert max(kept) < 400


def test_of_what_was_said_nothing_is_left_out_in_the_middle():
    said = ["Old", "word " * 400, "word " * 400, "word " * 400, "Hi"]
    view = replace(ADA, entries=[PromptEntry("user", text, position=at) for at, text in enumerate(said, start=3)])
    kept = set()
    for window in range(400, 2_000):
        parts = build_prompt(replace(view, window=window)).parts
        kept.add(tuple(part.position for part in parts if part.position))
    assert {positions[0] for positions in kept} >= {3, 5}, "all fit, and not even the second"
    assert [positions for positions in kept if positions != tuple(range(positions[0], 8))] == []


def test_a_fact_has_one_line_of_two_hundred_characters_and_blank_ones_are_left_out():
    facts = [("Name", "a" * (FACT_LENGTH + 50)), ("City", " \n"), ("Two\nlines", "of\r\ntext")]
    text = build_prompt(replace(ADA, contact=facts)).messages[1]["content"]
    assert "City" not in text
    assert "- Two lines: of text" in text
    [name] = [line for line in text.splitlines() if line.startswith("- Name: ")]
    assert len(name) - len("- Name: ") <= FACT_LENGTH


def test_every_section_has_its_heading_and_place():
    text = build_prompt(
        replace(
            ADA,
            contact=[("Name", "Ann")],
            variables=[("due", "Friday")],
            memory="Likes tea.",
            notes=[("Topic", "Parcels")],
            own_steps=["Ask again"],
            summary="So far.",
            now=datetime(2026, 11, 9, 8, 5, tzinfo=UTC).replace(tzinfo=None),  # without a zone it counts as UTC
        )
    ).messages[1]["content"]
    headings = [line[2:] for line in text.splitlines() if line.startswith("# ")]
    assert headings == [
        "Who you are talking to",
        "Given when this conversation was opened",
        "What is known of the person",
        "What you noted",
        "Steps still to do that you set yourself",
        "Summary of this conversation so far",
        "Date and time",
    ]
    assert "Monday, 9 November 2026, 08:05 (UTC, UTC+00:00)" in text
    assert "- due: Friday" in text
    assert "- Ask again" in text


def test_what_is_left_out_is_counted_by_its_reason():
    blank = [PromptEntry("user", "Hi"), PromptEntry("ai", " "), PromptEntry("user", "\n")]
    parts = build_prompt(replace(ADA, entries=blank, older=1_234)).parts
    notes = [part for part in parts if part.name == "entry" and part.message < 0]
    assert notes == [
        PromptPart("entry", 0, "1,234 older left out: not among the newest, nor summarised yet"),
        PromptPart("entry", 0, "2 left out: blank"),
    ]


def test_the_assistant_s_text_that_is_nothing_but_a_mark_is_kept():
    said = build_prompt(replace(ADA, entries=[PromptEntry("user", "Hi"), PromptEntry("ai", "[Not delivered] ")]))
    assert said.messages[2]["content"].startswith("[Not delivered]")


def test_a_short_section_is_whole_beside_one_that_is_too_long():
    prompt = build_prompt(replace(ADA, system_prompt="word " * 5_000, goal="Sell", pending_steps=["Ask"], budget=1_000))
    notes = {part.name: part.note for part in prompt.parts}
    assert (notes["goal"], notes["steps"], bool(notes["system"])) == ("", "", True)
    [system] = [part.tokens for part in prompt.parts if part.name == "system"]
    assert 550 < system <= 650, "the share of the instructions, and no less than there is room"


@pytest.mark.parametrize(
    ("changes", "tokens"),
    [
        ({"ratio": -1.0}, 8_000),
        ({"window": -5}, 8_000),
        ({"window": 4_000, "reserve": -100}, 4_000),
        ({"window": 4_001, "reserve": 2_001}, 2_001),
        ({"budget": 999}, 1_000),
        ({"budget": 1_001}, 1_001),
        ({"window": 401}, 401),
        ({"window": 399}, 400),
    ],
)
def test_the_budget_at_its_limits(changes, tokens):
    assert token_budget(replace(ADA, **changes)) == tokens
