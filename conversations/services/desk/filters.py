"""The choice of a list of the inbox, as its address and saved views have it: tab, order, filters, words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.utils.translation import gettext as _

from channels_out.kinds import Channel
from conversations.models import OPEN, Client, DeskState, Label, Status, Team
from conversations.services.core.errors import InvalidError, NotFoundError
from conversations.services.desk import states
from conversations.services.desk.inbox import Order, Tab
from conversations.services.desk.narrowing import EVERYTHING, ME, NOBODY, Narrowing

LONGEST_QUERY = 200  # characters
MOST_ID = 2**31 - 1
_ASSIGNED = {"me": ME, "nobody": NOBODY}
_NARROWING = {
    "label": "label_id",
    "team": "team_id",
    "channel": "channel",
    "priority": "priority",
    "status": "status",
    "assigned": "assignee_id",
}


@dataclass(frozen=True, slots=True)
class Filters:
    """The choice of a list. client_id: of this client alone. words: searched for in the list's place."""

    tab: Tab = Tab.ALL
    order: Order = Order.NEWEST
    client_id: UUID | None = None
    narrowing: Narrowing = EVERYTHING
    words: str = ""

    def parameters(self) -> dict[str, str]:
        """Return the parameters of an address that differ from the usual ones; the client is none of them."""
        given: dict[str, Any] = {name: getattr(self.narrowing, of) for name, of in _NARROWING.items()}
        given["tab"] = self.tab.value if self.tab != Tab.ALL else None
        given["order"] = self.order.value if self.order != Order.NEWEST else None
        given["q"] = self.words or None
        named = {number: word for word, number in _ASSIGNED.items()}
        given["assigned"] = named.get(given["assigned"], given["assigned"])
        return {name: str(value) for name, value in given.items() if value is not None}


def read(given: Mapping[str, str], *, strict: bool = False) -> Filters:
    """Return the choice that the parameters name. What cannot be read is left out.

    strict: raise InvalidError (`no_such_filter`) for what cannot be read.
    """
    found: dict[str, Any] = {}
    for name, reads in _READ.items():
        text = str(given.get(name, "")).replace("\x00", "").strip()
        try:
            if text:
                found[name] = reads(text)
        except ValueError:
            if strict:
                said = _("The filter %(name)s cannot be %(value)s.") % {"name": name, "value": text[:40]}
                raise InvalidError(said, code="no_such_filter") from None
    tab = found.get("tab", Tab.ALL)
    narrowing = Narrowing(**{of: found[name] for name, of in _NARROWING.items() if name in found})
    order = found.get("order", Order.NEWEST) if tab != Tab.ENDED else Order.NEWEST
    return Filters(tab, order, found.get("client"), narrowing, found.get("q", ""))


def check(filters: Filters, client: Client) -> None:
    """Raise NotFoundError if a filter names what the client does not have, InvalidError for a status of other tabs."""
    narrowing = filters.narrowing
    if narrowing.label_id and not Label.objects.filter(client=client, pk=narrowing.label_id).exists():
        raise NotFoundError(_("%(client)s has no such label.") % {"client": client})
    if narrowing.team_id and not Team.objects.filter(client=client, pk=narrowing.team_id).exists():
        raise NotFoundError(_("%(client)s has no such team.") % {"client": client})
    assignee = narrowing.assignee_id
    if assignee and assignee != ME and not states.colleagues(client).filter(pk=assignee).exists():
        raise NotFoundError(_("This colleague is no agent or manager of the client."))
    is_of_ended = narrowing.status not in OPEN
    if narrowing.status and filters.tab != Tab.MENTIONS and is_of_ended != (filters.tab == Tab.ENDED):
        said = _("This tab has no conversation of the status %(status)s.") % {
            "status": str(Status(narrowing.status).label).lower()
        }
        raise InvalidError(said, code="no_such_filter")


def _id(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text[:20]) <= MOST_ID):
        raise ValueError(text)
    return int(text)


def _priority(text: str) -> int:
    return DeskState.Priority(int(text) if text.isascii() and text.isdigit() and len(text) == 1 else -1).value


def _words(text: str) -> str:
    if len(text) > LONGEST_QUERY:
        raise ValueError(text)
    return text


_READ: Mapping[str, Callable[[str], Any]] = {
    "tab": Tab,
    "order": Order,
    "client": UUID,
    "label": _id,
    "team": _id,
    "channel": lambda text: Channel(text).value,
    "priority": _priority,
    "status": lambda text: Status(text).value,
    "assigned": lambda text: _ASSIGNED[text] if text in _ASSIGNED else _id(text),
    "q": _words,
}
