"""Locks on a conversation and the rows around it, and saving what changed under them.

Whoever locks several rows takes them in this order. Two who took them in different orders would wait for each other.

    client ─► team ─► contact ─► conversation ─► turn, step, rolling summary, engine chat, tool call ─► message
        ─► client's day

- `team`: while round robin hands out a conversation (desk/round_robin.py), all that the client has.
- `contact`: before the conversation wherever a change of the contact decides (opt-out, merging, corrections of what is
  known, receipts about a person), with `lock_contact_of`.
- `conversation`: always, with `editing`; `FOR NO KEY UPDATE`, so that chunks may refer to it meanwhile.
- `turn`, `tool call`, `message`: after their conversation. A redaction rewrites the calls of the contact's other
  conversations with these calls alone locked.
- `client's day`: last, since all replies of a client add to the same row (tenants/day_quotas.py).
- An append to an active conversation takes no lock beforehand: its UPDATE locks the row (`appending.py`).
- Sets of rows are locked with SKIP LOCKED (`sql.unlocked`), in batches, and wait for nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils.translation import gettext

from conversations.models import Assistant, Client, Contact, Conversation
from conversations.services.core.errors import ConflictError, NotFoundError
from conversations.services.core.json import dumps
from conversations.services.core.sql import PreparedSelect, row, rows, update

# The conversation's own row alone is locked, and not its key: chunks may refer to it meanwhile.
_LOCKED = PreparedSelect(
    """
    SELECT {s}, {k}, {c}, {a}
    FROM conversations s
    JOIN contacts k ON k.client_id = s.client_id AND k.id = s.contact_id
    JOIN clients c ON c.id = s.client_id
    LEFT JOIN assistants a ON a.id = s.assistant_id
    WHERE s.id = $1 AND s.client_id = $2
    FOR NO KEY UPDATE OF s
    """,
    s=Conversation,
    k=Contact,
    c=Client,
    a=Assistant,
)


_CLIENT_OF = "SELECT s.client_id FROM clients c JOIN conversations s ON s.client_id = c.id AND s.id = $1"


@contextmanager
def editing(
    conversation_id: UUID | str, client: Client | UUID | None = None, *, if_open: bool = False
) -> Iterator[Conversation]:
    """Lock the conversation in a transaction and, when the block ends, write the fields that changed.

    client: the client whose conversation it must be, or its id; None for any, who is looked up first
    if_open: refuse a conversation that has ended

    Raises NotFoundError, or ConflictError (`ended`). An exception in the block undoes everything.
    """
    with transaction.atomic():
        conversation = lock_open(conversation_id, client) if if_open else lock(conversation_id, client)
        with saving(conversation):
            yield conversation


@contextmanager
def editing_if_there(conversation_id: UUID | str, client: Client | UUID | None = None) -> Iterator[Conversation | None]:
    """The same as `editing`, but yields None where the conversation was deleted meanwhile."""
    with transaction.atomic():
        try:
            conversation = lock(conversation_id, client)
        except NotFoundError:
            yield None
            return
        with saving(conversation):
            yield conversation


@contextmanager
def saving(conversation: Conversation) -> Iterator[None]:
    """Write the fields of the locked conversation that the block changed, in the caller's transaction.

    Fields that hold JSON count as changed also where their object was changed in place.
    """
    before = _values(conversation)
    yield
    after = _values(conversation)
    if changed := [name for name, value in after.items() if value != before[name]]:
        update(conversation, changed)


def lock(conversation_id: UUID | str, client: Client | UUID | None = None) -> Conversation:
    """Return the conversation with its contact, client and assistant, its row locked until the transaction ends.

    Whoever changes it uses `editing`. Raises NotFoundError, also for another client's conversation.
    """
    wanted = (str(conversation_id), client.pk if isinstance(client, Client) else client or client_of(conversation_id))
    # Twice: where the conversation became another contact's while we waited, the first look finds neither.
    found = _LOCKED.first(*wanted) or _LOCKED.first(*wanted)
    if found is None:
        raise NotFoundError(gettext("There is no such conversation."))
    conversation: Conversation
    conversation, conversation.contact, conversation.client, assistant = found
    if assistant or not conversation.assistant_id:  # else it got another one while we waited: read when asked for
        conversation.assistant = assistant
    return conversation


def client_of(conversation_id: UUID | str) -> UUID | None:
    """Return the id of the conversation's client; None if there is no such conversation."""
    found = row(_CLIENT_OF, str(conversation_id))
    return found[0] if found else None


def lock_open(conversation_id: UUID | str, client: Client | UUID | None = None) -> Conversation:
    """Return the locked conversation if it takes messages. Raises NotFoundError, or ConflictError (`ended`)."""
    conversation = lock(conversation_id, client)
    if not conversation.is_open:
        raise ConflictError(
            gettext("This conversation is %(status)s and takes no more messages; the next message opens a new one.")
            % {"status": conversation.get_status_display().lower()},
            code="ended",
            details={"status": conversation.status},
        )
    return conversation


def lock_contact_of(conversation_id: UUID | str, client_id: UUID) -> None:
    """Lock the row of the conversation's contact, before the conversation's own."""
    rows(
        """
        SELECT k.id FROM conversations s JOIN contacts k ON k.client_id = s.client_id AND k.id = s.contact_id
        WHERE s.client_id = $1 AND s.id = $2 FOR NO KEY UPDATE OF k
        """,
        *(client_id, str(conversation_id)),
    )


def _values(conversation: Conversation) -> dict[str, Any]:
    """The fields of the conversation by name, as they are now; JSON as its text, in which true is not 1."""
    return {
        field.name: dumps(value) if isinstance(value, dict | list) else value
        for field in conversation._meta.concrete_fields
        if (value := conversation.__dict__.get(field.attname, field)) is not field
    }
