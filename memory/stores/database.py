"""Memory in PostgreSQL: every session's summary and transcript, found by their words."""

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
from memory.records import NO_FILTERS, Filters, Hit, SessionRecord

RANKED = 300  # of the sessions that fit, the newest so many are ranked: ranking reads their whole document

LOOKED_AT = 50  # sessions of a contact that are compared with what they say
SHORT = 3  # letters: shorter words of plain ASCII say nothing of what a text is about
LEAST_SHARE = 0.3  # of the words of a text that a session must say too

_WRITTEN = [
    *("client_id", "contact_id", "channel", "language", "summary", "summary_kind", "transcript", "document"),
    *("started_at", "ended_at", "remembered_at"),
]

# What every store is told of a session: a change of it is a change of what is remembered.
_TOLD = ["client_id", "contact_id", "channel", "summary", "transcript", "ended_at"]

# Of a common word there are more sessions than anybody reads: the newest are searched first, and where they hold too
# few, as far back as should do at that pace, or all there are. A document says in which period of each length its
# session ended. Few long periods are asked for rather than many short ones: of what is asked for, the index goes along
# whatever is rarest, and along all of the periods where each of them is rarer than any word.
_PERIODS = (1, 4, 16, 64)  # days
_FURTHEST = 256  # days, before all there are
_MARGIN = 1.5
_DAY = timedelta(days=1).total_seconds()

# The planner does not know what unpacking a document and looking into it costs, and so takes reading every row for
# cheap where a word is common. The newest must be read by the index of words, which needs no document: no other index
# may fit (hence no client here, whom `fitting` names too, unless a contact is asked for, who has few), and no scan of
# the table may seem cheaper. What the index finds must fit into memory, or each document is looked into.
_BY_INDEX_ALONE = "SET LOCAL enable_seqscan = off; SET LOCAL work_mem = '32MB'"
# Ranks nothing where there are fewer than enough: then more days are searched.
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
    """The table `memories`, which every other store leans on: it is where the text is."""

    name = "database"

    def remember(self, record: SessionRecord) -> None:
        """The row says what `record` says; a record without a summary keeps the one that is there.

        What changed is not remembered any more (`remembered_at`), until every store has it.
        """
        try:
            self._write(record)
        except IntegrityError:  # somebody else inserted the same session since we looked: now it is there
            self._write(record)

    @transaction.atomic
    def _write(self, record: SessionRecord) -> None:
        kept = Memory.objects.plain().select_for_update().filter(pk=record.conversation_id).first()
        row = _row(record, kept)
        if kept is None:
            row.save(force_insert=True)
        else:
            row.save(force_update=True, update_fields=_WRITTEN)

    @transaction.atomic
    def index_anew(self, conversation_id: UUID) -> None:
        """The row, if it is there, is found by its words as they are cut today; what it says stays."""
        kept = Memory.objects.plain().select_for_update().filter(pk=conversation_id).first()
        if kept:
            _row(kept.as_record(), kept).save(force_update=True, update_fields=["language", "document"])

    def forget(self, conversation_id: UUID) -> None:
        """The row is gone."""
        Memory.objects.filter(pk=conversation_id).delete()

    def search(self, client_id: UUID, query: str, limit: int, filters: Filters = NO_FILTERS) -> list[Hit]:
        """By full text: sessions that hold every word asked for, in any form their language gives it."""
        question = words.parse(query)
        if not question.wanted:
            return []
        chosen = {name: value for name in _NARROWED if (value := getattr(filters, name))}
        ranked = max(limit, RANKED)
        narrowed = " ".join(_NARROWED[name] for name in chosen)
        until = filters.ended_before or timezone.now()
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(_BY_INDEX_ALONE)
            languages = _languages_of(cursor, client_id, question)
            days: int | None = 1
            while languages:
                asked, values = _question(client_id, question, languages, _newest(until, days))
                statement = _NEWEST.format(**asked, narrowed=narrowed, ranked=ranked)
                enough = {"limit": limit, "enough": ranked if days else 0}
                cursor.execute(statement, {"client": client_id, **chosen, **values, **enough})
                best = cursor.fetchall()
                if not days or best[0][0] == ranked:
                    return [Hit(conversation_id, score) for _, conversation_id, score in best if conversation_id]
                days = _days_that_hold(ranked, days, best[0][0])
        return []


_OF_CONTACT = """
    WITH theirs AS (
        SELECT conversation_id, language, document, ended_at FROM memories
        WHERE client_id = %(client)s AND contact_id = %(contact)s AND started_at >= %(since)s
        ORDER BY ended_at DESC LIMIT {looked_at}),
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


def about(client_id: UUID, contact_id: UUID, text: str, limit: int, since: datetime) -> list[Hit]:
    """The contact's sessions, begun at `since` or later, that say at least LEAST_SHARE of the words of `text`, best
    first. The score is that share. It reads the contact's newest sessions alone, however much there is of others."""
    statement = _OF_CONTACT.format(looked_at=LOOKED_AT, short=SHORT)
    values: dict[str, Any] = {"client": client_id, "contact": contact_id, "since": since}
    with connection.cursor() as cursor:
        cursor.execute(statement, {**values, "words": words.indexable([text])})
        found = [Hit(conversation_id, share) for conversation_id, share in cursor.fetchall() if share >= LEAST_SHARE]
    return found[:limit]


def lexemes_asked_for(language: str, question: words.Query, among: Iterable[str]) -> dict[str, str]:
    """Those of the words `among` that are wanted, in whatever form `language` gives them, each with its lexeme."""
    wanted = " ".join(word for term in question.wanted for word in term)
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH wanted AS MATERIALIZED (SELECT tsvector_to_array(to_tsvector(%s::regconfig, %s)) AS lexemes)"
            " SELECT word, lexeme FROM wanted, unnest(%s::text[]) AS word,"
            " unnest(tsvector_to_array(to_tsvector(%s::regconfig, word))) AS lexeme WHERE lexeme = ANY (lexemes)",
            [language, wanted, list(among), language],
        )
        return dict(cursor.fetchall())


# --- searching -------------------------------------------------------------------------------------------------------
def _languages_of(cursor: Any, client_id: UUID, question: words.Query) -> dict[str, list[int]]:
    """The configurations that the client's sessions are indexed with (one look into an index for each there is), and
    by what the words that are asked for in a row are found in the index there."""
    cursor.execute(
        "SELECT name, ARRAY(SELECT unnest(pairs_of_words(to_tsvector(name::regconfig, term)))"
        " FROM unnest(%s::text[]) AS term) FROM unnest(%s::text[]) AS name"
        " WHERE EXISTS (SELECT FROM memories WHERE client_id = %s AND language = name)",
        [[" ".join(term) for term in question.wanted], list(KNOWN), client_id],
    )
    return dict(cursor.fetchall())


def _question(
    client_id: UUID, question: words.Query, languages: dict[str, list[int]], periods: Sequence[str]
) -> tuple[dict[str, str], dict[str, Any]]:
    """SQL of the question, and its values: what is `fitting` by the index of words alone, within the client and those
    periods; what else has to be so where it asks for words `in_a_row`; and what was `asked` bare.

    Each language is asked for in its own forms, and only in documents of that language: else -orders would not exclude
    a document whose language keeps "orders" as "order".
    """
    values: dict[str, Any] = {"asked": question.websearch, "words": question.words_alone}
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
    rows = f"WHERE document @@ ({' || '.join(in_a_row)})" if question.in_a_row else ""
    return {"fitting": " OR ".join(fitting), "asked": f"({' || '.join(asked)})", "in_a_row": rows}, values


def _days_that_hold(wanted: int, searched: int, found: int) -> int | None:
    """How many days should hold so many sessions, if those that were searched hold so few; None if that is too many to
    tell them from all."""
    days = math.ceil(_MARGIN * searched * wanted / found) if found else _FURTHEST + 1
    return days if days <= _FURTHEST else None


def _newest(until: datetime, days: int | None) -> list[str]:
    """What says of a document that its session ended in the last so many days, or shortly before; whenever, if None."""
    if days is None:
        return [""]
    length = max(period for period in _PERIODS if period <= days)
    return [_period(until - timedelta(days=ago), length) for ago in range(0, days + length, length)]


def _scope(client_id: UUID, language: str, period: str = "") -> str:
    """A word of the document that says whose it is and in which language it is indexed; with `period`, also when its
    session ended. No text can hold it: it has an @. With it the index itself finds a client's sessions, however many
    other clients say the same words."""
    return f"@{client_id.hex}:{language}{period}"


def _period(at: datetime, days: int) -> str:
    """The period of so many days, counted since 1970 began."""
    return f":{days}d{int(at.timestamp() // (days * _DAY))}"


# --- writing ---------------------------------------------------------------------------------------------------------
def _row(record: SessionRecord, kept: Memory | None) -> Memory:
    if not record.summary:
        summary, kind = (kept.summary, kept.summary_kind) if kept else ("", "")
        record = replace(record, summary=summary, summary_kind=kind)
    transcript = [entry.as_json() for entry in record.entries]
    language = configuration(record.language, "\n".join(entry.content for entry in record.said if entry.is_person))
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
    if kept and all(getattr(kept, name) == getattr(row, name) for name in _TOLD):
        row.remembered_at = kept.remembered_at
    return row


class _Scope(SearchVectorCombinable, Func):
    """A document of nothing but the words that say whose it is."""

    function = "array_to_tsvector"
    config = None
    output_field = SearchVectorField()


def _document(record: SessionRecord, language: str) -> Combinable:
    """The words by which the session is found. What the summary says weighs most, then what the person said."""
    person = [entry.content for entry in record.said if entry.is_person]
    others = [entry.content for entry in record.said if not entry.is_person]
    periods = ["", *(_period(record.ended_at, days) for days in _PERIODS)]
    scopes = [_scope(record.client_id, language, period) for period in periods]
    document: Combinable = _Scope(Value(scopes, output_field=ArrayField(TextField())))
    for weight, texts in (("A", [record.telling_summary]), ("B", person), ("C", others)):
        document += SearchVector(Value(words.indexable(texts)), config=language, weight=weight)
    return document
