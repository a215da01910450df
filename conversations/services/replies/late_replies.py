"""Replies of a client's own agent that come later, by a callback, and the turns that wait for them.

    request ─► "later" ─► the turn waits ─┬─► callback        the fence decides, as for every reply
                                          ├─► newer messages  overtaken: the agent is asked again, with all of them
                                          ├─► taken over, ended, answered, stopped     dropped
                                          └─► deadline        failed as timed out: tried again, or given up

A turn that waits is a row alone. It holds no thread, connection or place of a dispatcher, and no process has to live on
for it. The dispatchers look at these rows every second.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import InterfaceError, OperationalError

from conversations.engines.agent_answers import AgentAnswer, InvalidAnswerError, parse
from conversations.engines.contract import EngineError, PendingStep, Reply
from conversations.models import Client, Conversation, Step, Turn
from conversations.services.core.cluster import rows_over_all
from conversations.services.core.errors import ConflictError, InvalidError, NotFoundError
from conversations.services.replies import pipeline
from conversations.services.replies.agent_requests import hash_of
from conversations.services.replies.leases import ClaimedTurn

log = logging.getLogger(__name__)

NEWEST = 100  # turns of a conversation whose tokens are still known
MOST_AT_ONCE = 200
TIMED_OUT = EngineError("The agent did not call back in time.", code="agent_late", retryable=True)

_S = Turn.Status
# Sentences for an agent whose reply is not said, by the turn's code or else by its status.
_REFUSALS = {
    "ended": "This conversation has ended.",
    "taken_over": "A colleague has this conversation.",
    "opted_out": "This person has opted out.",
    "stopped": "The user has stopped this reply.",
    "answered": "The messages of this turn are answered already.",
    "overtaken": "The person has written again. Answer the request with the newer messages.",
    "too_late": "This turn is over. Answer a newer request, if there is one.",
}
_BY_STATUS = {_S.OVERTAKEN: "overtaken", _S.COMMITTED: "answered", _S.DROPPED: "answered"}


def accept_reply(
    conversation_id: UUID, token: str, answer: Mapping[str, Any], *, client: Client, now: datetime
) -> Turn:
    """Say the agent's reply and return its turn, which is committed, with its chunk if it has text.

    The same call again changes nothing and returns the same turn, whatever it says.

    Raises NotFoundError for another client's conversation, and for a token that is not of one of its turns: a caller
    who guesses learns nothing. Raises InvalidError for an answer that is not valid, and ConflictError if the reply is
    not said: `overtaken`, `taken_over`, `ended`, `opted_out`, `stopped`, `answered` or `too_late`.
    """
    conversation = Conversation.objects.of(client).filter(pk=conversation_id).first()
    if conversation is None:
        raise NotFoundError("There is no such conversation.")
    turn = _turn_of(conversation, token)
    reply = _checked(conversation, turn, answer)
    if turn.status == _S.RUNNING and not _is_over(turn, now):
        spent = round((now - turn.started_at).total_seconds() * 1000)
        claim = ClaimedTurn(client.pk, turn.pk, conversation.pk, turn.attempt, recalls=False, calls=False)
        said = Reply(
            text=reply.text,
            engine=turn.engine,
            tool_actions=reply.tool_actions,
            tool_calls=reply.tool_calls,
            files=reply.files,
            last_token_ms=max(spent, 0),
            called_back=True,
        )
        pipeline.commit(claim, said, now)
        turn = Turn.objects.select_related("chunk").get(client=client, pk=turn.pk)
    if turn.status != _S.COMMITTED or not turn.called_back:
        code = turn.code if turn.code in _REFUSALS else _BY_STATUS.get(_S(turn.status), "too_late")
        raise ConflictError(_REFUSALS[code], code=code)
    return turn


def _turn_of(conversation: Conversation, token: str) -> Turn:
    wanted = hash_of(token)
    found = Turn.objects.filter(conversation=conversation).exclude(callback_hash="").select_related("chunk")
    for turn in found.defer("prompt", "draft").order_by("-started_at")[:NEWEST]:
        if hmac.compare_digest(turn.callback_hash, wanted):
            return turn
    raise NotFoundError("This conversation has no turn with this token.")


def _checked(conversation: Conversation, turn: Turn, answer: Mapping[str, Any]) -> AgentAnswer:
    """Return the answer in its parts. A step that has been settled meanwhile is known, and stays as it is."""
    known = Step.objects.filter(conversation=conversation).values_list("pk", "description")
    try:
        parsed = parse(answer, [PendingStep(*step) for step in known], in_copilot=conversation.in_copilot)
    except InvalidAnswerError as error:
        raise InvalidError(str(error)) from None
    if parsed.later:
        raise InvalidError("later: A callback is the answer itself.")
    if turn.streamed and not parsed.text:
        raise InvalidError("messages: An answer in the copilot needs a text.")
    return parsed


def _is_over(turn: Turn, now: datetime) -> bool:
    return turn.waiting_until is not None and turn.waiting_until <= now


# --- turns that wait --------------------------------------------------------------------------------------------------
_OVER = f"""
    SELECT t.waiting_until <= $1, t.client_id, t.id, t.conversation_id, t.attempt
    FROM conversation_turns t JOIN conversations s ON s.client_id = t.client_id AND s.id = t.conversation_id
    WHERE {{only:t}} AND t.status = 'running' AND t.waiting_until IS NOT NULL AND (
        t.waiting_until <= $1 OR t.stop_asked_at IS NOT NULL
        OR s.taken_over_at IS NOT NULL OR s.status NOT IN ('active', 'stale')
        OR NOT t.streamed AND (
            NOT s.reply_owed OR s.reply_due_at <= $1 AND s.inbound_sequence <> t.inbound_sequence
                AND s.drafts_overtaken < {pipeline.DRAFTS_DROPPED_AT_MOST}))
    LIMIT {MOST_AT_ONCE}"""


def end_waiting(now: datetime) -> int:
    """End the turns whose agent has not called back in time, or could not be heard any more. Returns how many.

    Several processes may do this at once: the turn's row decides. A turn that cannot be ended does not keep the others.
    """
    found = rows_over_all(_OVER, now)
    for is_late, client_id, turn_id, conversation_id, attempt in found:
        claim = ClaimedTurn(client_id, turn_id, conversation_id, attempt, recalls=False, calls=False)
        try:
            if is_late:
                pipeline.fail(claim, TIMED_OUT, now)
            else:
                pipeline.stop_waiting(claim, now)
        except (OperationalError, InterfaceError):
            raise
        except Exception:
            log.exception("a turn that waits could not be ended: %s", turn_id)
    return len(found)
