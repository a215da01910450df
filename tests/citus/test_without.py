"""The commands of a cluster on a database that is none, and the rules that Citus sets to statements."""

from __future__ import annotations

import os
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from conversations.services.core.sql import rows
from conversations.services.tenants import servers
from tests.databases import CLUSTER
from tests.named_clients import asks_every_server_for_a_column, needs_every_server, refused_by_citus


@pytest.mark.skipif(CLUSTER in os.environ, reason="this database has Citus")
def test_a_database_without_citus_is_told_so(db: Any) -> None:
    with pytest.raises(CommandError, match="no Citus"):
        call_command("distribute")
    with pytest.raises(CommandError, match="no Citus"):
        call_command("distribute", "--dry-run")


KEYS = """
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE contype = 'f' AND connamespace = current_schema()::regnamespace ORDER BY 1, 2"""


@pytest.mark.skipif(CLUSTER in os.environ, reason="there the tables are placed")
def test_no_key_stands_while_rows_are_copied_and_all_do_afterwards(db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Citus could add no key behind the copied rows of a table whose keys are checked at the end of the transaction."""
    by_client = sorted(servers._tables_of_clients() - {servers.ANCHOR})
    shared = sorted(servers._shared([servers.ANCHOR, *by_client]))
    placed: dict[str, list[str]] = {}

    def place(cursor: Any, table: str, kind: str) -> None:
        placed[table] = [name for owner, name, _ in rows(KEYS) if owner == table]

    to_do = servers.Placing(reference=shared, by_client=[servers.ANCHOR, *by_client])
    monkeypatch.setattr(servers, "placing", lambda: to_do)
    monkeypatch.setattr(servers, "_place", place)
    for name in ("_check_cluster", "prepare_placing", "let_role_connect"):
        monkeypatch.setattr(servers, name, lambda: None)
    before = rows(KEYS)
    assert servers.distribute() == len(shared) + len(by_client) + 1
    assert {table: names for table, names in placed.items() if names} == {}
    assert rows(KEYS) == before


@pytest.mark.parametrize(
    ("statement", "refused"),
    [
        ("UPDATE contacts c SET hold_until = c.hold_until + '1 day'::interval WHERE c.client_id = $1", True),
        ("UPDATE contacts SET hold_until = $2::timestamptz + '1 day'::interval WHERE client_id = $1", False),
        ("UPDATE contacts c SET name = now()::text || c.name WHERE c.client_id = $1", True),
        ("UPDATE contacts c SET last = (c.last AT TIME ZONE 'UTC' + '1 day'::interval) AT TIME ZONE 'UTC'", False),
        ("SELECT id FROM contacts FOR UPDATE", True),
        ("SELECT id FROM contacts WHERE client_id = ANY ($1) FOR UPDATE", True),
        ("SELECT id FROM contacts WHERE client_id = $1 FOR UPDATE", False),
        ("SELECT id FROM clients FOR UPDATE", False),
    ],
)
def test_what_citus_refuses_is_found(statement: str, refused: bool) -> None:
    assert bool(refused_by_citus(statement)) == refused


@pytest.mark.parametrize(
    ("statement", "needs"),
    [
        ("WITH c AS (SELECT 1 AS id) INSERT INTO event_notes (client_id, kind) SELECT $1, 'x' FROM c", True),
        ("WITH c AS (INSERT INTO event_notes (client_id) VALUES ($1) RETURNING 1) SELECT 1 FROM c", True),
        ("INSERT INTO event_notes (client_id, kind) SELECT $1, t.k FROM unnest($2::text[]) AS t(k)", False),
        ("INSERT INTO desk_seen (client_id, position) SELECT s.client_id, 1 FROM conversations s", True),
        ("INSERT INTO contact_matches (client_id, id) SELECT p.client_id, p.id FROM contacts p", False),
        ("WITH c AS (UPDATE contacts SET name = '' WHERE client_id = $1 RETURNING id) SELECT id FROM c", False),
        ("WITH c AS (SELECT 1) INSERT INTO sign_in_tries (who) SELECT 'x' FROM c", False),
    ],
)
def test_an_insert_that_needs_every_server_is_found(statement: str, needs: bool) -> None:
    assert needs_every_server(statement) == needs


@pytest.mark.parametrize(
    ("column", "asks"),
    [
        ("(SELECT c.text FROM chunk_corrections c WHERE c.client_id = k.client_id AND c.chunk_id = k.id)", True),
        ("(SELECT c.text FROM chunk_corrections c WHERE c.client_id = $1 AND c.chunk_id = k.id)", False),
        ("EXISTS (SELECT FROM contacts p JOIN clients c ON c.id = p.client_id WHERE p.client_id = $1)", False),
        ("EXISTS (SELECT FROM contacts p JOIN clients c ON c.id = p.client_id WHERE c.id = k.client_id)", True),
        ("COALESCE((SELECT name FROM clients WHERE id = k.client_id), '')", False),
    ],
)
def test_a_column_that_asks_every_server_is_found(column: str, asks: bool) -> None:
    statement = f"SELECT k.id, {column} FROM conversation_chunks k WHERE k.client_id = $1"
    assert asks_every_server_for_a_column(statement) == asks
