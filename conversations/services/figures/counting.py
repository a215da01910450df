"""Counting the figures of quarters of an hour, from conversations, messages, turns, the ledger and ratings.

    opened          conversations that began in the quarter
    ended           conversations that ended, without those that went on in another
    answered_alone  of those: answered, without a person's having it or writing in it
    handed_over     of those: a person took it over, or was called
    late            of those: the first response or the end came later than the client promises
    messages_in     what people said; messages_out what was said to them
    asked, ratings  questions about satisfaction and answers; satisfied: of 4 or 5; rating_sum: the sum of the scores
    tokens, cost    of the turns that ended
    first response  from a person's first message to the first reply, in the quarter of the reply
    resolution      from the beginning to the end, of conversations that were closed and did not run out

The colleague of a message or a first response is its author; of an end or a rating, the colleague who wrote last. The
labels and the team are those that the conversation has as it is counted.

Counting a quarter again gives the same rows. A figure never falls: what was deleted since stays counted. Nor does it
count twice under somebody else: a colleague or an assistant who is deleted, or is another now, keeps what was counted
(raising.py). An archived conversation's colleague is not known any more: its end and its rating count in a quarter that
has none of them yet.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import product
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from conversations.models import Assistant, QuarterTimes
from conversations.models.figures import COLUMNS, NOBODY
from conversations.services.core.cluster import all_clients, for_each_with, is_cluster, of_each
from conversations.services.core.sql import rows, rows_of_each
from conversations.services.figures import days
from conversations.services.figures.buckets import bucket_of
from conversations.services.figures.raising import raised
from conversations.services.tenants import client_hours, promises

QUARTER = timedelta(minutes=15)
BEFORE = timedelta(hours=1)  # a turn ends within so long after a message in its conversation
SATISFIED = 4

_SAID = "('user', 'voice', 'ai')"


def _quarter(time: str) -> str:
    return f"date_bin('15 minutes', {time}, '2000-01-01 00:00+00')"


# Who may have anything in the time from $1 to $2. Indexes: said_of_late, conversations_newest; of ends, by each client.
_CLIENTS = f"""
    SELECT k.client_id FROM conversation_chunks k WHERE k.created_at >= $1 AND k.created_at < $2 AND k.role IN {_SAID}
    UNION SELECT s.client_id FROM conversations s WHERE s.started_at >= $1 AND s.started_at < $2
    UNION SELECT c.id FROM clients c WHERE EXISTS (
        SELECT FROM conversations s WHERE s.client_id = c.id AND s.ended_at >= $1 AND s.ended_at < $2)"""

# The same of client $3: a cluster takes no such list.
_HAS_ANY = f"""
    SELECT EXISTS (
        SELECT FROM conversation_chunks k
        WHERE k.client_id = $3 AND k.created_at >= $1 AND k.created_at < $2 AND k.role IN {_SAID})
      OR EXISTS (SELECT FROM conversations s WHERE s.client_id = $3 AND s.started_at >= $1 AND s.started_at < $2)
      OR EXISTS (SELECT FROM conversations s WHERE s.client_id = $3 AND s.ended_at >= $1 AND s.ended_at < $2)"""

# $1 the client, $2 and $3 the time, $4 the assistant that answers where none is named.
_OF = "s.id, s.channel, COALESCE(s.assistant_id, $4::uuid)"
_CHUNKS = "conversation_chunks k WHERE k.client_id = $1"
_OPENED = f"""
    SELECT {_quarter("s.started_at")}, {_OF}
    FROM conversations s WHERE s.client_id = $1 AND s.started_at >= $2 AND s.started_at < $3 {{only}}"""
_LAST_COLLEAGUE = f"""(
    SELECT k.author_id FROM {_CHUNKS} AND k.conversation_id = s.id AND k.author_id IS NOT NULL
    ORDER BY k.position DESC LIMIT 1)"""


def _once(time: str, figure: str) -> str:
    """Return the condition that conversation s, if it is archived, was not counted before."""
    return f"""(s.archived_at IS NULL OR NOT EXISTS (
        SELECT FROM quarter_figures f
        WHERE f.client_id = $1 AND f.label_id = 0 AND f.team_id = 0 AND f.quarter = {_quarter(time)}
          AND f.{figure} > 0 AND NOT f.of_deleted))"""


# An archived conversation has no messages any more; its turns tell whether it was answered.
_ENDED = f"""
    SELECT {_quarter("s.ended_at")}, {_OF}, {_LAST_COLLEAGUE},
        CASE WHEN s.ended_by <> 'timeout' THEN extract(epoch FROM s.ended_at - s.started_at)::float8 END,
        EXISTS (SELECT FROM {_CHUNKS} AND k.conversation_id = s.id AND k.role = 'ai')
        OR EXISTS (SELECT FROM conversation_turns t
                   WHERE t.client_id = $1 AND t.conversation_id = s.id AND t.status = 'committed'),
        EXISTS (SELECT FROM {_CHUNKS} AND k.conversation_id = s.id AND k.role = 'ai'
                AND (k.author_id IS NOT NULL OR k.metadata ? 'colleague')),
        EXISTS (SELECT FROM conversation_events e
                WHERE e.client_id = $1 AND e.conversation_id = s.id AND e.kind = 'taken_over')
    FROM conversations s
    WHERE s.client_id = $1 AND s.ended_at >= $2 AND s.ended_at < $3 AND s.last_position > 0
      AND {_once("s.ended_at", "ended")} {{only}}"""
_MESSAGES = f"""
    SELECT {_quarter("k.created_at")}, {_OF}, k.author_id,
        count(*) FILTER (WHERE k.role <> 'ai'), count(*) FILTER (WHERE k.role = 'ai')
    FROM conversation_chunks k JOIN conversations s ON s.client_id = $1 AND s.id = k.conversation_id
    WHERE k.client_id = $1 AND k.created_at >= $2 AND k.created_at < $3 AND k.role IN {_SAID} {{only}}
    GROUP BY 1, 2, 3, 4, 5"""
_FIRST_RESPONSES = f"""
    WITH replied AS (
        SELECT DISTINCT k.conversation_id AS id FROM {_CHUNKS}
        AND k.created_at >= $2 AND k.created_at < $3 AND k.role = 'ai')
    SELECT {_quarter("reply.created_at")}, {_OF}, reply.author_id,
        extract(epoch FROM reply.created_at - asked.created_at)::float8
    FROM replied JOIN conversations s ON s.client_id = $1 AND s.id = replied.id
    CROSS JOIN LATERAL (
        SELECT k.position, k.created_at FROM {_CHUNKS}
        AND k.conversation_id = s.id AND k.role IN ('user', 'voice') ORDER BY k.position LIMIT 1) asked
    CROSS JOIN LATERAL (
        SELECT k.created_at, k.author_id FROM {_CHUNKS}
        AND k.conversation_id = s.id AND k.position > asked.position AND k.role = 'ai'
        ORDER BY k.position LIMIT 1) reply
    WHERE reply.created_at >= $2 AND reply.created_at < $3 {{only}}"""
# No index has the time of a turn: it is found by the messages of its conversation, since $5.
_TURNS = f"""
    WITH touched AS (
        SELECT DISTINCT k.conversation_id AS id FROM {_CHUNKS}
        AND k.created_at >= $5 AND k.created_at < $3 AND k.role IN {_SAID})
    SELECT {_quarter("t.ended_at")}, {_OF}, sum(t.tokens_in + t.tokens_out)::bigint, sum(COALESCE(t.cost, 0))
    FROM touched JOIN conversation_turns t ON t.client_id = $1 AND t.conversation_id = touched.id
    JOIN conversations s ON s.client_id = $1 AND s.id = t.conversation_id
    WHERE t.ended_at >= $2 AND t.ended_at < $3 {{only}}
    GROUP BY 1, 2, 3, 4"""
_ASKED = f"""
    SELECT {_quarter("r.asked_at")}, {_OF}, {_LAST_COLLEAGUE}
    FROM ratings r JOIN conversations s ON s.client_id = $1 AND s.id = r.conversation_id
    WHERE r.client_id = $1 AND r.asked_at >= $2 AND r.asked_at < $3 AND {_once("r.asked_at", "asked")} {{only}}"""
_RATED = f"""
    SELECT {_quarter("r.rated_at")}, {_OF}, {_LAST_COLLEAGUE}, r.score
    FROM ratings r JOIN conversations s ON s.client_id = $1 AND s.id = r.conversation_id
    WHERE r.client_id = $1 AND r.rated_at >= $2 AND r.rated_at < $3 AND {_once("r.rated_at", "ratings")} {{only}}"""
_LABELS_AND_TEAMS = """
    SELECT l.conversation_id, l.label_id, 0::bigint FROM desk_conversation_labels l
    WHERE l.client_id = $1 AND l.conversation_id = ANY($2::uuid[])
    UNION ALL SELECT d.conversation_id, 0::bigint, d.team_id FROM desk_states d
    WHERE d.client_id = $1 AND d.conversation_id = ANY($2::uuid[]) AND d.team_id IS NOT NULL"""


@dataclass(frozen=True, slots=True)
class Fact:
    """What is to be counted of one conversation in a quarter. `time`: a kind and seconds."""

    quarter: datetime
    conversation_id: UUID
    channel: str
    assistant_id: UUID
    colleague_id: int | None
    sums: dict[str, Any]
    time: tuple[str, float] | None = None


@dataclass(slots=True)
class Tally:
    """The rows of figures, by what they are of: label, team, quarter, channel, assistant, colleague."""

    sums: dict[tuple[Any, ...], Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    times: Counter[tuple[Any, ...]] = field(default_factory=Counter)

    def add(self, fact: Fact, labels: list[int], team_id: int) -> None:
        """Count the fact once for all conversations, and once for each label and the team of its conversation.

        team_id: 0 for none
        """
        teams = (0, team_id) if team_id else (0,)
        for label_id, of_team in product((0, *labels), teams):
            key = (label_id, of_team, fact.quarter, fact.channel, fact.assistant_id, fact.colleague_id or 0)
            self.sums[key].update(fact.sums)
            if fact.time:
                kind, seconds = fact.time
                self.times[(*key, kind, bucket_of(seconds))] += 1


def quarter_of(time: datetime) -> datetime:
    """Return the beginning of the quarter of an hour of a time."""
    return time.replace(minute=time.minute // 15 * 15, second=0, microsecond=0)


def count(since: datetime, until: datetime) -> int:
    """Count the quarters from `since` to `until`, which begin quarters, and return how many rows they have.

    In a cluster, clients whose server is away are left out.
    """
    return sum(_for_each(since, until, lambda client_id: count_client(client_id, since, until)))


def preview(since: datetime, until: datetime) -> int:
    """Return how many rows the quarters have. Changes nothing."""

    def of_client(client_id: UUID) -> int:
        return len(_tally(client_id, since, until).sums)

    return sum(_for_each(since, until, of_client))


def _for_each(since: datetime, until: datetime, work: Callable[[UUID], int]) -> Iterator[int]:
    """Yield what `work` returns for each client that may have anything in the time."""
    if not is_cluster():
        return for_each_with(_CLIENTS, (since, until), work)

    def of_client(client_id: UUID) -> int:
        return work(client_id) if rows(_HAS_ANY, since, until, client_id)[0][0] else 0

    return of_each([(client_id,) for client_id in all_clients()], of_client)


def count_client(client_id: UUID, since: datetime, until: datetime) -> int:
    """Count the client's quarters from `since` to `until` and return how many rows they have."""
    tally = _tally(client_id, since, until)
    with transaction.atomic():
        rows(_ONE_AT_A_TIME, client_id)
        write(client_id, _raised(client_id, tally, since, until))
        days.sum_again(client_id, since, until)
    return len(tally.sums)


def _raised(client_id: UUID, tally: Tally, since: datetime, until: datetime) -> Tally:
    """Return the rows as they are to be written beside what was counted before."""
    places = {key[:2] for key in tally.sums}
    values = (client_id, [label for label, _ in places], [team for _, team in places], since, until)
    sums = {(*key, name): tally.sums[key][name] for key in tally.sums for name in COLUMNS}
    known = {
        (*row[:_KEYS], name): number
        for row in rows(_KNOWN_SUMS, *values)
        for name, number in zip(COLUMNS, row[_KEYS:], strict=True)
    }
    raised_tally = Tally()
    for (*key, name), number in raised(sums, known, _total_of_sum).items():
        raised_tally.sums[tuple(key)][name] = number
    times = {tuple(row[:-1]): row[-1] for row in rows(_KNOWN_TIMES, *values)}
    raised_tally.times.update(raised(tally.times, times, _total_of_time))
    return raised_tally


def _total_of_sum(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return what a sum is a part of: the figure of all assistants and colleagues."""
    return (*key[:_WITHOUT_PEOPLE], key[-1])


def _total_of_time(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the same of a bucket of times."""
    return (*key[:_WITHOUT_PEOPLE], *key[_KEYS:])


def _tally(client_id: UUID, since: datetime, until: datetime) -> Tally:
    return tallied(client_id, [*facts_of(client_id, since, until)])


def tallied(client_id: UUID, facts: list[Fact]) -> Tally:
    """Return the rows of these facts of the client's."""
    labels: dict[UUID, list[int]] = defaultdict(list)
    teams: dict[UUID, int] = {}
    conversation_ids = list({fact.conversation_id for fact in facts})
    for conversation_id, label_id, team_id in rows(_LABELS_AND_TEAMS, client_id, conversation_ids):
        if label_id:
            labels[conversation_id].append(label_id)
        else:
            teams[conversation_id] = team_id
    tally = Tally()
    for fact in facts:
        tally.add(fact, labels.get(fact.conversation_id, []), teams.get(fact.conversation_id, 0))
    return tally


def default_assistant(client_id: UUID) -> UUID:
    """Return the assistant that answers where a conversation names none."""
    found = Assistant.objects.filter(client=client_id, is_default=True).values_list("pk", flat=True).first()
    return found or NOBODY


def facts_of(client_id: UUID, since: datetime, until: datetime, only: Sequence[UUID] | None = None) -> Iterator[Fact]:
    """Yield what is to be counted of the client's conversations, or `only` of these, from `since` to `until`."""
    values = (client_id, since, until, default_assistant(client_id))

    def found(statement: str, *more: Any) -> list[tuple[Any, ...]]:
        given = (*values, *more)
        if only is None:
            return rows(statement.format(only=""), *given)
        return rows(statement.format(only=f"AND s.id = ANY(${len(given) + 1}::uuid[])"), *given, list(only))

    for quarter, pk, channel, assistant in found(_OPENED):
        yield Fact(quarter, pk, channel, assistant, None, {"opened": 1})
    yield from _ended_facts(client_id, found(_ENDED))
    for quarter, pk, channel, assistant, author, said, replied in found(_MESSAGES):
        yield Fact(quarter, pk, channel, assistant, author, {"messages_in": said, "messages_out": replied})
    for quarter, pk, channel, assistant, author, seconds in found(_FIRST_RESPONSES):
        time = (QuarterTimes.Kind.FIRST_RESPONSE.value, seconds)
        yield Fact(quarter, pk, channel, assistant, author, {}, time)
    for quarter, pk, channel, assistant, tokens, cost in found(_TURNS, since - BEFORE):
        yield Fact(quarter, pk, channel, assistant, None, {"tokens": tokens, "cost": cost})
    for quarter, pk, channel, assistant, colleague in found(_ASKED):
        yield Fact(quarter, pk, channel, assistant, colleague, {"asked": 1})
    for quarter, pk, channel, assistant, colleague, score in found(_RATED):
        sums = {"ratings": 1, "satisfied": int(score >= SATISFIED), "rating_sum": score}
        yield Fact(quarter, pk, channel, assistant, colleague, sums)


def _ended_facts(client_id: UUID, found: list[tuple[Any, ...]]) -> Iterator[Fact]:
    """Return what is counted of conversations that ended, from the rows of _ENDED."""
    late = _late(client_id, [pk for _quarter, pk, *_rest in found])
    for quarter, pk, channel, assistant, colleague, seconds, answered, by_person, taken_over in found:
        sums = {
            "ended": 1,
            "answered_alone": int(answered and not by_person and not taken_over),
            "handed_over": int(taken_over),
            "late": int(pk in late),
        }
        time = None if seconds is None else (QuarterTimes.Kind.RESOLUTION.value, seconds)
        yield Fact(quarter, pk, channel, assistant, colleague, sums, time)


def _late(client_id: UUID, conversation_ids: list[UUID]) -> set[UUID]:
    """Return which of these conversations, all ended, missed a promise of the client's."""
    if not conversation_ids or not client_hours.terms(client_id).longest_promise:
        return set()
    now = timezone.now()
    found = promises.promises(client_id, conversation_ids)
    return {conversation_id for conversation_id, each in found.items() if each.was_late(now)}


# --- writing ----------------------------------------------------------------------------------------------------------
_KEY = "client_id, label_id, team_id, quarter, channel, assistant_id, colleague_id, of_deleted"
_KEYS, _WITHOUT_PEOPLE = 6, 4  # columns of a tally's key: all, and those before the assistant and the colleague
_ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(hashtextextended('convo.figures' || $1::uuid::text, 0)) IS NOT NULL"


def _known(table: str, columns: str) -> str:
    """Return the statement of the rows of quarters $4 to $5, of these labels and teams, as a tally has them."""
    return f"""
        SELECT label_id, team_id, quarter, channel, assistant_id, colleague_id, {columns} FROM {table}
        WHERE client_id = $1 AND label_id = ANY ($2::bigint[]) AND team_id = ANY ($3::bigint[])
          AND quarter >= $4 AND quarter < $5 AND NOT of_deleted"""


_KNOWN_SUMS = _known("quarter_figures", ", ".join(COLUMNS))
_KNOWN_TIMES = _known("quarter_times", "kind, bucket, number")


def _upsert(table: str, key: str, sums: tuple[str, ...], combine: str) -> str:
    columns = key.count(",") + 1
    values = ", ".join(f"${number}" for number in range(1, columns + len(sums) + 1))
    combined = ", ".join(f"{each} = {combine.format(old=f't.{each}', new=f'EXCLUDED.{each}')}" for each in sums)
    return f"""
        INSERT INTO {table} AS t ({key}, {", ".join(sums)}) VALUES ({values})
        ON CONFLICT ({key}) DO UPDATE SET {combined} RETURNING t.id"""


def _statements(combine: str) -> tuple[str, str]:
    figures = _upsert("quarter_figures", _KEY, COLUMNS, combine)
    times = _upsert("quarter_times", f"{_KEY}, kind, bucket", ("number",), combine)
    return figures, times


_RAISED = _statements("GREATEST({old}, {new})")
_ADDED = _statements("{old} + {new}")


def write(client_id: UUID, tally: Tally, *, of_deleted: bool = False) -> None:
    """Write the rows. A row that is there is raised to them; one of what is deleted is added to."""
    figures, times = _ADDED if of_deleted else _RAISED
    sums = [
        (client_id, *key, of_deleted, *(_number(name, found[name]) for name in COLUMNS))
        for key, found in sorted(tally.sums.items(), key=lambda each: str(each[0]))
    ]
    counts = [
        (client_id, *key, of_deleted, kind, bucket, number)
        for (*key, kind, bucket), number in sorted(tally.times.items(), key=lambda each: str(each[0]))
    ]
    with transaction.atomic():
        rows_of_each(figures, sums)
        rows_of_each(times, counts)


def _number(name: str, value: Any) -> Any:
    return Decimal(value) if name == "cost" else int(value)
