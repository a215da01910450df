"""The indexes by which a message finds its person and their open conversation, counted by PostgreSQL.

Each statement runs on a database of its own, whose tables grow under a plan that is prepared and kept.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from django.db import connection
from django.utils import timezone

from conversations.models import ApiKey, Contact, Turn
from conversations.services.copilot import feed
from conversations.services.core import appending, opening, pipelines
from conversations.services.core.appending import NewChunk
from conversations.services.core.asking import Asked, gathered
from conversations.services.core.person import Person
from conversations.services.core.row_level_security import confined_to
from conversations.services.core.slots import Slots
from conversations.services.core.statements import THIS_THREAD, Many, Row, ThisThread, finish
from conversations.services.delivery import claiming
from conversations.services.history import archive, remember
from conversations.services.inbound import replay
from conversations.services.replies import leases
from conversations.services.tenants import api_keys
from memory.redaction import CARDS_ONLY
from tests import databases, factories
from tests.copilot.reading import user

TRIES = 12  # the first five are planned for their values; the plan that is kept comes after them
# Further indexes that hold one row for each value, or a few: those of ids, of messages, and of a contact's addresses.
HARMLESS = ("contacts_pkey", "conversations_pkey", "one_message_once", "identities_of_contact")
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


class AsInBatches(ThisThread):
    """Gathers what has a form for many, and runs it on a connection such as the batches'."""

    def __init__(self) -> None:
        self._connection = psycopg.RawCursor(pipelines.connect())
        self._asked: list[Asked] = []

    async def row(self, statement: str, *values: Any, many: Many | None = None) -> Row | None:
        """Note what is asked."""
        nobody: Any = None
        self._asked.append(Asked(statement, values, nobody, writes=True, many=many))
        return None

    def run(self) -> int:
        """Run what is noted as one statement, and return how many rows it returned."""
        [together], alone = gathered(self._asked)
        assert not alone
        self._asked.clear()
        found = self._connection.execute(
            together.many.statement, [(together.values() or b"").decode()], prepare=True
        ).fetchall()
        self._connection.execute("SELECT pg_stat_force_next_flush()")
        return len(found)

    def connect_anew(self) -> None:
        """Forget all plans."""
        self._connection.connection.close()
        self._connection = psycopg.RawCursor(pipelines.connect())


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
        self.together = AsInBatches()

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

    def append_many_by_key(self) -> None:
        """Ann and Bob, who has no open conversation, write at once through the shop's program."""
        for name in ("ann-1", "bob-1"):
            person = Person(user_id=name)
            finish(appending.append_by_key(self.together, _chunk(), self.key_hash, self.client.pk, person, CARDS_ONLY))
        assert self.together.run() == 1

    def append_many_by_address(self) -> None:
        """Ann and Bob write at once through a provider."""
        for address in ("ann-1", "bob-1"):
            finish(appending.append_by_address(self.together, _chunk(), self.client.pk, address, None, "", []))
        assert self.together.run() == 1

    def open_by_key(self) -> None:
        """A known person without an open conversation writes through the shop's program."""
        name = f"new-{uuid4()}"
        self.people(1, name)
        person = Person(user_id=f"{name}-1")
        assert finish(opening.open_with_key(THIS_THREAD, _chunk(), self.key_hash, self.client.pk, person, CARDS_ONLY))

    def open_many_by_key(self) -> None:
        """Two known people without an open conversation write at once through the shop's program."""
        for _ in range(2):
            name = f"new-{uuid4()}"
            self.people(1, name)
            person = Person(user_id=f"{name}-1")
            finish(opening.open_with_key(self.together, _chunk(), self.key_hash, self.client.pk, person, CARDS_ONLY))
        assert self.together.run() == 2

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
    acts += [shop.append_many_by_key, shop.append_many_by_address, shop.open_many_by_key]
    for act in acts:
        _used(act)
    for step in growth:
        step(shop)
    kept = {act: _used(act) for act in acts}
    connection.close()
    shop.together.connect_anew()
    for act in acts:
        _used(act)
    new = {act: _used(act) for act in acts}

    for act in acts:
        by_address = act in (shop.append_by_address, shop.append_many_by_address)
        person = "one_contact_per_address" if by_address else "one_contact_per_user_id"
        # An opening reads the summaries of the conversations that the person had.
        all_theirs = ["conversations_of_contact"] if act in (shop.open_by_key, shop.open_many_by_key) else []
        for used in (kept[act], new[act]):
            assert min(used[person], used["one_open_conversation"]) >= TRIES, used
            expected = (person, "one_open_conversation", *HARMLESS, *all_theirs)
            assert {index: times for index, times in used.items() if not index.startswith(expected)} == {}


# --- what is due ------------------------------------------------------------------------------------------------------
def _grow(shop: Shop, clients: int) -> None:
    """Many clients with conversations that owe nothing, of which each has turns and messages that were sent."""
    _column(
        """
        WITH theirs AS (
            INSERT INTO clients (id, name, sub_domain)
            SELECT gen_random_uuid(), 'Client ' || n, 'many-' || n FROM generate_series(1, %s) n RETURNING id
        ), accounts AS (
            INSERT INTO channel_accounts
                (id, client_id, channel, provider, address, name, base_url, credentials, is_active, updated_at)
            SELECT gen_random_uuid(), id, 'sms', 'sandbox', 'x', '', '', '', true, now()
            FROM theirs RETURNING id, client_id
        ), people AS (
            INSERT INTO contacts (id, client_id, user_id)
            SELECT gen_random_uuid(), id, 'p' || n FROM theirs, generate_series(1, 20) n RETURNING id, client_id
        ), talks AS (
            INSERT INTO conversations (id, client_id, contact_id, channel, channel_account_id)
            SELECT gen_random_uuid(), p.client_id, p.id, 'sms', a.id
            FROM people p JOIN accounts a ON a.client_id = p.client_id RETURNING client_id, id, channel_account_id
        ), said AS (
            INSERT INTO conversation_chunks (client_id, conversation_id, position, role, content)
            SELECT client_id, id, 1, 'ai', 'Hello' FROM talks RETURNING id, conversation_id
        )
        INSERT INTO conversation_messages
            (client_id, id, conversation_id, chunk_id, part, parts, channel_account_id, to_address, to_kind,
             text, status)
        SELECT t.client_id, gen_random_uuid(), t.id, k.id, 1, 1, t.channel_account_id, 'x', 'user', 'Hello', 'sent'
        FROM talks t JOIN said k ON k.conversation_id = t.id RETURNING id
        """,
        [clients],
    )


def _owe(shop: Shop, number: int) -> None:
    """So many further conversations of the shop owe a reply, and have a message to send."""
    people = shop.people(number, f"due-{uuid4()}")
    shop.conversations(people)
    _column(
        """
        WITH due AS (
            UPDATE conversations SET reply_owed = true, reply_due_at = now() - interval '1 minute'
            WHERE contact_id = ANY (%s::uuid[]) RETURNING client_id, id
        ), said AS (
            INSERT INTO conversation_chunks (client_id, conversation_id, position, role, content)
            SELECT client_id, id, 1, 'ai', 'Hello' FROM due RETURNING id, conversation_id
        )
        INSERT INTO conversation_messages
            (client_id, id, conversation_id, chunk_id, part, parts, channel_account_id, to_address, to_kind,
             text, due_at)
        SELECT a.client_id, gen_random_uuid(), k.conversation_id, k.id, 1, 1, a.id, 'x', 'user', 'Hello',
            now() - interval '1 minute'
        FROM said k, channel_accounts a WHERE a.client_id = %s RETURNING id
        """,
        [people, shop.client.pk],
    )


def _read() -> dict[str, tuple[int, int]]:
    """Return the whole reads of each table, and the rows that its indexes returned."""
    _column("SELECT pg_stat_force_next_flush()")
    _column("SELECT pg_stat_clear_snapshot()")
    with connection.cursor() as cursor:
        cursor.execute("SELECT relname, seq_tup_read, COALESCE(idx_tup_fetch, 0) FROM pg_stat_user_tables")
        return {name: (whole, fetched) for name, whole, fetched in cursor.fetchall()}


@pytest.mark.parametrize("analyzed", [True, False])
def test_a_claim_reads_what_is_due_and_not_what_is_stored(analyzed: bool) -> None:
    """Tried with the plans that were kept from before the tables grew, and with those that are made after it."""
    shop = Shop()
    acts: list[Callable[[], Any]] = [
        lambda: leases.claim(timezone.now(), Slots(8)),
        lambda: claiming.claim(timezone.now(), Slots(8)),
    ]
    _owe(shop, 4 * TRIES)
    for act in acts:
        for _ in range(TRIES):
            act()
    _grow(shop, 500)
    if analyzed:
        _analyze()
    for is_new in (False, True):
        if is_new:
            connection.close()
        _owe(shop, 10 * TRIES)
        before = _read()
        for act in acts:
            for _ in range(TRIES):
                assert act()
        after = _read()
        for table in ("conversations", "conversation_messages", "conversation_turns"):
            whole, fetched = (now - then for now, then in zip(after[table], before[table], strict=True))
            assert whole == 0, f"{table} is read as a whole"
            assert fetched < TRIES * 10_000 / 5, (table, fetched)


@pytest.mark.parametrize("analyzed", [True, False])
def test_looks_for_work_in_the_background_read_a_row_or_two_of_each_client(analyzed: bool) -> None:
    shop = Shop()
    _grow(shop, 500)
    _column(
        """
        UPDATE conversations SET status = 'closed', ended_at = now(), ended_by = 'user',
            remembered_at = CASE WHEN contact_id::text < '8' THEN now() END,
            remember_due_at = CASE WHEN contact_id::text >= '8' THEN now() + interval '1 hour' END
        """
    )
    _column(
        """
        INSERT INTO inbound_events (client_id, provider, kind, reason, message_id, raw, retry_at)
        SELECT client_id, 'orb', 'x', 'processing_failed', '', '{}', now() + interval '1 hour' FROM conversations
        """
    )
    if analyzed:
        _analyze()
    before = _read()
    for _ in range(TRIES):
        assert remember.remember_ended() == 0
        assert archive.archive(timezone.now()) == 0
        assert replay.retry_failed(timezone.now()) == 0
    after = _read()
    for table in ("conversations", "inbound_events"):
        whole, fetched = (now - then for now, then in zip(after[table], before[table], strict=True))
        assert whole == 0, f"{table} is read as a whole"
        assert fetched < TRIES * 2_500, (table, fetched)


def _write(shop: Shop, user_id: int, first: int, last: int) -> None:
    """Each of the running replies of the shop goes on by deltas of ten characters, which the user may read."""
    _column(
        """
        INSERT INTO copilot_deltas (client_id, turn_id, attempt, start, text, login_id)
        SELECT t.client_id, t.id, 1, 10 * n, 'ten letter', %s
        FROM conversation_turns t, generate_series(%s, %s) n WHERE t.client_id = %s RETURNING start
        """,
        [user_id, first, last, shop.client.pk],
    )


@pytest.mark.parametrize("analyzed", [True, False])
def test_who_reads_along_is_given_what_is_new_without_a_look_at_the_rest(analyzed: bool) -> None:
    shop, now = Shop(), timezone.now()
    user_id = user("ann", shop.client).pk
    shop.conversations(shop.people(40, "reader"))
    _column(
        """
        INSERT INTO conversation_turns (client_id, id, conversation_id, status, attempt, inbound_sequence, streamed,
            lease_until, started_at, engine, model, draft, finish_reason, tokens_in, tokens_out, code, reason)
        SELECT client_id, gen_random_uuid(), id, 'running', 1, 1, true, %s, %s, '', '', '', '', 0, 0, '', ''
        FROM conversations WHERE client_id = %s RETURNING id
        """,
        [now, now, shop.client.pk],
    )
    _write(shop, user_id, 0, 49)
    running = {turn.pk: turn.client_id for turn in Turn.objects.filter(client=shop.client)}
    # Each has two: one comes back within a delta, and one has read all that there is.
    places = [feed.ReadPosition(1, 495), feed.ReadPosition(1, 500)]
    readers = [feed.Reader(turn_id, user_id, place) for turn_id in running for place in places]

    def read_on() -> set[int]:
        with confined_to(user_id):
            parts = feed._new_parts(running, readers)
        for reader in readers:
            for part in parts.get(reader.turn_id, ()):
                reader.give(part)
        return {reader.position.characters for reader in readers}

    if analyzed:
        _analyze()
    assert read_on() == {500}
    before = _read()["copilot_deltas"]
    for _ in range(TRIES):
        assert read_on() == {500}, "nothing is new"
    whole, fetched = (now - then for now, then in zip(_read()["copilot_deltas"], before, strict=True))
    assert (whole, fetched) == (0, 0)


def test_staff_find_a_user_id_of_all_clients_by_its_index() -> None:
    shop = Shop()
    shop.people(5000, "many")
    _analyze()
    found = _used(lambda: list(Contact.objects.filter(user_id="many-7")))
    assert found["contact_by_user_id"] == TRIES
