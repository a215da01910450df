"""Erasures of contacts: their progress, what they removed, and the certificates."""

from __future__ import annotations

import json
from collections.abc import Mapping

from django.contrib import admin
from django.utils.html import format_html
from django.utils.safestring import SafeString

from conversations.admin.base import ReadOnlyAdmin
from conversations.models import Erasure
from conversations.services.core.errors import DomainError
from conversations.services.retention import erasure as erasure_service

# kind of row: (singular, plural)
NOUNS = {
    "sessions": ("conversation", "conversations"),
    "chunks": ("message", "messages"),
    "events": ("timeline event", "timeline events"),
    "messages": ("delivery", "deliveries"),
    "turns": ("turn", "turns"),
    "remembered": ("conversation in memory", "conversations in memory"),
    "addresses": ("address", "addresses"),
    "staff_notes": ("private note", "private notes"),
    "inbound_events": ("raw payload", "raw payloads"),
    "idempotency_keys": ("stored API response", "stored API responses"),
}


@admin.register(Erasure)
class ErasureAdmin(ReadOnlyAdmin):
    """Erasures, newest first."""

    client_path = "client"
    empty_message = "No contact was erased. You can erase a contact on its page."
    list_display = ["begun_at", "client", "asked_by_name", "state", "finished_at"]
    list_select_related = ["client"]
    ordering = ["-begun_at", "-id"]
    fields = ["client", "asked_by_name", "begun_at", "finished_at", "state", "counts", "certificate", "says"]

    @admin.display(description="State")
    def state(self, erasure: Erasure) -> str:
        """Return the progress, with the last problem."""
        if erasure.finished_at:
            return "finished"
        return f"under way, retried with every sweep: {erasure.problem}" if erasure.problem else "under way"

    @admin.display(description="Contents of the certificate")
    def says(self, erasure: Erasure) -> str | SafeString:
        """Return the facts of the certificate, if its signature is valid."""
        if not erasure.certificate:
            return "The certificate is issued when all data are deleted."
        try:
            facts = erasure_service.verify(erasure.certificate)
        except DomainError as error:
            return f"The signature is not valid. {error}"
        said = json.dumps(facts, indent=2, ensure_ascii=False)
        return format_html(
            "The signature is valid.<pre style='white-space: pre-wrap; overflow-wrap: anywhere'>{}</pre>", said
        )

    @admin.display(description="Removed")
    def counts(self, erasure: Erasure) -> str:
        """Return how many rows of each kind were removed."""
        return counts_in_words(erasure.removed)


def counts_in_words(counts: Mapping[str, int]) -> str:
    """Return the counts by kind of row as a phrase: "2 conversations, 1 address"."""
    said = [f"{count:,} {NOUNS.get(name, _noun(name))[count != 1]}" for name, count in counts.items() if count]
    return ", ".join(said) or "nothing"


def _noun(name: str) -> tuple[str, str]:
    several = name.replace("_", " ")
    return several.removesuffix("s"), several
