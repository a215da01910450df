"""A provider's usual payload counts only while its account is on, its client is on, and the account's secret signed it.

The account is in this process's cache and the person is in a conversation, so one statement would settle the payload;
each case is tried in front of Django and behind.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from channels_out.simulators.meta import SignedWebhook
from conversations.models import ChannelAccount, Chunk, Client, Contact, ContactIdentity, Conversation
from conversations.services.core import appending
from conversations.services.core.ledger import SYSTEM
from conversations.services.retention import erasure
from conversations.services.transitions import takeover
from convo_project import wsgi
from tests import factories
from tests.conftest import reply_to_all
from tests.conversations.lines import (
    ANA,
    BEA,
    CHANGES,
    Line,
    account_moved,
    account_off,
    client_off,
    open_line,
)
from tests.fakes.messenger import FakeMessenger
from tests.fakes.meta import FakeMeta
from tests.routes import WebServer, assert_failure, written

pytestmark = pytest.mark.django_db


@pytest.fixture(params=["WhatsApp in front", "WhatsApp view", "Messenger"])
def line(request: pytest.FixtureRequest, shop: Client) -> Iterator[Line]:
    """A line whose account this process knows. Ana is in a conversation, and Bea was in one."""
    name = request.param.partition(" ")[0]
    fakes: dict[str, Any] = {"WhatsApp": FakeMeta, "Messenger": FakeMessenger}
    server = WebServer(application=wsgi.application) if "view" in request.param else WebServer()
    with fakes[name]() as provider:
        yield open_line(provider, shop, server)


# --- messages ---------------------------------------------------------------------------------------------------------
def test_the_usual_message_is_one_statement(line: Line) -> None:
    """That statement is the subject of this file: its conditions stand in it."""
    with CaptureQueriesContext(connection) as captured:
        assert line.hears("Once more").status == 200
    assert len(captured) == 1


@pytest.mark.parametrize("sender", [BEA, "51955555555"], ids=["was in one", "new"])
def test_a_message_that_opens_a_conversation_is_tried_in_an_open_one_only_once(line: Line, sender: str) -> None:
    with CaptureQueriesContext(connection) as captured:
        assert line.hears("Hello again", sender=sender).status == 200
    assert [each["sql"] for each in captured].count(appending.BY_ADDRESS) == 1


@pytest.mark.parametrize("sender", [ANA, BEA, "51955555555"], ids=["in a conversation", "was in one", "new"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_counts_no_more_delivers_no_message(line: Line, change: Callable[[Line], None], sender: str) -> None:
    change(line)
    before = written()
    for _ in range(2):
        assert_failure(line.hears("Anybody there?", sender=sender), 403, code="invalid_signature")
    assert written() == before


@pytest.mark.parametrize("change", [account_off, client_off, account_moved])
def test_another_client_s_account_with_the_same_secret_takes_it_for_nobody(
    line: Line, neighbour: Client, change: Callable[[Line], None]
) -> None:
    """Two clients may have their numbers in one app of the provider's, whose secret signs for both."""
    factories.SandboxFactory(
        client=neighbour,
        channel=line.channel,
        provider=line.account.provider,
        address="222",
        credentials=line.account.credentials,
    )
    change(line)
    for sender in (ANA, BEA, "51955555555"):
        before = Chunk.objects.count()
        answer = line.hears("Anybody there?", sender=sender)
        assert answer.json["data"] == {"messages": 0, "receipts": 0, "recorded": 1}
        assert Chunk.objects.count() == before


def test_a_secret_that_was_rotated_signs_from_then_on(line: Line) -> None:
    line.rotate("another-secret")
    assert line.hears("Too early").status == 403
    line.provider.app_secret = "another-secret"
    for sender in (ANA, BEA):
        assert line.takes("Now", sender=sender).content == "Now"


@pytest.mark.parametrize("sender", [ANA, BEA])
def test_an_account_that_is_switched_on_again_takes_messages_again(line: Line, sender: str) -> None:
    account_off(line)
    assert line.hears("Too early", sender=sender).status == 403
    ChannelAccount.objects.update(is_active=True)
    chunk = line.takes("Now", sender=sender)
    assert (chunk.content, chunk.conversation.channel_account_id) == ("Now", line.account.pk)


@pytest.mark.parametrize("sender", [ANA, BEA])
def test_an_account_of_another_client_since_a_moment_takes_messages_for_that_client(
    line: Line, neighbour: Client, sender: str
) -> None:
    ChannelAccount.objects.filter(pk=line.account.pk).update(client=neighbour)
    before = Chunk.objects.filter(conversation__client=line.account.client_id).count()
    for _ in range(2):
        conversation = line.takes("Whose am I?", sender=sender).conversation
        assert (conversation.client_id, conversation.contact.client_id) == (neighbour.pk, neighbour.pk)
    assert Chunk.objects.filter(conversation__client=line.account.client_id).count() == before


@pytest.fixture
def their_line(line: Line, neighbour: Client) -> Line:
    """The neighbour's line at the same provider, with a secret of its own; Ana and Bea wrote there too."""
    account = factories.SandboxFactory(
        client=neighbour,
        channel=line.channel,
        provider=line.account.provider,
        address="222",
        credentials={**line.account.credentials, "app_secret": "theirs"},
    )
    return Line(line.provider, account, line.server)


def in_the_name_of(webhook: SignedWebhook, ours: Line, theirs: Line) -> Any:
    """The payload as if it were about the other line's number."""
    return json.loads(webhook.body.decode().replace(ours.address, theirs.address))


def test_one_client_s_secret_signs_nothing_for_another_s_number(line: Line, their_line: Line) -> None:
    payload = in_the_name_of(line.provider.text_webhook("Forged", sender=ANA), line, their_line)
    for _ in range(2):
        before = written()
        assert_failure(line.posts(line.provider.signed(payload)), 403, code="invalid_signature")
        assert written() == before
    line.takes("Still known")


def test_a_person_of_two_clients_has_a_conversation_with_each(line: Line, their_line: Line) -> None:
    payload = in_the_name_of(line.provider.text_webhook("To the neighbour", sender=ANA), line, their_line)
    ours, line.provider.app_secret = line.provider.app_secret, "theirs"
    assert line.posts(line.provider.signed(payload)).json["data"]["messages"] == 1
    line.provider.app_secret = ours
    theirs = Conversation.objects.get(client=their_line.account.client_id)
    for words in ("To the shop", "And again"):
        mine = line.takes(words).conversation
        assert (mine.client_id, mine.contact.client_id) == (line.account.client_id, line.account.client_id)
    assert theirs.chunks.filter(role="user").count() == 1


def test_a_payload_for_two_clients_is_taken_for_the_one_whose_secret_signed_it(line: Line, their_line: Line) -> None:
    webhook = line.provider.text_webhook("Hello both", sender=ANA)
    both = json.loads(webhook.body)
    both["entry"] += in_the_name_of(webhook, line, their_line)["entry"]
    answer = line.posts(line.provider.signed(both))
    assert answer.json["data"] == {"messages": 1, "receipts": 0, "recorded": 0}
    assert not Conversation.objects.filter(client=their_line.account.client_id).exists()


# --- the person and the conversation ----------------------------------------------------------------------------------
def test_an_address_on_another_channel_is_somebody_else_s(line: Line, shop: Client) -> None:
    other = factories.ContactFactory(client=shop, user_id="other", name="Other", phone="+51900000000", is_guest=False)
    ContactIdentity.objects.create(contact=other, client=shop, channel="orb", kind="user", address=ANA)
    factories.ConversationFactory(client=shop, contact=other, channel=line.channel, channel_account=line.account)
    assert line.takes("It is Ana").conversation.contact_id != other.pk


def test_a_conversation_on_another_channel_takes_no_message(line: Line) -> None:
    mine = Conversation.objects.get(device__address=ANA)
    Conversation.objects.filter(pk=mine.pk).update(channel="sms")
    assert line.takes("Hello").conversation_id != mine.pk


@pytest.mark.parametrize("sender", [ANA, BEA])
def test_who_opted_out_meanwhile_is_heard_and_not_answered(line: Line, sender: str) -> None:
    Contact.objects.update(opted_out={line.channel: {"word": "STOP"}})
    Conversation.objects.update(reply_owed=False)
    chunk = line.takes("Where is it?", sender=sender)
    assert chunk.content == "Where is it?"
    assert not chunk.conversation.reply_owed


def test_who_was_erased_meanwhile_begins_anew(line: Line) -> None:
    before = Conversation.objects.get(device__address=ANA).contact
    Contact.objects.filter(pk=before.pk).update(known="Prefers mornings.")
    erasure.begin(before.pk, actor=SYSTEM, now=timezone.now())
    chunk = line.takes("Hello")
    assert chunk.conversation.contact_id != before.pk
    assert "mornings" not in chunk.conversation.chunks.get(role="memory").content


@pytest.mark.parametrize("status", ["expired", "closed", "archived"])
def test_a_conversation_that_ended_a_moment_ago_takes_no_message(line: Line, status: str) -> None:
    ended = Conversation.objects.get(device__address=ANA)
    by = "user" if status == "closed" else "timeout"
    Conversation.objects.filter(pk=ended.pk).update(
        status=status, ended_at=timezone.now(), ended_by=by, reply_owed=False, reply_due_at=None, burst_began_at=None
    )
    assert line.takes("Hello").conversation_id != ended.pk
    assert ended.chunks.filter(role="user").count() == 1


def test_a_stale_conversation_becomes_active_again(line: Line) -> None:
    stale = Conversation.objects.get(device__address=ANA)
    Conversation.objects.filter(pk=stale.pk).update(status="stale")
    assert line.takes("Hello").conversation_id == stale.pk
    stale.refresh_from_db()
    assert stale.status == "active"
    assert stale.events.filter(kind="revived").count() == 1


def test_a_conversation_that_a_colleague_took_a_moment_ago_is_not_answered(line: Line) -> None:
    conversation = Conversation.objects.get(device__address=ANA)
    takeover.take_over(conversation.pk, actor=SYSTEM, now=timezone.now(), name="Maria")
    assert line.takes("Anybody?").conversation_id == conversation.pk
    reply_to_all()
    newest = conversation.chunks.order_by("-position").first()
    assert newest is not None
    assert newest.content == "Anybody?"


@pytest.mark.parametrize("unknown", [{"phone": None}, {"name": ""}, {"phone": None, "name": ""}])
def test_a_phone_or_name_that_was_not_known_is_learnt(meta: FakeMeta, shop: Client, unknown: dict[str, Any]) -> None:
    line = open_line(meta, shop, WebServer())
    Contact.objects.update(**unknown)
    line.takes("It is me")
    contact = Conversation.objects.get(device__address=ANA).contact
    assert (contact.phone, contact.name) == (f"+{ANA}", "Ana")
