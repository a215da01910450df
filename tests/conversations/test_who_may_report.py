"""Receipts count only for an account that is on and whose secret signed them; and what was read of it is not old."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from channels_out import registry
from channels_out.contract import InboundRequest
from channels_out.kinds import AddressKind
from channels_out.simulators import whatsapp
from channels_out.simulators.meta import signed_by_meta
from conversations.models import ChannelAccount, Client, ContactIdentity, Conversation, Message
from conversations.services.core.appending import NewChunk, append_by_address
from conversations.services.core.statements import THIS_THREAD, finish
from conversations.services.delivery import receipts_bulk
from conversations.services.tenants import account_cache
from convo_project import wsgi
from tests import factories
from tests.conftest import reply_to_all, send_all
from tests.conversations.lines import (
    ANA,
    CHANGES,
    Line,
    account_moved,
    client_off,
    open_line,
)
from tests.fakes.meta import FakeMeta
from tests.routes import Answer, WebServer, assert_failure, written

pytestmark = pytest.mark.django_db


@pytest.fixture(params=["in front", "view"])
def answered(request: pytest.FixtureRequest, meta: FakeMeta, shop: Client) -> Line:
    """A WhatsApp line from which an answer was sent."""
    behind = WebServer(application=wsgi.application)
    line = open_line(meta, shop, behind if request.param == "view" else WebServer())
    reply_to_all()
    send_all()
    assert len(meta.sent) == 1
    return line


def reports(line: Line, word: str = "read") -> Answer:
    return line.posts(line.provider.status_webhook(line.provider.sent[0], word))


def test_the_usual_receipt_is_one_statement(answered: Line) -> None:
    with CaptureQueriesContext(connection) as captured:
        assert reports(answered).json["data"]["receipts"] == 1
    assert len(captured) == 1
    assert Message.objects.get().status == "read"


@pytest.mark.parametrize("word", ["delivered", "read", "failed"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_counts_no_more_reports_nothing(answered: Line, change: Callable[[Line], None], word: str) -> None:
    change(answered)
    before = written()
    for _ in range(2):
        assert_failure(reports(answered, word), 403, code="invalid_signature")
    assert written() == before


def test_a_receipt_for_an_account_that_has_another_number_now_moves_nothing(answered: Line) -> None:
    account_moved(answered)
    assert reports(answered).json["data"] == {"messages": 0, "receipts": 0, "recorded": 1}
    assert Message.objects.get().status == "sent"


def test_another_account_s_receipt_of_the_same_message_id_moves_its_own_message_alone(
    answered: Line, neighbour: Client
) -> None:
    account = factories.SandboxFactory(
        client=neighbour, channel="whatsapp", provider="whatsapp", address="222", credentials={"app_secret": "theirs"}
    )
    ours = Message.objects.get()
    status = whatsapp.status(ours.provider_message_id, "read")
    forged_webhook = signed_by_meta(whatsapp.payload("222", statuses=[status]), "theirs")
    for _ in range(2):
        assert answered.posts(forged_webhook).json["data"] == {"messages": 0, "receipts": 0, "recorded": 1}
    Message.objects.filter(pk=ours.pk).update(channel_account=account)
    assert reports(answered).json["data"]["recorded"] == 1, "and the other way round"
    assert Message.objects.get().status == "sent"


# --- the statements, where the general way is too late to look --------------------------------------------------------
@pytest.fixture
def line(meta: FakeMeta, shop: Client) -> Line:
    return open_line(meta, shop, WebServer())


def known(line: Line) -> Any:
    found = ChannelAccount.objects.select_related("client").annotate(version=account_cache.VERSION)
    return found.get(pk=line.account.pk)


def chunk_of(line: Line, at: datetime) -> NewChunk:
    return NewChunk(line.channel, "", at, "Hello", channel_account_id=line.account.pk)


def test_a_client_that_is_switched_off_between_the_look_and_the_statement_gets_no_chunk(line: Line) -> None:
    now = timezone.now()
    assert finish(append_by_address(THIS_THREAD, chunk_of(line, now), line.account.client_id, ANA, None, "", []))
    client_off(line)
    assert (
        finish(append_by_address(THIS_THREAD, chunk_of(line, now), line.account.client_id, ANA, None, "", [])) is None
    )


CHANGED: dict[str, Callable[[Line], Any]] = {
    "account": lambda line: ChannelAccount.objects.filter(pk=line.account.pk).update(name="Renamed"),
    "client": lambda line: Client.objects.filter(pk=line.account.client_id).update(longest_wait=timedelta(seconds=9)),
}


@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED)
def test_whatever_changed_of_account_or_client_makes_what_was_read_of_it_old(
    line: Line, change: Callable[[Line], Any]
) -> None:
    now, before = timezone.now(), known(line).version
    where = (line.account.client_id, ANA, None, "", [])
    assert finish(append_by_address(THIS_THREAD, chunk_of(line, now), *where, before))
    change(line)
    assert finish(append_by_address(THIS_THREAD, chunk_of(line, now), *where, before)) is None
    assert finish(append_by_address(THIS_THREAD, chunk_of(line, now), *where, known(line).version))


@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED)
def test_receipts_of_a_version_that_is_old_move_nothing(answered: Line, change: Callable[[Line], Any]) -> None:
    [event] = read_by_adapter(answered)
    before = known(answered).version
    change(answered)
    assert (
        finish(receipts_bulk.apply(THIS_THREAD, answered.account.client_id, answered.account.pk, [event], before))
        == set()
    )
    assert Message.objects.get().status == "sent"
    assert finish(
        receipts_bulk.apply(
            THIS_THREAD, answered.account.client_id, answered.account.pk, [event], known(answered).version
        )
    )
    assert Message.objects.get().status == "read"


def read_by_adapter(line: Line) -> list[Any]:
    """The receipt that the provider posts, as the adapter reads it."""
    webhook = line.provider.status_webhook(line.provider.sent[0], "read")
    headers = {name.lower(): value for name, value in webhook.headers.items()}
    arrived = InboundRequest("POST", "https://convo.example/webhooks/whatsapp/inbound", headers, {}, webhook.body)
    adapter = registry.recognise("whatsapp", arrived)
    assert adapter is not None
    return adapter.parse(arrived)


def test_all_addresses_of_a_sender_are_known_or_they_are_learnt(line: Line, shop: Client) -> None:
    mine = Conversation.objects.get(device__address=ANA).contact
    args = (chunk_of(line, timezone.now()), shop.pk, ANA, None, "")
    assert finish(append_by_address(THIS_THREAD, *args, ["ana-s-id"])) is None, "nobody's"
    other = factories.ContactFactory(client=shop, user_id="other")
    identity = ContactIdentity.objects.create(
        contact=other, client=shop, channel="whatsapp", kind=AddressKind.BSUID, address="ana-s-id"
    )
    assert finish(append_by_address(THIS_THREAD, *args, ["ana-s-id"])) is None, "somebody else's"
    for changes in ({"contact": mine, "channel": "sms"}, {"contact": mine, "channel": "whatsapp"}):
        ContactIdentity.objects.filter(pk=identity.pk).update(**changes)
        appended = finish(append_by_address(THIS_THREAD, *args, ["ana-s-id"]))
        assert bool(appended) == (changes["channel"] == "whatsapp")
