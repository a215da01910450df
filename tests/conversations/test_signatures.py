"""Signatures: each secret is tried once for a request, only so many are, and an account counts only while it may."""

from __future__ import annotations

from typing import Any

import pytest

from channels_out.contract import InboundRequest
from channels_out.errors import InboundError
from channels_out.kinds import Channel
from conversations.models import ChannelAccount, Client, RefusedWebhooks
from conversations.services.inbound import signatures
from conversations.services.inbound.signatures import Signatures
from conversations.services.tenants.channel_accounts import as_account
from tests import factories

pytestmark = pytest.mark.django_db


class Signed:
    """An adapter whose requests contain the secret that signed them, and say for whom they are."""

    provider, channel, signed_with = "meta", Channel.WHATSAPP, "app_secret"

    def __init__(self) -> None:
        self.tried: list[str] = []

    def verify(self, request: InboundRequest, account: Any) -> None:
        self.tried.append(account.credentials["app_secret"])
        if account.credentials["app_secret"].encode() != request.body:
            raise InboundError("No.", code="invalid_signature")

    def claimed(self, _request: InboundRequest) -> list[str]:
        return ["1", "2"]


@pytest.fixture
def adapter() -> Any:
    return Signed()


def account(client: Client, address: str, secret: str, **more: Any) -> ChannelAccount:
    values = {"provider": "meta", "channel": "whatsapp", **more}
    return factories.SandboxFactory(client=client, address=address, credentials={"app_secret": secret}, **values)


def of(adapter: Any, body: bytes = b"right") -> Signatures:
    return Signatures(adapter, InboundRequest(method="POST", url="", headers={}, query={}, body=body))


def refused() -> dict[Any, int]:
    return dict(RefusedWebhooks.objects.values_list("channel_account__address", "count"))


def test_each_secret_is_tried_once(adapter: Any, shop: Client) -> None:
    accounts = [account(shop, str(number), secret) for number, secret in enumerate(["right", "wrong"] * 3)]
    these = of(adapter)
    assert [these.fits(as_account(each)) for each in accounts] == [True, False] * 3
    assert adapter.tried == ["right", "wrong"]


@pytest.mark.parametrize(
    "most, most_bytes, body, tried",
    [(2, 10**6, b"four", 2), (10, 12, b"four", 3), (10, 11, b"four", 2), (10, 3, b"four", 1), (3, 10, b"", 3)],
)
def test_only_so_many_secrets_are_tried_and_those_that_were_are_known(
    adapter: Any, shop: Client, monkeypatch: pytest.MonkeyPatch, most: int, most_bytes: int, body: bytes, tried: int
) -> None:
    monkeypatch.setattr(signatures, "MOST_SECRETS_TRIED", most)
    monkeypatch.setattr(signatures, "MOST_BYTES_HASHED", most_bytes)
    accounts = [account(shop, str(number), f"s{number}") for number in range(tried)]
    right = account(shop, "right", body.decode())
    these = of(adapter, body)
    assert [these.fits(as_account(each)) for each in accounts] == [False] * tried
    assert these.fits(as_account(right)) is False, "too late"
    assert len(adapter.tried) == tried
    early = of(adapter, body)
    assert [early.fits(as_account(each)) for each in (right, *accounts, right)] == [True, *[False] * tried, True]


def test_the_accounts_that_signed_and_those_that_did_not(adapter: Any, shop: Client, neighbour: Client) -> None:
    mine, theirs = account(shop, "1", "right"), account(neighbour, "2", "wrong")
    account(shop, "off", "right", is_active=False)
    account(shop, "other", "right", provider="360dialog")
    account(shop, "elsewhere", "right", channel="messenger")
    account(factories.ClientFactory(is_active=False), "closed", "right")
    account(shop, "not asked for", "right")
    these = of(adapter)
    these.read(["1", "2", "off", "other", "elsewhere", "closed", "unknown"])
    assert (these.accounts, these.refused) == ({"1": mine}, {"2": theirs})
    assert these.versions.keys() == {"1", "2"}
    ChannelAccount.objects.filter(pk__in=[mine.pk, theirs.pk]).update(credentials={"app_secret": "changed"})
    these.read(["1", "2"])
    assert (these.accounts.keys(), these.refused.keys()) == ({"1"}, {"2"}), "as they were read first"
    these.require()
    assert refused() == {}


def test_a_request_is_refused_and_counted_for_those_that_did_not_sign_it(adapter: Any, shop: Client) -> None:
    account(shop, "1", "wrong"), account(shop, "2", "wrong too"), account(shop, "3", "right")
    these = of(adapter)
    these.read(["1", "2"])
    with pytest.raises(InboundError) as error:
        these.require()
    assert error.value.code == "invalid_signature"
    assert refused() == {"1": 1, "2": 1}
    these.count_refused(["2"])
    assert refused() == {"1": 1, "2": 2}


def test_a_request_that_names_no_account_of_ours_counts_if_any_signed_it(adapter: Any, shop: Client) -> None:
    signer = account(shop, "3", "right")
    these = of(adapter)
    these.read(["1"])
    these.require()
    assert signatures.signer(adapter, these._request) is None
    for change in ({"is_active": False}, {"is_active": True, "provider": "360dialog"}):
        ChannelAccount.objects.filter(pk=signer.pk).update(**change)
        with pytest.raises(InboundError):
            of(adapter).require()
    assert refused() == {None: 2}


def test_the_signer_of_a_request_is_the_account_that_it_names(adapter: Any, shop: Client) -> None:
    account(shop, "1", "wrong"), account(shop, "3", "right")
    request = of(adapter)._request
    with pytest.raises(InboundError):
        signatures.signer(adapter, request)
    mine = account(shop, "2", "right")
    assert signatures.signer(adapter, request) == mine
