"""The shape in which an action of staff on a conversation is declared (see `conversation_actions.py`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from conversations.admin.access import Role
from conversations.admin.form_fields import Field
from conversations.models import Conversation, Status
from conversations.services.core.ledger import Actor


@dataclass(frozen=True, slots=True)
class Context:
    """The conversation that an action is run on, and who runs it."""

    conversation: Conversation
    user: Any
    actor: Actor
    now: datetime

    @property
    def by(self) -> dict[str, Any]:
        """Return the arguments that most services take."""
        return {"actor": self.actor, "now": self.now, "client": self.conversation.client}


@dataclass(frozen=True, slots=True)
class Bulk:
    """The texts of a bulk action's preview page.

    verb            on the button: "Close 12 conversations"
    outcome         completes the sentence "12 of 20 conversations will be ..."
    explanation     which conversations can be changed, and what happens to them
    role            the role that is needed in the client of each conversation
    statuses        a conversation in another status stays as it is
    asks_assistant  the page asks for an assistant
    is_download     the answer is a file
    """

    verb: str
    outcome: str
    explanation: str
    role: str = Role.MANAGER
    statuses: Collection[str] = tuple(Status.values)
    asks_assistant: bool = False
    is_download: bool = False


@dataclass(frozen=True, slots=True)
class ConversationAction:
    """One action of staff on a conversation.

    name        in addresses and forms
    label       on its button
    role        the role that is needed in the conversation's client
    run         does it: takes a Context and the values of the fields, calls one service, and returns the sentence that
                the user reads. Raises DomainError. None: not offered as a form on the transcript page.
    fields      what its form posts
    title       the heading of its form
    explanation what its form says before the fields
    question    asked before it is run; the user can still cancel
    is_offered  whether the form is shown for the conversation; the service decides whether the action is possible
    bulk        it can be run on many conversations
    """

    name: str
    label: str
    role: str
    run: Callable[..., str] | None = None
    fields: tuple[Field, ...] = ()
    title: str = ""
    explanation: str = ""
    question: str = ""
    is_offered: Callable[[Conversation], bool] = lambda conversation: True
    bulk: Bulk | None = None

    @property
    def field(self) -> Mapping[str, Field]:
        """Return the fields by name, for templates."""
        return {field.name: field for field in self.fields}


def is_open(conversation: Conversation) -> bool:
    """Return whether the conversation is open, for actions that are offered only then."""
    return conversation.is_open
