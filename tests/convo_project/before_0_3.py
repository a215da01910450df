"""A database of Convo before 0.3 with two rows or more in every table, one of each of two clients."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import psycopg
from cryptography.fernet import Fernet
from psycopg.types.json import Jsonb

from convo_project import pg_tools

SCHEMA = Path(__file__).with_name("before_0_3.sql")
CLIENTS = 1, 2
FIRST_ID = 100  # of rows that are numbered, so that no sequence has come so far
LAST_ID = 5_000  # that a sequence gave away, of rows that were deleted since
MIGRATIONS = {
    "conversations": [
        "0001_initial",
        "0001_squashed_0036_free_devices",
        "0036_free_devices",
        "0080_quotas_of_a_day",
        "0122_chain_the_audit_log",
    ],
    "memory": ["0001_initial", "0005_pairs_of_words"],
}
AT = datetime(2026, 11, 22, 8, 30, 15, 123456, tzinfo=UTC)
SAID = "Grüße,\ttab, \\ backslash, 'quote', \"double\"\nand a new line 🙂"

MODELS = {1: "contact", 2: "client"}

# Values that rules ask for. A function is given the client's number.
VALUES: dict[str, Any] = {
    "api_keys.scopes": ["admin"],
    "assistants.engine": "agent",
    "assistants.is_default": False,
    "attachments.kind": "image",
    "attachments.state": "ready",
    "bulk_jobs.kind": "close",
    "channel_accounts.channel": "sms",
    "channel_accounts.provider": "plivo",
    "chunk_corrections.kind": "redaction",
    "clients.longest_wait": timedelta(seconds=6),
    "clients.quiet_windows": {"sms": 1.5},
    "clients.redaction_patterns": ["[0-9]{6}"],
    "clients.sub_domain": lambda number: f"client-{number}",
    "contact_identities.channel": "whatsapp",
    "contact_identities.kind": "phone",
    "contact_matches.evidence": "moved",
    "contact_matches.state": "dismissed",
    "contacts.is_guest": False,
    "contacts.merged_into_id": None,
    "contacts.phone": lambda number: f"+4179000000{number}",
    "conversation_activities.kind": "reaction",
    "conversation_call_answers.then": "wait",
    "conversation_chunks.content": SAID,
    "conversation_chunks.role": "user",
    "conversation_events.actor": "staff",
    "conversation_messages.part": 1,
    "conversation_messages.status": "sent",
    "conversation_states.intent": "order",
    "conversation_states.previous_intent": "menu",
    "conversation_steps.status": "pending",
    "conversation_turns.status": "committed",
    "conversations.channel": "web",
    "conversations.ended_at": None,
    "conversations.ended_by": "",
    "conversations.status": "active",
    "copilot_feedback.rating": "up",
    "auth_permission.codename": lambda number: f"view_{MODELS[number]}",
    "django_content_type.app_label": "conversations",
    "django_content_type.model": lambda number: MODELS[number],
    "django_q_schedule.func": "conversations.tasks.sweep",
    "desk_labels.colour": "amber",
    "engine_chats.status": "ended",
    "event_deliveries.status": "pending",
    "event_endpoints.kinds": ["message.in"],
    "event_numbering.doubt_holders": [],
    "event_numbering.doubt_upto": None,
    "event_numbering.numbered": "{[0,5001)}",
    "event_numbering.source": lambda number: {1: "chunk", 2: "ledger"}[number],
    "events.source": "chunk",
    "mcp_servers.key": "crm",
    "memberships.role": "agent",
    "memories.language": "german",
    "memories.summary_kind": "llm",
    "memory_rebuilds.kind": "database",
    "model_providers.from_environment": False,
    "model_providers.kind": "anthropic",
    "retention_policies.days": 30,
    "retention_policies.channel": "sms",
    "retention_policies.rule": "turns",
    "retention_policies.status": "closed",
    "tool_calls.status": "answered",
    "tools.server_id": None,
}
ENCRYPTED = {
    "assistants.agent_secrets",
    "channel_accounts.credentials",
    "event_endpoints.secrets",
    "mcp_servers.headers",
    "model_providers.credentials",
    "model_providers.headers",
    "tools.credentials",
}
_COLUMNS = """
    SELECT table_name::text, column_name::text, udt_name::text, character_maximum_length
    FROM information_schema.columns WHERE table_schema = 'public' ORDER BY table_name, ordinal_position"""
_KEYS = """
    SELECT c.conrelid::regclass::text, a.attname::text, c.confrelid::regclass::text, b.attname::text
    FROM pg_constraint c
    JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
    JOIN pg_attribute b ON b.attrelid = c.confrelid AND b.attnum = c.confkey[1]
    WHERE c.contype = 'f'"""


def make(database: Mapping[str, Any], keys: list[str]) -> None:
    """Give the empty database the tables and rows. Its credentials are encrypted with the first key."""
    with pg_tools.connect(dict(database)) as connection:
        connection.execute(SCHEMA.read_text())
        with connection.transaction():
            connection.execute("SET CONSTRAINTS ALL DEFERRED")
            _fill(connection, Fernet(keys[0]))


def _fill(connection: psycopg.Connection[Any], vault: Fernet) -> None:
    columns: dict[str, dict[str, tuple[str, int | None]]] = {}
    for table, column, kind, length in connection.execute(_COLUMNS).fetchall():
        columns.setdefault(table, {})[column] = (kind, length)
    keys = {(table, column): (other, theirs) for table, column, other, theirs in connection.execute(_KEYS).fetchall()}
    for table in _in_order(columns, keys):
        if table == "django_migrations":
            continue
        for number in CLIENTS:
            row = {column: _value(table, column, *kind, number, keys, vault) for column, kind in columns[table].items()}
            _insert(connection, table, row)
            if table == "contacts":
                of = {"client_id": uuid("clients", number), "merged_into_id": uuid("contacts", number)}
                _insert(connection, table, {"id": alias(number), "user_id": "alias", "is_guest": False, **of})
        if columns[table].get("id", ("",))[0] in ("int4", "int8"):
            connection.execute("SELECT setval(pg_get_serial_sequence(%s, 'id'), %s)", [table, LAST_ID])
    for app, names in MIGRATIONS.items():
        for name in names:
            _insert(connection, "django_migrations", {"app": app, "name": name, "applied": AT})
    _add_special_rows(connection)


def _add_special_rows(connection: psycopg.Connection[Any]) -> None:
    """Add rows that name nothing through which their client could be found."""
    _insert(connection, "engine_chat_removals", {"chat_id": "a chat of nobody"})
    webhooks = {"channel": "sms", "provider": "plivo", "day": AT.date(), "count": 7, "last_at": AT}
    _insert(connection, "refused_webhooks", webhooks)


def _insert(connection: psycopg.Connection[Any], table: str, row: Mapping[str, Any]) -> None:
    names = psycopg.sql.SQL(", ").join(map(psycopg.sql.Identifier, row))
    values = psycopg.sql.SQL(", ").join([psycopg.sql.Placeholder()] * len(row))
    query = psycopg.sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(psycopg.sql.Identifier(table), names, values)
    connection.execute(query, list(row.values()))


def _in_order(columns: Mapping[str, Any], keys: Mapping[tuple[str, str], tuple[str, str]]) -> list[str]:
    """Return the tables, each behind those that it refers to as far as that goes; the rest is deferred."""
    order: list[str] = []

    def visit(table: str, above: tuple[str, ...]) -> None:
        if table in order or table in above:
            return
        for (child, _), (other, _) in keys.items():
            if child == table:
                visit(other, (*above, table))
        order.append(table)

    for table in columns:
        visit(table, ())
    return order


def _value(
    table: str,
    column: str,
    kind: str,
    length: int | None,
    number: int,
    keys: Mapping[tuple[str, str], tuple[str, str]],
    vault: Fernet,
) -> Any:
    name = f"{table}.{column}"
    if name in VALUES and VALUES[name] is not None:
        value = VALUES[name](number) if callable(VALUES[name]) else VALUES[name]
        return Jsonb(value) if kind == "jsonb" else value
    if name in ENCRYPTED:
        return vault.encrypt(json.dumps({"secret": f"of {number}"}).encode()).decode()
    if (table, column) in keys:
        if name in VALUES:
            return None
        other, theirs = keys[table, column]
        if column == "second_id":
            return alias(number)
        return _plain(other, theirs, kind, None, number)
    if name in VALUES:
        return None
    return _plain(table, column, kind, length, number)


def _plain(table: str, column: str, kind: str, length: int | None, number: int) -> Any:
    """Return a value of the type that tells its column and its client's number."""
    by_kind = {
        "uuid": uuid(table if column == "id" else f"{table}.{column}", number),
        "int2": number,
        "int4": FIRST_ID + number if column == "id" else number,
        "bool": True,
        "timestamptz": AT + timedelta(hours=number),
        "date": date(2026, 11, number),
        "interval": timedelta(days=number, seconds=1),
        "numeric": Decimal(f"{number}.25"),
        "float8": number + 0.1,
        "jsonb": Jsonb({"number": number, "said": SAID}),
        "bytea": bytes([0, number, 255]) + table.encode(),
        "tsvector": f"'kettle':1,{number + 1} 'fish':2",
        "_uuid": [uuid("conversations", number)],
    }
    text = f"{column} {number}"
    short = text if length is None or len(text) <= length else text[-length:].strip()
    return by_kind.get("int4" if kind == "int8" else kind, short)


def alias(number: int) -> UUID:
    """Return the id of the client's alias, which is higher than any other."""
    return UUID(f"ffffffff{uuid('aliases', number).hex[8:]}")


def uuid(table: str, number: int) -> UUID:
    """Return the id of the client's row in the table."""
    return uuid5(NAMESPACE_URL, f"{table}/{number}")
