"""The audit chain of each client: append an entry, and export the chain for verification elsewhere.

    hash of the entry before ─┐
    this entry as JSON ───────┴─► SHA-256 ─► hash of this entry

`convo_project/verify_audit.py` computes the same with the standard library alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from conversations.models import AuditEntry
from conversations.services.core.sql import rows

FIRST = "0" * 64
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('convo.audit.' || $1::text, 0)) IS NOT NULL"
BATCH = 1_000


def append(
    client_id: UUID | None,
    *,
    actor: str,
    actor_id: object,
    verb: str,
    object_type: str,
    object_id: object,
    fields: Iterable[str] = (),
) -> AuditEntry:
    """Append an entry to the client's chain, in the caller's transaction if there is one, and return it.

    Entries of one client wait for each other until the end of the transaction. Call it last.
    """
    with transaction.atomic():
        rows(_LOCK, str(client_id or "installation"))
        last = _chain(client_id).order_by("-number").values_list("number", "hash").first()
        entry = AuditEntry(
            client_id=client_id,
            number=last[0] + 1 if last else 1,
            actor=actor,
            actor_id=str(actor_id)[:40],
            verb=verb[:120],
            object_type=object_type[:40],
            object_id=str(object_id)[:40],
            fields=sorted(fields),
            at=timezone.now(),
        )
        entry.hash = hash_of(bytes(last[1]).hex() if last else FIRST, as_json(entry))
        entry.save(force_insert=True)
    return entry


def as_json(entry: AuditEntry) -> dict[str, Any]:
    """Return the entry as it is hashed and exported, without its hash."""
    return {
        "client_id": str(entry.client_id) if entry.client_id else None,
        "number": entry.number,
        "actor": entry.actor,
        "actor_id": entry.actor_id,
        "verb": entry.verb,
        "object_type": entry.object_type,
        "object_id": entry.object_id,
        "fields": entry.fields,
        "at": _iso(entry.at),
    }


def hash_of(before: str, said: dict[str, Any]) -> bytes:
    """Return the hash of an entry that follows the one with the hash `before`, in hexadecimal."""
    text = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(f"{before}\n{text}".encode()).digest()


def export(client_id: UUID | None) -> Iterator[str]:
    """Yield the client's chain in lines of JSON, the oldest entry first. None: the installation's."""
    number = 0
    while batch := list(_chain(client_id).filter(number__gt=number).order_by("number")[:BATCH]):
        for entry in batch:
            yield json.dumps({**as_json(entry), "hash": bytes(entry.hash).hex()}, ensure_ascii=False)
        number = batch[-1].number


def _chain(client_id: UUID | None) -> QuerySet[AuditEntry]:
    return AuditEntry.objects.filter(client_id=client_id) if client_id else AuditEntry.objects.filter(client=None)


def _iso(at: datetime) -> str:
    return at.astimezone(timezone.get_fixed_timezone(0)).isoformat()
