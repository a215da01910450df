"""Account notices: what a provider tells of an account itself, and not of a message.

Such an event names the business account, which several of a client's numbers may share, and none of them. Which
business account a number belongs to is learned from the webhooks that name both.
"""

from __future__ import annotations

import logging
from datetime import datetime

from django.db import transaction
from django.utils import timezone

from channels_out.contract import Adapter, InboundRequest
from channels_out.events import Event, Unhandled
from conversations.models import ChannelAccount
from conversations.services.delivery import template_catalogue
from conversations.services.inbound import unprocessed
from conversations.services.inbound.signatures import Signatures
from conversations.services.tenants import channel_accounts

log = logging.getLogger(__name__)


def learn(adapter: Adapter, request: InboundRequest, signatures: Signatures) -> None:
    """Store the business account of each account that signed the request, where the request names another."""
    named = adapter.businesses(request)
    news = {
        address: business
        for address, account in signatures.accounts.items()
        if (business := named.get(address, account.business_id)) != account.business_id
    }
    for address, business in news.items():
        ChannelAccount.objects.filter(pk=signatures.accounts[address].pk).update(business_id=business)
    signatures.reread(news)


def settle(adapter: Adapter, events: list[Event], signatures: Signatures) -> tuple[list[Event], int]:
    """Note on the accounts what the events tell of them, and store these events with their account.

    Returns the other events, and how many were stored. An event about no account of ours is among the others.
    """
    left: list[Event] = []
    stored = 0
    for event in events:
        about = signatures.of_business(event.business) if isinstance(event, Unhandled) and event.notice else []
        if not about or not isinstance(event, Unhandled):
            left.append(event)
            continue
        for account in about:
            _note(account, event, timezone.now())
            if event.notice and event.notice.template:
                template_catalogue.note_news(account, event.notice.template, timezone.now())
            unprocessed.store_unhandled(adapter, account, event, event.reason)
            stored += 1
    return left, stored


def _note(account: ChannelAccount, event: Unhandled, now: datetime) -> None:
    """Write the notice to the account's row, with what it says of its health. An older one than the last is ignored."""
    notice, at = event.notice, event.occurred_at or now
    with transaction.atomic():
        locked = ChannelAccount.objects.select_for_update(no_key=True).filter(pk=account.pk).first()
        if notice is None or locked is None or (locked.notice_at and at < locked.notice_at):
            return
        locked.notice, locked.notice_at = notice.sentence[:300], at
        is_news = locked.mended_at is None or at > locked.mended_at
        if notice.health == "broken" and is_news:
            locked.health, locked.health_reason = channel_accounts.BROKEN, locked.notice
            log.error("account broken: account=%s kind=%s", locked.pk, event.kind)
        elif notice.health == "ok":
            channel_accounts.mark_healthy(locked)
        locked.save(update_fields=["notice", "notice_at", "health", "health_reason", "mended_at"])
