"""Calls of a client's own tools: one signed POST to a URL, and what became of it.

    POST <url>     {"tool", "arguments", "conversation_id", "contact", "idempotency_key"}
                   signed as Standard Webhooks; the key is also in the header Idempotency-Key, and is the webhook-id

What counts is whether the tool may have done it: a request that never left is `not_sent`, an answer of the tool is
`answered` or `failed`, and everything between the two is `unknown`: also an answer that says that something broke on
the way (5xx), or that was too much or too slow (408, 429), for the tool may have done its work before that.

A JSON answer may name files for the person, as `attachments` (given_files.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson

from channels_out import http, standard_webhooks
from channels_out.errors import SendError
from channels_out.given_files import GivenFile, taken_out
from channels_out.http import HttpAnswer
from channels_out.public_addresses import Networks
from channels_out.shapes import clean, clean_text

LONGEST_ANSWER = 20_000  # characters that a model is given
LONGEST_EXCERPT = 1_000  # of the body of a refusal
MOST_ANSWER_BYTES = 8 * 1024 * 1024  # with files in base64
CONNECT_SECONDS = 5.0
CUT = " [… cut off]"
_UNCLEAR = {408, 429}  # beside 5xx


class Outcome(StrEnum):
    """The outcome of a call."""

    ANSWERED = "answered"
    FAILED = "failed"
    UNKNOWN = "unknown"
    NOT_SENT = "not_sent"


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The outcome of a call.

    text        for the model
    code        for staff
    files       for the person
    refused     why other files of the answer cannot be taken, as phrases
    """

    outcome: Outcome
    text: str = ""
    code: str = ""
    files: tuple[GivenFile, ...] = ()
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """One call of a tool.

    name        the tool's name: ours where it is posted, the server's own at an MCP server
    secret      signs the request; '' at an MCP server
    headers     for an MCP server
    key         the idempotency key
    seconds     for the whole call
    private     networks that may be reached although they are not public
    may_give    files of the answer are for the person; else they are a part of its text, or left out
    """

    name: str
    url: str
    arguments: Mapping[str, Any]
    key: str
    seconds: float
    conversation_id: str = ""
    contact: Mapping[str, Any] = field(default_factory=dict)
    secret: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    private: Networks = ()
    may_give: bool = False


def call(request: ToolRequest) -> ToolResult:
    """Post the call to the tool and return what became of it. Never raises; redirects are not followed."""
    body = orjson.dumps(
        clean(
            {
                "tool": request.name,
                "arguments": dict(request.arguments),
                "conversation_id": request.conversation_id,
                "contact": dict(request.contact),
                "idempotency_key": request.key,
            }
        )
    )
    headers = {
        "Content-Type": "application/json",
        "Idempotency-Key": request.key,
        **standard_webhooks.headers([request.secret], request.key, body),
    }
    timeout = (min(CONNECT_SECONDS, request.seconds), request.seconds)
    try:
        answer = http.post_bytes(
            request.url,
            body,
            headers=headers,
            timeout=timeout,
            private=request.private,
            most_bytes=MOST_ANSWER_BYTES,
        )
    except SendError as error:
        return transport_failure(error)
    return _result(answer, may_give=request.may_give)


def transport_failure(error: SendError) -> ToolResult:
    """Return the result of a call that got no whole answer."""
    if not error.ambiguous:
        outcome = Outcome.NOT_SENT if error.retryable else Outcome.FAILED
        return ToolResult(outcome, "The tool could not be reached. Nothing was done.", error.code[:40])
    if error.code == "bad_answer":  # a 2xx that is far too long: it was done
        return ToolResult(Outcome.ANSWERED, "The tool's answer was too long to be read.", error.code)
    return ToolResult(Outcome.UNKNOWN, code=error.code[:40])


def _result(answer: HttpAnswer, *, may_give: bool) -> ToolResult:
    if answer.ok:
        return _answered(answer, may_give=may_give)
    code = f"http_{answer.status}"
    failed = f"The tool failed with status {answer.status}."
    if is_unclear(answer.status):
        return ToolResult(Outcome.UNKNOWN, failed, code)
    if answer.status >= 400 and (excerpt := bounded(_text(answer), LONGEST_EXCERPT)):
        failed = f"{failed} It said: {excerpt}"
    return ToolResult(Outcome.FAILED, failed, code)


def _answered(answer: HttpAnswer, *, may_give: bool) -> ToolResult:
    taken = taken_out(_json(answer.body)) if may_give and b'"attachments"' in answer.body else None
    if taken is None:
        return ToolResult(Outcome.ANSWERED, bounded(_text(answer)))
    rest, files, refused = taken
    text = bounded(orjson.dumps(clean(rest)).decode()) if rest else ""
    return ToolResult(Outcome.ANSWERED, text, files=files, refused=refused)


def _json(body: bytes) -> Any:
    """Return the JSON of the body, None if it is none."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def is_unclear(status: int) -> bool:
    """Return whether a tool that answers with this status may have done what it was asked."""
    return status >= 500 or status in _UNCLEAR


def bounded(text: str, most: int = LONGEST_ANSWER) -> str:
    """Return the text in at most `most` characters, fit to be stored."""
    text = clean_text(text).strip()
    return text if len(text) <= most else text[: most - len(CUT)] + CUT


def _text(answer: HttpAnswer) -> str:
    return answer.body.decode("utf-8", "replace")
