"""The contract tests of every store of memory. A store's own tests inherit them and give a `store` fixture."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import timedelta

import pytest

from memory.records import ConversationRecord, Filters
from memory.stores.contract import Store
from memory.stores.database import DatabaseStore
from tests.memory.sessions import ENDED, KETTLE, PARCEL, entries, session

HOSTILE = [
    "",
    " \t\n",
    "!!! ??? ...",
    "&",
    "| & ! ( ) <-> :*",
    "kettle & | !",
    "'; DROP TABLE memories; --",
    "''' \"\"\" \\ \\\\",
    '"unfinished phrase',
    '""',
    '-"kettle"',
    "-kettle",
    "--- -- -",
    "\x00kettle\x00",
    "\ud800 \udc00",
    "or OR and not",
    "kettle:A* <2> broken",
    "%s %(client)s %% {0}",
    "ケトル 壊れた 包裹",
    "غلاية مكسورة",
    "\u202ekettle\u202c \u200f",
    "👩‍👩‍👧‍👦 🫖 ☕️",
    "a" * 10_000,
    "kettle " * 2_000,
    "(" * 10_000,
    '" ' * 5_000,
    "é" * 3_000,
    "ﷺ" * 500,
    "1e999 -0.0 0x10 1_000 ½ ² Ⅷ",
    "http://kettle.example/a?b=c#d user@kettle.example /var/log/*",
]


@pytest.mark.django_db
class StoreContract:
    """The contract of a store."""

    @pytest.fixture
    def store(self) -> Store:
        raise NotImplementedError

    def keep(self, store: Store, record: ConversationRecord) -> ConversationRecord:
        """Remember the record as the service does, its text first, and return it normalised."""
        record = record.normalised()
        DatabaseStore().remember(record)
        store.remember(record)
        return record

    def ids(self, store: Store, record: ConversationRecord, query: str, limit: int = 10) -> list[uuid.UUID]:
        return [hit.conversation_id for hit in store.search(record.client_id, query, limit)]

    def test_it_has_a_name(self, store: Store) -> None:
        assert store.name.isidentifier()

    def test_it_finds_the_session_that_answers(self, store: Store) -> None:
        kettle = self.keep(store, session(*KETTLE))
        parcel = self.keep(store, session(*PARCEL, client_id=kettle.client_id))
        assert self.ids(store, kettle, "broken kettle") == [kettle.conversation_id]
        assert self.ids(store, kettle, "parcel neighbour") == [parcel.conversation_id]

    def test_the_best_comes_first(self, store: Store) -> None:
        little = self.keep(store, session("My order: one kettle, two cups, three plates and a spoon", "Noted."))
        much = self.keep(store, session("Kettle! The kettle!", "Which kettle?", client_id=little.client_id))
        hits = store.search(little.client_id, "kettle", 10)
        assert [hit.conversation_id for hit in hits] == [much.conversation_id, little.conversation_id]
        assert hits[0].score > hits[1].score > 0

    def test_a_session_is_found_by_its_summary_and_by_either_side_s_words(self, store: Store) -> None:
        record = session("I want one", "A teapot, then?", summary="Gardening tools were ordered.", summary_kind="llm")
        self.keep(store, record)
        for query in ("gardening tools", "teapot"):
            assert self.ids(store, record, query) == [record.conversation_id]

    def test_a_session_is_not_found_by_what_prepared_the_prompt(self, store: Store) -> None:
        record = self.keep(store, session(*KETTLE))
        assert self.ids(store, record, "Ada of the shop") == []

    def test_it_finds_nothing_that_does_not_answer(self, store: Store) -> None:
        record = self.keep(store, session(*KETTLE))
        assert self.ids(store, record, "bicycle") == []

    def test_a_limit_is_kept_and_each_session_is_there_once(self, store: Store) -> None:
        client_id = uuid.uuid4()
        kept = [self.keep(store, session(*KETTLE * 40, client_id=client_id)) for _ in range(4)]
        found = self.ids(store, kept[0], "broken kettle", limit=3)
        assert len(found) == len(set(found)) == 3
        assert set(self.ids(store, kept[0], "broken kettle", limit=100)) == {r.conversation_id for r in kept}

    def test_a_client_never_finds_another_s_sessions(self, store: Store) -> None:
        ours = self.keep(store, session(*KETTLE))
        theirs = self.keep(store, session(*KETTLE, contact_id=ours.contact_id))
        assert self.ids(store, ours, "broken kettle") == [ours.conversation_id]
        assert self.ids(store, theirs, "broken kettle") == [theirs.conversation_id]
        assert store.search(uuid.uuid4(), "broken kettle", 10) == []
        for query in (theirs.client_id.hex, f"@{theirs.client_id.hex}:english", f"kettle {theirs.conversation_id}"):
            assert theirs.conversation_id not in self.ids(store, ours, query)

    def test_what_is_remembered_again_is_there_once(self, store: Store) -> None:
        record = self.keep(store, session(*KETTLE))
        self.keep(store, record)
        assert self.ids(store, record, "broken kettle") == [record.conversation_id]

    def test_what_was_redacted_is_found_no_more(self, store: Store) -> None:
        record = self.keep(store, session("My secret word is rhododendron", "Thank you.", "About the kettle"))
        said = [replace(e, content="[redacted]") if "secret" in e.content else e for e in record.entries]
        self.keep(store, replace(record, entries=said))
        assert self.ids(store, record, "secret rhododendron") == []
        assert self.ids(store, record, "about kettle") == [record.conversation_id]

    def test_what_is_forgotten_is_found_no_more(self, store: Store) -> None:
        record = self.keep(store, session(*KETTLE))
        other = self.keep(store, session(*KETTLE, client_id=record.client_id))
        store.forget(record.client_id, record.conversation_id)
        assert self.ids(store, record, "broken kettle") == [other.conversation_id]

    def test_forgetting_twice_or_what_was_never_there_does_no_harm(self, store: Store) -> None:
        record = self.keep(store, session(*KETTLE))
        for _ in range(2):
            store.forget(record.client_id, record.conversation_id)
        store.forget(record.client_id, uuid.uuid4())

    def test_what_was_forgotten_can_be_remembered_again(self, store: Store) -> None:
        record = self.keep(store, session(*KETTLE))
        store.forget(record.client_id, record.conversation_id)
        self.keep(store, record)
        assert self.ids(store, record, "broken kettle") == [record.conversation_id]

    def test_a_session_in_which_nothing_was_said_is_remembered(self, store: Store) -> None:
        record = self.keep(store, session(" ", summary="Nothing was said.", summary_kind="extractive"))
        assert self.ids(store, record, "anything") == []
        store.forget(record.client_id, record.conversation_id)

    def test_a_very_long_session_is_remembered_whole(self, store: Store) -> None:
        texts = [f"Message {number}: " + "word " * 20 for number in range(600)]
        texts[-1] = "And at the very end the zanzibarian teapot."
        record = self.keep(store, session(*texts))
        assert self.ids(store, record, "zanzibarian teapot") == [record.conversation_id]

    def test_one_huge_message_is_remembered_whole(self, store: Store) -> None:
        record = self.keep(store, session("kettle " + "blah " * 2_000 + " zanzibarian teapot"))
        assert self.ids(store, record, "zanzibarian teapot") == [record.conversation_id]

    @pytest.mark.parametrize("text", ["a\x00b kettle", "half \ud83d of kettle", "🫖 kettle\u202e", "x" * 70_000])
    def test_whatever_a_person_wrote_is_remembered(self, store: Store, text: str) -> None:
        record = self.keep(store, session(text, "kettle"))
        assert self.ids(store, record, "kettle") == [record.conversation_id]

    @pytest.mark.parametrize("query", HOSTILE)
    def test_no_query_does_harm(self, store: Store, query: str) -> None:
        ours = self.keep(store, session(*KETTLE))
        theirs = self.keep(store, session(*KETTLE))
        assert theirs.conversation_id not in self.ids(store, ours, query)
        assert self.ids(store, ours, "broken kettle") == [ours.conversation_id]

    def test_a_search_is_narrowed(self, store: Store) -> None:
        first = self.keep(store, session(*KETTLE, channel="sms"))
        later = ENDED + timedelta(days=3)
        second = self.keep(
            store,
            session(entries=entries(*KETTLE, ended=later), client_id=first.client_id, ended_at=later),
        )
        narrowed = [
            (Filters(contact_id=first.contact_id), first),
            (Filters(contact_id=second.contact_id), second),
            (Filters(channel="sms"), first),
            (Filters(channel="whatsapp"), second),
            (Filters(ended_from=later), second),
            (Filters(ended_before=later), first),
        ]
        for filters, record in narrowed:
            hits = store.search(first.client_id, "broken kettle", 10, filters)
            assert [hit.conversation_id for hit in hits] == [record.conversation_id]
        nothing = Filters(contact_id=first.contact_id, channel="whatsapp")
        assert store.search(first.client_id, "broken kettle", 10, nothing) == []
