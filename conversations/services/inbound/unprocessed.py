"""What arrived and did not become a chunk is kept; what nobody signed is counted. Both for a set time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import orjson
from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from channels_out.contract import BODY, Adapter, InboundRequest
from channels_out.errors import InboundError
from channels_out.events import Event, Receipt, Unhandled, WatermarkReceipt
from conversations.models import ChannelAccount, InboundEvent, RefusedWebhooks
from conversations.services.core import redaction
from conversations.services.core.sql import rows
from conversations.services.delivery import receipts
from memory.redaction import RedactionRules

PROCESSING_FAILED = "processing_failed"
UNKNOWN_ACCOUNT = "unknown_account"
MALFORMED = "malformed"
WHOLE = "webhook"  # the kind of a request that could not even be parsed into events
SEVERAL = "several"  # the kind of several events of one request that failed alike


def keep_unhandled(adapter: Adapter, account: ChannelAccount | None, event: Unhandled, reason: str) -> None:
    """The event is kept as the adapter narrowed it."""
    _keep(adapter, account, reason, event.raw, address=event.account, kind=event.kind, message_id=event.message_id)


def keep_receipt(adapter: Adapter, account: ChannelAccount, receipt: Receipt) -> None:
    """The receipt waits for the commit of the send it is about."""
    raw = orjson.loads(orjson.dumps(asdict(receipt)))
    names = {"address": receipt.account, "kind": "receipt", "message_id": receipt.provider_message_id}
    _keep(adapter, account, receipts.UNMATCHED, raw, **names)


def keep_reached(adapter: Adapter, account: ChannelAccount, event: WatermarkReceipt) -> None:
    """The event waits for the commit of a send that it may be about."""
    kind, about = _names(event)
    raw = orjson.loads(orjson.dumps(asdict(event)))
    _keep(adapter, account, receipts.UNMATCHED, raw, address=event.account, kind=kind, message_id=about)


def keep_events(
    adapter: Adapter, account: ChannelAccount | None, request: InboundRequest, events: Sequence[Event], reason: str
) -> None:
    """These events of the request, all of one address, are kept together: as the part of the request that is the
    address's. Where the adapter cannot tell the parts apart, nobody's staff may see it but superusers."""
    address = events[0].account
    raw = adapter.keep(request, address)
    if account and _addresses(adapter, raw) != [address]:
        account = None
    one = events[0] if len(events) == 1 else None
    kind, message_id = _names(one) if one else (SEVERAL, "")
    _keep(adapter, account, reason, raw, address=address, kind=kind, message_id=message_id)


def keep_request(adapter: Adapter, account: ChannelAccount | None, request: InboundRequest, reason: str) -> None:
    """The request is kept whole."""
    address = account.address if account else ""
    _keep(adapter, account, reason, adapter.keep(request), address=address, kind=WHOLE)


def _names(event: Event) -> tuple[str, str]:
    if isinstance(event, Receipt):
        return "receipt", event.provider_message_id
    if isinstance(event, WatermarkReceipt):
        return "receipt", receipts.about_person(event.sender)
    return event.kind, event.message_id


def _addresses(adapter: Adapter, raw: dict[str, Any]) -> list[str]:
    try:
        return adapter.addresses(adapter.replayed(raw))
    except InboundError:
        return []


def _keep(
    adapter: Adapter,
    account: ChannelAccount | None,
    reason: str,
    raw: Any,
    *,
    address: str,
    kind: str,
    message_id: str = "",
) -> None:
    rules = redaction.rules_of(account.client if account else None)
    InboundEvent.objects.create(
        client=account.client if account else None,
        channel_account=account,
        channel=adapter.channel,
        provider=adapter.provider,
        address=address[:255],
        kind=kind[:40],
        reason=reason,
        message_id=message_id[:500],
        raw=_cleaned(rules, raw),
        retry_at=timezone.now() if reason == PROCESSING_FAILED else None,
    )


def _cleaned(rules: RedactionRules, raw: Any) -> Any:
    """What is kept, without what the client has removed; it can be processed as before."""
    cleaned = rules.clean_json(raw)
    if isinstance(raw, dict) and isinstance(raw.get(BODY), str):
        cleaned[BODY] = rules.clean_body(raw[BODY])
    return cleaned


def count_refused(adapter: Adapter, account: ChannelAccount | None, now: datetime) -> None:
    """One more webhook that was not signed as it should be. A crash may forget a few: no flood waits for the disk."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL synchronous_commit TO off")
        rows(
            """
            INSERT INTO refused_webhooks (channel, provider, channel_account_id, day, count, last_at)
            VALUES ($1, $2, $3, $4, 1, $5)
            ON CONFLICT (channel, provider, channel_account_id, day)
            DO UPDATE SET count = refused_webhooks.count + 1, last_at = EXCLUDED.last_at
            RETURNING id
            """,
            *(adapter.channel.value, adapter.provider, account.pk if account else None, now.date(), now),
        )


def trim_refused(now: datetime) -> None:
    """What was counted longer ago than INBOUND_EVENT_DAYS is gone."""
    before = now - timedelta(days=settings.INBOUND_EVENT_DAYS)
    RefusedWebhooks.objects.filter(day__lt=before.date()).delete()


def is_turn(event: Event) -> bool:
    """Whether it can be settled: something was said, or something became of what we said."""
    return not isinstance(event, Unhandled)
