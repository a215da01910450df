"""The endpoints of a client: set up, secrets, pausing and resuming, and the replay of deliveries."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from urllib.parse import urlsplit
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext

from conversations.models import Client, EventDelivery, EventEndpoint, EventKind, EventPosition
from conversations.services.core.errors import ConflictError, InvalidError

CURRENT, BEFORE, UNTIL = "current", "before", "before_until"
OVERLAP = timedelta(hours=24)  # for which the secret before signs as well
BY_STAFF = "staff"


def new_secret() -> str:
    """Return a secret that signs events, as Standard Webhooks has them."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def create_endpoint(
    client: Client, url: str, *, kinds: Sequence[str] = (), private: bool = False
) -> tuple[EventEndpoint, str]:
    """Create an endpoint of the client and return it with its secret, which cannot be shown again.

    kinds: the events that it gets; empty for all. private: those of the copilot's conversations too

    Events from now on are posted to it. Raises InvalidError, or ConflictError `url_taken`.
    """
    secret = new_secret()
    endpoint = EventEndpoint(client=client, url=url, kinds=list(dict.fromkeys(kinds)), private=private)
    endpoint.secrets = {CURRENT: secret}
    check(endpoint)
    try:
        with transaction.atomic():
            endpoint.save(force_insert=True)
            note_reader(client.pk)
    except IntegrityError:
        raise ConflictError(gettext("This client has an endpoint with this URL already."), code="url_taken") from None
    return endpoint, secret


def check(endpoint: EventEndpoint) -> None:
    """Raise InvalidError unless the endpoint's URL and kinds are valid."""
    unknown = [kind for kind in endpoint.kinds if kind not in EventKind.values]
    if unknown:
        raise InvalidError(
            gettext("events: Use %(kinds)s.") % {"kinds": ", ".join(EventKind.values)}, code="unknown_event"
        )
    try:
        endpoint.clean_fields(exclude=["client", "secrets", "kinds"])
    except ValidationError:
        raise InvalidError(
            gettext("url: Use an address that begins with https:// or http://."), code="invalid_url"
        ) from None
    parts = urlsplit(endpoint.url)
    if parts.scheme not in ("https", "http") or parts.username is not None:
        raise InvalidError(gettext("url: Use https or http, and no password in the address."), code="invalid_url")


def note_reader(client_id: UUID) -> None:
    """Note that somebody reads the client's events, so that receipts are events from now on."""
    if not EventPosition.objects.filter(client_id=client_id, is_read=True).exists():
        EventPosition.objects.update_or_create(client_id=client_id, defaults={"is_read": True})


def signing_secrets(endpoint: EventEndpoint, now: datetime) -> list[str]:
    """Return the secrets that sign now, the newest first."""
    kept = endpoint.secrets
    until = parse_datetime(kept.get(UNTIL, ""))
    return [kept.get(CURRENT, ""), *([kept[BEFORE]] if BEFORE in kept and until and until > now else [])]


def rotate_secret(endpoint_id: UUID, now: datetime) -> str:
    """Give the endpoint a new secret and return it. The one before signs as well for OVERLAP."""
    with transaction.atomic():
        endpoint = EventEndpoint.objects.select_for_update().get(pk=endpoint_id)
        secret = new_secret()
        before = endpoint.secrets.get(CURRENT, "")
        endpoint.secrets = {CURRENT: secret, BEFORE: before, UNTIL: (now + OVERLAP).isoformat()}
        endpoint.save(update_fields=["secrets"])
    return secret


def pause(endpoint_id: UUID, reason: str = BY_STAFF) -> bool:
    """Pause the endpoint and return whether it was not. Its events wait."""
    found = EventEndpoint.objects.filter(pk=endpoint_id, paused_at=None)
    return bool(found.update(paused_at=timezone.now(), pause_reason=reason))


def resume(endpoint_id: UUID) -> int:
    """Post to the endpoint again, what waits at once, and return how many events that is."""
    now = timezone.now()
    with transaction.atomic():
        endpoint = EventEndpoint.objects.select_for_update().get(pk=endpoint_id)
        endpoint.paused_at = endpoint.next_try_at = endpoint.failing_since = None
        endpoint.pause_reason = endpoint.last_code = ""
        endpoint.failures = 0
        endpoint.save()
        waiting = EventDelivery.objects.filter(
            client_id=endpoint.client_id, endpoint=endpoint, status=EventDelivery.Status.PENDING
        )
        return waiting.update(due_at=now, created_at=now)


def remove(endpoint: EventEndpoint) -> None:
    """Delete the endpoint with all that was posted to it or waits for it."""
    with transaction.atomic():
        theirs = EventDelivery.objects.filter(client_id=endpoint.client_id, endpoint=endpoint)
        theirs._raw_delete(theirs.db)  # in one statement: there may be very many, and nothing refers to them
        endpoints = EventEndpoint.objects.filter(pk=endpoint.pk, client_id=endpoint.client_id)
        endpoints._raw_delete(endpoints.db)


def replay(delivery: EventDelivery) -> bool:
    """Post the event once more, with the same id, and return whether it was not waiting already."""
    now = timezone.now()
    found = EventDelivery.objects.filter(pk=delivery.pk, client_id=delivery.client_id)
    done = found.exclude(status=EventDelivery.Status.PENDING)
    again = {"status": EventDelivery.Status.PENDING, "attempts": 0, "due_at": now, "created_at": now}
    return bool(done.update(**again, lease_until=None))
