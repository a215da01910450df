"""Tests of redaction: the parts of a text that are removed, and the parts that stay."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory.redaction import (
    CARD_REMOVED,
    HELD_BACK,
    MAX_PATTERN_LENGTH,
    MAX_PATTERNS,
    MOST_INSTRUCTIONS,
    REDACTED,
    GrowingText,
    RedactionRules,
    pattern_problem,
)

RULES = RedactionRules()
VISA = "4111111111111111"


@pytest.mark.parametrize(
    "number",
    [
        VISA,
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "4111\u00a01111\u20111111 - 1111",
        "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",  # as it is dictated
        "3782 822463 10005",
        "5555555555554444",
        "4222222222222",  # 13 digits
        "6799990100000000019",  # 19 digits
        "٤١١١ ١١١١ ١١١١ ١١١١",
        "+4111111111111111",  # too long for a phone number
    ],
)
def test_a_card_number_is_removed_whatever_stands_around_it(number: str) -> None:
    plus = "+" if number.startswith("+") else ""
    for around in ("{}", "My card is {}, thanks", "no.{}!", "{}\n12/29 123", "<{}>", "a{}b"):
        assert RULES.clean(around.format(number)) == around.format(plus + CARD_REMOVED)
    assert RULES.clean(RULES.clean(number)) == RULES.clean(number)


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112",  # an order number: the check digit is wrong
        "+4915112345671",
        "+49 151 1234 5671",
        "+411111111111116",  # E.164 of fifteen digits with a right check digit by chance
        "411111111111",  # twelve digits
        "41111111111111111111",  # twenty
        "0000000000000000",
        "Call 0151 2345678 or 0171 2345678.",
        "a4111111-1111-4111-8111-111111111111 and 41111111-1111-4111-8111-111111111111",
        "wamid.HBgLNTE5OTk5OTk5OTkVAgASGBQzQTdGNUE1RjY2",
        "4111.1111.1111.1111",
        "12:30 to 14:45 on 2026-11-21, 1,234,567.00",
        "",
    ],
)
def test_what_is_no_card_number_stays(text: str) -> None:
    assert RULES.clean(text) == text


def test_a_card_beside_other_digits_leaves_nothing_of_itself() -> None:
    for text in (
        f"order 12345 {VISA}",
        f"{VISA} 12 29 123",
        f"{VISA} 5555555555554444",
        "+49 151 2345678 4111 1111 1111 1111",
    ):
        assert "1111" not in RULES.clean(text)
        assert CARD_REMOVED in RULES.clean(text)


def test_cards_stay_where_the_client_wants_them() -> None:
    assert RedactionRules(cards=False).clean(VISA) == VISA


def test_hostile_lengths_take_no_hostile_time() -> None:
    """Quadratic algorithms would take minutes and exceed the test's time limit."""
    for text in ("1 " * 50_000, "4" * 100_000, "4- " * 30_000, "4111 1111 1111 1112 " * 5_000, "+1" * 50_000):
        RULES.clean(text)
        RULES.clean_beginning(text)
    worst = RedactionRules(patterns=("(a+)+$", "(a|aa)+b", r"(.*)*x"))
    assert pattern_problem(worst.patterns) == "" or "everywhere" in pattern_problem(worst.patterns)
    worst.clean("a" * 30_000)


# --- patterns --------------------------------------------------------------------------------------------------------
def test_what_a_pattern_matches_is_removed() -> None:
    rules = RedactionRules(patterns=(r"(?i)\bpolicy no\.? \d+", r"[\pL.]+@example\.com"))
    text = "Policy No. 123 of jürgen@example.com, policy no 7"
    assert pattern_problem(rules.patterns) == ""
    assert rules.clean(text) == f"{REDACTED} of {REDACTED}, {REDACTED}"
    assert rules.clean(rules.clean(text)) == rules.clean(text)


@pytest.mark.parametrize(
    "patterns, word",
    [
        ([""], "blank"),
        (["(x"], "missing )"),
        (["(?=x)y"], "Pattern 1 is not a pattern of RE2"),
        ([r"(a)\1"], "RE2"),
        (["x*"], "everywhere"),
        (["ok", r"\b"], "Pattern 2 matches the empty text"),
        ([r"\[redacted\]"], "stand for what was removed"),
        (["card"], "stand for what was removed"),
        (["x" * 201], "201 characters"),
        (["((a{99}){99}){99}"], "RE2"),
        ([r"\pL+x", r"\pL+y"], "Together the patterns are too large"),
        (["x"] * (MAX_PATTERNS + 1), "20 patterns"),
        ([7], "blank"),
    ],
)
def test_a_pattern_that_would_do_harm_is_refused(patterns: list[str], word: str) -> None:
    assert word in pattern_problem(patterns)


def test_a_pattern_that_never_should_have_been_kept_loses_no_message() -> None:
    assert RedactionRules(patterns=("(x", "secret")).clean("(x is secret") == f"(x is {REDACTED}"


# --- what is not one text --------------------------------------------------------------------------------------------
def test_json_keeps_what_it_is_processed_by() -> None:
    raw = {
        "from": VISA,
        "user_id": VISA,
        "timestamp": 4222222222222,
        "text": {"body": f"It is {VISA}"},
        "list": [VISA, {"card_number": VISA, "n": int(VISA), "aliases": [["user", VISA]]}],
        "ok": True,
        "none": None,
        "latitude": 52.5,
    }
    before = json.dumps(raw)
    cleaned = RULES.clean_json(raw)
    assert json.dumps(raw) == before, "the original is left as it is"
    assert cleaned == {
        **raw,
        "text": {"body": f"It is {CARD_REMOVED}"},
        "list": [CARD_REMOVED, {"card_number": CARD_REMOVED, "n": CARD_REMOVED, "aliases": [["user", VISA]]}],
    }
    deep: list[object] = [VISA]
    for _ in range(20_000):
        deep = [deep]
    RULES.clean_json(deep)


def test_a_form_stays_a_form() -> None:
    body = f"From={VISA}&Text=card+4111+1111+1111+1111%21&To=1"
    assert RULES.clean_body(body) == f"From={VISA}&Text=card+%5Bcard+number+removed%5D%21&To=1"
    assert RULES.clean_body("From=%2b1&Text=caf%e9") == "From=%2b1&Text=caf%e9", "nothing to remove, nothing changed"
    assert RULES.clean_body(f'{{"a=b": "{VISA}"') == f'{{"a=b": "{CARD_REMOVED}"'


@pytest.mark.parametrize(
    "rules", [RULES, RedactionRules(patterns=(r"secret \w+!",)), RedactionRules(patterns=(r"SECRET-\d+", "1-SE"))]
)
def test_what_is_shown_of_a_text_that_is_being_written_is_its_beginning(rules: RedactionRules) -> None:
    text = (
        f"Call +49 151 2345. It is 4111 1111 1111 1111, or {VISA}, or ٤١١١ ١١١١ ١١١١ ١١١١. "
        + "secret word! and so on, SECRET-71-SECRET-7 2 " * 20
    )
    whole = rules.clean(text)
    for length in range(len(text) + 1):
        assert whole.startswith(rules.clean_beginning(text[:length])), length
    assert len(rules.clean_beginning(text)) > len(whole) - HELD_BACK - 20


CUT = "é٣+-\n.gaf07 "  # what may stand between the parts of a text, and within an id or a number
A_UUID = "550e8400-e29b-41d4-a716-446655440000"
PARTS = st.sampled_from([*CUT, VISA, "4111 1111 1111 1111", "+49 151 2345 678", A_UUID, "no. 12-34, ", "words "])


@given(st.lists(PARTS, max_size=12), st.integers(1, 9))
def test_a_text_that_grows_is_shown_as_if_it_were_read_anew_each_time(parts: list[str], step: int) -> None:
    text, growing = "".join(parts), GrowingText(RULES)
    for length in [*range(0, len(text), step), len(text)]:
        assert growing.beginning(text[:length]) == RULES.clean_beginning(text[:length])


@pytest.mark.parametrize("words", ["word {} ", "слово {} ", "字{}，"])
def test_of_a_long_text_that_grows_only_the_end_is_looked_at(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    looked: list[int] = []
    clean = RedactionRules.clean
    monkeypatch.setattr(RedactionRules, "clean", lambda rules, text: looked.append(len(text)) or clean(rules, text))
    growing, text = GrowingText(RULES), ""
    for number in range(1_000):
        text += words.format(number)
        growing.beginning(text)
    assert sum(looked) < 5 * len(text), "and not the whole a thousand times"


# --- where it begins and ends ----------------------------------------------------------------------------------------
KEPT = ["id", "ids", "uuid", "mid", "from", "to", "src", "dst", "phone", "phone_number", "address", "aliases"]
KEPT += ["account", "timestamp", "time", "watermark", "message_id", "start_time", "MessageUUID", "userId", "CallID"]
KEPT += ["From", "To", "Timestamp"]


@pytest.mark.parametrize("name", KEPT)
def test_ids_addresses_and_times_are_kept(name: str) -> None:
    assert RULES.clean_json({name: VISA, "in": {name: [VISA, [VISA]]}}) == {name: VISA, "in": {name: [VISA, [VISA]]}}
    assert RULES.clean_body(f"{name}={VISA}&Text={VISA}") == f"{name}={VISA}&Text=%5Bcard+number+removed%5D"


@pytest.mark.parametrize(
    "name", ["valid", "overtime", "idea", "to_do", "From2", "MyFrom", "text", "", "phones", "Uuid"]
)
def test_no_other_name_keeps_a_card(name: str) -> None:
    assert RULES.clean_json({name: VISA}) == {name: CARD_REMOVED}
    assert RULES.clean_json({"id": {name: [VISA]}}) == {"id": {name: [CARD_REMOVED]}}


def test_the_parts_of_a_json_value_are_copied() -> None:
    raw = {"a": [{"b": VISA}]}
    RULES.clean_json(raw)
    assert raw == {"a": [{"b": VISA}]}
    assert RULES.clean_json(VISA) == CARD_REMOVED
    assert RULES.clean_json([VISA]) == [CARD_REMOVED]


@pytest.mark.parametrize(
    "number, is_removed",
    [
        (4222222222222, False),  # 13 digits: as a time in milliseconds
        (10000000000008, True),
        (10000000000009, False),
        (True, False),
        (-4111111111111111, False),
        (6799990100000000019, True),
    ],
)
def test_a_long_number_in_json_may_be_a_card(number: int, is_removed: bool) -> None:
    assert RULES.clean_json({"n": number}) == {"n": CARD_REMOVED if is_removed else number}
    assert RedactionRules(cards=False).clean_json({"n": number}) == {"n": number}


@pytest.mark.parametrize(
    "body, cleaned",
    [
        (f"a=&b={VISA}", "a=&b=%5Bcard+number+removed%5D"),
        (f'  ["a=b", "{VISA}"]', f'  ["a=b", "{CARD_REMOVED}"]'),
        (f"<a b='c'>{VISA}</a>", f"<a b='c'>{CARD_REMOVED}</a>"),
        (f"My card, {VISA}", f"My card, {CARD_REMOVED}"),
        ("", ""),
        ("a=%31&&", "a=%31&&"),
    ],
)
def test_a_body_is_cleaned_as_what_it_is(body: str, cleaned: str) -> None:
    assert RULES.clean_body(body) == cleaned


def test_patterns_up_to_the_limits_are_possible() -> None:
    assert pattern_problem([f"x{number}" for number in range(MAX_PATTERNS)]) == ""
    assert pattern_problem(["x" * MAX_PATTERN_LENGTH]) == ""
    assert "it is not valid text" in pattern_problem(["\ud800"])
    assert pattern_problem(["ok", "   "]) == "Pattern 2 is blank."
    # A letter is an instruction, and each pattern has a few more.
    counted = [pattern_problem(["x{200}" * each, "x{200}" * 4]) for each in range(1, 11)]
    assert counted[0] == ""
    assert f"of {MOST_INSTRUCTIONS:,} steps. Write smaller repetitions." in counted[-1]
    assert [bool(each) for each in counted] == sorted(bool(each) for each in counted)


@pytest.mark.parametrize(
    "text, cleaned",
    [
        ("+49 4111 1111 1111 1111", "+49 4111 1111 1111 1111"),
        ("+491512345 4111111111111111", f"+491512345 {CARD_REMOVED}"),
        ("\uff0b4915112345671", "\uff0b4915112345671"),
        (f"{VISA}   {VISA}", f"{CARD_REMOVED}   {CARD_REMOVED}"),
        (f"{VISA}    {VISA}", f"{CARD_REMOVED}    {CARD_REMOVED}"),
        ("4111-1111-1111-1111-", f"{CARD_REMOVED}-"),
        ("4111   1111   1111   1111", CARD_REMOVED),
        ("4111    1111 1111 1111", "4111    1111 1111 1111"),
    ],
)
def test_a_card_between_other_digits_and_marks(text: str, cleaned: str) -> None:
    assert RULES.clean(text) == cleaned
