"""People: what is known of them, whether they must be kept, what is exported of them, and their erasure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from channels_out.opt_out import OPT_OUT_CHANNELS
from conversations.admin.access import Role
from conversations.admin.base import ReadOnlyPage
from conversations.admin.confirmed import confirmed
from conversations.admin.deeds import LONGEST_REASON, staff
from conversations.admin.long_list import LongList
from conversations.http.downloads import Download
from conversations.models import Contact, Erasure
from conversations.services.core.errors import DomainError
from conversations.services.delivery import opt_outs
from conversations.services.export import person
from conversations.services.retention import erasure as erasing

HOLD = (
    "Why all of this person must be kept. As long as it says something, no retention, archiving, redaction or erasure"
    " touches them. Empty: no hold."
)
# What an erasure counts, one of it and several.
NOUNS = {
    "chunks": ("entry", "entries"),
    "events": ("line of the ledger", "lines of the ledger"),
    "messages": ("send", "sends"),
    "turns": ("try at a reply", "tries at replies"),
    "remembered": ("session in memory", "sessions in memory"),
    "addresses": ("address", "addresses"),
    "inbound_events": ("raw payload", "raw payloads"),
    "idempotency_keys": ("kept answer of the API", "kept answers of the API"),
}


class OptedOut(admin.SimpleListFilter):
    """Whether a contact wants no messages on some channel."""

    title = "opted out"
    parameter_name = "opted_out"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Those who did."""
        return [("yes", "opted out")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Contact]) -> QuerySet[Contact]:
        """By the index that holds nobody else."""
        return queryset.exclude(opted_out={}) if self.value() else queryset


class OptOutForm(forms.Form):
    """The channel that a wish is about, and how staff know of it."""

    channel = forms.ChoiceField(widget=UnfoldAdminSelectWidget)
    reason = forms.CharField(
        max_length=LONGEST_REASON,
        widget=UnfoldAdminTextInputWidget(attrs={"placeholder": "asked on the phone"}),
        help_text="How you know. The ledger and the audit trail keep it.",
    )

    def __init__(self, channels: Iterable[str], data: Any = None) -> None:
        super().__init__(data)
        choices = [(str(channel), str(channel)) for channel in channels]
        self.fields["channel"].choices = choices or [("", "none")]  # type: ignore[attr-defined]


@admin.register(Contact)
class ContactAdmin(LongList):
    """People. Agents opt them out; managers lift that, hold them for legal reasons, export what is known, and erase."""

    client_path = "client"
    nothing = "Nobody has written yet. Play a customer in the simulator, or connect a channel."
    to_change: str | None = Role.MANAGER
    list_display = ["user_id", "name", "phone", "is_guest", "opted_out_on", "same_as", "client", "created_at"]
    list_filter = ["is_guest", OptedOut]
    list_select_related = ["client", "merged_into"]
    search_fields = ["user_id__exact", "phone__exact"]
    ordering = ["-created_at", "-id"]
    readonly_fields = [
        *("client", "user_id", "name", "phone", "is_guest", "opted_out_on"),
        *("said_by_staff", "known_as", "created_at", "holds"),
    ]
    fields = [
        *("client", "user_id", "known_as", "name", "phone", "is_guest", "opted_out_on", "said_by_staff", "created_at"),
        *("hold_reason", "holds"),
    ]
    actions_detail = ["opt_out", "opt_in", "export", "erase"]

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Contact | None:
        """The contact; of an alias, the person that it stands for."""
        contact: Contact | None = super().get_object(request, object_id, from_field)
        return (contact.merged_into or contact) if contact else None

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """The hold says what it is."""
        if db_field.name == "hold_reason":
            kwargs |= {"label": "Legal hold", "help_text": HOLD}
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    @admin.display(description="Alias of")
    def same_as(self, contact: Contact) -> str:
        """The person, where two contacts were merged."""
        return str(contact.merged_into or "")

    @admin.display(description="Also")
    def known_as(self, contact: Contact) -> str:
        """The user ids of contacts that turned out to be the same person."""
        return ", ".join(contact.aliases.values_list("user_id", flat=True)) or "-"

    @admin.display(description="Opted out")
    def opted_out_on(self, contact: Contact) -> str:
        """The channels on which they want nothing, since when."""
        return ", ".join(f"{channel} since {wish['since'][:10]}" for channel, wish in contact.opted_out.items())

    @admin.display(description="Known, as staff say")
    def said_by_staff(self, contact: Contact) -> SafeString | str:
        """What their next session begins with, and where that was said."""
        if not contact.known_at or not contact.known_in:
            return "nothing; a session's memory can be corrected on its page"
        session = reverse("admin:conversations_conversation_change", args=[contact.known_in])
        said = format_html("<a href='{}'>{}, {}</a>", session, contact.known_by, f"{contact.known_at:%Y-%m-%d}")
        return format_html("{}<div style='white-space: pre-wrap'>{}</div>", said, contact.known)

    def has_opt_out_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever may answer a person hears from them that they want no more."""
        return self.may(request, Role.AGENT, obj)

    def has_opt_in_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Writing to somebody who opted out is a manager's to answer for."""
        return self.may(request, Role.MANAGER, obj)

    @confirmed(
        "Opt out",
        question="Nothing more is sent to this person on the channel, what is queued is cancelled, and the assistant"
        " does not answer them there, as if they had written STOP. They are not told.",
        icon="notifications_off",
        path="opt-out",
        permission="opt_out",
        form=lambda contact, data: OptOutForm(sorted(OPT_OUT_CHANNELS.difference(contact.opted_out)), data),
    )
    def opt_out(self, request: HttpRequest, contact: Contact, asked: Mapping[str, str]) -> str:
        """The person said so elsewhere. Raises ConflictError."""
        cancelled = opt_outs.opt_out(contact.pk, **asked, actor=staff(request), now=timezone.now())
        self.note(request, "opted out", contact, {asked["channel"]: ("", asked["reason"])})
        return f"They get nothing more on {asked['channel']}. Messages cancelled: {cancelled}."

    @confirmed(
        "Lift opt-out",
        question="Messages are sent to this person on the channel again. Do this only if they told you that they want"
        " them: carriers and the law ask for their consent. A provider that blocks them still does.",
        icon="notifications_active",
        path="opt-in",
        permission="opt_in",
        form=lambda contact, data: OptOutForm(sorted(contact.opted_out), data),
    )
    def opt_in(self, request: HttpRequest, contact: Contact, asked: Mapping[str, str]) -> str:
        """The person said so elsewhere. Raises ConflictError."""
        opt_outs.opt_in(contact.pk, **asked, actor=staff(request))
        self.note(request, "lifted the opt-out of", contact, {asked["channel"]: ("", asked["reason"])})
        return f"They get messages on {asked['channel']} again."

    @admin.display(description="What there is")
    def holds(self, contact: Contact) -> str:
        """What an erasure would remove."""
        return _counted(erasing.preview(contact))

    @confirmed(
        "Export",
        question="You get a zip with all that Convo holds of this person: sessions, what was said, sends, replies, the"
        " ledger, global memory, as JSON lines and as a page to read or print. What was redacted is not in it. The"
        " audit trail and the time line of each session will say that you took it.",
        icon="download",
        path="export",
    )
    def export(self, request: HttpRequest, contact: Contact) -> HttpResponseBase:
        """All that is known of the person."""
        taken = person.export(contact.pk, actor=staff(request), now=timezone.now(), client=contact.client)
        self.note(request, "exported", contact)
        return Download(taken.pieces(), name=taken.name, content_type="application/zip")

    @confirmed(
        "Erase",
        question=lambda contact: (
            "All that Convo holds of this person is removed for good, now: "
            f"{_counted(erasing.preview(contact))}. Vectors and chats at providers follow in the background, asked for"
            " until they are gone. There is no way back; a certificate stays. You may want to export first."
        ),
        icon="person_remove",
        path="erase",
    )
    def erase(self, request: HttpRequest, contact: Contact) -> HttpResponse:
        """Raises ConflictError for somebody who is on hold."""
        erasure = erasing.begin(contact.pk, actor=staff(request), now=timezone.now(), client=contact.client)
        self.admin_site._registry[Erasure].note(request, "erased a contact", erasure)  # type: ignore[attr-defined]
        self.message_user(request, "The person is erased; global memory follows in the background.")
        return redirect(reverse("admin:conversations_erasure_change", args=[erasure.pk]))


@admin.register(Erasure)
class ErasureAdmin(ReadOnlyPage):
    """What was erased, and the certificates."""

    client_path = "client"
    nothing = "Nobody was erased. It is done on a contact's page."
    list_display = ["begun_at", "client", "asked_by_name", "state", "finished_at"]
    list_select_related = ["client"]
    ordering = ["-begun_at", "-id"]
    fields = ["client", "asked_by_name", "begun_at", "finished_at", "state", "counts", "certificate", "says"]

    @admin.display(description="State")
    def state(self, erasure: Erasure) -> str:
        """Where it is."""
        if erasure.finished_at:
            return "finished"
        return f"under way, tried again with every sweep: {erasure.problem}" if erasure.problem else "under way"

    @admin.display(description="What it says")
    def says(self, erasure: Erasure) -> str | SafeString:
        """The certificate in plain text, if it verifies."""
        if not erasure.certificate:
            return "The certificate follows once everything is gone."
        try:
            facts = erasing.verify(erasure.certificate)
        except DomainError as error:
            return f"It does not verify. {error}"
        said = json.dumps(facts, indent=2, ensure_ascii=False)
        return format_html("It verifies.<pre style='white-space: pre-wrap; overflow-wrap: anywhere'>{}</pre>", said)

    @admin.display(description="Removed")
    def counts(self, erasure: Erasure) -> str:
        """How many rows of which kind."""
        return _counted(erasure.removed)


def _counted(counts: Mapping[str, int]) -> str:
    """What there is of each kind, as a person says it."""
    said = [f"{count:,} {NOUNS.get(name, _noun(name))[count != 1]}" for name, count in counts.items() if count]
    return ", ".join(said) or "nothing"


def _noun(name: str) -> tuple[str, str]:
    several = name.replace("_", " ")
    return several.removesuffix("s"), several
