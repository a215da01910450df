"""Possible duplicates: pairs of contacts that may be one person, what merging them would do, and the decision."""

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
from django.utils.translation import gettext
from unfold.decorators import display

from conversations.admin.access import Role, actor_of
from conversations.admin.base import VisibleRowsFilter
from conversations.admin.channel_names import name_of
from conversations.admin.confirmation import confirmed
from conversations.admin.erasures import counts_in_words
from conversations.admin.long_list import LongListAdmin
from conversations.admin.transcript_view import plain_text
from conversations.models import Contact, ContactMatch
from conversations.services.staff_actions import merge_contacts
from conversations.words import lazy as _

QUESTION = _(
    "Addresses, conversations and memory of both are moved to the contact that is kept, as the previous page shows. Two"
    " open conversations on one channel become one, in order of time. You cannot undo this."
)


@admin.register(ContactMatch)
class ContactMatchAdmin(LongListAdmin):
    """Pairs of contacts. Managers merge them, or dismiss the pair."""

    client_path = "client"
    empty_message = _("No two contacts look like one person.")
    list_display = ["found_at", "one", "other", "evidence", "shown_state", "decided_by_name", "client"]
    list_display_links = ["found_at"]
    list_filter = ["state", "evidence", ("client", VisibleRowsFilter)]
    list_select_related = ["client", "first", "second"]
    ordering = ["-found_at", "-id"]
    fields = ["client", "one", "other", "evidence", "where", "found_at", "shown_state", "decision", "preview"]
    actions_detail = ["merge", "merge_other_way", "dismiss"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the rows with both contacts, in one query."""
        return super().get_queryset(request).select_related("client", "first", "second")

    def has_decide_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may merge or dismiss the pair: managers may, until it is merged."""
        match = obj if isinstance(obj, ContactMatch) else self.get_object(request, str(obj)) if obj else None
        return self.has_role(request, Role.MANAGER, match) and (
            match is None or match.state != ContactMatch.State.MERGED
        )

    @admin.display(description=_("One"))
    def one(self, match: ContactMatch) -> SafeString:
        """Return the first contact as a link."""
        return _contact(match.first)

    @admin.display(description=_("Other"))
    def other(self, match: ContactMatch) -> SafeString:
        """Return the second contact as a link."""
        return _contact(match.second)

    @display(  # type: ignore[untyped-decorator]
        description=_("State"), label={"open": "warning", "merged": "success", "dismissed": "info"}
    )
    def shown_state(self, match: ContactMatch) -> tuple[str, str]:
        """Return whether the pair is open, merged or dismissed, and the word for it."""
        return match.state, match.get_state_display().lower()

    @admin.display(description=_("Message"))
    def where(self, match: ContactMatch) -> str:
        """Return the message with which the pair was found."""
        said = {"channel": name_of(match.channel), "message": match.message_id}
        return gettext("on %(channel)s %(message)s") % said if match.channel else ""

    @admin.display(description=_("Decided"))
    def decision(self, match: ContactMatch) -> str:
        """Return who decided, when, and what was moved."""
        if match.decided_at is None:
            return gettext("not yet")
        moved = counts_in_words(match.moved) if match.moved else ""
        at = f"{timezone.localtime(match.decided_at):%Y-%m-%d %H:%M}"
        said = gettext("%(at)s by %(who)s") % {"at": at, "who": match.decided_by_name}
        return f"{said}: {moved}" if moved else said

    @admin.display(description=_("What merging would do"))
    def preview(self, match: ContactMatch) -> SafeString:
        """Return what merging the pair would move."""
        if match.state == ContactMatch.State.MERGED:
            return format_html("{}", gettext("The contacts are merged already."))
        seen = merge_contacts.preview(match)
        return format_html(
            "<div>{}</div>", format_html_join("", "<div><b>{}</b> {}</div>", ((a, b) for a, b in _lines(seen) if b))
        )

    @confirmed(_("Merge"), question=QUESTION, icon="merge", path="merge", permission="decide")
    def merge(self, request: HttpRequest, match: ContactMatch) -> str | HttpResponse:
        """Merge into the contact that the preview keeps."""
        return self._merge(request, match, merge_contacts.preview(match).person)

    @confirmed(
        _("Merge the other way"),
        question=_("The contact that the previous page calls the alias is kept, and the other becomes the alias. ")
        + QUESTION,
        icon="swap_horiz",
        path="merge-other-way",
        permission="decide",
    )
    def merge_other_way(self, request: HttpRequest, match: ContactMatch) -> str | HttpResponse:
        """Merge into the contact that the preview calls the alias."""
        return self._merge(request, match, merge_contacts.preview(match).alias)

    @confirmed(
        _("Dismiss"),
        question=_("The contacts stay separate. The same evidence is not shown again. You can still merge them later."),
        icon="call_split",
        path="dismiss",
        permission="decide",
    )
    def dismiss(self, request: HttpRequest, match: ContactMatch) -> str | HttpResponse:
        """Keep the contacts separate."""
        merge_contacts.dismiss(match.pk, actor=actor_of(request), now=timezone.now(), client=match.client)
        self.record(request, "dismissed", match)
        return gettext("The contacts stay separate.")

    def _merge(self, request: HttpRequest, match: ContactMatch, keep: Contact) -> str:
        actor, now = actor_of(request), timezone.now()
        done = merge_contacts.merge(match.pk, keep=keep.pk, actor=actor, now=now, client=match.client)
        self.record(request, "merged", done, {"kept": ("", keep.pk)})
        return gettext("The contacts are merged.")


def _contact(contact: Contact) -> SafeString:
    address = reverse("admin:conversations_contact_change", args=[contact.pk])
    return format_html('<a href="{}"><bdi>{}</bdi></a> {}', address, plain_text(str(contact)), contact.phone or "")


def _lines(seen: merge_contacts.MergePreview) -> Iterable[tuple[str, Any]]:
    yield gettext("Not possible:"), seen.refused
    yield gettext("Kept:"), _named(seen.person)
    yield gettext("Alias:"), _named(seen.alias)
    yield gettext("Moved:"), counts_in_words(seen.rows)
    for into, other in seen.joined:
        sizes = gettext("%(one)s and %(other)s messages") % {
            "one": f"{into.last_position:,}",
            "other": f"{other.last_position:,}",
        }
        yield (
            gettext("Becomes one conversation:"),
            gettext("%(channel)s (%(sizes)s); %(conversation)s continues")
            % {"channel": name_of(into.channel), "sizes": sizes, "conversation": into.pk},
        )
    yield gettext("Opted out:"), ", ".join(seen.opted_out)
    yield gettext("On hold:"), plain_text(seen.hold_reason)


def _named(contact: Contact) -> str:
    said = [
        contact.user_id,
        contact.shown_name,
        contact.phone or "",
        contact.email,
        gettext("signs in") if contact.login_id else "",
    ]
    return plain_text(", ".join(each for each in said if each)) + gettext(" (since %(day)s)") % {
        "day": f"{timezone.localtime(contact.created_at):%Y-%m-%d}"
    }
