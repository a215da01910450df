"""The outcomes of a draft: it is noted on its turn, and said, dropped, overtaken or given up.

Every function takes the conversation locked, within the transaction that ends the turn (pipeline.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

from django.utils.translation import gettext_noop

from conversations.engines.contract import Reply, Usage
from conversations.models import Chunk, Conversation, EndedBy, Turn
from conversations.services.core import counters, proposals, redaction, spans, tool_requests
from conversations.services.core.appending import SPOKEN_BY_PEOPLE, note_answered
from conversations.services.core.ledger import ASSISTANT, CONTACT, SYSTEM, assistant_actor, record
from conversations.services.core.sql import update
from conversations.services.delivery import outbox
from conversations.services.delivery.read_marks import was_delivered_by
from conversations.services.replies import failures, phrases, reply_files, tool_actions, tool_outcomes
from conversations.services.replies.prompt_context import prompt_record
from conversations.services.replies.sinks import CRASHED, HUMAN_WANTED, Sink
from conversations.services.tenants.pricing import cost_of
from conversations.services.transitions import closing, handovers, transfers
from conversations.words import with_values

TurnStatus = Turn.Status
IN_A_ROW = with_values("%(number)s replies in a row failed.")
TOOL_CALLED = gettext_noop("A tool was called, and the person does not know: see Tool calls.")


def noted(turn: Turn, reply: Reply) -> Reply:
    """Return the reply, cleaned by the client's rules, with all that is known of it noted on the turn."""
    reply = redaction.clean_reply(redaction.rules_of(turn.conversation.client), reply)
    turn.draft, turn.finish_reason = reply.text, reply.finish_reason
    turn.engine, turn.model = reply.engine or turn.engine, reply.model or turn.model
    note_usage(turn, reply.usage)
    turn.calls += reply.calls
    turn.first_token_ms, turn.last_token_ms = reply.first_token_ms, reply.last_token_ms
    if reply.prompt:
        turn.prompt = prompt_record(turn.conversation, turn.conversation.assistant, reply.prompt)
    if reply.progress:  # its engine keeps the conversation: what it was told is all that it was given
        turn.prompt = prompt_record(turn.conversation, turn.conversation.assistant, reply.progress.prompt)
    turn.confidence, turn.called_back = reply.confidence, reply.called_back
    turn.tool_calls = [asdict(call) for call in reply.tool_calls] or None
    return reply


def note_usage(turn: Turn, usage: Sequence[Usage]) -> None:
    """Note what the turn's calls to models took, and what they cost."""
    turn.tokens_in = sum(each.tokens_in for each in usage)
    turn.tokens_out = sum(each.tokens_out for each in usage)
    turn.tokens_cached = sum(each.tokens_cached for each in usage)
    turn.cost = cost_of(usage)
    counters.TOKENS.labels(turn.engine, "in").inc(turn.tokens_in)
    counters.TOKENS.labels(turn.engine, "out").inc(turn.tokens_out)
    counters.COST.labels(turn.engine).inc(float(turn.cost or 0))


def say(
    conversation: Conversation,
    turn: Turn,
    sink: Sink,
    reply: Reply,
    now: datetime,
    *,
    code: str,
    overtaken: bool,
    has_calls: bool,
) -> None:
    """Say the reply and do what the model asked for beside it.

    Where it wants a person, or the person said goodbye and nothing since, these are the assistant's last words.
    """
    actor = assistant_actor(conversation.assistant)
    is_last_word = tool_actions.opt_out(conversation, reply.tool_actions, actor, now)
    files = reply_files.of_reply(conversation, turn, reply, has_calls=has_calls and not code)
    if reply.text or files:
        answers = _newest_seen(conversation, turn) if overtaken else ""
        more = tool_actions.metadata_of(reply.tool_actions)
        sink.say(conversation, turn, reply.text, now, code=code, reply_to=answers, more=more, files=files)
    elif not reply.tool_actions:
        _note_silence(conversation, now)
    note_answered(conversation)
    conversation.reply_owed = overtaken and not is_last_word
    if not code:
        if (has_calls or reply.tool_actions) and tool_outcomes.settle(conversation, turn, reply, now):
            conversation.reply_owed, conversation.reply_due_at = not is_last_word, now
        conversation.fallback_sent = False
        conversation.replies_failed = 0
    requested = tool_actions.NOTHING_REQUESTED
    if reply.tool_actions:
        requested = tool_actions.apply(conversation, reply.tool_actions, actor)
    end(turn, TurnStatus.COMMITTED, now, code=HUMAN_WANTED if requested.human and sink.is_awaited else code)
    number = transfers.number_of(conversation) if requested.transfer else ""
    if number:
        transfers.request(conversation, number, actor, requested.why)
    elif requested.human or requested.transfer:
        outbox.allow_sending(conversation)
        why = requested.why or gettext_noop("the assistant asks for a person")
        is_told = bool(reply.text or files or sink.proposes)
        handovers.hand_over(conversation, actor, now, reason=why, tell=not is_told, is_wish=True)
    elif (requested.end or turn.rule == phrases.GOODBYE) and not overtaken and not code:
        if sink.proposes and (reply.text or files):
            proposals.let_end(conversation)
            return
        outbox.allow_sending(conversation)
        closing.end(conversation, ended_by=EndedBy.USER, actor=CONTACT, now=now, reason=gettext_noop("said goodbye"))


def _newest_seen(conversation: Conversation, turn: Turn) -> str:
    """The provider's id of the newest message that the draft has seen, '' where the provider does not know it.

    Newer messages came since: quoting it shows the person what is answered.
    """
    account = conversation.channel_account
    theirs = Chunk.objects.filter(conversation=conversation, role__in=SPOKEN_BY_PEOPLE).order_by("-position")
    seen = theirs[conversation.inbound_sequence - turn.inbound_sequence :].first()
    return seen.message_id if account and seen and was_delivered_by(account, seen) else ""


def _note_silence(conversation: Conversation, now: datetime) -> None:
    """Note for staff that the engine chose to say nothing; the person hears nothing."""
    conversation.needs_staff_since = conversation.needs_staff_since or now
    conversation.needs_staff_reason = gettext_noop("The assistant said nothing to the last message.")
    record(conversation, "nothing_said", ASSISTANT)


def give_up(conversation: Conversation, turn: Turn, sink: Sink, code: str, half: str, now: datetime) -> None:
    """Give the reply up: the sink says what is left to say, and after too many failures a person answers."""
    sink.give_up(conversation, turn, code, half, now)
    if conversation.needs_staff_since and tool_outcomes.has_made_calls(conversation):
        conversation.needs_staff_reason = f"{TOOL_CALLED} {conversation.needs_staff_reason}"[:200]
    note_answered(conversation)
    tool_requests.expire_approved(conversation, now)
    conversation.replies_failed += 1
    most = conversation.assistant.human_after_failures if conversation.assistant else 0
    if code == CRASHED or (most and conversation.replies_failed >= most):
        outbox.allow_sending(conversation)
        failed = conversation.replies_failed
        times = gettext_noop("A reply failed.") if failed == 1 else IN_A_ROW % {"number": failed}
        reason = f"{times} {failures.explain(code)}"
        handovers.hand_over(conversation, SYSTEM, now, reason=reason)


def overtake(conversation: Conversation, turn: Turn, now: datetime) -> None:
    """End the turn because the person has written again; the reply stays owed."""
    conversation.drafts_overtaken += 1
    conversation.reply_attempts = conversation.reply_crashes = 0
    end(turn, TurnStatus.OVERTAKEN, now)


def drop(turn: Turn, conversation: Conversation, reason: str, now: datetime) -> None:
    """End the turn without a word; to a person who opted out nothing is owed either."""
    end(turn, TurnStatus.DROPPED, now, code=reason)
    if reason == outbox.OPTED_OUT:
        note_answered(conversation)


def end(turn: Turn, status: str, now: datetime, code: str = "", reason: str = "") -> None:
    """End the turn with this status, and why."""
    turn.status, turn.ended_at = status, now
    turn.code, turn.reason = code[:40], reason[:500]
    update(turn)
    counters.TURNS.labels(turn.engine, str(status), turn.code).inc()
    counters.TURN_SECONDS.labels(turn.engine).observe(max((now - turn.started_at).total_seconds(), 0))
    spans.turn_ended(turn)
