"""Storing a conversation in Convo without disturbing the agent: nothing raises, and nothing waits for long."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Mapping
from typing import Any

from .courier import Courier, Receipt, courier_for
from .errors import ConfigurationError, ConversationError
from .loops import background
from .outbox import Outbox, OutboxStatus
from .settings import Settings
from .states import ConversationState

log = logging.getLogger(__name__)

HANDLE = "pending-"
OFF = Receipt(accepted=False)


class ConversationSync:
    """Store changes of conversations, on the server or in the outbox, from which they are delivered in order and once.

    A call takes `settings.timeout` seconds at most and raises nothing; its receipt tells the outcome. With
    `ENABLE_CONVERSATION_SYNC=false`, or without configuration, every call does nothing.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings
        self._complained = False

    @property
    def settings(self) -> Settings | None:
        """Return the settings; None if they are invalid, which is logged once."""
        if self._settings is None:
            try:
                self._settings = Settings.from_env()
            except ConfigurationError as error:
                if not self._complained:
                    log.error("conversations are not kept: %s", error)
                    self._complained = True
        return self._settings

    @property
    def enabled(self) -> bool:
        """Return whether changes are stored."""
        settings = self.settings
        return settings is not None and settings.enabled

    def _courier(self) -> Courier | None:
        settings = self.settings
        return courier_for(settings) if settings is not None and settings.enabled else None

    async def start(
        self,
        user_phone: str,
        sub_domain: str,
        *,
        bot_id: str | None = None,
        local_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> tuple[str | None, ConversationState | None]:
        """Return the session id and the state of the person's open conversation, which is opened if there is none.

        If the server cannot be reached, the id is a handle, which the other methods take as well, and the state is
        None. Returns (None, None) if nothing is stored.
        """
        courier = self._courier()
        if courier is None:
            return None, None
        body = {
            "userId": user_phone,
            "subDomain": sub_domain,
            "botId": bot_id,
            "localId": local_id,
            "metadata": dict(metadata) if metadata else None,
        }
        platform = str((metadata or {}).get("platform") or "whatsapp").lower()
        handle = f"{HANDLE}{uuid.uuid4().hex}"
        lane = f"{sub_domain}/{user_phone.strip().lstrip('+')}/{platform}"
        receipt = await courier.deliver(handle, "start", body, lane=lane)
        if not receipt.accepted:
            return None, None
        session_id = receipt.state.session_id if receipt.state else handle
        log.info("Conversation initialized: %s", session_id)
        return session_id, receipt.state

    async def add_message(
        self, session_id: str | None, sub_domain: str, role: str, content: str, *, message_id: str | None = None
    ) -> Receipt:
        """Record a message of the person (`user`) or the agent (`bot`). The same `message_id` again changes nothing."""
        body = {"role": role, "content": content.replace("\0", "\ufffd"), "messageId": message_id}
        return await self._change(session_id, sub_domain, "message", body, f"Added {role} message to conversation")

    async def sync(
        self,
        session_id: str | None,
        sub_domain: str,
        *,
        intent: str | None = None,
        step: str | None = None,
        context: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Receipt:
        """Set the agent's state. Values of None stay as they are."""
        body = {"intent": intent, "step": step, "context": context, "metadata": metadata}
        return await self._change(session_id, sub_domain, "sync", body, "Synced graph state to API for")

    async def link_order(self, session_id: str | None, sub_domain: str, order_id: str) -> Receipt:
        """Link an order to the conversation."""
        done = f"Linked order {order_id} to conversation"
        return await self._change(session_id, sub_domain, "order", {"orderId": order_id}, done)

    async def reset(self, session_id: str | None, sub_domain: str, *, keep_history: bool = False) -> Receipt:
        """Reset the state, and hide the messages so far unless `keep_history`."""
        return await self._change(session_id, sub_domain, "reset", {"keepHistory": keep_history}, "Reset conversation")

    async def extend(self, session_id: str | None, sub_domain: str, hours: int = 24) -> Receipt:
        """Let the conversation expire no earlier than so many hours from now."""
        return await self._change(session_id, sub_domain, "extend", {"hours": hours}, "Extended conversation")

    async def end(self, session_id: str | None, sub_domain: str) -> Receipt:
        """End the conversation."""
        return await self._change(session_id, sub_domain, "end", {}, "Ended conversation")

    async def get(self, session_id: str | None, sub_domain: str) -> ConversationState | None:
        """Return the conversation's present state from the server; None if there is none, or no answer."""
        courier = self._courier()
        if courier is None or not session_id:
            return None
        work = asyncio.run_coroutine_threadsafe(_state(courier, session_id, sub_domain), background())
        try:
            return await asyncio.wait_for(asyncio.wrap_future(work), courier.settings.timeout)
        except (ConversationError, asyncio.TimeoutError, OSError) as error:
            log.warning("conversation %s cannot be read: %s", session_id, type(error).__name__)
            return None

    def status(self) -> OutboxStatus | None:
        """Return the outbox's status; None if nothing is stored."""
        courier = self._courier()
        return courier.status() if courier else None

    async def flush(self, timeout: float = 30.0) -> bool:
        """Wait until the outbox is empty, `timeout` seconds at most, and return whether it is."""
        courier = self._courier()
        deadline = time.monotonic() + timeout
        while courier is not None and (await _status(courier)).waiting:
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(0.05)
        return True

    async def _change(
        self, session_id: str | None, sub_domain: str, kind: str, body: dict[str, Any], done: str
    ) -> Receipt:
        courier = self._courier()
        if courier is None or not session_id:
            return OFF
        said = {"subDomain": sub_domain, **body} if kind != "sync" else body
        receipt = await courier.deliver(session_id, kind, said)
        if receipt.accepted:
            log.info("%s %s%s", done, session_id, "" if receipt.state else " (delivered later)")
        return receipt


async def _state(courier: Courier, handle: str, sub_domain: str) -> ConversationState | None:
    session_id, _ = courier.box.session_of(courier.box.lane_of(handle))
    if session_id is None:
        return None
    return await courier.service.get_conversation(session_id, sub_domain)


async def _status(courier: Courier) -> OutboxStatus:
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(courier.look(Outbox.status), background()))


_default: ConversationSync | None = None


def default_sync() -> ConversationSync:
    """Return the connection that the environment describes, or the one that `use` has set."""
    global _default
    if _default is None:
        _default = ConversationSync()
    return _default


def use(sync: ConversationSync | None) -> None:
    """Let helpers, middleware and decorators use this connection from now on; None for the environment's."""
    global _default
    _default = sync
