"""Tells a database of Convo 0.1 or 0.2, whose tables this version does not change in place."""

from __future__ import annotations

# One of these migrations is applied in every such database, and in no other.
MIGRATIONS = ["0001_squashed_0036_free_devices", "0002_cascade_in_the_database"]

FIND = "SELECT 1 FROM django_migrations WHERE app = 'conversations' AND name = ANY ({}::text[]) LIMIT 1"

REFUSAL = (
    "This database is of Convo 0.1 or 0.2, whose tables this version does not change; nothing was touched. Copy it "
    "into a new database with manage.py import_database --from, as docs/operations.md (Upgrade) says."
)
