"""The rows of tool calls: each call is a row before it is made, so that it is made once (models/tool.py).

    begin ─► the tool is called, without a transaction (tool_runner.py) ─► record_result

Only one turn of a conversation runs, and it makes one call after another. So whoever begins a call and finds the same
one `calling` knows that the process that was making it has died. Every write here has the conversation's row locked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext_noop

from channels_out.tools import Outcome, ToolRequest, ToolResult
from conversations.engines.contract import EngineError
from conversations.engines.tool_schemas import canonical
from conversations.models import Conversation, Tool, ToolCall, Turn
from conversations.services.core import redaction, spans
from conversations.services.core.cluster import of_each, rows_over_all
from conversations.services.core.json import dumps
from conversations.services.core.ledger import SYSTEM, assistant_actor, record
from conversations.services.core.locking import editing_if_there
from conversations.services.delivery.outbox import is_opted_out
from conversations.services.replies import reply_files
from conversations.services.replies.leases import ClaimedTurn
from conversations.services.replies.reply_files import NOTHING_KEPT, KeptFiles
from conversations.traces import Point

S = ToolCall.Status

MOST_CALLS = 20  # for the messages that are not answered yet, over all drafts and tries
MOST_TRIES = 5  # of one call
TOTAL_SECONDS = 90.0  # for all calls of one try at a reply
LEASE_GRACE = timedelta(seconds=60)
# The answer to a repeated key while the first request is still being done: draft-ietf-httpapi-idempotency-key-header.
IN_PROGRESS = "http_409"
DRAFTS_DROPPED_AT_MOST = 2  # as the pipeline's fence

APPROVAL_WANTED = gettext_noop("Approve or refuse a call of the tool") + " "
OUTCOME_WANTED = gettext_noop("Find out whether this tool was carried out:") + " "
WAITS = "A colleague must approve this first. Nothing is done yet. Say so, and go on without it."
STILL_APPROVED = "A colleague has approved this. It is about to be done."
TOO_MANY = f"At most {MOST_CALLS} calls are possible here. Write your reply now."
NOT_KNOWN = (
    "It is not known whether this was done: the tool did not say. Do not call it again. A colleague will find out."
)
NO_ANSWER = "The tool did not answer. Nothing is known."
GONE = "The tool is no longer available. Nothing was done."
SILENCED = "Nothing was done: the assistant no longer has this conversation."
OVERTAKEN = "Nothing was done: a newer message has just come."
NO_TIME = "There is no time for this call. Nothing was done. Write your reply now."


@dataclass(frozen=True, slots=True)
class CallToMake:
    """A call that is ours to make now. `trace`: the place of the turn in its trace, if anybody collects traces."""

    client_id: UUID
    call_id: UUID
    turn_id: UUID
    attempt: int
    tries: int
    is_mcp: bool
    request: ToolRequest
    trace: Point | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """The answer for the model, after a call was made. `again`: make it once more with the same key."""

    answer: str
    again: bool = False


# --- a call of the model ----------------------------------------------------------------------------------------------
def begin(
    turn: ClaimedTurn, tool_id: UUID, arguments: Mapping[str, Any], seconds_left: float = TOTAL_SECONDS
) -> CallToMake | str:
    """Note that the model calls the tool, and return the call if it is to be made now, else what the model is told.

    The same call that was noted before is found again: its answer is returned, or it waits for approval, or it is made
    again where its outcome is unknown and the tool allows that. A call whose whole time-out does not fit into
    `seconds_left` is not made: cut short, it would be of unknown outcome.

    Raises EngineError (`lost`) if the turn is no longer ours.
    """
    now = timezone.now()
    with editing_if_there(turn.conversation_id, turn.client_id) as conversation:
        running = _running(conversation, turn)
        if conversation is None or running is None:
            raise EngineError("This turn is no longer running.", code="lost", retryable=True)
        tool = _tool(conversation, tool_id)
        if tool is None:
            return GONE
        if refusal := _refusal(conversation, running):
            return refusal
        given = redaction.rules_of(conversation.client).clean_json(dict(arguments))
        call = _same_call(conversation, tool, given)
        if call is None and open_calls(conversation).count() >= MOST_CALLS:
            return TOO_MANY
        call = call or _new_call(conversation, tool, given, now)
        if call.status == S.CALLING:
            _give_up_dead(conversation, call, now)
        told = told_of(call)
        if may_be_made(call):
            if _seconds_of(tool) <= seconds_left:
                return _start(conversation, call, tool, running, turn.attempt, now)
            told = _note_no_time(conversation, call, now)
        call.given_to = turn.turn_id
        call.save(update_fields=["given_to"])
        return told


def begin_waiting(turn: ClaimedTurn, seconds_left: float = TOTAL_SECONDS) -> CallToMake | None:
    """Return the next call to make before the model is asked, None if there is none, or no time for it.

    That is one that a colleague has approved since, or that a process was making when it died, as far as its tool
    allows that. Only this one counts as being made: the others stay as they are if this process dies.
    """
    now = timezone.now()
    with editing_if_there(turn.conversation_id, turn.client_id) as conversation:
        running = _running(conversation, turn)
        if conversation is None or running is None or _is_silenced(conversation):
            return None
        for call in _waiting_calls(conversation):
            if call.status == S.CALLING:
                _give_up_dead(conversation, call, now)
            if not may_be_made(call):
                continue
            tool = _tool(conversation, call.tool_id)
            if tool is None:
                _end(call, S.FAILED, GONE, "tool_gone", now)
            elif _seconds_of(tool) <= seconds_left:
                return _start(conversation, call, tool, running, turn.attempt, now)
            else:
                _note_no_time(conversation, call, now)
                return None
        return None


def record_result(made: CallToMake, result: ToolResult, kept: KeptFiles = NOTHING_KEPT) -> Recorded:
    """Keep what became of the call, and return what the model is told.

    kept: the files of its answer

    A call of unknown outcome is made again once at once, if its tool allows that; else staff are told. An answer counts
    also if the call was given up meanwhile, or if its conversation was merged into another one.
    """
    ours = ToolCall.objects.filter(client=made.client_id, pk=made.call_id)
    at = ours.values_list("conversation_id", flat=True)
    while (conversation_id := at.first()) is not None:
        if (recorded := _record_at(conversation_id, made, result, kept)) is not None:
            return recorded
    return Recorded(result.text or NO_ANSWER)


def _record_at(conversation_id: UUID, made: CallToMake, result: ToolResult, kept: KeptFiles) -> Recorded | None:
    """Keep what became of the call; None if it is not in this conversation any more."""
    now = timezone.now()
    with editing_if_there(conversation_id, made.client_id) as conversation:
        ours = ToolCall.objects.select_for_update().filter(client=made.client_id, pk=made.call_id)
        found = ours.filter(conversation=conversation_id)
        call = found.first() if conversation else None
        if conversation is None or call is None:
            return None
        is_ours = (call.turn_id, call.attempt, call.tries) == (made.turn_id, made.attempt, made.tries)
        if call.status in (S.CALLING, S.UNKNOWN) and (is_ours or result.outcome == Outcome.ANSWERED):
            _apply(conversation, call, result, kept, now)
        if not is_ours:
            return Recorded(told_of(call))
        again = call.status == S.UNKNOWN and call.may_repeat and call.tries == 1
        if call.status == S.UNKNOWN and not again:
            _show_unknown(conversation, call, now)
        call.given_to = made.turn_id
        call.save()
        return Recorded(told_of(call), again)


def may_be_made(call: ToolCall) -> bool:
    """Return whether the call may be made now: it never left, was approved, or may be repeated."""
    if call.tries >= MOST_TRIES:
        return False
    return call.status in (S.REQUESTED, S.APPROVED) or (call.status == S.UNKNOWN and call.may_repeat)


def told_of(call: ToolCall) -> str:
    """Return what a model is told of the call."""
    if call.status == S.REFUSED:
        return f"A colleague refused this. Nothing was done.{f' The reason: {call.reason}' if call.reason else ''}"
    known = {S.WAITING: WAITS, S.APPROVED: STILL_APPROVED, S.UNKNOWN: NOT_KNOWN, S.CALLING: NOT_KNOWN}
    return known.get(S(call.status)) or call.answer or "Done."


def idempotency_key(conversation_id: UUID, round_: UUID | None, tool_id: UUID, arguments: Mapping[str, Any]) -> str:
    """Return the key of a call, which stays the same until a reply is committed.

    round_: the committed turn before the messages that are not answered yet, None if there is none
    """
    named = "\n".join(map(str, (conversation_id, round_ or "", tool_id, canonical(arguments))))
    return hashlib.sha256(named.encode("utf-8", "surrogatepass")).hexdigest()


# --- the steps of a call ----------------------------------------------------------------------------------------------
def _running(conversation: Conversation | None, turn: ClaimedTurn) -> Turn | None:
    if conversation is None:
        return None
    ours = Turn.objects.filter(client=turn.client_id, pk=turn.turn_id, attempt=turn.attempt, status=Turn.Status.RUNNING)
    return ours.only("conversation_id", "inbound_sequence", "streamed").first()


def _is_silenced(conversation: Conversation) -> bool:
    return not conversation.is_open or conversation.taken_over_at is not None or is_opted_out(conversation)


def _refusal(conversation: Conversation, turn: Turn) -> str:
    """Return why nothing is called for a draft that will not be said anyway, '' if it may be said."""
    if _is_silenced(conversation):
        return SILENCED
    overtaken = not turn.streamed and conversation.inbound_sequence != turn.inbound_sequence
    return OVERTAKEN if overtaken and conversation.drafts_overtaken < DRAFTS_DROPPED_AT_MOST else ""


def _tool(conversation: Conversation, tool_id: UUID | None) -> Tool | None:
    if tool_id is None:  # it was deleted
        return None
    found = Tool.objects.select_related("server").filter(client=conversation.client_id, pk=tool_id, is_active=True)
    return found.exclude(server__is_active=False).first()


def open_calls(conversation: Conversation) -> QuerySet[ToolCall]:
    """Return the calls of the client's tools whose outcome no committed reply was given, oldest first."""
    return ToolCall.objects.filter(conversation=conversation, is_open=True, key__isnull=False).order_by("created_at")


def _waiting_calls(conversation: Conversation) -> QuerySet[ToolCall]:
    """Return the locked calls that may have to be made before the model is asked, oldest first."""
    once_unknown = Q(status=S.UNKNOWN, may_repeat=True, tries=1)
    return open_calls(conversation).filter(Q(status__in=[S.APPROVED, S.CALLING]) | once_unknown).select_for_update()


def _same_call(conversation: Conversation, tool: Tool, arguments: Mapping[str, Any]) -> ToolCall | None:
    """Return the open call of the tool with the same arguments; JSON in the database compares as its canonical form."""
    wanted = dumps(arguments).decode()
    found = open_calls(conversation).filter(tool=tool).extra(where=["arguments = %s::jsonb"], params=[wanted])
    return found.select_for_update().first()


def _new_call(conversation: Conversation, tool: Tool, arguments: dict[str, Any], now: datetime) -> ToolCall:
    replied = Turn.objects.filter(conversation=conversation, status=Turn.Status.COMMITTED).exclude(code="stopped")
    round_ = replied.order_by("-started_at").values_list("pk", flat=True).first()
    call = ToolCall(
        client_id=conversation.client_id,
        conversation=conversation,
        tool=tool,
        name=tool.name,
        arguments=arguments,
        key=idempotency_key(conversation.pk, round_, tool.pk, arguments),
        round=round_,
        status=S.WAITING if tool.needs_approval else S.REQUESTED,
        changes_something=tool.changes_something,
        may_repeat=tool.may_repeat or not tool.changes_something,
        created_at=now,
    )
    known = ToolCall.objects.select_for_update().filter(conversation=conversation, key=call.key).first()
    if known is not None:  # a reply was committed with it, and no other since: the answer still counts
        return known
    call.save(force_insert=True)
    if tool.needs_approval:
        conversation.needs_staff_since = conversation.needs_staff_since or now
        conversation.needs_staff_reason = f"{APPROVAL_WANTED}{call.name}."
        _note(conversation, "tool_approval_asked", call)
    return call


def _seconds_of(tool: Tool) -> float:
    """Return the time-out of the tool's calls."""
    return tool.server.timeout_seconds if tool.server else tool.timeout_seconds


def _note_no_time(conversation: Conversation, call: ToolCall, now: datetime) -> str:
    """Note that there is no time to make the call, and return what the model is told."""
    if call.status == S.UNKNOWN and call.changes_something:
        _show_unknown(conversation, call, now)
    elif call.status == S.UNKNOWN:
        _end(call, S.FAILED, NO_ANSWER, call.code, now)
    elif call.status == S.REQUESTED:
        call.answer, call.code = NO_TIME, "no_time"
        call.save(update_fields=["answer", "code"])
    return told_of(call)


def _start(
    conversation: Conversation, call: ToolCall, tool: Tool, turn: Turn, attempt: int, now: datetime
) -> CallToMake:
    server, seconds = tool.server, _seconds_of(tool)
    call.status, call.turn_id, call.attempt, call.tries = S.CALLING, turn.pk, attempt, call.tries + 1
    call.lease_until = now + timedelta(seconds=seconds) + LEASE_GRACE
    call.save()
    contact = conversation.contact
    request = ToolRequest(
        name=tool.remote_name if server else tool.name,
        url=server.url if server else tool.url,
        arguments=call.arguments,
        key=call.key or "",
        seconds=seconds,
        conversation_id=str(conversation.pk),
        contact={
            "id": str(contact.pk),
            "user_id": contact.user_id,
            "name": contact.shown_name,
            "phone": contact.phone or "",
        },
        secret=tool.credentials.get("secret", ""),
        headers=server.headers if server else {},
        private=tuple(settings.TOOL_PRIVATE_NETWORKS),
        may_give=tool.sends_files,
    )
    place = spans.place_of_turn(turn)
    return CallToMake(call.client_id, call.pk, turn.pk, attempt, call.tries, server is not None, request, place)


def _apply(conversation: Conversation, call: ToolCall, result: ToolResult, kept: KeptFiles, now: datetime) -> None:
    answer = redaction.rules_of(conversation.client).clean(result.text)
    outcome = result.outcome
    if call.tries > 1 and result.code == IN_PROGRESS:
        outcome = Outcome.UNKNOWN
    call.lease_until = None
    if outcome == Outcome.NOT_SENT:
        call.status, call.answer, call.code = S.REQUESTED, answer, result.code
    elif outcome == Outcome.UNKNOWN and not call.changes_something:
        _end(call, S.FAILED, answer or NO_ANSWER, result.code, now)
    else:
        # First, where a long answer is not cut.
        about_files = reply_files.note(conversation, call, kept, now) if outcome == Outcome.ANSWERED else ""
        _end(call, S(outcome.value), f"{about_files}\n{answer}".strip(), result.code, now)
    if call.status in (S.ANSWERED, S.FAILED):
        _note(conversation, f"tool_{call.status}", call)


def _end(call: ToolCall, status: str, answer: str, code: str, now: datetime) -> None:
    call.status, call.answer, call.code, call.ended_at, call.lease_until = status, answer, code[:40], now, None
    call.save()


def _give_up_dead(conversation: Conversation, call: ToolCall, now: datetime) -> None:
    """Note that the process that was making the call has died. Staff are told where it cannot be made again."""
    _end(call, S.UNKNOWN, "", "interrupted", now)
    if may_be_made(call):
        return
    if call.changes_something:
        _show_unknown(conversation, call, now)
    else:
        _end(call, S.FAILED, NO_ANSWER, "interrupted", now)


def _show_unknown(conversation: Conversation, call: ToolCall, now: datetime) -> None:
    conversation.needs_staff_since = conversation.needs_staff_since or now
    conversation.needs_staff_reason = f"{OUTCOME_WANTED}{call.name}."
    _note(conversation, "tool_unknown", call)


def _note(conversation: Conversation, kind: str, call: ToolCall) -> None:
    actor = SYSTEM if call.status == S.UNKNOWN else assistant_actor(conversation.assistant)
    record(conversation, kind, actor, cause=call.name, tool_call_id=str(call.pk), code=call.code)


_LOST = """
    SELECT o.client_id, o.id, o.conversation_id FROM tool_calls o
    WHERE {only:o} AND o.status = 'calling' AND o.lease_until < $1 LIMIT 100"""


def recover(now: datetime) -> int:
    """Give up the calls of dead processes that no later turn has found, and return how many there were."""
    return sum(of_each([(*each, now) for each in rows_over_all(_LOST, now)], _recover))


def _recover(client_id: UUID, call_id: UUID, conversation_id: UUID, now: datetime) -> bool:
    with editing_if_there(conversation_id, client_id) as conversation:
        dead = ToolCall.objects.select_for_update().filter(client=client_id, status=S.CALLING, lease_until__lt=now)
        call = dead.filter(pk=call_id).first()
        if conversation is None or call is None:
            return False
        call.tries = max(call.tries, MOST_TRIES)  # nobody will make it again
        _give_up_dead(conversation, call, now)
    return True
