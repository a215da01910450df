"""The rows of the simulator's exchanges: written, trimmed and searched. They hold no secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.models import QuerySet
from django.utils.translation import gettext

from channels_out.shapes import clean_text
from channels_out.simulators.contract import UnsignedWebhook
from channels_out.simulators.people import PEOPLE, SimulatedPerson
from conversations.models import ChannelAccount, SimulatedExchange
from conversations.services.core.errors import InvalidError
from conversations.services.simulator.accounts import simulator_of

MOST_KEPT = 300  # exchanges of an account
LONGEST_KEPT = 20_000  # characters of a body
MASK = "••••"
WEBHOOKS = "/webhooks/"  # the only paths that a provider posts to

Kind = SimulatedExchange.Kind


def of_account(account: ChannelAccount) -> QuerySet[SimulatedExchange]:
    """Return the account's exchanges, newest first."""
    return SimulatedExchange.objects.filter(account=account).order_by("-id")


def webhooks_of(account: ChannelAccount) -> QuerySet[SimulatedExchange]:
    """Return the account's webhooks, newest first."""
    return of_account(account).select_related("account").exclude(kind__in=[Kind.SEND, Kind.QUESTION])


def new_webhook(
    account: ChannelAccount,
    person: SimulatedPerson | int,
    kind: str,
    webhook: UnsignedWebhook,
    *,
    message_id: str = "",
    text: str = "",
    details: Mapping[str, Any] | None = None,
) -> SimulatedExchange:
    """Store a webhook that is to be posted, and return its row.

    Raises InvalidError (`no_webhook`) if its path is none of our webhooks.
    """
    if not webhook.path.startswith(WEBHOOKS):
        raise InvalidError(
            gettext("A provider posts only to paths below %(path)s.") % {"path": WEBHOOKS}, code="no_webhook"
        )
    exchange = SimulatedExchange.objects.create(
        account=account,
        kind=kind,
        person=person.number if isinstance(person, SimulatedPerson) else person,
        message_id=message_id,
        text=text,
        details={name: value for name, value in (details or {}).items() if name != "heard"},
        method=webhook.method,
        address=webhook.path,
        content_type=webhook.content_type,
        body=webhook.body.decode(),
    )
    trim(account)
    return exchange


def trim(account: ChannelAccount) -> None:
    """Delete all but the account's newest MOST_KEPT exchanges."""
    oldest = of_account(account).values_list("pk", flat=True)[MOST_KEPT : MOST_KEPT + 1]
    for pk in oldest:
        SimulatedExchange.objects.filter(account=account, pk__lte=pk).delete()


def person_number(account: ChannelAccount, address: str) -> int:
    """Return the number of the simulated person with this address, 0 for nobody."""
    simulator = simulator_of(account)
    return next((each.number for each in PEOPLE if simulator.address_of(each) == address.removeprefix("+")), 0)


def masked_headers(headers: Mapping[str, str], credentials: Mapping[str, str]) -> dict[str, str]:
    """Return the headers with authorisations and the account's secrets masked."""
    shown = {}
    for name, value in headers.items():
        scheme, _, rest = value.partition(" ")
        if name.lower() in ("authorization", "proxy-authorization", "cookie"):
            value = f"{scheme} {MASK}" if rest else MASK
        shown[name] = without_secrets(clean_text(value), credentials)
    return shown


def without_secrets(text: str, credentials: Mapping[str, str]) -> str:
    """Return the text with the account's secrets masked."""
    for secret in credentials.values():
        for part in secret.replace(",", " ").split():
            text = text.replace(part, MASK) if len(part) > 5 else text
    return text


def as_text(body: bytes) -> str:
    """Return a body as text that the database can hold, cut off at LONGEST_KEPT."""
    return clean_text(body.decode("utf-8", "replace"))[:LONGEST_KEPT]
