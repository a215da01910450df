"""The facts that staff keep of a person, with the form to edit them: in the inbox's pane and on the contact's page.

/admin/conversations/contact/<id>/person/    the form is posted here, and answered with a sentence as JSON
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.http import Http404, HttpRequest, JsonResponse
from django.urls import URLPattern, path, reverse
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from conversations.admin import access
from conversations.admin.channel_names import name_of
from conversations.admin.long_list import LongListAdmin
from conversations.admin.transcript import no_store
from conversations.admin.transcript_view import plain_text
from conversations.models import Chunk, Contact, Conversation, Role, StaffNote, corrected_text
from conversations.services.contacts import details
from conversations.services.contacts.details import ATTRIBUTE
from conversations.services.core import audit_log
from conversations.services.core.errors import DomainError, NotFoundError
from conversations.services.staff_actions import edit_contact
from conversations.services.staff_actions.edit_contact import TakenError

FIELDS = ("name", "phone", "email", "language")
BLANK_ROWS = 2  # for further attributes
NOTES = 5  # newest, of all conversations of the person
LONGEST_BEFORE = 100_000  # characters of what the form's reader saw
MOST_ROWS = 200  # of attributes that are read


class PersonPages(LongListAdmin):
    """The route to which the form of a person is posted."""

    def get_urls(self) -> list[URLPattern]:
        """Return the route before Django's, whose last pattern matches everything."""
        saved = self.admin_site.admin_view(require_POST(self.save_person))
        return [path("<uuid:pk>/person/", saved, name="conversations_contact_person"), *super().get_urls()]

    def save_person(self, request: HttpRequest, pk: UUID) -> JsonResponse:
        """Store what was posted and return a sentence (`said`).

        Where it is refused: 409 with `now`, what a colleague has written meanwhile by field, or with `merge`, the
        address of the pair of contacts that have the same phone or e-mail address. Another client's contact is a 404.
        """
        contact = self.to_look_up(request).select_related("client").filter(pk=pk).first()
        if contact is None:
            raise Http404
        if not access.can(request.user, access.Role.AGENT, contact.client_id):
            return no_store(JsonResponse({"said": _("Only agents and managers may do that.")}, status=403))
        try:
            done = edit_contact.edit(contact.pk, wanted_of(request), _before_of(request), client=contact.client)
        except NotFoundError as error:
            return no_store(JsonResponse({"said": str(error)}, status=404))
        except DomainError as error:
            return no_store(JsonResponse({"said": str(error), **_beside(error)}, status=409))
        if done.changed:  # their values are the person's, and the audit log is kept for long
            hidden = dict.fromkeys(done.changed, (audit_log.HIDDEN, audit_log.HIDDEN))
            self.record(request, "edited", done.contact, hidden)
        return no_store(JsonResponse({"said": _("The person is saved.") if done.changed else _("Nothing changed.")}))


def wanted_of(request: HttpRequest) -> dict[str, str]:
    """Return the posted values as flat texts. A field that was not posted is left alone."""
    found = {name: request.POST[name] for name in FIELDS if name in request.POST}
    keys, values = request.POST.getlist("key")[:MOST_ROWS], request.POST.getlist("value")[:MOST_ROWS]
    pairs = ((" ".join(key.split()), value) for key, value in zip(keys, values, strict=False))
    return {**found, **{f"{ATTRIBUTE}{key}": value for key, value in pairs if key or value.strip()}}


def _before_of(request: HttpRequest) -> dict[str, str]:
    """Return what the form's reader saw; nothing if it cannot be read."""
    try:
        told = json.loads(request.POST.get("before", "")[:LONGEST_BEFORE])
    except ValueError:
        told = {}
    read = told if isinstance(told, dict) else {}
    return {name: value for name, value in read.items() if isinstance(value, str)}


def _beside(error: DomainError) -> dict[str, Any]:
    """Return what the page does with a refusal."""
    if isinstance(error, TakenError):
        other = reverse("admin:conversations_contact_change", args=[error.contact.pk])
        pair = reverse("admin:conversations_contactmatch_change", args=[error.match]) if error.match else ""
        return {"other": other, "merge": pair, "merge_label": _("Compare and merge the two")}
    return {"now": error.details or {}} if error.code == "changed" else {}


def person_of(request: HttpRequest, contact: Contact, conversation: Conversation | None = None) -> dict[str, Any]:
    """Return what the templates show of the person (admin/person/).

    conversation: whose opening memory is shown as what the model knows; None for none
    """
    values = details.values_of(contact)
    channel = edit_contact.channel_of_phone(contact)
    return {
        **{name: plain_text(values[name]) for name in FIELDS},
        "attributes": [(plain_text(str(key)), plain_text(str(value))) for key, value in contact.attributes.items()],
        "blank_rows": range(BLANK_ROWS),
        "before": json.dumps(values),
        "language_name": _(details.language_name(contact.language)) if contact.language else "",
        "languages": sorted(((tag, _(name)) for tag, name in details.languages()), key=lambda each: each[1].casefold()),
        "name_of_channel": plain_text(contact.name) if contact.staff_name else "",
        "phone_channel": name_of(channel) if channel else "",
        "may_edit": access.can(request.user, access.Role.AGENT, contact.client_id),
        "save_url": reverse("admin:conversations_contact_person", args=[contact.pk]),
        "opt_outs": list(_opt_outs(contact.opted_out)),
        "notes": _notes(contact),
        "known": _known(conversation) if conversation else "",
        "limits": details,
    }


def _opt_outs(opted_out: Mapping[str, Any]) -> list[tuple[str, datetime | None, str]]:
    """Return channel, time and reason of each opt-out."""
    found = []
    for channel, wish in opted_out.items():
        of, _colon, what = channel.partition(":")
        named = f"{name_of(of)} ({what})" if what else name_of(of)
        told = wish if isinstance(wish, dict) else {}
        since, why = told.get("since"), told.get("reason") or told.get("word") or ""
        found.append((named, parse_datetime(since) if isinstance(since, str) else None, plain_text(str(why))))
    return found


def _notes(contact: Contact) -> list[StaffNote]:
    """Return the newest notes of staff in all conversations of the person."""
    found = StaffNote.objects.filter(client=contact.client_id, conversation__contact=contact).order_by("-id")
    return list(found[:NOTES])


def _known(conversation: Conversation) -> str:
    """Return the memory with which the conversation began, as it reads now."""
    opening = Chunk.objects.filter(conversation=conversation, position__lte=2, role=Role.MEMORY)
    found = opening.annotate(words=corrected_text(conversation.client_id)).values_list("words", flat=True).first()
    return plain_text(found or "")
