"""The spans of rows: a message received, a turn that ended, a receipt. They are recorded where somebody collects them.

What finds a span's place costs a statement of its own then (`before_send`, `note_receipts`), after the transaction.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from uuid import UUID

from django.db import transaction

from conversations import log_context, traces
from conversations.models import Message, Turn
from conversations.services.core.sql import row, rows
from conversations.traces import Kind, Point, Span

MOST_LINKS = 16
Reported = Sequence[tuple[str, str]]  # id and status

_TURN_OF_CHUNK = """
    SELECT t.id, t.inbound_sequence FROM conversation_turns t
    WHERE t.client_id = $1 AND t.chunk_id = $2 ORDER BY t.started_at DESC LIMIT 1"""
_REPORTED = """
    SELECT {about}, m.id, m.conversation_id, m.chunk_id, m.sending_at, t.id, t.inbound_sequence
    FROM conversation_messages m LEFT JOIN LATERAL (
        SELECT t.id, t.inbound_sequence FROM conversation_turns t
        WHERE t.client_id = m.client_id AND t.chunk_id = m.chunk_id ORDER BY t.started_at DESC LIMIT 1) t ON true
    WHERE m.client_id = $1 AND m.channel_account_id = $2 AND {which}"""
_BY_PROVIDER_ID = _REPORTED.format(
    about="m.provider_message_id", which="m.provider_message_id = ANY ($3::text[]) AND m.provider_message_id <> ''"
)
_BY_ID = _REPORTED.format(about="m.id::text", which="m.id = ANY ($3::uuid[])")
_ANSWERED_BEFORE = """
    SELECT max(inbound_sequence) FROM conversation_turns
    WHERE client_id = $1 AND conversation_id = $2 AND status = 'committed' AND inbound_sequence < $3"""


def received(client_id: UUID, conversation_id: UUID, sequence: int, position: int, channel: str, at: datetime) -> None:
    """Record that a person's message, which came at that time, is stored."""
    if not traces.is_on():
        return
    attributes = {
        **_about(client_id, conversation_id),
        "convo.channel": channel,
        "convo.position": position,
        **({"convo.request.id": request} if (request := log_context.current().get("request")) else {}),
    }
    began, place = at.timestamp(), traces.of_message(conversation_id, sequence)
    traces.record(Span(f"receive {channel}", Kind.SERVER, place, None, began, max(time.time(), began), attributes))


def turn_ended(turn: Turn) -> None:
    """Record the turn, which ends in this transaction, once that is committed."""
    if traces.is_on():
        transaction.on_commit(partial(_record_turn, turn), robust=True)


def _record_turn(turn: Turn) -> None:
    began, ended = turn.started_at.timestamp(), turn.ended_at.timestamp() if turn.ended_at else time.time()
    message = place_of_message(turn)
    attributes: dict[str, traces.Value] = {
        **_about(turn.client_id, turn.conversation_id),
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.provider.name": turn.engine or "convo",
        "gen_ai.usage.input_tokens": turn.tokens_in,
        "gen_ai.usage.output_tokens": turn.tokens_out,
        "convo.turn.id": str(turn.pk),
        "convo.turn.attempt": turn.attempt,
        "convo.turn.status": str(turn.status),
        "convo.code": turn.code,
    }
    if turn.model:
        attributes["gen_ai.response.model"] = turn.model
    failed = turn.code or "failed" if turn.status == Turn.Status.FAILED else ""
    links = _others_answered(turn)
    place = traces.of_turn(turn.pk, message)
    traces.record(
        Span("invoke_agent", Kind.INTERNAL, place, message, began, max(ended, began), attributes, failed, links)
    )


def place_of_message(turn: Turn) -> Point:
    """Return the place of the newest message that the turn answers."""
    return traces.of_message(turn.conversation_id, turn.inbound_sequence)


def place_of_turn(turn: Turn) -> Point | None:
    """Return the place of the turn; None where nobody collects spans."""
    return traces.of_turn(turn.pk, place_of_message(turn)) if traces.is_on() else None


def _others_answered(turn: Turn) -> list[Point]:
    """Return the places of the other messages that the turn answers together with the newest."""
    found = row(_ANSWERED_BEFORE, turn.client_id, turn.conversation_id, turn.inbound_sequence)
    first = max((found[0] if found and found[0] else 0) + 1, turn.inbound_sequence - MOST_LINKS)
    return [traces.of_message(turn.conversation_id, number) for number in range(first, turn.inbound_sequence)]


# --- sends and receipts -----------------------------------------------------------------------------------------------
def before_send(message: Message) -> Point | None:
    """Return the place after which the message is sent: its turn, or its chunk where it is no reply.

    None where nobody collects spans.
    """
    if not traces.is_on():
        return None
    found = row(_TURN_OF_CHUNK, message.client_id, message.chunk_id)
    return _before(message.conversation_id, message.chunk_id, *(found or (None, None)))


def _before(conversation_id: UUID, chunk_id: int, turn_id: UUID | None, sequence: int | None) -> Point:
    if turn_id is None or sequence is None:
        return traces.of_chunk(conversation_id, chunk_id)
    return traces.of_turn(turn_id, traces.of_message(conversation_id, sequence))


def note_receipts(client_id: UUID, account_id: UUID, reported: Reported, came: float) -> None:
    """Record the receipts of the account's messages: the provider's ids, each with the status that is reported.

    came: when they came, in seconds since 1970
    """
    _note(_BY_PROVIDER_ID, client_id, account_id, reported, came)


def note_moved(client_id: UUID, account_id: UUID, moved: Reported, came: float) -> None:
    """Record receipts like `note_receipts`, by our own ids of the messages."""
    _note(_BY_ID, client_id, account_id, moved, came)


def _note(statement: str, client_id: UUID, account_id: UUID, reported: Reported, came: float) -> None:
    if not (traces.is_on() and reported):
        return
    found = rows(statement, client_id, account_id, list({about for about, _ in reported}))
    messages = {about: message for about, *message in found}
    for about, status in reported:
        if about not in messages:
            continue
        message_id, conversation_id, chunk_id, sending_at, *turn = messages[about]
        send = traces.of_send(message_id, sending_at, _before(conversation_id, chunk_id, *turn))
        attributes = {
            **_about(client_id, conversation_id),
            "convo.message.id": str(message_id),
            "convo.receipt.status": status,
        }
        failed, ended = "failed" if status == "failed" else "", max(time.time(), came)
        place = traces.anywhere(send)
        traces.record(Span(f"receipt {status}", Kind.CONSUMER, place, send, came, ended, attributes, failed))


def _about(client_id: UUID, conversation_id: UUID) -> dict[str, traces.Value]:
    return {"gen_ai.conversation.id": str(conversation_id), "convo.client.id": str(client_id)}
