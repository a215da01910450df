"""Rows as models without the ORM's queries: the same values, whatever the model."""

from __future__ import annotations

import threading

import pytest
from django.db import connection, transaction
from django.db.models import Model
from django.utils import timezone

from conversations.models import (
    Assistant,
    ChannelAccount,
    Chunk,
    Client,
    Contact,
    Conversation,
    InboundEvent,
    Message,
    RollingSummary,
    Step,
    Turn,
)
from conversations.services.core.locking import lock
from conversations.services.core.sql import PreparedSelect, follow, insert, row, update
from tests import factories
from tests.races.threads import eventually

pytestmark = pytest.mark.django_db

WAITS_FOR_US = "SELECT 1 FROM pg_locks WHERE NOT granted AND transactionid = pg_current_xact_id()::xid"
MODELS = [
    Assistant,
    ChannelAccount,
    Chunk,
    Client,
    Contact,
    Conversation,
    InboundEvent,
    Message,
    RollingSummary,
    Step,
    Turn,
]


def values(record: Model) -> dict[str, object]:
    return {field.attname: getattr(record, field.attname) for field in record._meta.concrete_fields}


@pytest.fixture
def session():
    client = factories.ClientFactory()
    account = factories.SandboxFactory(client=client, channel="sms", credentials={"token": "a secret"})
    assistant = factories.AssistantFactory(client=client)
    session = factories.ConversationFactory(
        client=client, channel="sms", channel_account=account, assistant=assistant, metadata={"a": [1, None, "ü"]}
    )
    now = timezone.now()
    chunk = Chunk.objects.create(conversation=session, position=1, role="user", content="Hello", created_at=now)
    Turn.objects.create(
        conversation=session, attempt=1, inbound_sequence=1, lease_until=now, prompt={"messages": []}, cost="0.12345678"
    )
    Message.objects.create(conversation=session, chunk=chunk, channel_account=account, to_address="1", to_kind="user")
    Step.objects.create(conversation=session, description="Ask")
    RollingSummary.objects.create(conversation=session)
    InboundEvent.objects.create(client=client, channel="sms", provider="sandbox", reason="unknown", raw={"a": 1})
    return session


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_a_record_is_what_the_orm_reads(session, model):
    expected = model.objects.get()
    [[read]] = PreparedSelect(f"SELECT {{r}} FROM {model._meta.db_table} r", r=model).all()
    assert values(read) == values(expected)
    assert read == expected
    assert read._state.adding is False


def test_an_outer_join_that_finds_nothing_is_none_and_other_columns_come_last(session):
    found = PreparedSelect(
        "SELECT {s}, {a}, s.goal || $2 FROM conversations s LEFT JOIN assistants a ON false WHERE s.id = $1",
        s=Conversation,
        a=Assistant,
    ).first(session.pk, "!")
    assert found == (session, None, f"{session.goal}!")


@pytest.mark.parametrize("model", [Chunk, Message, Turn, Step], ids=lambda model: model.__name__)
def test_what_is_inserted_is_read_back_the_same(session, model):
    record = model.objects.get()
    model.objects.all()._raw_delete(using="default")
    if model in {Chunk, Step}:
        record.pk = None
    insert([record])
    assert values(model.objects.get()) == values(record)


def test_an_update_writes_the_named_fields_and_no_others(session, django_assert_num_queries):
    Conversation.objects.update(topic="as somebody else set it")
    session.goal, session.metadata = "Return the shoes", {"b": {}}
    with django_assert_num_queries(1):
        assert update(session, ["goal", "metadata"])
    written = Conversation.objects.get()
    assert (written.goal, written.metadata, written.topic) == ("Return the shoes", {"b": {}}, "as somebody else set it")


def test_an_update_without_names_writes_all(session):
    account = ChannelAccount.objects.get()
    account.credentials = {"token": "another"}
    account.health_reason = "x"
    assert update(account)
    written = ChannelAccount.objects.get()
    assert (written.credentials, written.health_reason) == ({"token": "another"}, "x")
    assert written.updated_at > account.created_at


def test_what_a_statement_leaves_out_is_read_when_asked_for_and_written_only_when_set(session):
    select = PreparedSelect("SELECT {t}, t.attempt + 1 FROM conversation_turns t", left_out=["prompt"], t=Turn)
    turn, following = select.first()
    assert (turn.attempt, following) == (1, 2)
    Turn.objects.update(prompt={"messages": ["as somebody else set it"]})
    turn.reason = "x"
    assert update(turn)
    assert (Turn.objects.get().reason, turn.prompt) == ("x", {"messages": ["as somebody else set it"]})
    turn, _ = select.first()
    turn.prompt = {"messages": ["another"]}
    assert update(turn)
    assert Turn.objects.get().prompt == {"messages": ["another"]}


def test_an_update_of_a_row_that_is_gone_says_so(session):
    step = Step.objects.get()
    Step.objects.all().delete()
    assert not update(step, ["rank"])


def test_what_a_key_refers_to_is_read_once(session, django_assert_num_queries):
    read = Conversation.objects.get()
    with django_assert_num_queries(1):
        assert follow(read, "channel_account") == session.channel_account
        assert follow(read, "channel_account").credentials == {"token": "a secret"}
    read.channel_account = None
    with django_assert_num_queries(0):
        assert follow(read, "channel_account") is None


@pytest.mark.django_db(transaction=True)
def test_whoever_waits_for_a_session_finds_the_assistant_that_it_has_then(session):
    other = factories.AssistantFactory(client=session.client, key="other", is_default=False)
    found: list[Conversation] = []

    def wait() -> None:
        with transaction.atomic():
            found.append(lock(session.pk))
            assert found[0].assistant == other
        connection.close()

    waiting = threading.Thread(target=wait)
    with transaction.atomic():
        lock(session.pk)
        waiting.start()
        eventually(lambda: row(WAITS_FOR_US), "the other waits for the row")
        Conversation.objects.filter(pk=session.pk).update(assistant=other)
    waiting.join(30)
    assert found[0].assistant == other
