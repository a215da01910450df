"""Phone numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels_out.kinds import Channel
from channels_out.phones import e164, from_whatsapp, matching_key, phone_address, ways_to_write


@pytest.mark.parametrize(
    ("raw", "region", "expected"),
    [
        ("+51 999 999 999", None, "+51999999999"),
        ("51999999999", None, "+51999999999"),
        ("0051 999-999-999", None, "+51999999999"),
        ("\u202a+51 999\u00a0999 999\u202c", None, "+51999999999"),
        ("+1 (650) 555-1234", None, "+16505551234"),
        ("16505551234", None, "+16505551234"),
        ("+5215512345678", None, "+5215512345678"),
        ("5215512345678", None, "+5215512345678"),
        ("+39 06 1234 5678", None, "+390612345678"),
        ("999 999 999", "PE", "+51999999999"),
        ("51999999999", "PE", "+51999999999"),
        ("+16505551234", "PE", "+16505551234"),
        ("16505551234", "PE", "+16505551234"),
        ("(650) 253-0000", "US", "+16502530000"),
        ("999 999 999", "XX", None),
        (" 0051 999 999 999 ", None, "+51999999999"),
        ("+5215512345678", "PE", "+5215512345678"),
        ("5215512345678", "PE", None),  # a mistyped local number becomes none of another country
        ("99999999", "PE", None),
    ],
)
def test_a_number_is_written_one_way(raw: str, region: str | None, expected: str | None) -> None:
    assert e164(raw, region) == expected


@pytest.mark.parametrize(
    "raw",
    [
        "",
        " ",
        "+",
        "abc",
        "5678",
        "+51",
        "MTN",
        "1-800-FLOWERS",
        "+44 20 7946 0958 ext 3",
        "+999123456789",
        "++51999999999",
        "9" * 16,
        "9" * 5000,
        "PE.1234",
        "51999999999@c.us",
        "999 999 999",
        "\x00+51999999999",
        "\ud83d",
        "+51 999;999 999",
        "+51 99999",
    ],
)
def test_nonsense_is_no_number(raw: str) -> None:
    assert e164(raw) is None


@given(st.text(max_size=45) | st.text("+0123456789 ()-./", max_size=45), st.sampled_from([None, "PE", "US"]))
def test_any_text_is_a_number_or_none(raw: str, region: str | None) -> None:
    number = e164(raw, region)
    assert number is None or e164(number) == number


@pytest.mark.parametrize(
    ("digits", "expected"),
    [
        ("51999999999", "+51999999999"),
        ("5215512345678", "+5215512345678"),
        ("5678", None),
        ("123456", None),
        ("1234567", "+1234567"),
        ("1" * 15, "+" + "1" * 15),
        ("0" * 10, None),
        ("9" * 16, None),
        ("", None),
    ],
)
def test_a_whatsapp_id_is_a_number(digits: str, expected: str | None) -> None:
    assert from_whatsapp(digits) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("+5215512345678", "+525512345678"),
        ("+5511987654321", "+551187654321"),
    ],
)
def test_two_ways_to_write_a_subscriber_match(one: str, other: str) -> None:
    assert matching_key(one) == matching_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("+5491123456789", "+541123456789"),  # Argentina: may be somebody's landline
        ("+5511932345678", "+551132345678"),  # Brazil: 3… is a landline
        ("+52155123456789", "+5255123456789"),  # one digit too many
        ("+51999999999", "+51999999998"),
    ],
)
def test_different_subscribers_do_not_match(one: str, other: str) -> None:
    assert matching_key(one) != matching_key(other)


@pytest.mark.parametrize(
    ("phone", "ways"),
    [
        ("+525512345678", ["+525512345678", "+5215512345678"]),
        ("+5215512345678", ["+5215512345678", "+525512345678"]),
        ("+551187654321", ["+551187654321", "+5511987654321"]),
        ("+5511987654321", ["+5511987654321", "+551187654321"]),
        ("+551132345678", ["+551132345678"]),
        ("+51999999999", ["+51999999999"]),
    ],
)
def test_a_subscriber_is_searched_for_in_every_way_to_write_the_number(phone: str, ways: list[str]) -> None:
    assert ways_to_write(phone) == ways


def test_a_phone_number_is_an_address_where_phones_are_reached() -> None:
    reached = {channel for channel in Channel if phone_address(channel, "+51999999999") == "51999999999"}
    assert reached == {Channel.WHATSAPP, Channel.SMS, Channel.VOICE}
    assert {phone_address(channel, "+51999999999") for channel in set(Channel) - reached} == {None}
    assert {phone_address(channel, phone) for channel in Channel for phone in (None, "")} == {None}
