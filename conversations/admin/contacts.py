"""Contacts: their data, opt-outs, legal holds, export and erasure."""

from __future__ import annotations

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
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from channels_out.opt_out import OPT_OUT_CHANNELS
from conversations.admin.access import Role, actor_of
from conversations.admin.channel_names import name_of
from conversations.admin.confirmation import confirmed
from conversations.admin.conversation_actions import LONGEST_REASON
from conversations.admin.erasures import counts_in_words
from conversations.admin.person import PersonPages, person_of
from conversations.admin.transcript_view import plain_text
from conversations.http.downloads import Download
from conversations.models import Contact, Conversation, Erasure
from conversations.services.core.errors import NotFoundError
from conversations.services.delivery import opt_outs
from conversations.services.export import person
from conversations.services.retention import erasure as erasure_service
from conversations.services.retention import holds
from conversations.words import lazy as _

CONVERSATIONS = 20  # newest, on the page of a contact
HOLD = _(
    "Why the data of this contact must be kept. While there is a reason, nothing of it is archived, redacted, erased or"
    " deleted by retention. Empty: no hold."
)


class OptedOut(admin.SimpleListFilter):
    """A filter for contacts that opted out on any channel."""

    title = _("opted out")
    parameter_name = "opted_out"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the one choice."""
        return [("yes", gettext("opted out"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Contact]) -> QuerySet[Contact]:
        """Return the contacts that opted out. A partial index holds only these."""
        return queryset.exclude(opted_out={}) if self.value() else queryset


class OptOutForm(forms.Form):
    """The channel of an opt-out, and how staff know of the contact's wish."""

    channel = forms.ChoiceField(widget=UnfoldAdminSelectWidget)
    reason = forms.CharField(
        max_length=LONGEST_REASON,
        widget=UnfoldAdminTextInputWidget(attrs={"placeholder": _("asked on the phone")}),
        help_text=_("How you know. The ledger and the audit log keep it."),
    )

    def __init__(self, channels: Iterable[str], data: Any = None) -> None:
        super().__init__(data)
        choices = [(str(channel), str(channel)) for channel in channels]
        self.fields["channel"].choices = choices or [("", "none")]  # type: ignore[attr-defined]


@admin.register(Contact)
class ContactAdmin(PersonPages):
    """Contacts. Agents edit what staff say of them, and opt them out. Managers lift opt-outs, set holds, export and
    erase."""

    change_form_outer_before_template = "admin/person/contact_page.html"
    client_path = "client"
    empty_message = _("Nobody has written yet. Play a customer in the simulator, or connect a channel.")
    change_role: str | None = Role.MANAGER
    list_display = ["user_id", "shown_name", "phone", "is_guest", "opted_out_on", "same_as", "client", "created_at"]
    list_filter = ["is_guest", OptedOut]
    list_select_related = ["client", "merged_into"]
    search_fields = ["user_id__exact", "phone__exact"]
    ordering = ["-created_at", "-id"]
    readonly_fields = [
        *("client", "user_id", "shown_name", "phone", "is_guest", "opted_out_on"),
        *("said_by_staff", "known_as", "created_at", "holds", "their_conversations"),
    ]
    fields = [
        *("shown_name", "phone", "their_conversations", "client", "user_id", "known_as", "is_guest", "opted_out_on"),
        *("said_by_staff", "created_at"),
        *("hold_reason", "holds"),
    ]
    actions_detail = ["opt_out", "opt_in", "export", "erase"]

    class Media:
        """The form of the person."""

        css = {"all": ["conversations/transcript.css", "conversations/person.css"]}
        js = ["conversations/person.js"]

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Contact | None:
        """Return the contact. For an alias, return the contact that it was merged into."""
        contact: Contact | None = super().get_object(request, object_id, from_field)
        return (contact.merged_into or contact) if contact else None

    def changeform_view(self, request: HttpRequest, object_id: str | None = None, *more: Any, **named: Any) -> Any:
        """Return the page, or the answer for a contact that does not exist if they were erased meanwhile."""
        try:
            return super().changeform_view(request, object_id, *more, **named)
        except NotFoundError:
            return self.row_not_found(request, str(object_id))

    def render_change_form(self, request: HttpRequest, context: Any, *more: Any, **named: Any) -> HttpResponse:
        """Return the page, which begins with what staff say of the person."""
        contact = context.get("original")
        person = person_of(request, contact) if isinstance(contact, Contact) else None
        page: HttpResponse = super().render_change_form(request, {**context, "person": person}, *more, **named)
        return page

    @admin.display(description=_("Name"), ordering="name")
    def shown_name(self, contact: Contact) -> str:
        """Return the name by staff, else the channel's."""
        return plain_text(contact.shown_name)

    def save_model(self, request: HttpRequest, obj: Contact, form: Any, change: bool) -> None:
        """Set or lift the hold. Raises NotFoundError."""
        holds.set_contact_hold(obj.client_id, obj.pk, obj.hold_reason)

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Return the form field. The hold gets a label and a help text."""
        if db_field.name == "hold_reason":
            kwargs |= {"label": gettext("Legal hold"), "help_text": HOLD}
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    @admin.display(description=_("Alias of"))
    def same_as(self, contact: Contact) -> str:
        """Return the contact that this one was merged into."""
        return str(contact.merged_into or "")

    @admin.display(description=_("Aliases"))
    def known_as(self, contact: Contact) -> str:
        """Return the user ids of the contacts that were merged into this one."""
        return ", ".join(contact.aliases.values_list("user_id", flat=True)) or "-"

    @admin.display(description=_("Conversations"))
    def their_conversations(self, contact: Contact) -> SafeString | str:
        """Return the newest conversations as links into the inbox."""
        found = Conversation.objects.filter(client=contact.client_id, contact=contact).order_by("-started_at", "id")
        links = (
            (
                reverse("inbox:open", args=[each.pk]),
                date_format(timezone.localtime(each.started_at), "SHORT_DATETIME_FORMAT"),
                name_of(each.channel),
                each.get_status_display().lower(),
            )
            for each in found[:CONVERSATIONS]
        )
        return format_html_join("", '<div><a class="row-link" href="{}">{}</a> {}, {}</div>', links) or gettext(
            "none yet"
        )

    @admin.display(description=_("Opted out"))
    def opted_out_on(self, contact: Contact) -> str:
        """Return the channels on which the contact opted out, each with the date."""
        return ", ".join(
            gettext("%(channel)s since %(day)s") % {"channel": name_of(channel), "day": wish["since"][:10]}
            for channel, wish in contact.opted_out.items()
        )

    @admin.display(description=_("Memory corrected by staff"))
    def said_by_staff(self, contact: Contact) -> SafeString | str:
        """Return the text with which the next conversation begins, and where staff wrote it."""
        if not contact.known_at or not contact.known_in:
            return gettext("none; staff can correct the memory message of a conversation")
        page = reverse("admin:conversations_conversation_change", args=[contact.known_in])
        said = format_html(
            "<a href='{}'>{}, {}</a>", page, contact.known_by, f"{timezone.localtime(contact.known_at):%Y-%m-%d}"
        )
        return format_html("{}<div style='white-space: pre-wrap'>{}</div>", said, contact.known)

    def has_opt_out_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may opt the contact out. Agents may: contacts tell them so."""
        return self.has_role(request, Role.AGENT, obj)

    def has_opt_in_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may lift an opt-out. Only managers may: they answer for the consent."""
        return self.has_role(request, Role.MANAGER, obj)

    @confirmed(
        _("Opt out"),
        question=_(
            "The contact gets no more messages on the channel, as if they had written STOP. Queued messages are"
            " cancelled, and the assistant does not reply there. The contact is not told."
        ),
        icon="notifications_off",
        path="opt-out",
        permission="opt_out",
        form=lambda contact, data: OptOutForm(sorted(OPT_OUT_CHANNELS.difference(contact.opted_out)), data),
    )
    def opt_out(self, request: HttpRequest, contact: Contact, asked: Mapping[str, str]) -> str:
        """Opt the contact out on the channel. Raises ConflictError."""
        cancelled = opt_outs.opt_out(contact.pk, **asked, actor=actor_of(request), now=timezone.now())
        self.record(request, "opted out", contact, {asked["channel"]: ("", asked["reason"])})
        return gettext("The contact gets no more messages on %(channel)s. Cancelled messages: %(cancelled)s.") % {
            "channel": name_of(asked["channel"]),
            "cancelled": cancelled,
        }

    @confirmed(
        _("Lift opt-out"),
        question=_(
            "The contact gets messages on the channel again. Do this only if they told you that they want them:"
            " carriers and the law require their consent. A block at the provider is not lifted by this."
        ),
        icon="notifications_active",
        path="opt-in",
        permission="opt_in",
        form=lambda contact, data: OptOutForm(sorted(OPT_OUT_CHANNELS.intersection(contact.opted_out)), data),
    )
    def opt_in(self, request: HttpRequest, contact: Contact, asked: Mapping[str, str]) -> str:
        """Lift the opt-out on the channel. Raises ConflictError."""
        opt_outs.opt_in(contact.pk, **asked, actor=actor_of(request))
        self.record(request, "lifted the opt-out of", contact, {asked["channel"]: ("", asked["reason"])})
        return gettext("The contact gets messages on %(channel)s again.") % {"channel": name_of(asked["channel"])}

    @admin.display(description=_("Stored data"))
    def holds(self, contact: Contact) -> str:
        """Return what is stored of the person; it is counted once for a page, which asks for it several times."""
        known = vars(contact)
        if "held" not in known:
            known["held"] = counts_in_words(erasure_service.held(contact))
        return str(known["held"])

    @confirmed(
        _("Export"),
        question=_(
            "You get a zip file with all data of this contact: conversations, messages, deliveries, turns, ledger"
            " and memory, as JSON lines and as a page to read or print. Redacted text is not in it. The audit log and"
            " the timeline of each conversation record that you exported it."
        ),
        icon="download",
        path="export",
    )
    def export(self, request: HttpRequest, contact: Contact) -> HttpResponseBase:
        """Return the zip file and record the export."""
        taken = person.export(contact.pk, actor=actor_of(request), now=timezone.now(), client=contact.client)
        self.record(request, "exported", contact)
        return Download(taken.pieces(), name=taken.name, content_type="application/zip")

    @confirmed(
        _("Erase"),
        question=lambda contact: (
            gettext(
                "All data of this contact are removed now and for good: %(counts)s. Vectors and chats at providers are"
                " deleted in the background. You cannot undo this. A certificate stays. You may want to export the data"
                " first."
            )
            % {"counts": counts_in_words(erasure_service.preview(contact))}
        ),
        icon="person_remove",
        destroys=True,
        path="erase",
    )
    def erase(self, request: HttpRequest, contact: Contact) -> HttpResponse:
        """Erase the contact and show the erasure. Raises ConflictError if the contact is on hold."""
        erasure = erasure_service.begin(contact.pk, actor=actor_of(request), now=timezone.now(), client=contact.client)
        self.admin_site._registry[Erasure].record(request, "erased a contact", erasure)  # type: ignore[attr-defined]
        self.message_user(request, gettext("The contact is erased. Copies at providers follow in the background."))
        return redirect(reverse("admin:conversations_erasure_change", args=[erasure.pk]))
