"""The state-sync protocol over HTTP: one method for each route, with typed answers and errors."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote
from weakref import WeakKeyDictionary

import httpx

from .errors import ApiError, ConversationError, GarbledError, NotFoundError, TimedOutError, UnreachableError, error_for
from .settings import Settings
from .states import ConversationState, Orders, Tenant

log = logging.getLogger(__name__)

ATTEMPTS = 3
PAUSE = 0.2  # seconds before the second attempt
LONGEST_ANSWER = 32_000_000  # bytes
ERROR_TYPE = "3"  # how some servers of the protocol mark an error


class ConversationStateService:
    """Call Convo's API. Every method raises ConversationError (errors.py).

    A call takes `settings.timeout` seconds at most, with all its attempts. A further attempt is only made where it does
    no harm: a POST carries an idempotency key, and a change with `if_version` is tried once. Connections are pooled,
    for each event loop its own.
    """

    def __init__(self, settings: Settings | None = None, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.settings = settings or Settings.from_env()
        self._transport = transport
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()

    async def __aenter__(self) -> ConversationStateService:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections of this event loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    # --- conversations ------------------------------------------------------------------------------------------------
    async def create_conversation(
        self,
        user_id: str,
        sub_domain: str,
        *,
        local_id: str | None = None,
        bot_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> ConversationState:
        """Return the open conversation of the person with this phone, which is opened if there is none."""
        body = {"userId": user_id, "subDomain": sub_domain, "localId": local_id, "botId": bot_id, "metadata": metadata}
        return await self._state("POST", "/conversations", body, key=idempotency_key)

    async def list_conversations(
        self,
        sub_domain: str,
        *,
        local_id: str | None = None,
        bot_id: str | None = None,
        intent: str | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> tuple[list[ConversationState], int]:
        """Return a page of the open conversations, the newest first, and how many there are in all."""
        query = {"subDomain": sub_domain, "localId": local_id, "botId": bot_id, "intent": intent}
        data = await self.request("GET", "/conversations", query={**query, "limit": limit, "offset": offset})
        try:
            return [ConversationState.read(each) for each in data["conversations"]], int(data["count"])
        except (KeyError, TypeError, ValueError) as error:
            raise GarbledError("This is no list of conversations.") from error

    async def get_conversation(
        self, session_id: str, sub_domain: str, *, local_id: str | None = None
    ) -> ConversationState | None:
        """Return the conversation, also one that has ended; None if there is none."""
        query = {"subDomain": sub_domain, "localId": local_id}
        return await self._found(f"/conversations/{_part(session_id)}", query)

    async def get_conversation_by_user(
        self, phone: str, sub_domain: str, *, local_id: str | None = None
    ) -> ConversationState | None:
        """Return the open conversation of a person, or None."""
        query = {"subDomain": sub_domain, "localId": local_id}
        return await self._found(f"/conversations/user/{_part(phone)}", query)

    async def update_intent(
        self,
        session_id: str,
        sub_domain: str,
        intent: str,
        step: str | None = None,
        *,
        local_id: str | None = None,
        if_version: int | None = None,
    ) -> ConversationState:
        """Set the intent and step. Raises ConflictError if the state's version is not `if_version` any more."""
        body = {"subDomain": sub_domain, "intent": intent, "step": step, "localId": local_id}
        return await self._state("PATCH", f"/conversations/{_part(session_id)}/intent", body, if_version=if_version)

    async def update_context(
        self,
        session_id: str,
        sub_domain: str,
        context: Mapping[str, Any],
        *,
        merge: bool = True,
        local_id: str | None = None,
        if_version: int | None = None,
    ) -> ConversationState:
        """Merge values into the context, objects deeply; `merge=False` replaces the whole context."""
        body = {"subDomain": sub_domain, "context": context, "merge": merge, "localId": local_id}
        return await self._state("PATCH", f"/conversations/{_part(session_id)}/context", body, if_version=if_version)

    async def add_message(
        self,
        session_id: str,
        sub_domain: str,
        role: str,
        content: str,
        *,
        message_id: str | None = None,
        local_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> ConversationState:
        """Record a message of the person (`user`) or the agent (`bot`). The same `message_id` again changes nothing."""
        body = {"subDomain": sub_domain, "role": role, "content": content, "messageId": message_id}
        path = f"/conversations/{_part(session_id)}/messages"
        return await self._state("POST", path, {**body, "localId": local_id}, key=idempotency_key)

    async def reset_conversation(
        self,
        session_id: str,
        sub_domain: str,
        *,
        keep_history: bool = False,
        local_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> ConversationState:
        """Reset the state, and hide the messages so far unless `keep_history`."""
        body = {"subDomain": sub_domain, "keepHistory": keep_history, "localId": local_id}
        return await self._state("POST", f"/conversations/{_part(session_id)}/reset", body, key=idempotency_key)

    async def extend_conversation(
        self,
        session_id: str,
        sub_domain: str,
        hours: int = 24,
        *,
        local_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> ConversationState:
        """Let the conversation expire no earlier than so many hours from now."""
        body = {"subDomain": sub_domain, "hours": hours, "localId": local_id}
        return await self._state("POST", f"/conversations/{_part(session_id)}/extend", body, key=idempotency_key)

    async def link_order(
        self,
        session_id: str,
        sub_domain: str,
        order_id: str,
        *,
        local_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> ConversationState:
        """Make the order the conversation's current one, and add it to the history once."""
        body = {"subDomain": sub_domain, "orderId": order_id, "localId": local_id}
        return await self._state("POST", f"/conversations/{_part(session_id)}/orders", body, key=idempotency_key)

    async def get_orders(self, session_id: str, sub_domain: str, *, local_id: str | None = None) -> Orders:
        """Return the conversation's orders."""
        query = {"subDomain": sub_domain, "localId": local_id}
        data = await self.request("GET", f"/conversations/{_part(session_id)}/orders", query=query)
        return Orders(data.get("currentOrderId"), list(data.get("orderHistory") or []))

    async def end_conversation(
        self,
        session_id: str,
        sub_domain: str,
        *,
        local_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> ConversationState:
        """End the conversation."""
        body = {"subDomain": sub_domain, "localId": local_id}
        return await self._state("POST", f"/conversations/{_part(session_id)}/end", body, key=idempotency_key)

    # --- the agent's own routes ---------------------------------------------------------------------------------------
    async def lookup_tenant(self, phone: str) -> Tenant | None:
        """Return the client that the phone's open conversation belongs to, or None."""
        try:
            data = await self.request("GET", f"/whatsapp/lookup/tenant/{_part(phone)}")
        except NotFoundError:
            return None
        return Tenant(str(data["subDomain"]), data.get("botId"), str(data["sessionId"]), bool(data["isActive"]))

    async def lookup_conversation(self, phone: str, *, bot_id: str | None = None) -> ConversationState | None:
        """Return the open conversation of a person, or None."""
        return await self._found(f"/whatsapp/lookup/conversation/{_part(phone)}", {"botId": bot_id})

    async def sync_state(
        self,
        session_id: str,
        *,
        intent: str | None = None,
        step: str | None = None,
        context: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        is_active: bool | None = None,
        if_version: int | None = None,
    ) -> ConversationState:
        """Set the agent's whole state at once. Values of None stay as they are; `is_active=False` ends it."""
        body = {"intent": intent, "step": step, "context": context, "metadata": metadata, "isActive": is_active}
        path = f"/whatsapp/agent/conversations/{_part(session_id)}/sync"
        return await self._state("PUT", path, body, if_version=if_version)

    async def add_agent_message(
        self,
        session_id: str,
        role: str,
        content: str,
        *,
        message_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> ConversationState:
        """Record a message of the person (`user`) or the agent (`bot`), without naming the sub-domain."""
        body = {"role": role, "content": content, "messageId": message_id}
        path = f"/whatsapp/agent/conversations/{_part(session_id)}/messages"
        return await self._state("POST", path, body, key=idempotency_key)

    # --- requests -----------------------------------------------------------------------------------------------------
    async def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, Any] | None = None,
        key: str | None = None,
        if_version: int | None = None,
        attempts: int = ATTEMPTS,
    ) -> Any:
        """Send a request and return the `data` of its answer, within the timeout. `key`: the idempotency key."""
        headers = {"Idempotency-Key": key or str(uuid.uuid4())} if method == "POST" else {}
        if if_version is not None:
            headers["If-Match"] = f'"{if_version}"'
            attempts = 1  # a second attempt would conflict with what the first has changed
        said = {name: value for name, value in (body or {}).items() if value is not None}
        asked = {name: str(value) for name, value in (query or {}).items() if value is not None}
        content = None
        if body is not None:
            content = json.dumps(said, ensure_ascii=False, default=str).encode("utf-8", "replace")
        deadline = time.monotonic() + self.settings.timeout
        for attempt in range(1, attempts + 1):
            try:
                return await asyncio.wait_for(
                    self._once(method, path, content, asked, headers), max(deadline - time.monotonic(), 0.001)
                )
            except asyncio.TimeoutError:
                raise TimedOutError(f"No whole answer within {self.settings.timeout:g} s.") from None
            except ConversationError as error:
                pause = _pause(attempt, error)
                if not error.retryable or attempt == attempts or time.monotonic() + pause >= deadline:
                    raise
                log.debug("%s attempt %s failed: %s", method, attempt, type(error).__name__)
            await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    async def _once(
        self, method: str, path: str, content: bytes | None, query: dict[str, str], headers: dict[str, str]
    ) -> Any:
        try:
            async with self._client().stream(
                method, self.settings.base_url + path, content=content, params=query, headers=headers
            ) as answer:
                body = bytearray()
                async for part in answer.aiter_bytes():
                    body += part
                    if len(body) > LONGEST_ANSWER:
                        raise GarbledError("The answer has no end.")
        except httpx.TimeoutException as error:
            raise TimedOutError(f"No answer: {type(error).__name__}.") from error
        except httpx.DecodingError as error:
            raise GarbledError("The answer cannot be decoded.") from error
        except httpx.HTTPError as error:
            raise UnreachableError(f"No answer: {type(error).__name__}.") from error
        return _read(answer, bytes(body))

    def _client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None or client.is_closed:
            client = self._clients[loop] = httpx.AsyncClient(
                headers={
                    "Authorization": f"Bearer {self.settings.api_key}",
                    "Content-Type": "application/json",
                    "Accept": "application/json",
                },
                timeout=self.settings.timeout,
                transport=self._transport,
                follow_redirects=False,
            )
        return client

    async def _state(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any],
        *,
        key: str | None = None,
        if_version: int | None = None,
    ) -> ConversationState:
        return ConversationState.read(await self.request(method, path, body, key=key, if_version=if_version))

    async def _found(self, path: str, query: Mapping[str, Any]) -> ConversationState | None:
        try:
            return ConversationState.read(await self.request("GET", path, query=query))
        except NotFoundError:
            return None


def _part(value: str) -> str:
    return quote(value, safe="")


def _read(answer: httpx.Response, body: bytes) -> Any:
    """Return the `data` of an envelope. Raises ApiError for a failure, GarbledError for another answer."""
    try:
        envelope = json.loads(body)
    except ValueError:
        envelope = None
    if answer.status_code >= 400:
        raise _refusal(answer, envelope if isinstance(envelope, dict) else {})
    if not isinstance(envelope, dict) or "data" not in envelope:
        if isinstance(envelope, dict) and (envelope.get("type") == ERROR_TYPE or envelope.get("success") is False):
            raise _refusal(answer, envelope)
        raise GarbledError(f"HTTP {answer.status_code}, and no answer of this protocol.")
    if envelope.get("success") is False or str(envelope.get("type")) == ERROR_TYPE:
        raise _refusal(answer, envelope)
    return envelope["data"]


def _refusal(answer: httpx.Response, envelope: Mapping[str, Any]) -> ApiError:
    status = answer.status_code
    sentence = envelope.get("error") or envelope.get("message") or "refused without a word"
    details = envelope.get("details")
    return error_for(status)(
        f"HTTP {status}: {sentence}",
        status=status,
        code=str(envelope.get("code") or ""),
        details=details if isinstance(details, dict) else None,
        retry_after=_seconds(answer.headers.get("Retry-After")),
    )


def _seconds(said: str | None) -> float | None:
    try:
        return max(float(said), 0.0) if said else None
    except ValueError:
        return None  # a date, which servers of this protocol do not send


def _pause(attempt: int, error: ConversationError) -> float:
    """Return the seconds to wait before the next attempt."""
    named = getattr(error, "retry_after", None)
    return float(named) if named else PAUSE * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
