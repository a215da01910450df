"""Typed answers of the server about conversations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .errors import GarbledError

INTENTS = ("menu", "order", "support", "info", "payment", "delivery", "idle")


@dataclass(frozen=True)
class ConversationState:
    """A conversation's state.

    context, metadata   objects with any keys, as agents store them
    version             the state's version, for `if_version`
    raw                 the server's whole answer
    """

    session_id: str
    user_id: str
    sub_domain: str
    bot_id: str | None
    local_id: str | None
    current_intent: str
    current_step: str
    previous_intent: str | None
    previous_step: str | None
    is_active: bool
    last_activity: datetime
    created_at: datetime
    updated_at: datetime
    expires_at: datetime
    current_order_id: str | None
    order_history: list[str]
    version: int
    context: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def messages(self) -> list[dict[str, str]]:
        """Return the newest messages, oldest first: `role` (user or bot), `content`, `timestamp`."""
        return list(self.context.get("previousMessages") or [])

    @classmethod
    def read(cls, data: Any) -> ConversationState:
        """Return the state from the server's JSON. Raises GarbledError if it is none."""
        try:
            return cls(
                session_id=str(data["sessionId"]),
                user_id=str(data["userId"]),
                sub_domain=str(data["subDomain"]),
                bot_id=data.get("botId"),
                local_id=data.get("localId"),
                current_intent=str(data.get("currentIntent") or "idle"),
                current_step=str(data.get("currentStep") or "initial"),
                previous_intent=data.get("previousIntent"),
                previous_step=data.get("previousStep"),
                is_active=bool(data.get("isActive", True)),
                last_activity=_time(data["lastActivity"]),
                created_at=_time(data["createdAt"]),
                updated_at=_time(data["updatedAt"]),
                expires_at=_time(data["expiresAt"]),
                current_order_id=data.get("currentOrderId"),
                order_history=list(data.get("orderHistory") or []),
                version=int(data.get("version") or 0),
                context=dict(data.get("context") or {}),
                metadata=dict(data.get("metadata") or {}),
                raw=data,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise GarbledError(f"This is no conversation's state: {type(error).__name__}.") from error


@dataclass(frozen=True)
class Tenant:
    """The client that a phone's open conversation belongs to."""

    sub_domain: str
    bot_id: str | None
    session_id: str
    is_active: bool


@dataclass(frozen=True)
class Orders:
    """A conversation's orders, in the order in which they were linked."""

    current_order_id: str | None
    order_history: list[str]


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))  # Python 3.10 does not read the Z
