"""Asks a client's own agent for the reply, by a signed request to the client's URL (docs/own-agent.md).

200 JSON            ─► the reply
200 event stream    ─► the reply, piece by piece
202, or "later"     ─► no reply yet: the turn waits for a callback (services/replies/late_replies.py)
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from django.conf import settings

from channels_out import standard_webhooks
from channels_out.errors import SendError
from channels_out.http import parse_retry_after
from channels_out.shapes import clean
from conversations.engines.agent_answers import LONGEST_TEXT, AgentAnswer, InvalidAnswerError, parse
from conversations.engines.agent_events import AgentEvent, read_events
from conversations.engines.contract import AgentCall, EngineError, Reply, ReplyRequest
from memory import event_loop
from memory.text import storable

if TYPE_CHECKING:
    from channels_out.streamed_posts import StreamedAnswer

_Result = TypeVar("_Result")

MOST_BYTES = 1024 * 1024  # of an answer, streams included
LONGEST_SECONDS = 300.0  # of a whole stream
RETRYABLE = {408, 425, 429}
# What became of the request, and of the answer: the codes that staff see (services/replies/failures.py).
CODES = {
    "connect": "agent_unreachable",
    "connection_lost": "agent_cut_off",
    "private_address": "agent_private_address",
    "invalid_request": "agent_invalid_url",
}
STATUSES = {
    401: "agent_unauthorized",
    403: "agent_unauthorized",
    404: "agent_not_found",
    410: "agent_not_found",
    429: "agent_busy",
}
EVENT_STREAM = "text/event-stream"
_CODE = re.compile(r"[a-z][a-z0-9_]{0,39}")


class OwnAgent:
    """Posts the request and takes the answer, whole or as a stream, within the assistant's time-out."""

    name = "agent"

    def reply(self, request: ReplyRequest) -> Reply:
        """Return the agent's answer in one text; blank if it said nothing. Raises EngineError."""
        return event_loop.run(_whole(request), 2 * LONGEST_SECONDS)  # what it waits for has deadlines of its own

    async def stream(self, request: ReplyRequest) -> AsyncIterator[str | Reply]:
        """Yield the agent's words as they come, then the Reply. Raises EngineError; an answer without words is one."""
        async for piece in _ask(request, in_copilot=True):
            if isinstance(piece, Reply) and not piece.text and not piece.later_until:
                raise _bad_answer("An answer in the copilot needs a text.")
            yield piece


async def _whole(request: ReplyRequest) -> Reply:
    async for piece in _ask(request, in_copilot=request.in_copilot):
        if isinstance(piece, Reply):
            return replace(piece, text=piece.text.strip())
    raise _cut_off()


async def _ask(request: ReplyRequest, *, in_copilot: bool) -> AsyncIterator[str | Reply]:
    """Yield the pieces of the answer, then the Reply, when the connection is closed. Raises EngineError."""
    from channels_out.streamed_posts import post  # it takes a tenth of a second, which the web process never needs

    call = request.agent
    if call is None:
        raise EngineError("The assistant has no agent.", code="agent_invalid_url", retryable=False)
    body = orjson.dumps(clean(dict(call.body)))
    headers = {"Content-Type": "application/json", "Accept": f"application/json, {EVENT_STREAM}", **_signed(call, body)}
    opened = post(call.url, body, headers=headers, private=tuple(settings.ORB_PRIVATE_NETWORKS))
    ends_at = asyncio.get_running_loop().time() + call.seconds
    reply = Reply("", OwnAgent.name)
    try:
        async with AsyncExitStack() as stack:
            answer = await _until(ends_at, stack.enter_async_context(opened))
            _check_status(answer)
            streams = answer.headers.get("content-type", "").partition(";")[0].strip().lower() == EVENT_STREAM
            if answer.status == 202:
                reply = _reply(AgentAnswer(later=True), call)
            elif streams:
                async for piece in _streamed(answer, request, call, in_copilot=in_copilot):
                    if isinstance(piece, Reply):
                        reply = piece
                    else:
                        yield piece
            else:
                read = _parsed(await _until(ends_at, _read(answer)), request, in_copilot=in_copilot)
                reply = _reply(read, call)
                if read.text:
                    yield read.text
    except TimeoutError:
        raise EngineError("The agent did not answer in time.", code="agent_timeout", retryable=True) from None
    except SendError as error:
        retryable = error.retryable or error.ambiguous
        raise EngineError(str(error), code=CODES[error.code], retryable=retryable) from None
    yield reply


def _signed(call: AgentCall, body: bytes) -> dict[str, str]:
    secrets = [secret for secret in call.secrets if standard_webhooks.is_secret(secret)]
    if not secrets:
        raise EngineError("The assistant has no signing secret.", code="agent_no_secret", retryable=False)
    return standard_webhooks.headers(secrets, call.request_id, body)


def _check_status(answer: StreamedAnswer) -> None:
    """Raise EngineError unless the status is 2xx."""
    status = answer.status
    if 200 <= status < 300:
        return
    raise EngineError(
        f"The agent answered with status {status}.",
        code="agent_redirects" if status < 400 else STATUSES.get(status, "agent_error"),
        retryable=status >= 500 or status in RETRYABLE,
        retry_after=parse_retry_after(answer.headers.get("retry-after", "")),
        detail=f"http_{status}",
    )


async def _read(answer: StreamedAnswer) -> Any:
    """Return the body as JSON. Raises EngineError."""
    body = b"".join([piece async for piece in _bounded(answer)])
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise _bad_answer("It is not JSON.") from None


async def _bounded(answer: StreamedAnswer) -> AsyncIterator[bytes]:
    size = 0
    async for piece in answer.pieces:
        size += len(piece)
        if size > MOST_BYTES:
            raise _too_long()
        yield piece


async def _streamed(
    answer: StreamedAnswer, request: ReplyRequest, call: AgentCall, *, in_copilot: bool
) -> AsyncIterator[str | Reply]:
    """Yield the words of each `delta`, and the Reply at `done`. Raises EngineError."""
    now = asyncio.get_running_loop().time
    over_at, said = now() + LONGEST_SECONDS, ""
    events = read_events(_bounded(answer))
    while (event := await _until(min(now() + call.seconds, over_at), anext(events, None))) is not None:
        if event.name == "delta":
            words = _delta(event) if said else _delta(event).lstrip()
            said += words
            if len(said) > LONGEST_TEXT:
                raise _too_long()
            if words:
                yield words
        elif event.name == "done":
            read = _parsed({**_object(event), "messages": [said]}, request, in_copilot=in_copilot)
            yield _reply(read, call, said)
            return
        elif event.name == "error":
            raise _reported(_object(event))
    raise _cut_off()


def _delta(event: AgentEvent) -> str:
    words = _object(event).get("text")
    if not isinstance(words, str):
        raise _bad_answer("delta: text must be a string.")
    return storable(words)


def _object(event: AgentEvent) -> dict[str, Any]:
    if not isinstance(event.data, dict):
        raise _bad_answer(f"{event.name}: The data must be a JSON object.")
    return event.data


def _reported(data: dict[str, Any]) -> EngineError:
    """Return the error that the agent reported, with its code for staff; its sentence is not taken over."""
    given = data.get("code")
    return EngineError(
        "The agent reported an error.",
        code="agent_error",
        retryable=data.get("retryable") is not False,
        detail=given if isinstance(given, str) and _CODE.fullmatch(given) else "",
    )


def _parsed(answer: Any, request: ReplyRequest, *, in_copilot: bool) -> AgentAnswer:
    try:
        return parse(answer, request.steps, in_copilot=in_copilot)
    except InvalidAnswerError as error:
        raise _bad_answer(str(error)) from None


def _reply(answer: AgentAnswer, call: AgentCall, said: str | None = None) -> Reply:
    """Return the Reply. said: the words that were streamed, as they were."""
    return Reply(
        text=answer.text if said is None else said,
        engine=OwnAgent.name,
        tool_actions=answer.tool_actions,
        tool_calls=answer.tool_calls,
        files=answer.files,
        later_until=call.deadline if answer.later else None,
    )


def _too_long() -> EngineError:
    return EngineError("The agent's answer is too long.", code="agent_too_long", retryable=True)


def _cut_off() -> EngineError:
    return EngineError("The agent's stream ended before its end.", code="agent_cut_off", retryable=True)


def _bad_answer(detail: str) -> EngineError:
    """Return the error for an answer that is not valid. detail: which field, without its value."""
    return EngineError("The agent's answer is not valid.", code="agent_bad_answer", retryable=True, detail=detail)


async def _until(ends_at: float, step: Awaitable[_Result]) -> _Result:
    async with asyncio.timeout_at(ends_at):
        return await step
