"""A context manager for a conversation, and decorators that store a conversation around a graph's node."""

from __future__ import annotations

import functools
import hashlib
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar, cast

from . import manager as manage
from .loops import blocking_method, wait_for
from .manager import ConversationStateManager
from .states import ConversationState
from .tracking import ConversationSync, default_sync

log = logging.getLogger(__name__)

Node = TypeVar("Node", bound=Callable[..., Any])
SESSION_KEY, SUB_DOMAIN_KEY = "conversation_session_id", "sub_domain"


class ConversationMiddleware:
    """Context manager that opens a person's conversation, in async and plain programs alike:

        async with ConversationMiddleware(phone, sub_domain) as conv:
            await conv.add_user_message("Hello")

        with ConversationMiddleware(phone, sub_domain) as conv:
            conv.add_user_message("Hello")

    It never raises; an exception of the block passes through. Every method that changes something returns whether the
    change is on the server or safe in the outbox.
    """

    def __init__(
        self,
        user_phone: str,
        sub_domain: str,
        bot_id: str | None = None,
        *,
        local_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        sync: ConversationSync | None = None,
        manager: ConversationStateManager | None = None,
    ) -> None:
        self.user_phone, self.sub_domain, self.bot_id = user_phone, sub_domain, bot_id
        self.local_id, self.metadata = local_id, metadata
        self.session_id: str | None = None
        self.state: ConversationState | None = None
        self._sync = sync or default_sync()
        self._manager = manager or ConversationStateManager(sync=self._sync)

    async def __aenter__(self) -> ConversationMiddleware:
        self.session_id, self.state = await self._sync.start(
            self.user_phone,
            self.sub_domain,
            bot_id=self.bot_id,
            local_id=self.local_id,
            metadata=self.metadata,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def __enter__(self) -> BlockingConversation:
        wait_for(self.__aenter__())
        return BlockingConversation(self)

    def __exit__(self, *_: object) -> None:
        return None

    async def add_user_message(self, content: str, *, message_id: str | None = None) -> bool:
        """Record a message of the person."""
        return await self._add("user", content, message_id)

    async def add_bot_message(self, content: str, *, message_id: str | None = None) -> bool:
        """Record a message of the agent."""
        return await self._add("bot", content, message_id)

    async def _add(self, role: str, content: str, message_id: str | None) -> bool:
        receipt = await self._sync.add_message(self.session_id, self.sub_domain, role, content, message_id=message_id)
        self.state = receipt.state or self.state
        return receipt.accepted

    async def sync_state(self, graph_state: Any) -> bool:
        """Set the conversation's state from the graph's."""
        receipt = await self._manager.push(self.session_id, self.sub_domain, graph_state)
        self.state = receipt.state or self.state
        return receipt.accepted

    async def graph_state(self) -> dict[str, Any]:
        """Return the conversation's state as a graph's; {} if there is none, or no answer."""
        return await self._manager.pull(self.session_id, self.sub_domain)

    async def link_order(self, order_id: str) -> bool:
        """Link an order to the conversation."""
        return (await self._sync.link_order(self.session_id, self.sub_domain, order_id)).accepted

    async def reset(self, *, keep_history: bool = False) -> bool:
        """Reset the state, and hide the messages so far unless `keep_history`."""
        return (await self._sync.reset(self.session_id, self.sub_domain, keep_history=keep_history)).accepted

    async def extend(self, hours: int = 24) -> bool:
        """Let the conversation expire no earlier than so many hours from now."""
        return (await self._sync.extend(self.session_id, self.sub_domain, hours)).accepted

    async def end(self) -> bool:
        """End the conversation."""
        return (await self._sync.end(self.session_id, self.sub_domain)).accepted


class BlockingConversation:
    """The conversation of a plain `with`; ConversationMiddleware documents the methods."""

    def __init__(self, wrapped: ConversationMiddleware) -> None:
        self._wrapped = wrapped

    @property
    def session_id(self) -> str | None:
        """Return the session id, or a handle that stands for it."""
        return self._wrapped.session_id

    @property
    def state(self) -> ConversationState | None:
        """Return the state from the server's last answer; None if there was none."""
        return self._wrapped.state

    add_user_message = blocking_method(ConversationMiddleware.add_user_message)
    add_bot_message = blocking_method(ConversationMiddleware.add_bot_message)
    sync_state = blocking_method(ConversationMiddleware.sync_state)
    graph_state = blocking_method(ConversationMiddleware.graph_state)
    link_order = blocking_method(ConversationMiddleware.link_order)
    reset = blocking_method(ConversationMiddleware.reset)
    extend = blocking_method(ConversationMiddleware.extend)
    end = blocking_method(ConversationMiddleware.end)


# --- decorators -------------------------------------------------------------------------------------------------------
def sync_conversation_state(
    *,
    session_key: str = SESSION_KEY,
    sub_domain_key: str = SUB_DOMAIN_KEY,
    manager: ConversationStateManager | None = None,
) -> Callable[[Node], Node]:
    """Return a decorator that sets the conversation's state after the node: the graph's state with the node's result.

    session_key, sub_domain_key: the keys of the graph's state with the session id and the sub-domain

    The node, async or not, behaves as without the decorator.
    """

    async def after(state: Any, returned: Any) -> None:
        both = _merged(state, returned)
        await (manager or ConversationStateManager()).push(both.get(session_key), str(both.get(sub_domain_key)), both)

    return _around(_nothing, after)


def track_conversation_messages(
    *, session_key: str = SESSION_KEY, sub_domain_key: str = SUB_DOMAIN_KEY
) -> Callable[[Node], Node]:
    """Return a decorator that records the person's newest message before the node, and the agent's messages after it.

    The same message in several nodes is recorded once.
    """

    async def before(state: Any) -> None:
        messages = list(manage._look(state, "messages") or [])
        newest = next((n for n in reversed(range(len(messages))) if manage.kind_of(messages[n]) in manage.HUMAN), None)
        if newest is not None:
            await record(state, "user", messages[newest], newest)

    async def after(state: Any, returned: Any) -> None:
        known = len(list(manage._look(state, "messages") or []))
        said = manage._look(returned, "messages") if returned is not state else None
        for offset, message in enumerate(said if isinstance(said, list) else [said] if said else []):
            if manage.kind_of(message) in manage.ASSISTANT:
                await record(_merged(state, returned), "bot", message, known + offset)

    async def record(state: Any, role: str, message: Any, place: int) -> None:
        text = manage.text_of(message)
        if text.strip():
            digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]
            await default_sync().add_message(
                manage._look(state, session_key),
                str(manage._look(state, sub_domain_key)),
                role,
                text,
                message_id=manage.id_of(message) or f"{role}-{place}-{digest}",
            )

    return _around(before, after)


async def _nothing(_: Any) -> None:
    return None


def _merged(state: Any, returned: Any) -> dict[str, Any]:
    before = dict(state) if isinstance(state, Mapping) else dict(vars(state))
    return {**before, **returned} if isinstance(returned, Mapping) else before


def _around(
    before: Callable[[Any], Awaitable[None]], after: Callable[[Any, Any], Awaitable[None]]
) -> Callable[[Node], Node]:
    """Return a decorator that runs `before` and `after` around a node; their failures are logged and not raised."""

    def decorate(node: Node) -> Node:
        if inspect.iscoroutinefunction(node):

            @functools.wraps(node)
            async def awaited(state: Any, *args: Any, **kwargs: Any) -> Any:
                await _safely(before(state))
                returned = await node(state, *args, **kwargs)
                await _safely(after(state, returned))
                return returned

            return cast(Node, awaited)

        @functools.wraps(node)
        def called(state: Any, *args: Any, **kwargs: Any) -> Any:
            wait_for(_safely(before(state)))
            returned = node(state, *args, **kwargs)
            wait_for(_safely(after(state, returned)))
            return returned

        return cast(Node, called)

    return decorate


async def _safely(work: Awaitable[None]) -> None:
    try:
        await work
    except Exception:
        log.exception("conversation not kept")  # a graph's state may be of any kind
