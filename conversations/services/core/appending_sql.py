"""The statements that append a person's message to their active conversation, for one message and for many.

Most of what a statement costs PostgreSQL is its start, and reading the checks of the tables that it writes to. So the
messages that wait at the same time are appended by one statement, which takes them as rows (`Many`).

The plan is prepared once and kept, perhaps since the tables were small, when every index looks as good as another. So
it is written such that only the right one fits (`open_conversation_sql`), and the conversation is looked up by a
subquery, not by a join, which leaves PostgreSQL no other way than from the person to the conversation. What the UPDATE
checks once more, because somebody may change it while we wait for the row, is written such that no index fits.
"""

from __future__ import annotations

import re

from conversations.models import Scope
from conversations.services.core import key_sql
from conversations.services.core.dedupe import is_new_sql
from conversations.services.core.sql import later
from conversations.services.core.statements import Many

# The version of an account is where its row and its client's lie and who wrote them: PostgreSQL never changes a row in
# place. `a` is the account, `c` its client.
ACCOUNT_VERSION = "a.xmin::text || a.ctid::text || c.xmin::text || c.ctid::text"


def quiet_window(channel: str) -> str:
    """Return SQL for how long client `c` waits for another message on the channel, a placeholder."""
    return f"COALESCE((c.quiet_windows->>{channel}::text)::float8, 0) * interval '1 second'"


def contact_sql(client: str, user_id: str) -> str:
    """Return the subquery for the client's contact of that user id.

    Of all indexes that fit, the index `one_contact_per_user_id` alone also gives the order that is asked for. So it is
    chosen on tables without statistics too, where every index that begins with the client seems to find one row. The
    order needs a range: where a column is equal to a value, PostgreSQL knows that there is nothing to order.
    """
    return f"""(
        SELECT n.* FROM contacts n
        WHERE n.client_id = {client} AND n.user_id >= {user_id} AND n.user_id <= {user_id}
        ORDER BY n.user_id LIMIT 1)"""


def open_conversation_sql(client: str, contact: str, channel: str, thread: str) -> str:
    """Return the subquery for the id of the contact's open conversation on the channel in the thread.

    It finds the one row of an index, as `contact_sql` says.
    """
    return f"""(
        SELECT o.id FROM conversations o
        WHERE o.client_id = {client} AND o.contact_id = {contact} AND o.channel = {channel}
          AND o.thread >= {thread} AND o.thread <= {thread}
          AND o.status IN ('active', 'stale')
        ORDER BY o.thread LIMIT 1)"""


# Each form begins with the person. `{columns}` and `{asked}` are empty, or name the messages of many.
_PERSON_BY_KEY = f"""
WITH person AS MATERIALIZED (
    SELECT {{columns}}p.id, c.auto_reply AND NOT p.opted_out ? $1::text AS auto_reply,
           {quiet_window("$1")} AS quiet, c.longest_wait, k.id AS key_id, NULL::bigint AS device_id
    FROM {{asked}}api_keys k
    JOIN clients c ON c.id = k.client_id AND c.is_active
    CROSS JOIN LATERAL {contact_sql("$10", "$11")} p
    WHERE k.key_hash = $9 AND {key_sql.may(Scope.MESSAGES_WRITE)} AND c.id = $10
      AND ($12::text IS NULL OR p.phone = $12) AND ($13::text = '' OR p.name = $13)
      AND c.redact_cards = $14 AND c.redaction_patterns = $15::jsonb
)"""
_TYPES_BY_KEY = "text, text, timestamptz, text, text, uuid, text, uuid, bytea, uuid, text, text, text, bool, text"


def _person_by_address(unchanged: str) -> str:
    """Return the beginning with the person of an address.

    The address finds the one row of its index, as `contact_sql` says; OFFSET 0 has the contact looked up by its whole
    key.
    """
    return f"""
WITH person AS MATERIALIZED (
    SELECT {{columns}}p.id, c.auto_reply AND NOT p.opted_out ? $1::text AS auto_reply,
           {quiet_window("$1")} AS quiet, c.longest_wait, NULL::bigint AS key_id, i.id AS device_id
    FROM {{asked}}LATERAL (
        SELECT d.id, d.contact_id FROM contact_identities d
        WHERE d.client_id = $9 AND d.channel = $1 AND d.address >= $10 AND d.address <= $10
        ORDER BY d.address LIMIT 1) i
    JOIN clients c ON c.id = $9 AND c.is_active
    CROSS JOIN LATERAL (
        SELECT k.id, k.phone, k.name, k.opted_out FROM contacts k
        WHERE k.client_id = $9 AND k.id = i.contact_id OFFSET 0) p
    WHERE ($11::text IS NULL OR p.phone IS NOT NULL) AND ($12::text = '' OR p.name <> '')
      AND (cardinality($13::text[]) = 0 OR (
           SELECT count(*) FROM contact_identities o
           WHERE o.client_id = $9 AND o.channel = $1 AND o.address = ANY($13::text[])
             AND o.contact_id = i.contact_id) = cardinality($13::text[]))
      AND {unchanged}
)"""


_TYPES_BY_ADDRESS = "text, text, timestamptz, text, text, uuid, text, uuid, uuid, text, text, text, text[], text"

_SESSION = f"""
, session AS (
    UPDATE conversations s
    SET last_message_at = GREATEST(s.last_message_at, $3),
        last_position = s.last_position + 1,
        inbound_sequence = s.inbound_sequence + 1,
        channel_account_id = COALESCE($8, s.channel_account_id),
        device_id = COALESCE(person.device_id, s.device_id),
        reply_owed = s.reply_owed OR person.auto_reply,
        burst_began_at = CASE WHEN s.reply_owed THEN COALESCE(s.burst_began_at, $3) ELSE $3 END,
        reply_due_at = LEAST(
            {later("$3", "person.quiet")},
            {later("CASE WHEN s.reply_owed THEN COALESCE(s.burst_began_at, $3) ELSE $3 END", "person.longest_wait")})
    FROM person
    WHERE s.client_id = {{client}} AND s.id = {{conversation}}
      AND s.contact_id IS NOT DISTINCT FROM person.id AND s.status || '' = 'active'
      AND {{is_new}}{{more}}
    RETURNING s.id, s.last_position, s.is_guest, person.key_id, s.inbound_sequence, s.login_id{{columns}}
)"""

_CHUNK = """
, chunk AS (
    INSERT INTO conversation_chunks
        (client_id, conversation_id, position, role, content, message_id, dedupe_key, metadata, created_at, login_id)
    SELECT {client}, id, last_position, CASE WHEN $1 = 'voice' THEN 'voice' ELSE 'user' END, $4, $5, $6, $7::jsonb, $3,
           login_id
    FROM session
    RETURNING id, conversation_id
)
SELECT {columns}session.id, chunk.id, session.last_position, session.is_guest, session.key_id, session.inbound_sequence
FROM session, chunk{matching}"""

# A message to another of the client's accounts is for the general form: see threads.py.
_SAME_ACCOUNT = """
      AND ($8::uuid IS NULL OR COALESCE(s.channel_account_id, $8) = $8)"""
_UNCHANGED = f"($14::text IS NULL OR $14 = (SELECT {ACCOUNT_VERSION} FROM channel_accounts a WHERE a.id = $8))"


def _for_one(person: str, client: str, more: str = "") -> str:
    """Return the statement for one message, whose values are $1, $2 …

    client: the placeholder of the client's id
    more: further conditions of the conversation `s`
    """
    conversation = open_conversation_sql(client, "(SELECT id FROM person)", "$1", "$2")
    return (
        person.format(columns="", asked="")
        + _SESSION.format(client=client, conversation=conversation, is_new=is_new_sql(client), more=more, columns="")
        + _CHUNK.format(client=client, columns="", matching="")
    )


def _for_many(person: str, client: str, more: str = "", *, types: str) -> str:
    """Return the statement for many messages.

    Of two that are for one conversation, PostgreSQL appends the first; the second gets no row and is for the general
    form. That is so where one person writes from two addresses.

    Where the statement for one has $1, $2 …, it has the columns v1, v2 … of what is asked, of these types.
    """
    conversation = open_conversation_sql(client, "person.id", "$1", "$2")
    said = f", person.n, {client}, $1, $3, $4, $5, $6, $7"
    session = _SESSION.format(
        client=client, conversation=conversation, is_new=is_new_sql(client), more=more, columns=said
    )
    chunk = _CHUNK.format(client=client, columns="session.n, ", matching=" WHERE chunk.conversation_id = session.id")
    beginning = from_columns("asked", person).format(columns="asked.*, ", asked=asked_sql(types))
    return beginning + from_columns("person", session) + from_columns("session", chunk)


def asked_sql(types: str) -> str:
    """Return the beginning of a FROM with what is asked of a statement for many, whose values are of these types."""
    values = ", ".join(f"v{number} {kind}" for number, kind in enumerate(types.split(", "), start=1))
    return f"json_to_recordset($1::json) AS asked (n int, {values}) CROSS JOIN "


def from_columns(table: str, statement: str) -> str:
    """Return the SQL with the columns v1, v2 … of the table in place of $1, $2 …, but for what is asked ($1::json)."""
    return re.sub(r"\$(\d+)\b(?!::json\b)", rf"{table}.v\1", statement)


BY_KEY = _for_one(_PERSON_BY_KEY, "$10")
MANY_BY_KEY = Many(_for_many(_PERSON_BY_KEY, "$10", types=_TYPES_BY_KEY), about=(0, 1, 9, 10))
BY_ADDRESS = _for_one(_person_by_address(_UNCHANGED), "$9", _SAME_ACCOUNT)
MANY_BY_ADDRESS = Many(
    _for_many(_person_by_address(_UNCHANGED), "$9", _SAME_ACCOUNT, types=_TYPES_BY_ADDRESS), about=(0, 1, 8, 9)
)
# The same whatever has become of the account: a cluster knows no version of rows.
BY_ADDRESS_ANYWAY = _for_one(_person_by_address("$14::text IS NULL"), "$9", _SAME_ACCOUNT)

# In a cluster an INSERT of what a CTE found needs every server. So a chunk is inserted by a statement of its own there.
_FOUND = """
SELECT session.id, session.last_position, session.is_guest, session.key_id, session.login_id,
    $4::text, $5::text, $6::uuid, $7::jsonb FROM session"""
INSERT_CHUNK = """
    INSERT INTO conversation_chunks
        (client_id, conversation_id, position, role, content, message_id, dedupe_key, metadata, created_at, login_id)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8::jsonb, $9, $10) RETURNING id"""


def without_chunk(statement: str) -> str:
    """Return the statement for one message without the chunk, which INSERT_CHUNK inserts in a cluster."""
    return statement.partition(_CHUNK.partition("(")[0])[0] + _FOUND
