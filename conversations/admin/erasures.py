"""Erasures of contacts: their progress, what they removed, and the certificates."""

from __future__ import annotations

import json
from collections.abc import Mapping

from django.contrib import admin
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext, ngettext_lazy

from conversations.admin.base import ReadOnlyAdmin
from conversations.models import Erasure
from conversations.services.core.errors import DomainError
from conversations.services.retention import erasure as erasure_service
from conversations.words import lazy as _

# kind of row: so many of them
NOUNS = {
    "sessions": ngettext_lazy("%(n)s conversation", "%(n)s conversations", "count"),
    "chunks": ngettext_lazy("%(n)s message", "%(n)s messages", "count"),
    "events": ngettext_lazy("%(n)s timeline event", "%(n)s timeline events", "count"),
    "messages": ngettext_lazy("%(n)s delivery", "%(n)s deliveries", "count"),
    "turns": ngettext_lazy("%(n)s turn", "%(n)s turns", "count"),
    "remembered": ngettext_lazy("%(n)s conversation in memory", "%(n)s conversations in memory", "count"),
    "addresses": ngettext_lazy("%(n)s address", "%(n)s addresses", "count"),
    "staff_notes": ngettext_lazy("%(n)s private note", "%(n)s private notes", "count"),
    "inbound_events": ngettext_lazy("%(n)s raw payload", "%(n)s raw payloads", "count"),
    "idempotency_keys": ngettext_lazy("%(n)s stored API response", "%(n)s stored API responses", "count"),
}


@admin.register(Erasure)
class ErasureAdmin(ReadOnlyAdmin):
    """Erasures, newest first."""

    client_path = "client"
    empty_message = _("No contact was erased. You can erase a contact on its page.")
    list_display = ["begun_at", "client", "asked_by_name", "state", "finished_at"]
    list_select_related = ["client"]
    ordering = ["-begun_at", "-id"]
    fields = ["client", "asked_by_name", "begun_at", "finished_at", "state", "counts", "certificate", "says"]

    @admin.display(description=_("State"))
    def state(self, erasure: Erasure) -> str:
        """Return the progress, with the last problem."""
        if erasure.finished_at:
            return gettext("finished")
        return (
            gettext("under way, retried with every sweep: %(problem)s") % {"problem": erasure.problem}
            if erasure.problem
            else gettext("under way")
        )

    @admin.display(description=_("Contents of the certificate"))
    def says(self, erasure: Erasure) -> str | SafeString:
        """Return the facts of the certificate, if its signature is valid."""
        if not erasure.certificate:
            return gettext("The certificate is issued when all data are deleted.")
        try:
            facts = erasure_service.verify(erasure.certificate)
        except DomainError as error:
            return gettext("The signature is not valid. %(error)s") % {"error": error}
        said = json.dumps(facts, indent=2, ensure_ascii=False)
        return format_html(
            "{}<pre style='white-space: pre-wrap; overflow-wrap: anywhere'>{}</pre>",
            gettext("The signature is valid."),
            said,
        )

    @admin.display(description=_("Removed"))
    def counts(self, erasure: Erasure) -> str:
        """Return how many rows of each kind were removed."""
        return counts_in_words(erasure.removed)


def counts_in_words(counts: Mapping[str, int]) -> str:
    """Return the counts by kind of row as a phrase: "2 conversations, 1 address"."""
    said = [_so_many(name, count) for name, count in counts.items() if count]
    return ", ".join(said) or gettext("nothing")


def _so_many(name: str, count: int) -> str:
    if name in NOUNS:
        return str(NOUNS[name] % {"count": count, "n": f"{count:,}"})
    several = name.replace("_", " ")
    return f"{count:,} {several.removesuffix('s') if count == 1 else several}"
