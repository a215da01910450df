"""Unprocessed events: store what arrived and did not become a chunk, and count webhooks without a valid signature.

Both are kept for INBOUND_EVENT_DAYS (retention). inbound/replay.py processes stored events again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
TOO_OLD = "too_old"  # sent longer ago than tombstones last: perhaps a captured webhook, posted again
WHOLE_REQUEST = "webhook"  # kind of a request that could not be parsed into events
SEVERAL = "several"  # kind of several events of one request that failed in the same way


def store_unhandled(adapter: Adapter, account: ChannelAccount | None, event: Unhandled, reason: str) -> None:
    """Store an event of a type that is not processed, with the part of the payload that the adapter gave it."""
    _unhandled(adapter, account, event, reason).save(force_insert=True)


def store_all_unhandled(adapter: Adapter, account: ChannelAccount | None, events: Iterable[Unhandled]) -> None:
    """Store events of types that are not processed; those of no account of ours for that reason."""
    reason = None if account else UNKNOWN_ACCOUNT
    InboundEvent.objects.bulk_create(_unhandled(adapter, account, each, reason or each.reason) for each in events)


def _unhandled(adapter: Adapter, account: ChannelAccount | None, event: Unhandled, reason: str) -> InboundEvent:
    names = {"address": event.account, "kind": event.kind, "message_id": event.message_id}
    return _event(adapter, account, reason, event.raw, **names)


def store_receipt(adapter: Adapter, account: ChannelAccount, receipt: Receipt) -> None:
    """Store a receipt that came before the commit of its send."""
    store_receipts(adapter, account, [receipt])


def store_receipts(adapter: Adapter, account: ChannelAccount, reported: Iterable[Receipt]) -> None:
    """Store receipts that came before the commits of their sends."""
    InboundEvent.objects.bulk_create(
        _event(
            adapter,
            account,
            receipts.UNMATCHED,
            orjson.loads(orjson.dumps(asdict(receipt))),
            address=receipt.account,
            kind="receipt",
            message_id=receipt.provider_message_id,
        )
        for receipt in reported
    )


def store_watermark(adapter: Adapter, account: ChannelAccount, event: WatermarkReceipt) -> None:
    """Store an event about all messages to a person, because the commit of one of them may be just coming."""
    kind, about = _names(event)
    raw = orjson.loads(orjson.dumps(asdict(event)))
    _keep(adapter, account, receipts.UNMATCHED, raw, address=event.account, kind=kind, message_id=about)


def store_events(
    adapter: Adapter, account: ChannelAccount | None, request: InboundRequest, events: Sequence[Event], reason: str
) -> None:
    """Store events of the request together, as the part of the request that is about their address.

    If the adapter cannot separate that part, the event belongs to no account, so that only superusers see it.

    events: at least one, all of the same address
    """
    address = events[0].account
    raw = adapter.keep(request, address)
    if account and _addresses(adapter, raw) != [address]:
        account = None
    one = events[0] if len(events) == 1 else None
    kind, message_id = _names(one) if one else (SEVERAL, "")
    _keep(adapter, account, reason, raw, address=address, kind=kind, message_id=message_id)


def store_request(adapter: Adapter, account: ChannelAccount | None, request: InboundRequest, reason: str) -> None:
    """Store the whole request."""
    address = account.address if account else ""
    _keep(adapter, account, reason, adapter.keep(request), address=address, kind=WHOLE_REQUEST)


def _names(event: Event) -> tuple[str, str]:
    if isinstance(event, Receipt):
        return "receipt", event.provider_message_id
    if isinstance(event, WatermarkReceipt):
        return "receipt", receipts.watermark_key(event.sender)
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
    event = _event(adapter, account, reason, raw, address=address, kind=kind, message_id=message_id)
    event.save(force_insert=True)


def _event(
    adapter: Adapter,
    account: ChannelAccount | None,
    reason: str,
    raw: Any,
    *,
    address: str,
    kind: str,
    message_id: str = "",
) -> InboundEvent:
    rules = redaction.rules_of(account.client if account else None)
    return InboundEvent(
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
    """Return the payload cleaned by the client's redaction rules. It can be processed as before."""
    cleaned = rules.clean_json(raw)
    if isinstance(raw, dict) and isinstance(raw.get(BODY), str):
        cleaned[BODY] = rules.clean_body(raw[BODY])
    return cleaned


def count_refused(adapter: Adapter, account: ChannelAccount | None, now: datetime) -> None:
    """Count a webhook without a valid signature.

    A crash of the database may lose a few counts, so that a flood of webhooks does not wait for the disk.
    """
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL synchronous_commit TO off")
        rows(
            """
            INSERT INTO refused_webhooks (channel, provider, channel_account_id, day, count, last_at, client_id)
            VALUES ($1, $2, $3, $4, 1, $5, $6)
            ON CONFLICT (channel, provider, channel_account_id, day)
            DO UPDATE SET count = refused_webhooks.count + 1, last_at = EXCLUDED.last_at
            RETURNING id
            """,
            *(adapter.channel.value, adapter.provider, account.pk if account else None, now.date(), now),
            account.client_id if account else None,
        )


def delete_old_refused(now: datetime) -> None:
    """Delete the counts that are older than INBOUND_EVENT_DAYS."""
    before = now - timedelta(days=settings.INBOUND_EVENT_DAYS)
    RefusedWebhooks.objects.filter(day__lt=before.date()).delete()


def is_message_or_receipt(event: Event) -> bool:
    """Return whether the event can be processed: it is a message or a receipt."""
    return not isinstance(event, Unhandled)
