"""Quotas of a day: how many tokens of language models a client may use, and what they may cost.

    a model answers ─► note_use adds to the row of the client's day ─► at NEARLY staff are warned, once a day
    a reply is due  ─► is_used_up reads that row, if the client has a quota ─► the reply waits for the next day

The day is the client's own. A reply begins while less than the quota is used, so that those in flight may go beyond it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TypeGuard
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.formats import number_format
from django.utils.translation import gettext

from conversations.engines.contract import Usage
from conversations.models import Client, ClientDay, Conversation
from conversations.services.core.cluster import of_all, of_client
from conversations.services.core.sql import column, row, unlocked
from conversations.services.tenants.pricing import cost
from conversations.words import whole

log = logging.getLogger(__name__)

NEARLY = Decimal("0.8")  # of a quota
USED_UP = "quota_used_up"  # the code of turns that were held back

_ADD = """
    INSERT INTO client_days AS d (client_id, day, tokens, tokens_unpriced, cost) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (client_id, day) DO UPDATE
    SET tokens = d.tokens + EXCLUDED.tokens, tokens_unpriced = d.tokens_unpriced + EXCLUDED.tokens_unpriced,
        cost = d.cost + EXCLUDED.cost
    RETURNING d.tokens, d.cost, d.warned_at IS NULL"""
_READ = "SELECT tokens, cost FROM client_days WHERE client_id = $1 AND day = $2"
_WARNED = """
    UPDATE client_days SET warned_at = $3 WHERE client_id = $1 AND day = $2 AND warned_at IS NULL RETURNING client_id"""


@dataclass(frozen=True, slots=True)
class Day:
    """The use of models by a client on one day, beside its quotas. cost: US dollars."""

    client: Client
    tokens: int = 0
    cost: Decimal = Decimal(0)
    tokens_unpriced: int = 0
    warned_at: datetime | None = None

    @property
    def share(self) -> Decimal:
        """Return which part of the quota that is nearest its end is used: 1 if all of it is, 0 without quotas."""
        tokens, cost = self.client.tokens_per_day, self.client.cost_per_day
        shares = [Decimal(self.tokens) / tokens] if tokens else []
        if cost:
            shares.append(self.cost / cost)
        return max(shares, default=Decimal(0))

    @property
    def is_used_up(self) -> bool:
        """Return whether replies wait for the next day."""
        return self.share >= 1

    @property
    def warned_time(self) -> str:
        """Return when staff were warned, as the client's clock shows it; '' if they were not."""
        return f"{self.warned_at.astimezone(zone_of(self.client)):%H:%M}" if self.warned_at else ""

    @property
    def sentence(self) -> str:
        """Return what staff are told of the figures."""
        used = f"{self._tokens_used}, {self._cost_used}."
        if not self.tokens_unpriced:
            return used
        unpriced = gettext("%(n)s tokens have no known price and count as $0.") % {"n": whole(self.tokens_unpriced)}
        return f"{used} {unpriced}"

    @property
    def _tokens_used(self) -> str:
        """Return how many tokens were used, and what part of the quota they are."""
        used, most = whole(self.tokens), self.client.tokens_per_day
        if not _is_quota(most):
            return gettext("%(used)s tokens") % {"used": used}
        percent = int(100 * Decimal(self.tokens) / most)
        return gettext("%(used)s of %(most)s tokens (%(percent)s %%)") % {
            "used": used,
            "most": whole(int(most)),
            "percent": percent,
        }

    @property
    def _cost_used(self) -> str:
        """Return how many dollars were used, and what part of the quota they are."""
        used, most = number_format(self.cost, 2, force_grouping=True), self.client.cost_per_day
        if not _is_quota(most):
            return f"${used}"
        return gettext("$%(used)s of $%(most)s (%(percent)s %%)") % {
            "used": used,
            "most": number_format(most, force_grouping=True),
            "percent": int(100 * self.cost / most),
        }


def zone_of(client: Client) -> ZoneInfo:
    """Return the client's time zone; UTC if this machine does not know it."""
    try:
        return ZoneInfo(client.time_zone)
    except (ZoneInfoNotFoundError, ValueError):
        return ZoneInfo("UTC")


def day_of(client: Client, now: datetime) -> date:
    """Return the client's day at this time."""
    return now.astimezone(zone_of(client)).date()


def beginning_of(client: Client, now: datetime, *, days: int = 0) -> datetime:
    """Return when the client's day at this time began, or when the one so many days later does."""
    return datetime.combine(day_of(client, now) + timedelta(days=days), time.min, tzinfo=zone_of(client))


def note_use(client: Client, usage: Sequence[Usage], now: datetime) -> None:
    """Add what models took to the client's day, and warn where a quota is nearly used up for the first time that day.

    Call it at the end of a transaction: until then nobody else adds to the day.
    """
    tokens, unpriced, price = 0, 0, Decimal(0)
    for each in usage:
        count = each.tokens_in + each.tokens_out
        known = cost(each.model, each.tokens_in, each.tokens_out, each.tokens_cached)
        tokens, price = tokens + count, price + (known or 0)
        unpriced += count if known is None else 0
    if not tokens:
        return
    day = day_of(client, now)
    found = row(_ADD, client.pk, day, tokens, unpriced, price)
    if found is None or not found[2] or Day(client, found[0], found[1]).share < NEARLY:
        return
    if column(_WARNED, client.pk, day, now):
        log.warning("a quota of the day is nearly used up: client=%s", client.pk)


def note_model_use(client_id: UUID, model: str, tokens_in: int, tokens_out: int, tokens_cached: int) -> None:
    """Add one answer of a model to the client's day: what memory asks for, such as summaries."""
    if client := Client.objects.filter(pk=client_id).first():
        note_use(client, [Usage(model, tokens_in, tokens_out, tokens_cached)], timezone.now())


def is_used_up(client: Client, now: datetime) -> bool:
    """Return whether a quota of the client's day is used up. Without quotas nothing is read."""
    if client.tokens_per_day is None and client.cost_per_day is None:
        return False
    found = row(_READ, client.pk, day_of(client, now))
    return found is not None and Day(client, *found).is_used_up


def today(client: Client, now: datetime) -> Day:
    """Return what the client used on its day so far."""
    found = ClientDay.objects.filter(client=client, day=day_of(client, now)).first()
    return _day(client, found) if found else Day(client)


def warnings(client_ids: Collection[UUID] | None, now: datetime) -> list[Day]:
    """Return the days of these clients on which a quota is nearly or wholly used up, by the client's name.

    client_ids: None for all clients
    """
    limited = Client.objects.filter(Q(tokens_per_day__isnull=False) | Q(cost_per_day__isnull=False), is_active=True)
    if client_ids is not None:
        limited = limited.filter(pk__in=client_ids)
    clients = {client.pk: client for client in limited.order_by("name")}
    days = {pk: day_of(client, now) for pk, client in clients.items()}
    theirs = ClientDay.objects.filter(client__in=clients, day__in=set(days.values()))
    rows = of_all(lambda pk: of_client(theirs, pk), list(clients)) if clients else ()
    found = {each.client_id: each for each in rows if each.day == days[each.client_id]}
    shown = [_day(client, found[pk]) for pk, client in clients.items() if pk in found]
    return [day for day in shown if day.share >= NEARLY]


def release(client: Client, now: datetime) -> int:
    """Let the replies that wait for the client's next day be written now, and return how many wait.

    Where its quotas are still used up, they are held back again.
    """
    held = Conversation.objects.filter(client=client, reply_owed=True, reply_due_at=beginning_of(client, now, days=1))
    with transaction.atomic():
        return int(unlocked(held, client.pk).update(reply_due_at=now))


def _day(client: Client, found: ClientDay) -> Day:
    return Day(client, found.tokens, found.cost, found.tokens_unpriced, found.warned_at)


def _is_quota(most: Decimal | int | None) -> TypeGuard[Decimal | int]:
    """Return whether there is a quota: a form that was refused may show one of 0 or less."""
    return most is not None and most > 0
