"""The indexes by which a message finds its person and their open conversation, counted by PostgreSQL.

Each statement runs on a database of its own, whose tables grow under a plan that is prepared and kept.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.utils import timezone

from conversations.models import ApiKey, Contact
from conversations.services.core import appending, opening
from conversations.services.core.appending import NewChunk
from conversations.services.core.person import Person
from conversations.services.core.statements import THIS_THREAD, finish
from conversations.services.tenants import api_keys
from memory.redaction import CARDS_ONLY
from tests import databases, factories

TRIES = 12  # the first five are planned for their values; the plan that is kept comes after them
# Further indexes that hold one row for each value, or a few: those of ids, of messages, and of a contact's addresses.
HARMLESS = ("contacts_pkey", "conversations_pkey", "one_message_once", "contact_identities_contact_id")
TABLES = ["contacts", "contact_identities", "conversations", "conversation_chunks"]


@pytest.fixture(autouse=True)
def own_database(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """A new database as migrations make it, whose connections keep plans as PostgreSQL does by itself."""
    new = {**connection.settings_dict, "NAME": f"plans_{os.getpid()}_{uuid4().hex[:8]}"}
    with django_db_blocker.unblock():
        databases.make(new["NAME"])
        try:
            with connection._nodb_cursor() as cursor:
                cursor.execute(f'ALTER DATABASE "{new["NAME"]}" RESET ALL')
                cursor.execute(f'ALTER DATABASE "{new["NAME"]}" SET synchronous_commit = off')
            with databases.read(new):
                yield
        finally:
            databases.drop(new["NAME"])


class Shop:
    """A client with a key, and Ann and Bob, who have one open conversation each."""

    def __init__(self) -> None:
        self.client = factories.ClientFactory()
        factories.SandboxFactory(client=self.client)
        api_keys.create_api_key(self.client)
        self.key_hash = bytes(ApiKey.objects.get().key_hash)
        [self.ann] = self.people(1, "ann")
        self.people(1, "bob")
        self.conversations([self.ann])

    def people(self, number: int, name: str) -> list[UUID]:
        """That many new contacts, called name-1, name-2 …, with an address each."""
        found = _column(
            """
            WITH new AS (
                INSERT INTO contacts (id, client_id, user_id)
                SELECT gen_random_uuid(), %s, %s || '-' || n FROM generate_series(1, %s) n
                RETURNING id, client_id, user_id)
            INSERT INTO contact_identities (contact_id, client_id, channel, kind, address)
            SELECT id, client_id, 'sms', 'user', user_id FROM new RETURNING contact_id
            """,
            [self.client.pk, name, number],
        )
        return list(found)

    def conversations(self, contacts: list[UUID], each: int = 1, status: str = "active") -> None:
        """That many conversations of each of the contacts."""
        ended = "now()" if status == "closed" else "NULL"
        by = "user" if status == "closed" else ""
        _column(
            f"""
            INSERT INTO conversations (id, client_id, contact_id, channel, status, ended_at, ended_by, summary)
            SELECT gen_random_uuid(), %s, contact, 'sms', %s, {ended}, %s, 'A summary.'
            FROM unnest(%s::uuid[]) contact, generate_series(1, %s) RETURNING id
            """,
            [self.client.pk, status, by, contacts, each],
        )

    def append_by_key(self) -> None:
        """Ann writes through the shop's program."""
        assert finish(
            appending.append_by_key(
                THIS_THREAD, _chunk(), self.key_hash, self.client.pk, Person(user_id="ann-1"), CARDS_ONLY
            )
        )

    def append_by_address(self) -> None:
        """Ann writes through a provider."""
        assert finish(appending.append_by_address(THIS_THREAD, _chunk(), self.client.pk, "ann-1", None, "", []))

    def open_by_key(self) -> None:
        """A known person without an open conversation writes through the shop's program."""
        name = f"new-{uuid4()}"
        self.people(1, name)
        person = Person(user_id=f"{name}-1")
        assert finish(opening.open_with_key(THIS_THREAD, _chunk(), self.key_hash, self.client.pk, person, CARDS_ONLY))

    def look_before_opening(self) -> None:
        """Ann's message meets the opening, which finds that her conversation is open."""
        person = Person(user_id="ann-1")
        assert (
            finish(opening.open_with_key(THIS_THREAD, _chunk(), self.key_hash, self.client.pk, person, CARDS_ONLY))
            is None
        )


def _chunk() -> NewChunk:
    return NewChunk("sms", "", timezone.now(), "Hello", message_id="m", dedupe_key=uuid4())


def _column(statement: str, values: list[Any] | None = None) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return [first for first, *_ in cursor.fetchall()] if cursor.description else []


def _analyze(*_: Any) -> None:
    _column("ANALYZE")


def _scans() -> Counter[str]:
    _column("SELECT pg_stat_force_next_flush()")
    _column("SELECT pg_stat_clear_snapshot()")
    with connection.cursor() as cursor:
        cursor.execute("SELECT indexrelname, idx_scan FROM pg_stat_user_indexes WHERE relname = ANY(%s)", [TABLES])
        return Counter(dict(cursor.fetchall()))


def _used(act: Callable[[], None], times: int = TRIES) -> Counter[str]:
    """Return how often each index was used while `act` ran TRIES times on a kept plan."""
    before = _scans()
    for _ in range(times):
        act()
    return _scans() - before


GROWTH: dict[str, list[Callable[[Shop], None]]] = {
    "new, never analyzed": [],
    "new, analyzed": [_analyze],
    "1,200 ended conversations of one": [lambda shop: shop.conversations([shop.ann], 1200, "closed")],
    "1,200 ended conversations of one, analyzed": [
        lambda shop: shop.conversations([shop.ann], 1200, "closed"),
        _analyze,
    ],
    "many who have three": [
        lambda shop: shop.conversations(shop.people(2000, "many"), 3, "closed"),
        _analyze,
        lambda shop: shop.conversations([shop.ann], 1200, "closed"),
    ],
    # As many as make an index of ids alone a level less deep than the index of open conversations.
    "many who have one": [
        lambda shop: shop.conversations(shop.people(48_000, "many")),
        _analyze,
        lambda shop: shop.conversations([shop.ann], 1200, "closed"),
    ],
}


@pytest.mark.parametrize("growth", GROWTH.values(), ids=GROWTH)
def test_a_message_finds_its_person_and_their_open_conversation_by_the_index_made_for_it(
    growth: list[Callable[[Shop], None]],
) -> None:
    """Tried with the plans that were kept from before the tables grew, and with those that are made after it."""
    shop = Shop()
    acts = [shop.append_by_key, shop.append_by_address, shop.look_before_opening, shop.open_by_key]
    for act in acts:
        _used(act)
    for step in growth:
        step(shop)
    kept = {act: _used(act) for act in acts}
    connection.close()
    for act in acts:
        _used(act)
    new = {act: _used(act) for act in acts}

    for act in acts:
        person = "one_contact_per_address" if act == shop.append_by_address else "one_contact_per_user_id"
        # An opening reads the summaries of the conversations that the person had.
        all_theirs = ["conversations_of_contact"] if act == shop.open_by_key else []
        for used in (kept[act], new[act]):
            assert min(used[person], used["one_open_conversation"]) >= TRIES, used
            expected = (person, "one_open_conversation", *HARMLESS, *all_theirs)
            assert {index: times for index, times in used.items() if not index.startswith(expected)} == {}


def test_staff_find_a_user_id_of_all_clients_by_its_index() -> None:
    shop = Shop()
    shop.people(5000, "many")
    _analyze()
    found = _used(lambda: list(Contact.objects.filter(user_id="many-7")))
    assert found["contact_by_user_id"] == TRIES
