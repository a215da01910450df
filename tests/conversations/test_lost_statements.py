"""A message whose statement was given up, or lost with its connection: it is stored once, or its sender is told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import OperationalError, transaction

from channels_out import registry
from channels_out.contract import InboundRequest
from conversations.http import own_webhook
from conversations.models import Chunk, Client
from conversations.services.core import sql
from conversations.services.core.statements import BusyError, Many, ThisThread, UnclearError, finish
from conversations.services.inbound import provider_events
from tests.conversations.meta_doors import account_at
from tests.fakes.meta import FakeMeta

pytestmark = pytest.mark.django_db


class Lost(ThisThread):
    """A connection that is lost at its first statement of a kind: before, after it was done, or after its result."""

    def __init__(self, kind: str, when: str) -> None:
        self.kind, self.when = kind, when
        self.has_happened = False

    async def rows(self, statement: str, *values: Any) -> Any:
        """Return the rows, or lose them once."""
        if self.has_happened or self.kind not in statement:
            return sql.rows(statement, *values)
        self.has_happened = True
        if self.when == "given up":
            raise BusyError
        if self.when == "not begun":
            raise UnclearError
        with transaction.atomic():
            found = sql.rows(statement, *values)
            if self.when == "undone by a crash":
                transaction.set_rollback(True)
        raise UnclearError(found if self.when in ("answered", "undone by a crash") else None)

    async def row(self, statement: str, *values: Any, many: Many | None = None) -> Any:
        """Return the first row, or lose it once."""
        found = await self.rows(statement, *values)
        return found[0] if found else None


APPEND, OPEN = "UPDATE conversations", "INSERT INTO conversations\n"
WHEN = ["given up", "not begun", "done", "answered", "undone by a crash"]


def post(statements: ThisThread, shop: Client, key: str, **more: str) -> Any:
    body = {"client_id": str(shop.pk), "user_id": "ann", "message": "Hello", **more}
    return finish(own_webhook.receive(statements, json.dumps(body).encode(), "sms", key))


@pytest.mark.parametrize("is_open", [True, False], ids=["appended", "opens one"])
@pytest.mark.parametrize("when", WHEN)
def test_a_message_with_an_id_is_stored_once(shop: Client, key: str, when: str, is_open: bool) -> None:
    if is_open:
        post(ThisThread(), shop, key, message="Before", message_id="m0")
    lost = Lost(APPEND if is_open else OPEN, when)
    result = post(lost, shop, key, message_id="m1")
    assert lost.has_happened
    [chunk] = Chunk.objects.filter(message_id="m1")
    assert (result.chunk_id, result.position) == (chunk.pk, 4 if is_open else 3)
    assert result.duplicate is (when == "done")
    assert post(ThisThread(), shop, key, message_id="m1").chunk_id == chunk.pk


@pytest.mark.parametrize("when", ["given up", "answered", "undone by a crash"])
def test_a_message_without_an_id_is_stored_once_where_that_can_be_told(shop: Client, key: str, when: str) -> None:
    post(ThisThread(), shop, key, message="Before")
    result = post(Lost(APPEND, when), shop, key)
    [chunk] = Chunk.objects.filter(content="Hello")
    assert (result.chunk_id, result.position, result.duplicate) == (chunk.pk, 4, False)


@pytest.mark.parametrize("when", ["not begun", "done"])
def test_a_sender_without_ids_is_told_where_it_cannot_be_told(shop: Client, key: str, when: str) -> None:
    post(ThisThread(), shop, key, message="Before")
    with pytest.raises(OperationalError):
        post(Lost(APPEND, when), shop, key)
    assert Chunk.objects.filter(content="Hello").count() == (when == "done")


@pytest.mark.parametrize("when", WHEN)
def test_a_provider_s_message_is_stored_once(shop: Client, when: str) -> None:
    with FakeMeta() as meta:
        account_at(meta, shop)
        lost = Lost(APPEND, when)
        for text, statements in (("First", ThisThread()), ("Hello", lost), ("Last", ThisThread())):
            webhook = meta.text_webhook(text, sender="51999999999")
            headers = {name.lower(): value for name, value in dict(webhook.headers).items()}
            arrived = InboundRequest("POST", "https://convo.example/", headers, {}, webhook.body)
            adapter = registry.recognise("whatsapp", arrived)
            assert adapter
            outcome = finish(provider_events.receive(statements, arrived, adapter))
            assert outcome.messages == 1
        assert lost.has_happened
    said = Chunk.objects.filter(role="user").order_by("position").values_list("position", "content")
    assert list(said) == [(3, "First"), (4, "Hello"), (5, "Last")]
