"""Opening a conversation: who answers, over which account, what is known at its beginning, and the first message.

One statement does all of it, for every kind of conversation: messages, calls, the copilot, the sync protocol, outreach.
It looks, and inserts contact, conversation, chunks and the line in the ledger. Of two that open the same at once the
unique index `one_open_conversation` lets one in; the other's statement is undone as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

from django.db import IntegrityError

from channels_out.phones import phone_address, ways_to_write
from conversations.models import Scope
from conversations.services.core import key_sql
from conversations.services.core.appending import Appended, NewChunk, rules_as_values
from conversations.services.core.appending_sql import (
    asked_sql,
    contact_sql,
    from_columns,
    open_conversation_sql,
    quiet_window,
)
from conversations.services.core.cluster import answering, is_cluster, is_known_cluster
from conversations.services.core.dedupe import is_new_sql
from conversations.services.core.ledger import CONTACT, Actor, events_sql
from conversations.services.core.opening_in_parts import open_in_parts
from conversations.services.core.person import Person
from conversations.services.core.sql import row, rows_of_each
from conversations.services.core.statements import Many, Statements
from memory.context import DEFAULT_SYSTEM_PROMPT
from memory.redaction import RedactionRules

KNOWN_FROM_EARLIER = "From earlier sessions with this contact:"
NOTHING_KNOWN = "Nothing is known of this contact from earlier sessions."
KNOWN_OF_CONTACT = "What is known of this contact:"
CORRECTED_BY_STAFF = "What staff say is known of this contact"
SUMMARIES_RECALLED = 5
SUMMARY_CHARACTERS = 2_000
RECALL_TOKENS = 1_000  # of summaries at the beginning of a conversation, the newest first
# English has a token for four to five bytes; where other scripts have more, the prompt shortens the whole to its share.
RECALL_BYTES = RECALL_TOKENS * 4

# What the conversation begins with: $1 the client, $2 the channel, $3 the account if one is named, $23 the assistant if
# one is named, then how the contact is found ({contact}). Summaries of open conversations do not count, since they are
# not over yet. A correction by staff replaces all that came before it. No row means that nothing is to be opened: the
# client is not there, the message $6 was here before, or a new contact has the phone of a known one, however it is
# written ($24), which only the general form notes (contacts/duplicates.py).
# The newest address is ordered as the index `identities_of_contact` alone has them, as `contact_sql` says.
_BEGINNING = f"""
WITH beginning AS (
    SELECT {{columns}}c.id AS client_id, c.auto_reply AND NOT COALESCE(p.opted_out ? $2::text, false) AS auto_reply,
           c.default_goal, {{key}} AS key_id, p.id AS contact_id,
           LEAST({quiet_window("$2")}, c.longest_wait) AS quiet,
           COALESCE(p.is_guest, true) AS is_guest, a.id AS account_id, s.id AS assistant_id,
           COALESCE(NULLIF(s.system_prompt, ''), '{DEFAULT_SYSTEM_PROMPT}') AS system_prompt,
           (SELECT i.id FROM contact_identities i
            WHERE i.client_id = $1 AND i.contact_id >= p.id AND i.contact_id <= p.id AND i.channel = $2
            ORDER BY i.contact_id DESC, i.id DESC LIMIT 1) AS device_id,
           CASE WHEN $2 = 'web' AND $7 <> '' THEN p.login_id END AS login_id,
           concat_ws(E'\\n\\n', COALESCE(
               '{CORRECTED_BY_STAFF} (' || to_char(p.known_at, 'YYYY-MM-DD') || E'):\\n' || NULLIF(p.known, ''),
               '{KNOWN_OF_CONTACT}' || NULLIF(concat(
                   E'\\n- Name: ' || NULLIF(regexp_replace(
                       trim(COALESCE(NULLIF(p.staff_name, ''), p.name)), '\\s+', ' ', 'g'), ''),
                   E'\\n- Language: ' || COALESCE(NULLIF(p.language, ''), initcap((
                       SELECT NULLIF(m.language, 'simple') FROM memories m
                       WHERE m.client_id = $1 AND m.contact_id = p.id ORDER BY m.ended_at DESC LIMIT 1))),
                   CASE WHEN p.phone IS NOT NULL THEN E'\\n- Phone number: known' END), '')),
               '{KNOWN_FROM_EARLIER}' || earlier.lines,
               CASE WHEN COALESCE(p.known, '') = '' AND earlier.lines IS NULL THEN '{NOTHING_KNOWN}' END) AS memory,
           CASE WHEN earlier.sessions IS NULL THEN '{{{{}}}}'
                ELSE jsonb_build_object('recalled', earlier.sessions) END AS recalled
    FROM {{source}}
    LEFT JOIN LATERAL {{contact}} p ON true
    LEFT JOIN LATERAL (
        SELECT string_agg(
                   E'\\n- ' || to_char(started_at, 'YYYY-MM-DD') || ': ' || told, '' ORDER BY started_at DESC, id
               ) AS lines,
               jsonb_agg(jsonb_build_object('session', id, 'on', to_char(started_at, 'YYYY-MM-DD'),
                   'why', 'last summaries', 'store', 'sessions') ORDER BY started_at DESC, id) AS sessions
        FROM (
            SELECT id, started_at, told, sum(octet_length(told)) OVER (ORDER BY started_at DESC, id) AS taken
            FROM (
                SELECT id, started_at, left(summary, CASE
                    WHEN octet_length(left(summary, {SUMMARY_CHARACTERS})) > {RECALL_BYTES} THEN {RECALL_BYTES} / 4
                    ELSE {SUMMARY_CHARACTERS} END) AS told
                FROM conversations
                WHERE client_id = $1 AND contact_id = p.id AND summary <> '' AND status NOT IN ('active', 'stale')
                  AND (p.known_until IS NULL OR started_at >= p.known_until)
                ORDER BY started_at DESC, id LIMIT {SUMMARIES_RECALLED}) newest
            ) e
        WHERE taken <= {RECALL_BYTES}) earlier ON true
    LEFT JOIN LATERAL (
        SELECT id, assistant_id FROM channel_accounts
        WHERE client_id = $1 AND channel = $2 AND is_active
          AND (id = $3::uuid OR $3::uuid IS NULL AND NOT is_simulated)
        ORDER BY created_at LIMIT 1) a ON true
    LEFT JOIN assistants s ON s.id = COALESCE(
        $23::uuid, a.assistant_id, (SELECT d.id FROM assistants d WHERE d.client_id = $1 AND d.is_default))
    WHERE c.id = $1 AND {{condition}}
      AND (p.id IS NOT NULL
           OR NOT EXISTS (SELECT FROM contacts o WHERE o.client_id = $1 AND o.phone = ANY ($24::text[])))
      AND {is_new_sql("$1")}
)"""

_OPENED = """(
        SELECT session.client_id, session.id, $16::timestamptz AS at, $21::text AS actor, $22::text AS actor_name
        FROM session, beginning WHERE session.id = $10) opened"""
_LINE = events_sql("opened", _OPENED, to_status="'active'", actor="actor", actor_name="actor_name", at="at")
_KNOWN = """
    SELECT id, is_guest FROM contacts
    WHERE client_id = $1 AND id = (SELECT contact_id FROM beginning) AND merged_into_id IS NULL FOR SHARE"""
_KNOWN_OF_MANY = """
    SELECT n.id, n.is_guest FROM beginning JOIN contacts n ON n.client_id = $1 AND n.id = beginning.contact_id
    WHERE n.merged_into_id IS NULL FOR SHARE OF n"""
# `known` locks the contact, so that a message on another channel that captures the phone comes before or after: either
# it finds this conversation and its guest mark is removed, or this statement waits for it and sees the phone. Otherwise
# a conversation could stay marked as a guest's, and be deleted one day. The same holds for a merge that makes the
# contact an alias: either it finds this conversation, or nothing is opened here.
# Each part asks for the one before, so that contact, conversation and chunks are locked in this order (locking.py).
_OPEN = f"""
, contact AS (
    INSERT INTO contacts (id, client_id, user_id, phone, name, is_guest)
    SELECT $11::uuid, client_id, $5::text, $8::text, $9::text, $8::text IS NULL FROM beginning WHERE contact_id IS NULL
    RETURNING id, is_guest
), known AS ({_KNOWN}
), identity AS (
    INSERT INTO contact_identities (contact_id, client_id, channel, kind, address)
    SELECT contact.id, $1, $2, 'phone', $12::text FROM contact, beginning
    WHERE contact.id = $11 AND $12::text IS NOT NULL
    RETURNING id, contact_id
), session AS (
    INSERT INTO conversations
        (id, client_id, contact_id, device_id, assistant_id, channel_account_id, channel, thread, is_guest, goal,
         summary, started_at, last_message_at, last_position, inbound_sequence, reply_owed, burst_began_at,
         reply_due_at, login_id)
    SELECT $10::uuid, client_id, COALESCE((SELECT id FROM contact WHERE id = $11), contact_id),
           COALESCE((SELECT id FROM identity i WHERE i.contact_id = $11), $13::bigint, device_id), assistant_id,
           account_id, $2, $7,
           COALESCE((SELECT n.is_guest FROM contact n WHERE n.id = $11),
               (SELECT n.is_guest FROM known n WHERE n.id = beginning.contact_id), is_guest),
           COALESCE(NULLIF($14::text, ''), default_goal), $15, $16::timestamptz, $16::timestamptz,
           CASE WHEN $18::text = '' THEN 2 ELSE 3 END, CASE WHEN $18::text = '' THEN 0 ELSE 1 END,
           auto_reply AND $18::text <> '', CASE WHEN $18::text <> '' THEN $16::timestamptz END,
           CASE WHEN auto_reply AND $18::text <> '' THEN $16::timestamptz + quiet END, login_id
    FROM beginning
    WHERE contact_id IS NULL OR EXISTS (SELECT FROM known n WHERE n.id = beginning.contact_id)
    RETURNING client_id, id, is_guest, inbound_sequence, last_position
), event AS (
    {_LINE}
), chunks AS (
    INSERT INTO conversation_chunks
        (client_id, conversation_id, position, role, content, message_id, dedupe_key, metadata, created_at, login_id)
    SELECT $1, session.id, first.position, first.role, first.content,
           CASE WHEN first.position = 3 THEN $19::text ELSE '' END, CASE WHEN first.position = 3 THEN $6::uuid END,
           CASE first.position WHEN 3 THEN $20::jsonb WHEN 2 THEN beginning.recalled ELSE '{{}}' END, $16::timestamptz,
           beginning.login_id
    FROM session, beginning, LATERAL (
        VALUES (1, 'system', beginning.system_prompt), (2, 'memory', beginning.memory), (3, $17::text, $18::text)
    ) AS first (position, role, content)
    WHERE session.id = $10 AND (first.position < 3 OR $18::text <> '')
    ORDER BY session.id, first.position
    RETURNING id, conversation_id, position
)"""
_PLACE = """
SELECT {columns}session.id, chunks.id, chunks.position, session.is_guest, beginning.key_id, session.inbound_sequence
FROM session, beginning, chunks
WHERE session.id = $10 AND chunks.conversation_id = session.id AND chunks.position = session.last_position"""

_TYPES = (
    "uuid, text, uuid, bytea, text, uuid, text, text, text, uuid, uuid, text, bigint, text, text, timestamptz, text,"
    " text, text, text, text, text, uuid, text[], bool, text"
)


def _beginning_by_key(asked: str = "", columns: str = "") -> str:
    """Return the beginning with an API key.

    Nothing begins unless the message says nothing new of the person and is not the reason for a low rating, and no
    conversation is open.
    """
    return _BEGINNING.format(
        columns=columns,
        key="k.id",
        source=f"{asked}api_keys k JOIN clients c ON c.id = k.client_id AND c.is_active",
        contact=contact_sql("$1", "$5"),
        condition=f"""k.key_hash = $4 AND {key_sql.may(Scope.MESSAGES_WRITE)}
      AND (p.id IS NULL OR (p.merged_into_id IS NULL AND ($8::text IS NULL OR p.phone = $8)
                            AND ($9::text = '' OR p.name = $9)
                            AND (p.comment_until IS NULL OR p.comment_until < $16::timestamptz)))
      AND {open_conversation_sql("$1", "p.id", "$2", "$7")} IS NULL
      AND c.redact_cards = $25 AND c.redaction_patterns = $26::jsonb""",
    )


BY_KEY = _beginning_by_key() + _OPEN + _PLACE.format(columns="")
# No two of many may be of one person: both could be new.
MANY_BY_KEY = Many(
    from_columns("asked", _beginning_by_key(asked=asked_sql(_TYPES), columns="asked.*, "))
    + from_columns("beginning", _OPEN.replace(_KNOWN, _KNOWN_OF_MANY) + _PLACE.format(columns="beginning.n, ")),
    about=(0, 4),
)

BY_CONTACT = (
    _BEGINNING.format(
        columns="",
        key="NULL::bigint",
        source="clients c",
        contact="(SELECT n.* FROM contacts n WHERE n.client_id = $1 AND n.id = $4 OFFSET 0)",
        condition="p.id IS NOT NULL",
    )
    + _OPEN
    + _PLACE.format(columns="")
)


async def open_with_key(
    statements: Statements,
    chunk: NewChunk,
    key_hash: bytes,
    client_id: UUID,
    person: Person,
    rules: RedactionRules,
) -> Appended | None:
    """Open a conversation with what the holder of an API key passes on, cleaned by `rules`; None if nothing was done.

    Nothing is done where the key is not the client's, the message was here before, a conversation is open, the message
    says something new of the person, or the client has other redaction rules.

    Raises IntegrityError where somebody else was first: with the contact, the conversation or the message.
    """
    values = _values(client_id, key_hash, chunk, person, actor=CONTACT, rules=rules)
    if is_known_cluster():
        async with answering(client_id):
            found = await statements.in_thread(open_in_parts, BY_KEY.partition(_OPEN)[0], values)
    else:
        # Two new people with one phone would not see each other in one statement.
        found = await statements.row(BY_KEY, *values, many=None if person.phone else MANY_BY_KEY)
    return Appended(*found) if found else None


def open_conversation(
    client_id: UUID,
    contact_id: UUID,
    chunk: NewChunk,
    *,
    actor: Actor,
    goal: str = "",
    summary: str = "",
    device_id: int | None = None,
    assistant_id: UUID | None = None,
    conversation_id: UUID | None = None,
) -> Appended:
    """Open a conversation of the contact and return its newest chunk.

    chunk: the first message; with an empty text the conversation has its system and memory chunks alone
    goal: '' for the client's default goal
    device_id: the identity that replies go to; None for the contact's newest on the channel
    assistant_id: the assistant that answers; None for the account's, else the client's default
    conversation_id: the id of the new conversation; None for any

    Raises IntegrityError where a conversation is open already, or the message was stored or the contact deleted at the
    same moment.
    """
    found = _open_of_contact(
        _values(
            *(client_id, contact_id, chunk, Person()),
            actor=actor,
            goal=goal,
            summary=summary,
            device_id=device_id,
            assistant_id=assistant_id,
            conversation_id=conversation_id,
        )
    )
    if found is None:
        raise IntegrityError("The message was stored, or the contact deleted, by another request meanwhile.")
    return Appended(*found)


def _open_of_contact(values: tuple[object, ...]) -> tuple[Any, ...] | None:
    if is_cluster():
        return open_in_parts(BY_CONTACT.partition(_OPEN)[0], values)
    return row(BY_CONTACT, *values)


def open_each(client_id: UUID, firsts: Sequence[tuple[UUID, int, NewChunk]]) -> list[Appended | None]:
    """Open a conversation for each of many contacts, in this order; None for one where `open_conversation` would raise.

    firsts: contact, the identity that replies go to, and the first message, which the contact wrote

    Call it in a transaction. Raises IntegrityError where a conversation is open already.
    """
    values = [
        _values(client_id, contact_id, chunk, Person(), actor=CONTACT, device_id=device_id)
        for contact_id, device_id, chunk in firsts
    ]
    if is_cluster():
        return [Appended(*found) if found else None for found in map(_open_of_contact, values)]
    return [Appended(*found[0]) if found else None for found in rows_of_each(BY_CONTACT, values)]


def _values(
    client_id: UUID,
    found_by: bytes | UUID,
    chunk: NewChunk,
    person: Person,
    *,
    actor: Actor,
    goal: str = "",
    summary: str = "",
    device_id: int | None = None,
    assistant_id: UUID | None = None,
    conversation_id: UUID | None = None,
    rules: RedactionRules | None = None,
) -> tuple[object, ...]:
    """The values of both statements."""
    return (
        *(client_id, chunk.channel, chunk.channel_account_id, found_by, person.user_id, chunk.dedupe_key, chunk.thread),
        *(person.phone, person.name, conversation_id or uuid4(), uuid4()),
        *(phone_address(chunk.channel, person.phone) if person.phone else None, device_id, goal, summary),
        *(chunk.at, chunk.role.value, chunk.text, chunk.message_id, chunk.metadata, actor.kind, actor.name),
        assistant_id,
        ways_to_write(person.phone) if person.phone else [],
        *(rules_as_values(rules) if rules else ()),
    )
