"""The servers of a Citus cluster: which tables are on all of them, and which are placed by client.

Reference tables, which every server has whole, hold what clients share: what is looked up before the client is known,
and whatever a client's row refers to. A client's rows of all the other tables are on one server, together. What belongs
to nobody (events of unknown accounts, the queue, sign-ins) stays on the coordinator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from django.apps import apps
from django.db import connection, models, transaction

from conversations.models import Client, EventPosition
from conversations.models.of_client import OfClient
from conversations.services.core.errors import ConflictError, NotFoundError
from conversations.services.tenants.cluster_role import let_role_connect
from memory.of_client import NamesClient

# Read beside clients' rows, though none of these refers to it.
READ_BESIDE = ("api_keys", "desk_team_members", "memberships", "provider_models", "retention_policies")
# They belong to nobody, though they may name a client.
ON_COORDINATOR = ("bulk_jobs", "inbound_events", "refused_webhooks", "retention_reports", "staff_actions")
ANCHOR = "contacts"  # the table whose shards the others follow
# What is new of all clients is found there by its id alone (events/numbering.py, desk/live.py).
BY_ID_TOO = ("conversation_chunks", "conversation_events", "event_notes")


@dataclass(frozen=True, slots=True)
class Placing:
    """The tables that are to be placed, and those that are placed already, by name."""

    reference: list[str] = field(default_factory=list)
    by_client: list[str] = field(default_factory=list)
    local: list[str] = field(default_factory=list)
    placed: dict[str, str] = field(default_factory=dict)

    def to_do(self) -> list[tuple[str, str]]:
        """Return each table that is not placed yet, with `reference` or `by_client`."""
        wanted = [*((table, "reference") for table in self.reference), *((t, "by_client") for t in self.by_client)]
        return [(table, kind) for table, kind in wanted if self.placed.get(table) != kind]


def has_citus() -> bool:
    """Return whether the database has the extension."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT FROM pg_extension WHERE extname = 'citus'")
        return bool(cursor.fetchall())


def placing() -> Placing:
    """Return where every table of the models belongs, and where it is. Raises ConflictError without Citus."""
    if not has_citus():
        raise ConflictError("This database has no Citus: DATABASE_URL must name the coordinator of a cluster.")
    by_client = [ANCHOR, *sorted(_tables_of_clients() - {ANCHOR})]
    reference = sorted(_shared(by_client))
    others = {model._meta.db_table for model in _stored()} - set(by_client) - set(reference)
    return Placing(reference, by_client, sorted(others), _placed())


def _stored() -> Iterator[type[models.Model]]:
    return (model for model in apps.get_models(include_auto_created=True) if model._meta.managed)


def _tables_of_clients() -> set[str]:
    of_clients = {model._meta.db_table for model in _stored() if issubclass(model, NamesClient | OfClient)}
    return of_clients | {EventPosition._meta.db_table}  # its key is the client


def _shared(by_client: list[str]) -> set[str]:
    """The tables that rows of clients refer to, and on from there; and those that are read beside them."""
    refers: dict[str, set[str]] = {}
    for model in _stored():
        keys = [
            each for each in model._meta.concrete_fields if each.is_relation and getattr(each, "db_constraint", True)
        ]
        theirs = {each.related_model._meta.db_table for each in keys if isinstance(each.related_model, type)}
        refers.setdefault(model._meta.db_table, set()).update(theirs)
    found: set[str] = set()
    next_ones = {other for table in (*by_client, *READ_BESIDE) for other in refers[table]} | set(READ_BESIDE)
    while next_ones := next_ones - found - set(by_client):
        found |= next_ones
        next_ones = {other for table in next_ones for other in refers[table]}
    return found


def _placed() -> dict[str, str]:
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT logicalrelid::regclass::text, CASE WHEN partmethod = 'h' THEN 'by_client'
                   WHEN repmodel = 't' THEN 'reference' ELSE 'local' END
               FROM pg_dist_partition"""
        )
        return dict(cursor.fetchall())


# --- placing ----------------------------------------------------------------------------------------------------------
_KEYS = """
    SELECT conrelid::regclass::text, quote_ident(conname), pg_get_constraintdef(oid) FROM pg_constraint
    WHERE contype = 'f' AND conparentid = 0
      AND (conrelid::regclass::text = ANY (%(tables)s) OR confrelid::regclass::text = ANY (%(tables)s))
    ORDER BY 1, 2"""


def distribute(note: Callable[[str], None] = lambda _line: None) -> int:
    """Place the tables that are not placed yet, with their rows, and return how many there were.

    Everything is done in one transaction, so that an interrupted run changes nothing. Tables are locked meanwhile: stop
    what writes to them.

    note: is given a line for each table

    Raises ConflictError without Citus, or where the cluster has no coordinator or no worker.
    """
    to_do = placing().to_do()
    if not to_do:
        return 0
    _check_cluster()
    with transaction.atomic(), connection.cursor() as cursor:
        prepare_placing()
        let_role_connect()
        # Citus takes the tables one by one, and no key from a table that is placed to one that is not yet. Keys that
        # are checked at the end of the transaction forbid others to be added behind copied rows.
        cursor.execute(_KEYS, {"tables": [table for table, _ in to_do]})
        keys = cursor.fetchall()
        for table, name, _ in keys:
            cursor.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
        counted = _counted(cursor)
        for table, kind in to_do:
            note(f"{table}: {WORDS[kind]}")
            _place(cursor, table, kind)
        _count_on(cursor, counted)
        for table, name, definition in keys:
            cursor.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}")
        for table in BY_ID_TOO:
            cursor.execute(f"CREATE INDEX IF NOT EXISTS {table}_by_id ON {table} (id)")
    return len(to_do)


def has_placed() -> bool:
    """Return whether the clients' tables are placed. It is asked anew each time, also while they are placed."""
    return has_citus() and _placed().get(ANCHOR) == "by_client"


def prepare_placing() -> None:
    """Let the transaction place tables, change placed ones and write them."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL citus.multi_shard_modify_mode = 'sequential'")
        # Our triggers write rows of the same client, which are on the same server.
        cursor.execute("SET LOCAL citus.enable_unsafe_triggers = on")
        cursor.execute("SET LOCAL client_min_messages = 'error'")


def place_new() -> int:
    """Place the tables that a migration made, which have no keys yet, and return how many. Call it in its transaction.

    Tables that a later migration makes are not there yet.
    """
    there = set(connection.introspection.table_names())
    to_do = [(table, kind) for table, kind in placing().to_do() if table in there]
    with connection.cursor() as cursor:
        counted = [each for each in _counted(cursor) if each[0] in {table for table, _ in to_do}]
        for table, kind in to_do:
            _place(cursor, table, kind)
        _count_on(cursor, counted)
    return len(to_do)


WORDS = {"reference": "whole on every server", "by_client": "by client"}


def _check_cluster() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT groupid = 0, shouldhaveshards FROM pg_dist_node WHERE isactive AND noderole = 'primary'")
        nodes = cursor.fetchall()
    if not any(is_coordinator for is_coordinator, _ in nodes):
        raise ConflictError(
            "The coordinator does not know its own address. Run on it: SELECT citus_set_coordinator_host('HOST', PORT);"
        )
    if not any(has_shards for _, has_shards in nodes):
        raise ConflictError("The cluster has no worker. Run on the coordinator: SELECT citus_add_node('HOST', PORT);")


def _counted(cursor: Any) -> list[tuple[str, str, int, bool]]:
    """Each column that counts by itself, with the last number: a table that is placed would begin anew."""
    cursor.execute(
        """SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
           WHERE c.relkind = 'r' AND a.attidentity <> '' AND NOT a.attisdropped
             AND c.relnamespace = current_schema()::regnamespace"""
    )
    found = []
    for table, column in cursor.fetchall():
        cursor.execute("SELECT pg_get_serial_sequence(%s, %s)", [table, column])
        cursor.execute(f"SELECT last_value, is_called FROM {cursor.fetchone()[0]}")
        found.append((table, column, *cursor.fetchone()))
    return found


def _count_on(cursor: Any, counted: list[tuple[str, str, int, bool]]) -> None:
    for table, column, last, is_called in counted:
        cursor.execute("SELECT setval(pg_get_serial_sequence(%s, %s), %s, %s)", [table, column, last, is_called])


def _place(cursor: Any, table: str, kind: str) -> None:
    if kind == "reference":
        cursor.execute("SELECT create_reference_table(%s)", [table])
    elif table == ANCHOR:
        cursor.execute("SELECT create_distributed_table(%s, 'client_id', colocate_with => 'none')", [table])
    else:
        cursor.execute("SELECT create_distributed_table(%s, 'client_id', colocate_with => %s)", [table, ANCHOR])


# --- moving -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Server:
    """A server of the cluster."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def move_client(client: Client, host: str, port: int | None = None) -> tuple[Server, Server]:
    """Move the client's rows to another server while it is in use, and return the servers from which and to which.

    Its rows get shards of their own first, so that no other client's move along: what writes to the shards that it
    leaves waits as long as that takes. Then they move, and writes wait for a moment at the end. A repeated move goes on
    where an interrupted one was.

    port: None for the only server of that host

    Raises NotFoundError where the cluster has no such server, and ConflictError without Citus or where the server of
    the client keeps no logical log.
    """
    if not placing().placed.get(ANCHOR):
        raise ConflictError("The tables are not placed yet. Run manage.py distribute.")
    to = _server(host, port)
    shard, first, last, at = _shard_of(client)
    if at == to:
        return at, to
    with connection.cursor() as cursor:
        cursor.execute("SHOW wal_level")
        if cursor.fetchone() != ("logical",):
            raise ConflictError("A move under load needs wal_level = logical on every server.")
        if first != last:
            cursor.execute(
                "SELECT isolate_tenant_to_new_shard(%s::regclass, %s, 'CASCADE', 'block_writes')",
                [ANCHOR, str(client.pk)],
            )
            shard, *_ = _shard_of(client)
        cursor.execute(
            "SELECT citus_move_shard_placement(%s, %s, %s, %s, %s, 'force_logical')",
            [shard, at.host, at.port, to.host, to.port],
        )
    return at, to


def _server(host: str, port: int | None) -> Server:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT nodename, nodeport FROM pg_dist_node WHERE isactive AND shouldhaveshards AND noderole = 'primary'"
        )
        servers = [Server(*each) for each in cursor.fetchall()]
    found = [each for each in servers if each.host == host and port in (None, each.port)]
    if len(found) != 1:
        raise NotFoundError(f"Name one of the cluster's servers: {', '.join(map(str, servers))}.")
    return found[0]


def _shard_of(client: Client) -> tuple[int, str, str, Server]:
    """The client's shard of ANCHOR, the first and the last of the hashes that it has, and its server."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT s.shardid, s.shardminvalue, s.shardmaxvalue, n.nodename, n.nodeport
            FROM pg_dist_shard s JOIN pg_dist_placement p USING (shardid)
            JOIN pg_dist_node n USING (groupid)
            WHERE s.shardid = get_shard_id_for_distribution_column(%s::regclass, %s) AND n.noderole = 'primary'""",
            [ANCHOR, str(client.pk)],
        )
        [(shard, first, last, host, port)] = cursor.fetchall()
    return shard, first, last, Server(host, port)
