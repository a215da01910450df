"""What a client has set of its hours: the hours themselves, what happens outside them, and what it promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
from django.utils import translation
from django.utils.formats import date_format

from conversations.models import Client, ClientHours
from conversations.models.hours import DEFAULT_SENTENCE, no_hours
from conversations.services.core import hours as business_hours
from conversations.services.core.hours import Hours
from conversations.services.core.sql import rows

WHEN = "{when}"  # stands in the sentence for the next opening
A_WEEK = timedelta(days=6)  # within it a weekday is enough
Outside = ClientHours.Outside


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of a client. A promise that is None is not made; without hours all time is business time."""

    hours: Hours
    outside: str = Outside.ALWAYS
    sentence: str = DEFAULT_SENTENCE
    language: str = "en"
    answer_within: timedelta | None = None
    first_response_within: timedelta | None = None
    resolve_within: timedelta | None = None
    counts_business_time: bool = True

    @property
    def promise_hours(self) -> Hours:
        """Return the hours in which the promises count."""
        return self.hours if self.counts_business_time else Hours()

    @property
    def longest_promise(self) -> timedelta | None:
        """Return the longest of the promises; None if there is none."""
        made = (self.answer_within, self.first_response_within, self.resolve_within)
        return max((each for each in made if each), default=None)


_TERMS = """
    SELECT c.id, c.time_zone, h.week::text, h.holidays::text, COALESCE(h.outside, 'always'),
        COALESCE(h.outside_sentence, ''), COALESCE(h.outside_language, 'en'),
        c.answer_within, h.first_response_within, h.resolve_within, COALESCE(h.counts_business_time, true)
    FROM clients c LEFT JOIN client_hours h ON h.client_id = c.id WHERE c.id = ANY ($1::uuid[])"""


def terms_of(client_ids: Sequence[UUID]) -> dict[UUID, Terms]:
    """Return the terms of each of the clients, in one statement."""
    found = rows(_TERMS, list(client_ids)) if client_ids else []
    return {pk: Terms(_hours(zone, week, holidays), *rest) for pk, zone, week, holidays, *rest in found}


def terms(client_id: UUID) -> Terms:
    """Return the terms of the client."""
    return terms_of([client_id])[client_id]


@lru_cache(maxsize=1_000)
def _hours(zone: str, week: str | None, holidays: str | None) -> Hours:
    return business_hours.from_json(zone, orjson.loads(week) if week else no_hours(), orjson.loads(holidays or "[]"))


def stored(client: Client) -> ClientHours:
    """Return what the client has set; what is usual, not stored yet, if it has set nothing."""
    return ClientHours.objects.filter(client=client.pk).first() or ClientHours(client=client)


def store(client: Client, values: Mapping[str, Any]) -> None:
    """Store these fields of the client's hours; the others stay."""
    ClientHours.objects.update_or_create(client=client, defaults=dict(values))


def sentence_about(terms: Terms, opens_at: datetime, *, now: datetime) -> str:
    """Return what a person is told outside the hours; '' where the client says nothing."""
    return terms.sentence.replace(WHEN, when_in_words(terms, opens_at, now=now)).strip()


def when_in_words(terms: Terms, at: datetime, *, now: datetime) -> str:
    """Return the moment as the client's people read it, such as "Monday 9:00"; with its date where it is far away."""
    shown = at.astimezone(ZoneInfo(terms.hours.zone))
    is_near = at - now <= A_WEEK
    with translation.override(terms.language):
        day = date_format(shown, "l")
        if not is_near:
            day = f"{day}, {date_format(shown, 'MONTH_DAY_FORMAT')},"
    return f"{day} {shown.hour}:{shown:%M}"
