"""Memory in PostgreSQL."""

from __future__ import annotations

import threading
import uuid
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from memory import words
from memory.models import Memory
from memory.stores.contract import Store
from memory.stores.database import RANKED, DatabaseStore
from tests.memory.sessions import KETTLE, PARCEL, session
from tests.memory.store_contract import StoreContract

pytestmark = pytest.mark.django_db


class TestDatabaseStore(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return DatabaseStore()


def found(record: Any, query: str) -> bool:
    return [hit.conversation_id for hit in DatabaseStore().search(record.client_id, query, 10)] != []


# --- what counts as the same word ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("said", "asked"),
    [
        ("I was refunded twice for my orders", "refund order"),
        ("RÉSERVATION à l'hôtel", "reservation hotel"),
        ("Meine Bestellungen für die Straße sind nicht da, und wann kommen sie", "bestellung STRASSE"),
        ("Order A-123/45 is late", "123/45"),
        ("Order A-123/45 is late", "a-123"),
        ("Call +49 170 1234567", '"170 1234567"'),
        ("Don't touch the café", "cafe don't"),
        ("我的包裹什么时候到？", "包裹"),
        ("荷物はいつ届きますか", "荷物"),
        ("Где моя посылка? Ещё не пришла", "посылку еще"),
        ("ＦＵＬＬ ｗｉｄｔｈ", "full width"),
        ("İstanbul ve ısı", "ISTANBUL"),
        ("नमस्ते, मेरा पार्सल कहाँ है", "पार्सल"),
        ("see https://shop.example/kettles?id=7", "shop.example kettles"),
    ],
)
def test_a_word_is_found_however_it_is_written(said: str, asked: str) -> None:
    record = session(said, "ok")
    DatabaseStore().remember(record)
    assert found(record, asked)


@pytest.mark.parametrize(
    ("query", "is_found"),
    [
        ("broken kettle", True),
        ("kettle bicycle", False),
        ('"kettle is broken"', True),
        ('"kettle was broken"', True),
        ('"kettle broken"', False),
        ('"is" kettle', True),
        ('"broken is kettle"', False),
        ("“kettle is broken”", True),
        ("kettle -bicycle", True),
        ("kettle -refunds", False),
        ('kettle -"want a refund"', False),
        ('kettle -"a want refund"', True),
        ("-bicycle", False),
    ],
)
def test_phrases_and_exclusions_are_understood(query: str, is_found: bool) -> None:
    record = session(*KETTLE, language="en")
    DatabaseStore().remember(record)
    DatabaseStore().remember(session(*PARCEL, client_id=record.client_id, language="de"))
    assert found(record, query) is is_found


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("en", "The orders of my friends were late, and late orders of friends are no good to anybody at all"),
        ("de", "Meine Bestellungen für die Straße sind nicht da, und wann kommen sie endlich bei mir an"),
        ("es", "¿Dónde está mi pedido? Lo pedí el lunes pasado y no llega nunca a mi casa"),
        ("ru", "Где моя посылка? Ещё не пришла, а я её жду с понедельника"),
        ("zh", "我的包裹什么时候到？"),
        ("ja", "荷物はいつ届きますか"),
        ("xx", "kato hundo birdo kato kato hundo"),
    ],
)
def test_whatever_was_said_in_a_row_is_found_so(language: str, said: str) -> None:
    record = session(said, "ok", language=language)
    DatabaseStore().remember(record)
    DatabaseStore().remember(session("Anything else", client_id=record.client_id, language="en"))
    spoken = words.words(said)
    spans = [(start, start + length) for length in (2, 3, 5) for start in range(len(spoken) - length + 1)]
    phrases = [" ".join(spoken[slice(*span)]) for span in spans]
    told = [phrase for phrase in phrases if found(record, phrase)]  # the others are small words, which no index holds
    assert len(told) > len(phrases) / 2
    assert [phrase for phrase in told if not found(record, f'"{phrase}"')] == []


def test_an_exclusion_counts_in_every_language_of_the_client() -> None:
    english = session("Refund my orders", language="en")
    DatabaseStore().remember(english)
    for language in ("de", "fr", "xx"):
        DatabaseStore().remember(session("Anything else", client_id=english.client_id, language=language))
    assert not found(english, "refund -orders")
    assert found(english, "refund -kettles")


def test_the_summary_weighs_more_than_the_person_and_the_person_more_than_the_assistant() -> None:
    client_id = uuid.uuid4()
    records = [
        session("Well", "A kettle", client_id=client_id, summary="Done.", summary_kind="llm"),
        session("A kettle", "Well", client_id=client_id, summary="Done.", summary_kind="llm"),
        session("Well", "Well", client_id=client_id, summary="A kettle.", summary_kind="llm"),
    ]
    for record in records:
        DatabaseStore().remember(record)
    hits = DatabaseStore().search(client_id, "kettle", 10)
    assert [hit.conversation_id for hit in hits] == [record.conversation_id for record in reversed(records)]


def test_an_extract_s_own_words_are_no_reason_to_find_a_session() -> None:
    record = session(*KETTLE, summary="Extract of the conversation: kettle.", summary_kind="extractive")
    DatabaseStore().remember(record)
    assert not found(record, "extract conversation")


# --- what is written -------------------------------------------------------------------------------------------------
def test_a_document_too_large_for_postgresql_is_remembered_all_the_same() -> None:
    said = " ".join(f"w{number:x}ord{number * 7919:x}" for number in range(200_000))
    record = session(said, said[::-1], "zanzibarian " * 3)
    DatabaseStore().remember(record)
    assert found(record, "w1ord1eef")
    assert len(Memory.objects.get().entries()[2].content) == len(said)


def test_a_record_without_a_summary_keeps_the_one_that_is_there() -> None:
    record = session(*KETTLE, summary="A kettle.", summary_kind="llm")
    DatabaseStore().remember(record)
    DatabaseStore().remember(replace(record, summary=""))
    memory = Memory.objects.get()
    assert (memory.summary, memory.summary_kind) == ("A kettle.", "llm")


def test_what_changed_counts_as_remembered_no_more() -> None:
    record = session(*KETTLE, summary="A kettle.", summary_kind="llm").normalised()
    DatabaseStore().remember(record)
    for change in (
        {"summary": "A teapot."},
        {"contact_id": uuid.uuid4()},
        {"entries": record.entries[:-1]},
    ):
        Memory.objects.update(remembered_at=record.ended_at)
        DatabaseStore().remember(record)
        assert Memory.objects.get().remembered_at
        record = replace(record, **change)  # type: ignore[arg-type]
        DatabaseStore().remember(record)
        assert Memory.objects.get().remembered_at is None


@pytest.mark.django_db(transaction=True)
def test_many_at_once_write_one_row() -> None:
    record = session(*KETTLE, summary="A kettle.", summary_kind="llm")
    errors: list[Exception] = []
    gate = threading.Barrier(8)

    def write() -> None:
        try:
            gate.wait(10)
            DatabaseStore().remember(record)
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert errors == []
    assert Memory.objects.count() == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"language": "klingon"},
        {"summary_kind": "llm", "summary": ""},
        {"summary_kind": "poem"},
        {"summary": "", "summary_kind": "", "remembered_at": "2026-01-01T00:00:00Z"},
    ],
)
def test_the_database_refuses_what_makes_no_sense(wrong: dict[str, str]) -> None:
    DatabaseStore().remember(session(*KETTLE, summary="A kettle.", summary_kind="llm"))
    with pytest.raises(IntegrityError), transaction.atomic():
        Memory.objects.update(**wrong)


# --- how it is searched ----------------------------------------------------------------------------------------------
FILL = """
    INSERT INTO memories (conversation_id, client_id, contact_id, channel, language, transcript, document, started_at,
                          ended_at)
    SELECT gen_random_uuid(), c.id, gen_random_uuid(), 'sms', 'english', '[]',
           array_to_tsvector(s.scope || ARRAY(
               SELECT s.scope || ':' || days || 'd' || floor(extract(epoch FROM s.ended_at) / 86400 / days)
               FROM unnest(ARRAY[1, 4, 16, 64]) AS days))
           || to_tsvector('english', 'order ' || CASE WHEN n %% 500 = 0 THEN 'zanzibarian teapot' ELSE 'kettle' END
                                     || ' number' || n || ' ' || repeat('something else ' || n, 4)),
           s.ended_at, s.ended_at
    FROM generate_series(1, {many}) AS n
    JOIN unnest(%s::uuid[]) WITH ORDINALITY AS c (id, place) ON c.place = n %% 10 + 1,
    LATERAL (SELECT now() - n * interval '{every}' AS ended_at,
                    '@' || replace(c.id::text, '-', '') || ':english' AS scope) s"""


def fill(clients: list[uuid.UUID], many: int = 5_000, every: str = "3 minutes", less: str = "kettle") -> None:
    """Insert conversations of the clients in turn, the last one just now; one in 500 is about a zanzibarian teapot."""
    with connection.cursor() as cursor:
        cursor.execute(FILL.replace("'kettle'", f"'{less}'").format(many=many, every=every), [clients])
        cursor.execute("ANALYZE memories")


def plan_of_last_search(queries: list[dict[str, str]]) -> str:
    *_, statement = (query["sql"] for query in queries if "document @@" in query["sql"])
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) " + statement.replace("%", "%%"), [])
        return "\n".join(line for (line,) in cursor.fetchall())


def test_a_search_among_many_sessions_uses_the_index() -> None:
    clients = [uuid.uuid4() for _ in range(10)]
    fill(clients, many=20_000)
    for query, count in (("zanzibarian teapots", 20), ("kettle", 20), ("order -kettle", 20), ('"teapot number500"', 1)):
        with CaptureQueriesContext(connection) as caught:
            hits = DatabaseStore().search(clients[0], query, 20)
        assert len(hits) == count, query
        plan = plan_of_last_search(caught.captured_queries)
        assert "Bitmap Index Scan on memories_by_words" in plan, plan
        assert "Seq Scan on memories" not in plan, plan
        assert "Removed by Index Recheck" not in plan, plan
    assert DatabaseStore().search(clients[1], "zanzibarian", 20) == []


def test_of_very_many_that_fit_the_newest_are_ranked() -> None:
    fill([uuid.UUID(int=1)] * 10)
    hits = DatabaseStore().search(uuid.UUID(int=1), "order", 100)
    ages = Memory.objects.filter(pk__in=[hit.conversation_id for hit in hits]).order_by("ended_at")
    newest = list(Memory.objects.order_by("-ended_at").values_list("ended_at", flat=True)[:RANKED])
    assert len(hits) == 100
    assert ages[0].ended_at >= newest[-1]


def test_however_long_ago_it_was_it_is_found() -> None:
    """A word that is said once a month, among many others, and by somebody who was silent for years."""
    busy, silent = uuid.uuid4(), uuid.uuid4()
    fill([busy] * 10, every="4 hours", less="pot")
    said = [_ended(busy, timedelta(days=30 * months)) for months in range(36)]
    said_long_ago = [_ended(silent, timedelta(days=1000 + days)) for days in range(30)]
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE memories")

    for query in ("kettle", '"broken kettle"'):
        assert {hit.conversation_id for hit in DatabaseStore().search(busy, query, 100)} == set(said)
        assert {hit.conversation_id for hit in DatabaseStore().search(silent, query, 100)} == set(said_long_ago)


def _ended(client_id: uuid.UUID, ago: timedelta) -> uuid.UUID:
    ended_at = timezone.now() - ago
    record = session("My broken kettle", "I am sorry.", language="en", client_id=client_id, ended_at=ended_at)
    DatabaseStore().remember(record)
    return record.conversation_id


def test_of_what_many_say_no_more_is_read_than_it_takes() -> None:
    """The second search goes back as far as should be enough, or to the beginning if the newest days have no match."""
    fill([uuid.UUID(int=1)] * 10, every="30 minutes")  # 104 days, 48 a day
    for query, looks in (("order", 2), ("zanzibarian", 2), ("kettles -order", 2)):
        with CaptureQueriesContext(connection) as caught:
            DatabaseStore().search(uuid.UUID(int=1), query, 100)
        assert sum("document @@" in each["sql"] for each in caught.captured_queries) == looks, query
