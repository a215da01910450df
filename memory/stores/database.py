"""Memory in PostgreSQL: every conversation's summary and transcript, found by their words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.search import SearchVector, SearchVectorCombinable, SearchVectorField
from django.db import IntegrityError, connection, transaction
from django.db.models import Func, TextField, Value
from django.db.models.expressions import Combinable
from django.utils import timezone

from memory import words
from memory.languages import KNOWN, configuration
from memory.models import Memory
from memory.records import NO_FILTERS, ConversationRecord, Filters, StoreHit

RANKED = 300  # the newest matches, which are ranked: ranking reads their whole document

COMPARED = 50  # newest conversations of a contact, which are compared with a text
SHORT = 3  # letters: ASCII words of this length or less say nothing of a text's subject
LEAST_SHARE = 0.3  # of a text's words that a conversation must contain to be similar

_WRITTEN_FIELDS = [
    *("client_id", "contact_id", "channel", "language", "summary", "summary_kind", "transcript", "document"),
    *("started_at", "ended_at", "remembered_at"),
]

# The fields that every store has: after a change of one of them the conversation is to be remembered again.
_STORE_FIELDS = ["client_id", "contact_id", "channel", "summary", "transcript", "ended_at"]

# A common word has more matches than anybody reads. The newest conversations are searched first; if they have too few
# matches, the search goes back as far as should be enough at that rate, or to the beginning. A document contains marker
# words for the period of each length in which its conversation ended. A search names few long periods rather than many
# short ones: the index reads the rarest words of a query, and reads all periods if each is rarer than any word.
_PERIODS = (1, 4, 16, 64)  # days
_FURTHEST = 256  # days; after that, all conversations are searched
_MARGIN = 1.5
_DAY = timedelta(days=1).total_seconds()

# The planner does not know the cost of decompressing and checking a document, and so finds it cheap to read every row
# when a word is common. The newest must be read by the index of words, which needs no document. Therefore no other
# index may apply (hence no condition on the client, which `fitting` contains anyway; only a search within a contact,
# who has few rows, has one), and no scan of the table may seem cheaper. The index's result must fit into work_mem, or
# PostgreSQL checks every document again.
_BY_INDEX_ALONE = "SET LOCAL enable_seqscan = off; SET LOCAL work_mem = '32MB'"
# Ranks nothing if there are fewer matches than `enough`: then more days are searched.
_NEWEST = """
    WITH newest AS MATERIALIZED (
        SELECT conversation_id, ended_at, document FROM (
            SELECT conversation_id, ended_at, document FROM memories WHERE ({fitting}) {narrowed} OFFSET 0
        ) matching
        {in_a_row} ORDER BY ended_at DESC, conversation_id LIMIT {ranked}),
    counted AS (SELECT count(*) AS found FROM newest)
    SELECT found, conversation_id, score FROM counted LEFT JOIN LATERAL (
        SELECT conversation_id, ended_at, ts_rank(document, {asked}, 1) AS score FROM newest
        WHERE found >= %(enough)s
        ORDER BY score DESC, ended_at DESC, conversation_id LIMIT %(limit)s) best ON true
    ORDER BY score DESC, ended_at DESC, conversation_id"""

_NARROWED = {
    "contact_id": "AND client_id = %(client)s AND contact_id = %(contact_id)s",
    "channel": "AND channel = %(channel)s",
    "ended_from": "AND ended_at >= %(ended_from)s",
    "ended_before": "AND ended_at < %(ended_before)s",
}


class DatabaseStore:
    """The table `memories`, which has the texts; every other store depends on it."""

    name = "database"

    def remember(self, record: ConversationRecord) -> None:
        """Write the record to its row; a record without a summary keeps the row's summary.

        A change clears `remembered_at`, until every store has the change.
        """
        try:
            self._write(record)
        except IntegrityError:  # another process inserted the same conversation since we looked: now it can be updated
            self._write(record)

    @transaction.atomic
    def _write(self, record: ConversationRecord) -> None:
        locked = Memory.objects.of(record.client_id).plain().select_for_update()
        kept = locked.filter(pk=record.conversation_id).first()
        row = _row(record, kept)
        if kept is None:
            row.save(force_insert=True)
        else:
            row.save(force_update=True, update_fields=_WRITTEN_FIELDS)

    @transaction.atomic
    def reindex(self, client_id: UUID, conversation_id: UUID) -> None:
        """Index the row again, if it exists, with the current rules for words; its texts stay the same."""
        kept = Memory.objects.of(client_id).plain().select_for_update().filter(pk=conversation_id).first()
        if kept:
            _row(kept.as_record(), kept).save(force_update=True, update_fields=["language", "document"])

    def forget(self, client_id: UUID, conversation_id: UUID) -> None:
        """Delete the row."""
        Memory.objects.of(client_id).filter(pk=conversation_id).delete()

    def search(self, client_id: UUID, query: str, limit: int, filters: Filters = NO_FILTERS) -> list[StoreHit]:
        """Return the conversations that contain every word of the query, in any form of their own language."""
        parsed = words.parse_query(query)
        if not parsed.wanted:
            return []
        chosen = {name: value for name in _NARROWED if (value := getattr(filters, name))}
        ranked = max(limit, RANKED)
        narrowed = " ".join(_NARROWED[name] for name in chosen)
        until = filters.ended_before or timezone.now()
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(_BY_INDEX_ALONE)
            languages = _languages_of(cursor, client_id, parsed)
            days: int | None = 1
            while languages:
                asked, values = _query_sql(client_id, parsed, languages, _newest(until, days))
                statement = _NEWEST.format(**asked, narrowed=narrowed, ranked=ranked)
                enough = {"limit": limit, "enough": ranked if days else 0}
                cursor.execute(statement, {"client": client_id, **chosen, **values, **enough})
                best = cursor.fetchall()
                if not days or best[0][0] == ranked:
                    return [StoreHit(conversation_id, score) for _, conversation_id, score in best if conversation_id]
                days = _days_that_hold(ranked, days, best[0][0])
        return []


_OF_CONTACT = """
    WITH theirs AS (
        SELECT conversation_id, language, document, ended_at FROM memories
        WHERE client_id = %(client)s AND contact_id = %(contact)s AND started_at >= %(since)s
        ORDER BY ended_at DESC LIMIT {compared}),
    asked AS (
        SELECT language, array_agg(lexeme) AS lexemes
        FROM (SELECT DISTINCT language FROM theirs) AS spoken,
             unnest(tsvector_to_array(to_tsvector(language::regconfig, %(words)s))) AS lexeme
        WHERE length(lexeme) > {short} OR octet_length(lexeme) > length(lexeme)
        GROUP BY language)
    SELECT conversation_id, (
        SELECT count(*) FROM unnest(lexemes) AS lexeme WHERE lexeme = ANY (tsvector_to_array(document))
    )::float8 / cardinality(lexemes) AS share
    FROM theirs JOIN asked USING (language)
    ORDER BY share DESC, ended_at DESC, conversation_id"""


def find_similar(client_id: UUID, contact_id: UUID, text: str, limit: int, since: datetime) -> list[StoreHit]:
    """Return the contact's conversations that contain at least LEAST_SHARE of the words of `text`, best first.

    The score is that share. Only the contact's COMPARED newest conversations that started at `since` or later are read.
    """
    statement = _OF_CONTACT.format(compared=COMPARED, short=SHORT)
    values: dict[str, Any] = {"client": client_id, "contact": contact_id, "since": since}
    with connection.cursor() as cursor:
        cursor.execute(statement, {**values, "words": words.indexable([text])})
        found = [
            StoreHit(conversation_id, share) for conversation_id, share in cursor.fetchall() if share >= LEAST_SHARE
        ]
    return found[:limit]


def matching_lexemes(language: str, query: words.WordQuery, candidates: Iterable[str]) -> dict[str, str]:
    """Return the candidates that are a form of a wanted word in `language`, each with its lexeme."""
    wanted = " ".join(word for term in query.wanted for word in term)
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH wanted AS MATERIALIZED (SELECT tsvector_to_array(to_tsvector(%s::regconfig, %s)) AS lexemes)"
            " SELECT word, lexeme FROM wanted, unnest(%s::text[]) AS word,"
            " unnest(tsvector_to_array(to_tsvector(%s::regconfig, word))) AS lexeme WHERE lexeme = ANY (lexemes)",
            [language, wanted, list(candidates), language],
        )
        return dict(cursor.fetchall())


# --- searching -------------------------------------------------------------------------------------------------------
def _languages_of(cursor: Any, client_id: UUID, query: words.WordQuery) -> dict[str, list[int]]:
    """Return the configurations of the client's conversations, each with the pairs of words of the query's phrases.

    Reads an index once for each configuration that exists.
    """
    cursor.execute(
        "SELECT name, ARRAY(SELECT unnest(pairs_of_words(to_tsvector(name::regconfig, term)))"
        " FROM unnest(%s::text[]) AS term) FROM unnest(%s::text[]) AS name"
        " WHERE EXISTS (SELECT FROM memories WHERE client_id = %s AND language = name)",
        [[" ".join(term) for term in query.wanted], list(KNOWN), client_id],
    )
    return dict(cursor.fetchall())


def _query_sql(
    client_id: UUID, query: words.WordQuery, languages: dict[str, list[int]], periods: Sequence[str]
) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the query's SQL conditions, by name, and their values.

    fitting     a condition for the index of words: the words of the query, the client and the periods
    in_a_row    the further condition of a query with phrases
    asked       the query alone, for the rank

    Each language is searched in its own forms, and only in documents of that language: otherwise -orders would not
    exclude a document whose language keeps "orders" as "order".
    """
    values: dict[str, Any] = {"asked": query.websearch, "words": query.websearch_without_phrases}
    fitting, asked, in_a_row = [], [], []
    for number, (name, pairs) in enumerate(languages.items()):
        scopes = [_scope(client_id, name, period) for period in periods]
        values |= {f"language{number}": name, f"pairs{number}": pairs, f"whose{number}": f"'{_scope(client_id, name)}'"}
        values[f"scope{number}"] = " | ".join(f"'{scope}'" for scope in scopes)
        forms = f"websearch_to_tsquery(%(language{number})s::regconfig, %({{}})s)"
        by_pairs = f" AND pairs_of_words(document) @> %(pairs{number})s::int[]" if pairs else ""
        fitting.append(f"document @@ (%(scope{number})s::tsquery && {forms.format('words')}){by_pairs}")
        asked.append(forms.format("asked"))
        in_a_row.append(f"(%(whose{number})s::tsquery && {forms.format('asked')})")
    rows = f"WHERE document @@ ({' || '.join(in_a_row)})" if query.has_phrases else ""
    return {"fitting": " OR ".join(fitting), "asked": f"({' || '.join(asked)})", "in_a_row": rows}, values


def _days_that_hold(wanted: int, searched: int, found: int) -> int | None:
    """Return how many days should have `wanted` matches, if the `searched` days have `found`.

    Returns None if that is more than _FURTHEST: then all conversations are searched.
    """
    days = math.ceil(_MARGIN * searched * wanted / found) if found else _FURTHEST + 1
    return days if days <= _FURTHEST else None


def _newest(until: datetime, days: int | None) -> list[str]:
    """Return the periods that cover the last `days` before `until`, or a little more; [""] for any time, if None."""
    if days is None:
        return [""]
    length = max(period for period in _PERIODS if period <= days)
    return [_period(until - timedelta(days=ago), length) for ago in range(0, days + length, length)]


def _scope(client_id: UUID, language: str, period: str = "") -> str:
    """Return a marker word for the client and the language of a document, and with `period` for when it ended.

    No text can contain it: it has an @. With it the index itself finds a client's conversations, however many other
    clients use the same words.
    """
    return f"@{client_id.hex}:{language}{period}"


def _period(at: datetime, days: int) -> str:
    """Return the name of the period of so many days that contains `at`, counted from 1970."""
    return f":{days}d{int(at.timestamp() // (days * _DAY))}"


# --- writing ---------------------------------------------------------------------------------------------------------
def _row(record: ConversationRecord, kept: Memory | None) -> Memory:
    if not record.summary:
        summary, kind = (kept.summary, kept.summary_kind) if kept else ("", "")
        record = replace(record, summary=summary, summary_kind=kind)
    transcript = [entry.as_json() for entry in record.entries]
    language = configuration(
        record.language, "\n".join(entry.content for entry in record.spoken_entries if entry.is_from_person)
    )
    row = Memory(
        conversation_id=record.conversation_id,
        client_id=record.client_id,
        contact_id=record.contact_id,
        channel=record.channel,
        language=language,
        summary=record.summary,
        summary_kind=record.summary_kind,
        transcript=transcript,
        document=_document(record, language),
        started_at=record.started_at,
        ended_at=record.ended_at,
    )
    if kept and all(getattr(kept, name) == getattr(row, name) for name in _STORE_FIELDS):
        row.remembered_at = kept.remembered_at
    return row


class _Scope(SearchVectorCombinable, Func):
    """A document of nothing but marker words."""

    function = "array_to_tsvector"
    config = None
    output_field = SearchVectorField()


def _document(record: ConversationRecord, language: str) -> Combinable:
    """Return the document of a conversation. The summary's words weigh most, then the person's."""
    person = [entry.content for entry in record.spoken_entries if entry.is_from_person]
    others = [entry.content for entry in record.spoken_entries if not entry.is_from_person]
    periods = ["", *(_period(record.ended_at, days) for days in _PERIODS)]
    scopes = [_scope(record.client_id, language, period) for period in periods]
    document: Combinable = _Scope(Value(scopes, output_field=ArrayField(TextField())))
    for weight, texts in (("A", [record.searchable_summary]), ("B", person), ("C", others)):
        document += SearchVector(Value(words.indexable(texts)), config=language, weight=weight)
    return document
