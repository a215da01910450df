"""Plivo's signatures: the vectors, the published package, and every form of a request."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plivo.utils import validate_signature, validate_v3_signature

from channels_out.adapters import plivo
from channels_out.adapters.plivo_sms import PlivoSmsAdapter
from channels_out.contract import Account, InboundRequest
from channels_out.errors import InboundError
from channels_out.simulators import plivo_payloads as payloads
from tests.sizes import times

TOKEN, NONCE = "test_auth_token", "05429567804466091622"
VOICE = "https://example.com/webhooks/voice/inbound"
SMS = "https://example.com/webhooks/sms/inbound"
TURN = {
    "CallUUID": "abc",
    "From": "14155551234",
    "To": "14155550000",
    "Speech": "I have a billing question",
    "Digits": "",
}
HELLO = payloads.sms(sender="51999999999", to="14155550000", text="Größe? 👍 a&b=c")


def request(form, url=SMS, method="POST", token=TOKEN, version="V3", **headers) -> InboundRequest:
    body, signed = payloads.signed(form, url=url, token=token, method=method, version=version)
    lower = {name.lower(): value for name, value in signed.items()} | headers
    query = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
    return InboundRequest(method, url, lower, query, body)


def takes(arrived: InboundRequest, token: str = TOKEN) -> bool:
    try:
        PlivoSmsAdapter().verify(arrived, Account("1", {"auth_token": token}))
    except InboundError as error:
        assert error.code == "invalid_signature"
        return False
    return True


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (VOICE, "XurbBdGhohMvKV83dyvxSF+0kwDpxPeKqLPTJzoJIfI="),
        (VOICE + "?turn=2&a=b", "9BywVlmYF/TgPjVbGb3h/NsJw0w+JvAUJ2jPXwvGeU8="),
    ],
)
def test_the_vectors_of_v3(url: str, expected: str) -> None:
    signed = plivo.signed_by_v3("POST", url, {name: [value] for name, value in TURN.items()})
    assert plivo.signature(TOKEN, signed, NONCE, True) == expected


def test_the_vector_of_v2() -> None:
    expected = "R1hiT2Kp/lOpCAgaMdkHEfIxkgAfcD8PhTRDxW3iDjk="
    assert plivo.signature(TOKEN, plivo.signed_by_v2(SMS + "?a=b"), NONCE, False) == expected


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
FORMS = st.dictionaries(WORDS.filter(bool), WORDS, max_size=5)
ASCII = st.text(st.characters(codec="ascii"), min_size=1, max_size=8)
QUERIES = st.dictionaries(ASCII, ASCII, max_size=4)  # the package stumbles over anything else in a query


@settings(max_examples=times(40, 400), deadline=None)
@given(form=FORMS, query=QUERIES, method=st.sampled_from(["POST", "GET"]))
def test_the_published_package_agrees_on_v3(form, query, method) -> None:
    url = SMS + (f"?{urlencode(query)}" if query else "")
    arrived = request({} if method == "GET" else form, url, method)
    given_signature = arrived.headers["x-plivo-signature-v3"]
    nonce = arrived.headers["x-plivo-signature-v3-nonce"]
    params = {} if method == "GET" else dict(form)
    assert validate_v3_signature(method, url, nonce, TOKEN, given_signature, params)
    assert takes(arrived)
    assert not validate_v3_signature(method, url, nonce, "another", given_signature, dict(params))


def test_the_published_package_agrees_on_v2() -> None:
    arrived = request(HELLO, version="V2")
    nonce = arrived.headers["x-plivo-signature-v2-nonce"]
    assert validate_signature(SMS, nonce, arrived.headers["x-plivo-signature-v2"], TOKEN)
    assert takes(arrived)


def test_fields_given_several_times_are_signed_in_order() -> None:
    body = b"a=2&b=x&a=10&a=1"
    signed = plivo.signed_by_v3("POST", SMS, plivo.form(body))
    assert signed == SMS + "?a1a10a2bx"
    signature = plivo.signature(TOKEN, signed, NONCE, True)
    assert validate_v3_signature("POST", SMS, NONCE, TOKEN, signature, {"a": ["2", "10", "1"], "b": "x"})


@pytest.mark.parametrize("version", ["V3", "MA-V3", "V2", "MA-V2"])
def test_each_of_the_four_headers_counts(version: str) -> None:
    assert takes(request(HELLO, version=version))
    assert not takes(request(HELLO, version=version, token="other"))
    assert PlivoSmsAdapter().recognises(request(HELLO, version=version))


def test_the_main_account_s_signature_counts_beside_a_subaccount_s() -> None:
    arrived = request(HELLO, version="MA-V3")
    arrived = InboundRequest(
        "POST", SMS, {**arrived.headers, "x-plivo-signature-v3": "A" * 44}, arrived.query, arrived.body
    )
    assert takes(arrived)


def test_any_of_several_signatures_counts() -> None:
    arrived = request(HELLO)
    good = arrived.headers["x-plivo-signature-v3"]
    several = {**arrived.headers, "x-plivo-signature-v3": f"{'A' * 44}, {good}"}
    assert takes(InboundRequest("POST", SMS, several, {}, arrived.body))


def test_a_good_v2_does_not_help_a_bad_v3() -> None:
    """V2 covers no form: an attacker who could choose it could change the message."""
    arrived = request(HELLO, version="V2")
    changed = arrived.body.replace(b"MessageUUID=", b"MessageUUID=x")
    assert takes(InboundRequest("POST", SMS, arrived.headers, {}, changed)), "the weakness of V2"
    for header in ("x-plivo-signature-v3", "x-plivo-signature-ma-v3", "x-plivo-signature-v3-nonce"):
        assert not takes(InboundRequest("POST", SMS, {**arrived.headers, header: "A" * 44}, {}, changed))


@pytest.mark.parametrize(
    "url",
    [
        SMS.replace("https", "http"),
        SMS.replace("example.com", "internal:8000"),
        SMS + "/",
        SMS + "?a=b",
        SMS.replace("sms", "voice"),
    ],
)
def test_case_19_the_address_must_be_the_public_one(url: str) -> None:
    arrived = request(HELLO)
    assert not takes(InboundRequest("POST", url, arrived.headers, {}, arrived.body))


def test_a_query_is_signed_whatever_its_order_and_escapes() -> None:
    arrived = request(TURN, VOICE + "?turn=1&a=b%20c")
    assert takes(InboundRequest("POST", VOICE + "?a=b+c&turn=1", arrived.headers, {}, arrived.body))
    assert not takes(InboundRequest("POST", VOICE + "?a=b+c&turn=2", arrived.headers, {}, arrived.body))


def test_a_get_is_signed_by_its_query() -> None:
    url = f"{VOICE}?{urlencode(TURN)}"
    arrived = request({}, url, "GET")
    assert takes(arrived)
    assert plivo.fields(arrived)["Speech"] == "I have a billing question"
    assert not takes(InboundRequest("GET", url + "x", arrived.headers, {}, b""))


def test_a_form_of_too_many_fields_does_not_verify() -> None:
    arrived = request(HELLO)
    body = b"&".join(b"a%d=1" % number for number in range(2000))
    assert not takes(InboundRequest("POST", SMS, arrived.headers, {}, body))
