"""Doors that many threads knock at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from conversations.engines import registry
from conversations.models import ChannelAccount, Client
from tests.races import doors
from tests.races.hesitant import Hesitant
from tests.races.threads import dispatching, keeping_connections

pytest.register_assert_rewrite("tests.races.invariants")


@pytest.fixture(scope="module", autouse=True)
def _connections() -> Iterator[None]:
    """Kept from one round, and one test, to the next, but not for other folders, where tests count connections."""
    with keeping_connections():
        yield


@pytest.fixture
def account(shop: Client) -> ChannelAccount:
    """The shop's account on WhatsApp, which takes no idempotency key; nothing in this folder sends over it."""
    ChannelAccount.objects.filter(client=shop, channel="whatsapp").delete()
    return ChannelAccount.objects.create(
        client=shop,
        channel="whatsapp",
        provider="whatsapp",
        address="1234567890",
        credentials={"access_token": "token", "app_secret": "secret", "verify_token": "verify"},
    )


@pytest.fixture(params=["front_door", "django_view", "provider"])
def says(request: pytest.FixtureRequest, shop: Client, key: str, account: ChannelAccount) -> doors.Says:
    """Each of the ways a message comes in."""
    if request.param == "provider":
        return doors.provider(account)
    making: doors.Says = getattr(doors, request.param)(shop, key)
    return making


@pytest.fixture
def own_json(shop: Client, key: str) -> doors.Says:
    """Our own JSON at the front door."""
    return doors.front_door(shop, key)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[Hesitant]:
    """The assistant's engine, and a dispatcher that asks it."""
    settings.DISPATCH_POLL_SECONDS = 0.01
    engine = Hesitant()
    monkeypatch.setitem(registry.ENGINES, "offline", engine)
    with dispatching():
        yield engine
        for call in engine.all_calls:  # a test that failed left some waiting
            call.fail()
