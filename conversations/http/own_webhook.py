"""Messages in Convo's own JSON: `client_id, user_id, message, phone?, name?, message_id?, thread?, metadata?`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from django.db import OperationalError
from django.utils import timezone

from channels_out.kinds import Channel
from channels_out.phones import e164
from conversations.http.auth import WRONG_KEY
from conversations.http.envelope import LARGE_NUMBER, has_large_number, loads
from conversations.models import Client, Scope
from conversations.services.core.errors import DomainError, InvalidError, NotFoundError, NotSignedError
from conversations.services.core.person import Person
from conversations.services.core.statements import THIS_THREAD, BusyError, Row, Statements, UnclearError, finish
from conversations.services.inbound import messages
from conversations.services.inbound.messages import InboundResult, InboundText
from conversations.services.tenants import api_keys, quotas

LONGEST_ID = 200
LONGEST_MESSAGE = 500_000
NO_CLIENT = "This API key does not belong to the client with this client_id."


@dataclass(frozen=True, slots=True)
class WebhookBody:
    """The fields of a message. `thread`: the call's id on voice, '' elsewhere; `phone`: E.164."""

    client_id: UUID
    user_id: str
    message: str
    phone: str | None
    name: str
    message_id: str
    thread: str
    metadata: dict[str, Any]

    @classmethod
    def read(cls, body: bytes, channel: str) -> Self:
        """Return the fields of the JSON body.

        Raises InvalidError, whose sentence names the field, or NotFoundError for a client id that is no UUID.
        """
        try:
            fields = loads(body)
        except ValueError as error:
            raise InvalidError(str(error), code="malformed") from None
        if not isinstance(fields, dict):
            raise InvalidError("The body must be a JSON object.", code="malformed")
        client_id = _text(fields, "client_id")
        try:
            client = UUID(client_id)
        except ValueError:
            raise NotFoundError(NO_CLIENT, code="client_not_found") from None
        thread = _text(fields, "thread", needed=False)
        return cls(
            client_id=client,
            user_id=_text(fields, "user_id"),
            message=_text(fields, "message", longest=LONGEST_MESSAGE),
            phone=_phone(fields),
            name=_text(fields, "name", needed=False),
            message_id=_text(fields, "message_id", needed=False),
            thread=thread if channel == Channel.VOICE else "",
            metadata=_object(fields, "metadata"),
        )


def read_message(body: bytes, channel: str, now: datetime) -> tuple[InboundText, UUID]:
    """Return the message that the body brings, and the id of the client it is for. Raises what WebhookBody.read raises.

    Message ids are the sender's own: unique for one person on one channel.
    """
    read = WebhookBody.read(body, channel)
    message = InboundText(
        channel=channel,
        thread=read.thread,
        person=Person(user_id=read.user_id, phone=read.phone, name=read.name),
        text=read.message,
        message_id=read.message_id,
        at=now,
        scope=f"{read.client_id}\0{channel}\0{read.user_id}",
        metadata=read.metadata,
    )
    return message, read.client_id


async def receive(statements: Statements, body: bytes, channel: str, key: str) -> InboundResult:
    """Store the message that a program passes on in Convo's own JSON, and return its conversation and position.

    Raises NotSignedError for a wrong API key, or ForbiddenError for one without the scope, also if the body is wrong as
    well; then what read_message and messages.settle raise, NotFoundError where the key is another client's,
    TooManyError where the client's quota is used up, or OperationalError where it is not known whether the message was
    stored.
    """
    try:
        message, client_id = read_message(body, channel, timezone.now())
    except DomainError:
        await statements.in_thread(client_of, key)
        raise
    try:
        return await _receive(statements, message, client_id, key)
    except BusyError:
        return await statements.in_thread(_receive_here, message, client_id, key)
    except UnclearError as unclear:
        return await statements.in_thread(_receive_again, message, client_id, key, unclear.rows)


async def _receive(statements: Statements, message: InboundText, client_id: UUID, key: str) -> InboundResult:
    key_hash = api_keys.key_hash(key)
    quotas.check(key_hash, client_id)
    if settled := await messages.settle_with_key(statements, message, key_hash, client_id):
        result, key_id = settled
        quotas.count(key_hash, client_id)
        api_keys.note_use(key_id, statements)
        return result
    return await statements.in_thread(_receive_unusual, message, client_id, key)


def _receive_here(message: InboundText, client_id: UUID, key: str) -> InboundResult:
    return finish(_receive(THIS_THREAD, message, client_id, key))


def _receive_again(message: InboundText, client_id: UUID, key: str, returned: list[Row] | None) -> InboundResult:
    """Store a message that may be stored already, and return its place.

    returned: what the statement returned before its connection was lost

    Raises OperationalError where that cannot be told.
    """
    if returned and (result := messages.confirmed(client_id, returned[0])):
        return result
    if returned is None and message.dedupe_key is None:
        raise OperationalError("The connection was lost while the message was stored.")
    return _receive_here(message, client_id, key)


def _receive_unusual(message: InboundText, client_id: UUID, key: str) -> InboundResult:
    client = client_of(key)
    if client.pk != client_id:
        raise NotFoundError(NO_CLIENT, code="client_not_found")
    result = messages.settle(client, message, is_new=not message.wish)
    quotas.count(api_keys.key_hash(key), client_id)
    return result


def client_of(key: str) -> Client:
    """Return the client of an API key. Raises NotSignedError, or ForbiddenError for a key that may pass on nothing."""
    found = api_keys.find_api_key(key)
    if found is None:
        raise NotSignedError(WRONG_KEY, code="authentication_failed")
    api_keys.require_scope(found, Scope.MESSAGES_WRITE)
    return found.client


def _text(fields: dict[str, Any], field: str, *, needed: bool = True, longest: int = LONGEST_ID) -> str:
    value = fields.get(field)
    if value is None and not needed:
        return ""
    if not isinstance(value, str):
        problem = "is required" if value is None else "must be a string"
        raise InvalidError(f"{field} {problem}.", details={field: [problem]})
    if needed and not value.strip():
        raise InvalidError(f"{field} must not be blank.", details={field: ["must not be blank"]})
    if len(value) > longest:
        problem = f"must be at most {longest:,} characters long"
        raise InvalidError(f"{field} {problem}.", details={field: [problem]})
    return value


def _phone(fields: dict[str, Any]) -> str | None:
    raw = _text(fields, "phone", needed=False)
    if not raw:
        return None
    phone = e164(raw)
    if phone is None:
        problem = "must be a phone number with its country code, such as +51999999999"
        raise InvalidError(f"phone {problem}.", details={"phone": [problem]})
    return phone


def _object(fields: dict[str, Any], field: str) -> dict[str, Any]:
    value = fields.get(field)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidError(f"{field} must be an object.", details={field: ["must be an object"]})
    if has_large_number(value):
        raise InvalidError(f"{field} {LARGE_NUMBER}.", details={field: [LARGE_NUMBER]})
    return value
