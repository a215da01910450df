"""Retell's chats: the five API calls that we make, and its webhooks. Nothing is retried here.

A completion is not idempotent and takes no idempotency key: after a failed one, `get_chat` shows whether the message
arrived. Source: Retell, API reference, "Chat"; the signature as retell-sdk 6.2 verifies it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from channels_out import http
from channels_out.errors import InboundError, SendError
from channels_out.http import HttpAnswer
from channels_out.shapes import identifier, items, load_json, record, text

ONGOING = "ongoing"
AGENT, USER = "agent", "user"
SIGNATURE = "x-retell-signature"
SIGNATURE_LASTS = 5 * 60 * 1000  # milliseconds, either way
END_TOOLS = {"end_call", "end_chat"}

_SIGNED = re.compile(r"v=(\d{1,15}),d=([0-9a-f]{64})")
_SENTENCES = {
    401: "Retell refuses the API key.",
    402: "Retell requires a payment first.",
    403: "Retell refuses the API key.",
    404: "Retell does not know the chat or the agent.",
    422: "Retell does not know the chat or the agent.",
    429: "Retell throttles our requests.",
}
_UNKNOWN = {404, 422}
_REFUSED_KEY = {401, 402, 403}


@dataclass(frozen=True, slots=True)
class Access:
    """The access to Retell's API. `timeout` is in seconds, to connect and to wait for an answer."""

    api_key: str = field(repr=False)
    base_url: str = ""
    timeout: tuple[float, float] = (5.0, 60.0)


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a chat. `role` is agent, user or another word of Retell's, whose content may be empty. `ends` is
    True if the agent called its tool to end the chat."""

    role: str
    content: str
    ends: bool = False


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat at Retell. `status` is ongoing, ended or error."""

    chat_id: str
    status: str
    messages: tuple[ChatMessage, ...] = ()

    @property
    def is_ongoing(self) -> bool:
        """True if the chat accepts messages."""
        return self.status == ONGOING

    @property
    def turns(self) -> int:
        """The number of messages of the person."""
        return sum(message.role == USER for message in self.messages)

    def after_turn(self, number: int) -> tuple[ChatMessage, ...]:
        """Return the messages after the person's `number`-th message (0: from the beginning of the chat)."""
        seen = 0
        for index, message in enumerate(self.messages):
            if seen == number:
                return self.messages[index:]
            seen += message.role == USER
        return ()


@dataclass(frozen=True, slots=True)
class ChatEvent:
    """A webhook. `event` is chat_started, chat_ended, chat_analyzed or a word that is not known yet; `analysis` is
    Retell's analysis of the chat."""

    event: str
    chat: Chat
    analysis: Mapping[str, Any] = field(default_factory=dict)


def words_of(messages: Sequence[ChatMessage]) -> list[str]:
    """Return the texts of the agent, message by message, without tool calls and transitions."""
    return [message.content.strip() for message in messages if message.role == AGENT and message.content.strip()]


# --- the calls -------------------------------------------------------------------------------------------------------
def create_chat(access: Access, agent_id: str, *, metadata: Mapping[str, str], variables: Mapping[str, str]) -> Chat:
    """Create a chat with the agent and return it, perhaps with the agent's first words. Raises SendError."""
    body = {"agent_id": agent_id, "metadata": dict(metadata), "retell_llm_dynamic_variables": dict(variables)}
    answer = http.post_json(f"{access.base_url}/create-chat", body, headers=_headers(access), timeout=access.timeout)
    return _chat(_content(answer))


def complete(access: Access, chat_id: str, content: str) -> tuple[ChatMessage, ...]:
    """Add the person's message and return the agent's new messages.

    Raises SendError; `ambiguous` if the message may be in the chat all the same.
    """
    body = {"chat_id": chat_id, "content": content}
    url = f"{access.base_url}/create-chat-completion"
    answer = http.post_json(url, body, headers=_headers(access), timeout=access.timeout)
    return _messages(_content(answer, may_have_arrived=True), "messages")


def get_chat(access: Access, chat_id: str) -> Chat | None:
    """Return the chat, or None if Retell does not know it (any more). Raises SendError."""
    url = f"{access.base_url}/get-chat/{quote(chat_id, safe='')}"
    answer = http.get(url, headers=_headers(access), timeout=access.timeout)
    return None if answer.status in _UNKNOWN else _chat(_content(answer))


def end_chat(access: Access, chat_id: str) -> None:
    """End the chat; one that Retell does not know, or that has ended, is fine. Raises SendError."""
    url = f"{access.base_url}/end-chat/{quote(chat_id, safe='')}"
    answer = http.patch(url, headers=_headers(access), timeout=access.timeout)
    if answer.status not in _UNKNOWN | {400}:
        _refuse(answer)


def delete_chat(access: Access, chat_id: str) -> None:
    """Delete the chat at Retell; one that it does not know is fine. Raises SendError."""
    url = f"{access.base_url}/delete-chat/{quote(chat_id, safe='')}"
    answer = http.delete(url, headers=_headers(access), timeout=access.timeout)
    if answer.status not in _UNKNOWN:
        _refuse(answer)


def _headers(access: Access) -> dict[str, str]:
    return {"Authorization": f"Bearer {access.api_key}"}


def _content(answer: HttpAnswer, *, may_have_arrived: bool = False) -> dict[str, Any]:
    _refuse(answer, may_have_arrived=may_have_arrived)
    content = answer.json()
    if not isinstance(content, dict):
        raise SendError("Retell's answer is not a JSON object.", code="bad_answer", ambiguous=True)
    return content


def _refuse(answer: HttpAnswer, *, may_have_arrived: bool = False) -> None:
    """Raise SendError for any status but 2xx."""
    if answer.ok:
        return
    status = answer.status
    later = status == 429
    broken = status >= 500 or status in {408, 409}
    raise SendError(
        f"{_SENTENCES.get(status, 'Retell did not take the request.')} ({status})",
        code=f"http_{status}",
        retryable=later or (broken and not may_have_arrived),
        retry_after=answer.retry_after,
        ambiguous=broken and may_have_arrived,
        account_broken=status in _REFUSED_KEY,
    )


def _chat(content: dict[str, Any]) -> Chat:
    chat_id = identifier(content, "chat_id")
    if not chat_id:
        raise SendError("Retell's answer names no chat.", code="bad_answer", ambiguous=True)
    return Chat(chat_id, text(content, "chat_status") or ONGOING, _messages(content, "message_with_tool_calls"))


def _messages(content: dict[str, Any], key: str) -> tuple[ChatMessage, ...]:
    return tuple(
        ChatMessage(text(each, "role"), text(each, "content"), _ends(each))
        for each in items(content, key)
        if isinstance(each, dict)
    )


def _ends(message: dict[str, Any]) -> bool:
    return text(message, "role") == "tool_call_invocation" and bool(
        {text(message, "type"), text(message, "name")} & END_TOOLS
    )


# --- webhooks --------------------------------------------------------------------------------------------------------
def verify(body: bytes, signature: str, keys: Sequence[str], now: float) -> None:
    """Return if one of our API keys signed the raw body, not longer than five minutes from `now` (Unix time, seconds).

    Raises InboundError (`invalid_signature`).
    """
    match = _SIGNED.fullmatch(signature)
    if match and abs(now * 1000 - int(match[1])) <= SIGNATURE_LASTS:
        fits = [hmac.compare_digest(match[2], _digest(body, match[1], key)) for key in keys if key]
        if any(fits):
            return
    raise InboundError("The signature does not match.", code="invalid_signature")


def sign(body: bytes, key: str, now: float) -> str:
    """Return the signature that Retell would send, for simulators and tests."""
    stamp = str(int(now * 1000))
    return f"v={stamp},d={_digest(body, stamp, key)}"


def _digest(body: bytes, stamp: str, key: str) -> str:
    return hmac.new(key.encode(), body + stamp.encode(), hashlib.sha256).hexdigest()


def parse(body: bytes) -> ChatEvent:
    """Return the webhook's event. Raises InboundError (`malformed`) if it is about no chat."""
    content = load_json(body)
    chat = record(content, "chat")
    event, chat_id = identifier(content, "event"), identifier(chat, "chat_id")
    if event.startswith("call_"):
        return ChatEvent(event, Chat("", "", ()))  # of a phone call at Retell, which is none of ours
    if not event or not chat_id:
        raise InboundError("The body is not an event of a chat.", code="malformed")
    return ChatEvent(
        event,
        Chat(chat_id, text(chat, "chat_status"), _messages(chat, "message_with_tool_calls")),
        record(chat, "chat_analysis"),
    )
