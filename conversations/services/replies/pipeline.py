"""The reply pipeline: claim, prepare, let an engine write, then commit, fail or hand over; for both kinds of replies.

    leases.claim ─► prepare ─► the engine writes ─► commit     the fence lets it speak, or drops the draft
                                                ├─► fail       again later, or given up
                                                ├─► hand_over  a person answers
                                                └─► hold_back  tomorrow: a quota of the day is used up

What differs between the two kinds stands in their sink (sinks.py): an owed reply is sent, a streamed reply is read
while it is written. What the assistant's policy says holds in both. An owed reply is a fact on the conversation's row,
and the turn is the claim on it. No step holds a transaction, or a connection, while the engine waits for its model.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_noop

from channels_out.opt_out import OPT_OUT_CHANNELS
from conversations.engines.contract import (
    MOST_CALLS,
    EngineError,
    PendingStep,
    Reply,
    ReplyRequest,
    Usage,
)
from conversations.models import (
    Assistant,
    ChannelAccount,
    Client,
    Contact,
    ContactIdentity,
    Conversation,
    RollingSummary,
    Step,
    Turn,
)
from conversations.services.core import redaction, spans
from conversations.services.core.appending import note_answered
from conversations.services.core.json import dumps
from conversations.services.core.ledger import SYSTEM, assistant_actor
from conversations.services.core.locking import editing_if_there, lock_contact_of
from conversations.services.core.sql import PreparedSelect, row, update
from conversations.services.delivery import outbox
from conversations.services.engine_chats import chats
from conversations.services.replies import (
    agent_requests,
    drafts,
    failures,
    loops,
    model_use,
    phrases,
    prompt_context,
    seen_files,
    tool_actions,
    tool_outcomes,
)
from conversations.services.replies.leases import ClaimedTurn
from conversations.services.replies.prompt_context import prompt_record
from conversations.services.replies.sinks import HUMAN_WANTED, LOW_CONFIDENCE, REASONING_SHOWN, Sink, sink_of
from conversations.services.replies.tool_runner import tokens_of_tools, with_tools
from conversations.services.tenants import day_quotas
from conversations.services.transitions import handovers, takeover, transfers
from memory.context import TOOL_CALLS, with_part
from memory.text import estimate_tokens

log = logging.getLogger(__name__)

DRAFTS_DROPPED_AT_MOST = 2
TurnStatus = Turn.Status


_TURN = PreparedSelect(
    """
    SELECT {t}, {s}, {k}, {c}, {a}, {r},
        EXISTS (SELECT FROM tool_calls o WHERE o.client_id = $3 AND o.conversation_id = s.id AND o.is_open),
        a.uses_tools AND EXISTS (SELECT FROM tools o WHERE o.client_id = c.id AND o.is_active),
        EXISTS (
            SELECT FROM conversation_steps o
            WHERE o.client_id = $3 AND o.conversation_id = s.id AND o.status = 'pending')
    FROM conversation_turns t
    JOIN conversations s ON s.client_id = t.client_id AND s.id = t.conversation_id
    JOIN contacts k ON k.client_id = s.client_id AND k.id = s.contact_id
    JOIN clients c ON c.id = s.client_id
    LEFT JOIN assistants a ON a.id = s.assistant_id
    LEFT JOIN conversation_summaries r ON r.client_id = s.client_id AND r.conversation_id = s.id
    WHERE t.client_id = $3 AND t.id = $1 AND t.attempt = $2 AND t.status = 'running' AND s.id = $4
    """,
    left_out=["prompt"],
    t=Turn,
    s=Conversation,
    k=Contact,
    c=Client,
    a=Assistant,
    r=RollingSummary,
)
_STEPS = PreparedSelect(
    """
    SELECT {p} FROM conversation_steps p
    WHERE p.client_id = $2 AND p.conversation_id = $1 AND p.status = 'pending' ORDER BY p.rank, p.id
    """,
    p=Step,
)
_KEEP = """
    UPDATE conversation_turns SET inbound_sequence = $2, engine = $3, prompt = $4::jsonb, rule = $5, callback_hash = $6
    WHERE client_id = $7 AND id = $1 AND status = 'running'
    RETURNING id"""


def prepare(claim: ClaimedTurn, now: datetime | None = None) -> tuple[ReplyRequest, str] | None:
    """Build what the engine is given, keep it on the turn, and return it with the engine's name.

    Returns None if the turn is not ours any more, the conversation was given to a person (by a rule of the assistant,
    or because a machine seems to answer), or a quota of the client's day is used up.
    """
    found = _running(claim)
    if found is None:
        return None
    turn, has_calls, has_tools, has_steps = found
    conversation = turn.conversation
    assistant = conversation.assistant
    turn.rule = ""
    if assistant and (assistant.human_phrases or assistant.goodbye_phrases):
        turn.rule = phrases.rule_for(assistant, phrases.unanswered(conversation))
    if turn.rule == phrases.HUMAN:
        hand_over(claim, gettext_noop("a person was asked for"), now or timezone.now(), is_wish=True)
        return None
    if looping := loops.reason_to_brake(conversation, now or timezone.now()):
        hand_over(claim, looping, now or timezone.now(), tell=False)
        return None
    models = model_use.models_of(assistant)
    if models and day_quotas.is_used_up(conversation.client, now or timezone.now()):
        hold_back(claim, now or timezone.now())
        return None
    # The sequence was read before the chunks: a message between the two makes the draft overtaken, never unseen.
    steps: list[Step] = [step for (step,) in _STEPS.all(conversation.pk, conversation.client_id)] if has_steps else []
    own_tools = tool_outcomes.usable_tools(conversation) if has_tools else []
    background = tool_outcomes.background_of(claim.client_id, conversation.pk, claim.turn_id) if has_calls else ""
    seen = seen_files.choose(conversation, models)
    beside = tokens_of_tools(own_tools) + estimate_tokens(background)
    view = model_use.view_for(models, conversation, steps, beside, seen.notes)
    prompt = with_part(prompt_context.prompt_for(conversation, view), TOOL_CALLS, background)
    turn.engine = assistant.engine if assistant else Assistant.EngineName.AUTO
    agent = agent_requests.prepare_call(turn, steps, now or timezone.now())
    kept = dumps(prompt_record(conversation, assistant, agent.prompt if agent else prompt)).decode()
    token_hash = agent.token_hash if agent else ""
    turn.inbound_sequence = conversation.inbound_sequence
    row(_KEEP, claim.turn_id, conversation.inbound_sequence, turn.engine, kept, turn.rule, token_hash, claim.client_id)
    request = ReplyRequest(
        conversation_id=str(conversation.pk),
        prompt=prompt,
        goal=conversation.goal,
        pending_steps=tuple(step.description for step in steps),
        models=models,
        view=view,
        temperature=assistant.temperature if assistant else None,
        max_tokens=assistant.max_tokens if assistant else None,
        reasoning_effort=assistant.reasoning_effort if assistant else "",
        calls_left=MOST_CALLS - model_use.calls_before(turn),
        steps=tuple(PendingStep(step.pk, step.description) for step in steps),
        tools=assistant is not None and assistant.uses_tools,
        in_copilot=conversation.in_copilot,
        may_transfer=bool(transfers.number_of(conversation)),
        may_opt_out=conversation.channel in OPT_OUT_CHANNELS,
        background=background,
        pictures=seen.read if seen.files else None,
        rules=redaction.rules_of(conversation.client),
        confidence=assistant is not None and assistant.human_below_confidence is not None,
        chat=chats.chat_state(conversation, assistant, claim.turn_id, [step.description for step in steps])
        if assistant and _keeps_chats(assistant)
        else None,
        agent=agent.call if agent else None,
        trace=spans.place_of_turn(turn),
    )
    return with_tools(request, claim, own_tools), turn.engine


def commit(claim: ClaimedTurn, reply: Reply, now: datetime, *, code: str = "") -> str:
    """Store the reply as a chunk if the turn may still speak, and return the turn's status. It may wait for a callback.

    The fence: the lease is still ours, the conversation is open, the assistant has it, a reply is still wanted, and no
    message came that the draft has not seen. An overtaken draft is dropped and the reply stays owed; after two such the
    third is committed, and the reply stays owed as well, so that a person who never stops is answered too.

    code: why the reply is not whole ('stopped'), '' where it is
    """
    model_use.note_outcomes(reply.outcomes)
    opts_out = tool_actions.wants_opt_out(reply.tool_actions)
    with _ending(claim, now, reply.usage, lock_contact=opts_out) as found:
        if found is None:
            return TurnStatus.ABANDONED
        turn, conversation, sink = found.turn, found.conversation, found.sink
        reply = drafts.noted(turn, reply)
        overtaken = sink.can_be_overtaken and conversation.inbound_sequence != turn.inbound_sequence
        if reason := _silenced(found):
            drafts.drop(turn, conversation, reason, now)
        elif overtaken and conversation.drafts_overtaken < DRAFTS_DROPPED_AT_MOST:
            drafts.overtake(conversation, turn, now)
        elif reply.later_until:
            turn.waiting_until = turn.lease_until = reply.later_until
            update(turn)
        elif not sink.proposes and _too_unsure(conversation, reply):
            drafts.end(turn, TurnStatus.DROPPED, now, code=LOW_CONFIDENCE)
            outbox.allow_sending(conversation)
            actor = assistant_actor(conversation.assistant)
            if not handovers.hand_over(conversation, actor, now, reason=gettext_noop("low confidence"), tell=True):
                note_answered(conversation)
        elif reply.text or not sink.is_awaited:
            drafts.say(
                *(conversation, turn, sink, reply, now), code=code, overtaken=overtaken, has_calls=found.has_calls
            )
        else:
            drafts.end(turn, TurnStatus.DROPPED, now, code=code)
        if reply.progress and turn.status != TurnStatus.OVERTAKEN:  # else the next turn finds the words in the chat
            chats.record_told(claim.client_id, reply.progress)
    return turn.status


def fail(claim: ClaimedTurn, error: EngineError, now: datetime, *, written: str = "") -> str:
    """Note that the engine failed: the reply is tried again later, or given up. Returns the turn's status.

    written: the text that a reader has seen before the failure
    """
    model_use.note_outcomes(error.outcomes)
    if error.code == REASONING_SHOWN:
        written = ""  # the reader saw the model's reasoning, which nobody keeps
    with _ending(claim, now, error.usage) as found:
        if found is None:
            return TurnStatus.ABANDONED
        turn, conversation, sink = found.turn, found.conversation, found.sink
        turn.calls += error.calls
        drafts.note_usage(turn, error.usage)
        half = Reply(text=written.rstrip(), engine="", finish_reason=error.code[:20], usage=error.usage)
        half = drafts.noted(turn, half) if sink.is_awaited else half
        if silenced := _silenced(found):
            if sink.is_awaited:
                drafts.end(turn, TurnStatus.FAILED, now, code=silenced, reason=str(error))
            else:
                drafts.drop(turn, conversation, silenced, now)
            return turn.status
        retry_at = sink.retry_at(turn, error, now, written=half.text)
        if retry_at and sink.is_awaited:  # the reader waits for this turn, and not for another
            turn.lease_until, turn.waiting_until = retry_at, None
            update(turn, ("lease_until", "waiting_until", "calls"))
            return turn.status
        reason = failures.explain_with_detail(error.code, error.detail)
        drafts.end(turn, TurnStatus.FAILED, now, code=error.code, reason=reason)
        if retry_at:
            conversation.reply_due_at = retry_at
        else:
            drafts.give_up(conversation, turn, sink, error.code, half.text, now)
        conversation.reply_crashes = 0  # it came back
    log.warning("turn failed: conversation=%s attempt=%s code=%s", conversation.pk, turn.attempt, error.code)
    return turn.status


def stop_waiting(claim: ClaimedTurn, now: datetime) -> None:
    """End a turn that waits for its agent's callback, if that would not be said any more."""
    with _ending(claim, now) as found:
        if found is None:
            return
        turn, conversation, sink = found.turn, found.conversation, found.sink
        if reason := _silenced(found):
            drafts.drop(turn, conversation, reason, now)
        elif turn.stop_asked_at:
            drafts.end(turn, TurnStatus.DROPPED, now, code="stopped")
        elif sink.can_be_overtaken and conversation.inbound_sequence != turn.inbound_sequence:
            drafts.overtake(conversation, turn, now)


def hand_over(claim: ClaimedTurn, reason: str, now: datetime, *, tell: bool = True, is_wish: bool = False) -> None:
    """Let the conversation wait for a person, and end the turn, if it is still ours, without a reply.

    tell: send the person the assistant's sentence about it
    is_wish: the person asked for it; else it cannot wait for the next opening
    """
    with _ending(claim, now) as found:
        if found is None:
            return
        turn, conversation = found.turn, found.conversation
        silenced = _silenced(found)
        drafts.end(turn, TurnStatus.DROPPED, now, code=silenced or HUMAN_WANTED)
        if not silenced:
            outbox.allow_sending(conversation)
            tell = tell and not found.sink.proposes
            if not is_wish:
                takeover.take(conversation, SYSTEM, now, reason=reason, tell=tell)
            elif not handovers.hand_over(conversation, SYSTEM, now, reason=reason, tell=tell, is_wish=True):
                note_answered(conversation)


def hold_back(claim: ClaimedTurn, now: datetime) -> None:
    """End the turn, if it is still ours, because a quota of the client's day is used up.

    An owed reply waits for the client's next day, unless a colleague answers before.
    """
    with _ending(claim, now) as found:
        if found is None:
            return
        turn, conversation = found.turn, found.conversation
        if reason := _silenced(found):
            drafts.drop(turn, conversation, reason, now)
            return
        found.sink.hold_back(conversation, turn, now)
        status = TurnStatus.FAILED if found.sink.is_awaited else TurnStatus.DROPPED
        drafts.end(turn, status, now, code=day_quotas.USED_UP, reason=failures.explain(day_quotas.USED_UP))


# --- the fence --------------------------------------------------------------------------------------------------------
# Read once the conversation is locked, and so as of then. A message may have come with the person's STOP meanwhile.
_RUNNING = PreparedSelect(
    """
    SELECT {t}, {a}, {d}, k.opted_out ? s.channel,
        EXISTS (SELECT FROM tool_calls o WHERE o.client_id = $3 AND o.conversation_id = s.id AND o.is_open)
    FROM conversation_turns t
    JOIN conversations s ON s.client_id = t.client_id AND s.id = t.conversation_id
    JOIN contacts k ON k.client_id = s.client_id AND k.id = s.contact_id
    LEFT JOIN channel_accounts a ON a.id = s.channel_account_id
    LEFT JOIN contact_identities d ON d.client_id = s.client_id AND d.id = s.device_id
    WHERE t.client_id = $3 AND t.id = $1 AND t.attempt = $2 AND t.status = 'running' AND s.id = $4
    FOR UPDATE OF t
    """,
    left_out=["prompt"],
    t=Turn,
    a=ChannelAccount,
    d=ContactIdentity,
)


@dataclass(frozen=True, slots=True)
class _Ending:
    """A turn that is to be ended, with its conversation, both locked.

    opted_out   the person wants nothing on this channel
    has_calls   there are calls of tools whose outcome the model was to be told
    """

    turn: Turn
    conversation: Conversation
    sink: Sink
    opted_out: bool
    has_calls: bool


def _of(claim: ClaimedTurn) -> tuple[UUID, int, UUID, UUID]:
    """Return the values $1 to $4 by which a claimed turn is read.

    The conversation is one of them: on tables without statistics yet, a join by the turn's own column goes over all of
    the client's turns for each of the client's conversations.
    """
    return claim.turn_id, claim.attempt, claim.client_id, claim.conversation_id


def _running(claim: ClaimedTurn) -> tuple[Turn, bool, bool, bool] | None:
    """The turn, if it is still ours, with its conversation and all that the prompt says of it; and whether there are
    tool calls to tell the model of, tools of the client's own to offer, and pending steps."""
    found = _TURN.first(*_of(claim))
    if found is None:
        return None
    turn: Turn
    turn, conversation, conversation.contact, conversation.client, conversation.assistant, rolling, *has = found
    conversation.rolling = rolling
    turn.conversation = conversation
    has_calls, has_tools, has_steps = map(bool, has)
    return turn, has_calls, has_tools, has_steps


@contextmanager
def _ending(
    claim: ClaimedTurn, now: datetime, usage: Sequence[Usage] = (), *, lock_contact: bool = False
) -> Iterator[_Ending | None]:
    """The turn and its conversation, locked and saved; None if the turn is not ours any more.

    usage: what models took for it, which is counted for the client with it
    lock_contact: lock the contact too, before the conversation
    """
    before = _contact_locked(claim) if lock_contact else nullcontext()
    with before, editing_if_there(claim.conversation_id, claim.client_id) as conversation:
        running = _RUNNING.first(*_of(claim)) if conversation else None
        if conversation is None or running is None:
            yield None
            return
        turn: Turn
        turn, account, device, opted_out, has_calls = running
        turn.conversation = conversation
        if account:
            conversation.channel_account = account
        if device:
            conversation.device = device
        sink = sink_of(turn)
        yield _Ending(turn, conversation, sink, opted_out, has_calls)
        if turn.status != TurnStatus.RUNNING:
            sink.ended(turn)
        day_quotas.note_use(conversation.client, usage, now)


@contextmanager
def _contact_locked(claim: ClaimedTurn) -> Iterator[None]:
    with transaction.atomic():
        lock_contact_of(claim.conversation_id, claim.client_id)
        yield


def _silenced(ending: _Ending) -> str:
    """Why the assistant may not speak any more, or ''."""
    conversation = ending.conversation
    if not conversation.is_open:
        return "ended"
    if conversation.taken_over_at is not None:
        return "taken_over"
    if ending.opted_out:
        return outbox.OPTED_OUT
    return "" if conversation.reply_owed or ending.sink.is_awaited else "answered"


def _too_unsure(conversation: Conversation, reply: Reply) -> bool:
    least = conversation.assistant.human_below_confidence if conversation.assistant else None
    return least is not None and reply.confidence is not None and reply.confidence < least


def _keeps_chats(assistant: Assistant) -> bool:
    """Return whether the assistant's engine keeps the conversation itself."""
    return assistant.engine == Assistant.EngineName.RETELL
