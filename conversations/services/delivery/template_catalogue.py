"""The catalogue of templates: each account's list is read from its provider, and kept fresh.

due() ─► the provider's list, over the network ─► store()      the queue, every hour; staff, at once
note_news()                                                    a webhook about one template
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F, Q
from django.utils.translation import gettext_noop

from channels_out.contract import Account, Adapter
from channels_out.errors import SendError
from channels_out.events import TemplateNews
from channels_out.templates import CatalogueTemplate
from conversations.models import ChannelAccount, MessageTemplate
from conversations.services.core.errors import ConflictError
from conversations.services.core.sql import release_connection
from conversations.services.tenants.channel_accounts import adapter_of, as_account
from conversations.words import shown

log = logging.getLogger(__name__)

FRESH = timedelta(minutes=55)  # the queue asks every hour
AT_ONCE = 500  # accounts in one run
AT_A_TIME = 4  # providers asked at the same time
MOST_TEMPLATES = 2_000  # of an account
_REPORTED = {"status": 30, "quality": 20, "category": 30, "reason": 200}  # characters
_COPIED = ("status", "category", "quality", "reason", "components", "seen_at")


def refresh_all(now: datetime) -> int:
    """Read the lists of the accounts that are due, store them, and return how many accounts were asked.

    Do not call it within a transaction: it waits for the providers. A list that cannot be read leaves what is known.
    """
    accounts = _due(now)
    release_connection()
    with ThreadPoolExecutor(max_workers=AT_A_TIME, thread_name_prefix="templates") as pool:
        answers = list(pool.map(_try_to_read, accounts))
    for account, answer in zip(accounts, answers, strict=True):
        _store_answer(account, answer, now)
    return len(accounts)


def refresh(account: ChannelAccount, now: datetime) -> int:
    """Read the account's list, store it, and return how many templates there are.

    Do not call it within a transaction: it waits for the provider. Raises ConflictError (`no_templates`) with the
    reason if it cannot be read.
    """
    answer = _try_to_read(account)
    _store_answer(account, answer, now)
    if isinstance(answer, str):
        raise ConflictError(shown(answer), code="no_templates")
    return len(answer)


def note_news(account: ChannelAccount, news: TemplateNews, now: datetime) -> None:
    """Note what the provider reports of one template. One that is not known yet comes with the next list."""
    said = {name: str(getattr(news, name)).strip()[:longest] for name, longest in _REPORTED.items()}
    changes = {name: value for name, value in said.items() if value}
    if news.status:
        changes.setdefault("reason", "")
    theirs = MessageTemplate.objects.filter(client=account.client_id, channel_account=account)
    theirs.filter(name=news.name, language=news.language).update(**changes, seen_at=now)


def _due(now: datetime) -> list[ChannelAccount]:
    """Return the accounts whose list was not read for an hour, those that wait longest first."""
    stale = Q(templates_at=None) | Q(templates_at__lt=now - FRESH)
    ready = ChannelAccount.objects.filter(
        stale, is_active=True, health=ChannelAccount.Health.OK, client__is_active=True
    )
    oldest = ready.order_by(F("templates_at").asc(nulls_first=True), "created_at")
    return [account for account in oldest[:AT_ONCE] if _lists_templates(account)]


def _lists_templates(account: ChannelAccount) -> bool:
    try:
        return adapter_of(account).lists_templates
    except LookupError:
        return False


def _try_to_read(account: ChannelAccount) -> Sequence[CatalogueTemplate] | str:
    """Return the provider's list, or the sentence that says why it could not be read."""
    try:
        adapter: Adapter = adapter_of(account)
        plain: Account = as_account(account)
        return adapter.templates(plain, account.business_id)[:MOST_TEMPLATES]
    except (LookupError, SendError) as error:
        return str(error)
    except Exception:
        log.exception("templates not read: account=%s", account.pk)
        return gettext_noop("The provider's list could not be understood.")


def _store_answer(account: ChannelAccount, answer: Sequence[CatalogueTemplate] | str, now: datetime) -> None:
    problem = answer[:300] if isinstance(answer, str) else ""
    with transaction.atomic():
        # One list after the other: of two at once the later one decides.
        rows = ChannelAccount.objects.select_for_update(no_key=True).filter(pk=account.pk, client=account.client_id)
        if not list(rows.values_list("pk")):
            return
        rows.update(templates_at=now, templates_problem=problem)
        if not isinstance(answer, str):
            _store(account, answer, now)


def _store(account: ChannelAccount, listed: Sequence[CatalogueTemplate], now: datetime) -> None:
    once = {(each.name, each.language): each for each in listed}
    theirs = MessageTemplate.objects.filter(client=account.client_id, channel_account=account)
    MessageTemplate.objects.bulk_create(
        (
            MessageTemplate(
                client_id=account.client_id,
                channel_account=account,
                name=each.name,
                language=each.language,
                status=each.status,
                category=each.category,
                quality=each.quality,
                reason=each.reason,
                components=list(each.components),
                seen_at=now,
            )
            for each in once.values()
        ),
        update_conflicts=True,
        unique_fields=["client", "channel_account", "name", "language"],
        update_fields=list(_COPIED),
    )
    theirs.filter(seen_at__lt=now).delete()
