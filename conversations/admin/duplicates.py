"""Contacts that may be one person: what says so, what merging them would do, and the decision."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.decorators import display

from conversations.admin.access import Role
from conversations.admin.base import ClientsOwn
from conversations.admin.confirmed import confirmed
from conversations.admin.deeds import staff
from conversations.admin.entries import plainly
from conversations.admin.long_list import LongList
from conversations.models import Contact, ContactMatch
from conversations.services.staff_actions import merge_contacts

QUESTION = (
    "Addresses, sessions and memory of both become one contact's: the page before says which, and how many. Two open"
    " sessions on one channel become one, in the order of time. There is no way back."
)


@admin.register(ContactMatch)
class ContactMatchAdmin(LongList):
    """Pairs of contacts. Managers merge them, or say that they are two."""

    client_path = "client"
    nothing = "No two contacts look like one person."
    list_display = ["found_at", "one", "other", "evidence", "shown_state", "decided_by_name", "client"]
    list_display_links = ["found_at"]
    list_filter = ["state", "evidence", ("client", ClientsOwn)]
    list_select_related = ["client", "first", "second"]
    ordering = ["-found_at", "-id"]
    fields = ["client", "one", "other", "evidence", "where", "found_at", "shown_state", "decision", "would"]
    actions_detail = ["merge", "merge_other_way", "dismiss"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """With both contacts, in one query."""
        return super().get_queryset(request).select_related("client", "first", "second")

    def has_decide_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Managers; on what is not merged yet."""
        match = obj if isinstance(obj, ContactMatch) else self.get_object(request, str(obj)) if obj else None
        return self.may(request, Role.MANAGER, match) and (match is None or match.state != ContactMatch.State.MERGED)

    @admin.display(description="One")
    def one(self, match: ContactMatch) -> SafeString:
        """The first of the pair."""
        return _contact(match.first)

    @admin.display(description="Other")
    def other(self, match: ContactMatch) -> SafeString:
        """The second."""
        return _contact(match.second)

    @display(  # type: ignore[untyped-decorator]
        description="State", label={"open": "warning", "merged": "success", "dismissed": "info"}
    )
    def shown_state(self, match: ContactMatch) -> str:
        """Whether it is decided."""
        return match.state

    @admin.display(description="Message")
    def where(self, match: ContactMatch) -> str:
        """Which message brought it."""
        return " ".join(["on", match.channel, match.message_id]) if match.channel else ""

    @admin.display(description="Decided")
    def decision(self, match: ContactMatch) -> str:
        """By whom, when, and what was moved."""
        if match.decided_at is None:
            return "not yet"
        moved = ", ".join(f"{count:,} {kind}" for kind, count in match.moved.items())
        return f"{match.decided_at:%Y-%m-%d %H:%M} by {match.decided_by_name}{': ' if moved else ''}{moved}"

    @admin.display(description="What merging would do")
    def would(self, match: ContactMatch) -> SafeString:
        """The preview."""
        if match.state == ContactMatch.State.MERGED:
            return format_html("{}", "It is done.")
        seen = merge_contacts.preview(match)
        return format_html(
            "<div>{}</div>", format_html_join("", "<div><b>{}</b> {}</div>", ((a, b) for a, b in _lines(seen) if b))
        )

    @confirmed("Merge", question=QUESTION, icon="merge", path="merge", permission="decide")
    def merge(self, request: HttpRequest, match: ContactMatch) -> str | HttpResponse:
        """As the preview says."""
        return self._merge(request, match, merge_contacts.preview(match).person)

    @confirmed(
        "Merge the other way",
        question="The contact that the page before calls the alias is kept, and the other becomes the alias. "
        + QUESTION,
        icon="swap_horiz",
        path="merge-other-way",
        permission="decide",
    )
    def merge_other_way(self, request: HttpRequest, match: ContactMatch) -> str | HttpResponse:
        """The alias of the preview is kept."""
        return self._merge(request, match, merge_contacts.preview(match).alias)

    @confirmed(
        "They are two",
        question="The two contacts stay apart, and the same evidence is not shown again. They can still be merged.",
        icon="call_split",
        path="dismiss",
        permission="decide",
    )
    def dismiss(self, request: HttpRequest, match: ContactMatch) -> str | HttpResponse:
        """Say so."""
        merge_contacts.dismiss(match.pk, actor=staff(request), now=timezone.now(), client=match.client)
        self.note(request, "dismissed", match)
        return "They stay two."

    def _merge(self, request: HttpRequest, match: ContactMatch, keep: Contact) -> str:
        who = staff(request)
        done = merge_contacts.merge(match.pk, keep=keep.pk, actor=who, now=timezone.now(), client=match.client)
        self.note(request, "merged", done, {"kept": ("", keep.pk)})
        return "They are one contact now."


def _contact(contact: Contact) -> SafeString:
    address = reverse("admin:conversations_contact_change", args=[contact.pk])
    return format_html('<a href="{}"><bdi>{}</bdi></a> {}', address, plainly(str(contact)), contact.phone or "")


def _lines(seen: merge_contacts.Preview) -> Iterable[tuple[str, Any]]:
    yield "Not possible:", seen.refused
    yield "Kept:", _named(seen.person)
    yield "Alias:", _named(seen.alias)
    yield "Moved:", ", ".join(f"{count:,} {kind}" for kind, count in seen.rows.items() if count) or "nothing"
    for into, other in seen.joined:
        entries = f"{into.last_position:,} and {other.last_position:,} entries"
        yield "Becomes one session:", f"{into.channel} ({entries}); {into.pk} goes on"
    yield "Opted out:", ", ".join(seen.opted_out)
    yield "On hold:", plainly(seen.hold_reason)


def _named(contact: Contact) -> str:
    said = [contact.user_id, contact.name, contact.phone or "", "signs in" if contact.login_id else ""]
    return plainly(", ".join(each for each in said if each)) + f" (since {contact.created_at:%Y-%m-%d})"
