"""Pages of lists. An opaque cursor names the last item of the previous page; no rows are counted or skipped."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from uuid import UUID

from django.db.models import Q, QuerySet
from rest_framework.exceptions import ValidationError

from conversations.models import Conversation, MessageTemplate
from conversations.models.conversation import ConversationQuerySet


def page_of_conversations(
    found: ConversationQuerySet, cursor: str | None, limit: int
) -> tuple[list[Conversation], str | None]:
    """Return up to `limit` conversations, newest first, and the cursor of the next page, or None."""
    if cursor:
        started_at, pk = _read(cursor)
        found = found.filter(started_at__lte=started_at).filter(Q(started_at__lt=started_at) | Q(pk__lt=pk))
    items = list(found.order_by("-started_at", "-pk")[: limit + 1])
    return items[:limit], _cursor(items[limit - 1]) if len(items) > limit else None


def page_of_templates(
    found: QuerySet[MessageTemplate], cursor: str | None, limit: int
) -> tuple[list[MessageTemplate], str | None]:
    """Return up to `limit` templates by their ids, and the cursor of the next page, or None."""
    if cursor:
        try:
            found = found.filter(pk__gt=UUID(cursor))
        except ValueError:
            raise ValidationError({"cursor": ["Must be the `next` of the page before."]}) from None
    items = list(found.order_by("pk")[: limit + 1])
    return items[:limit], str(items[limit - 1].pk) if len(items) > limit else None


def _cursor(conversation: Conversation) -> str:
    plain = f"{conversation.started_at.isoformat()}|{conversation.pk}"
    return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")


def _read(cursor: str) -> tuple[datetime, UUID]:
    try:
        plain = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        started_at, _, pk = plain.partition("|")
        return datetime.fromisoformat(started_at).astimezone(UTC), UUID(pk)
    except (ValueError, OverflowError, binascii.Error):
        raise ValidationError({"cursor": ["Must be the `next` of the page before."]}) from None
