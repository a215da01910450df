"""The OpenAPI description of the routes that are no DRF views: webhooks and health.

`add_webhooks` adds them, and what all routes share.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings

from channels_out.kinds import WEBHOOK_CHANNELS
from conversations.api.fields import NOT_BLANK
from conversations.api.schema import FAILURE, failure, failures, success
from conversations.http.envelope import JSON


def _text(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "maxLength": 200, "description": description, **more}


WEBHOOK_BODY = {
    "type": "object",
    "required": ["client_id", "user_id", "message"],
    "properties": {
        "client_id": {"type": "string", "format": "uuid"},
        "user_id": _text("Your own id for the person.", minLength=1, pattern=NOT_BLANK),
        "message": {"type": "string", "minLength": 1, "maxLength": 500_000, "pattern": NOT_BLANK},
        "phone": _text(
            "Phone number with country code, such as +51999999999. The person is no guest from then on.",
            format="phone",
            nullable=True,
        ),
        "name": _text("The person's name.", nullable=True),
        "message_id": _text(
            "Unique for the person on the channel. The same id again changes nothing and gets the same answer.",
            nullable=True,
        ),
        "thread": _text("The call's id, on voice only.", nullable=True),
        "metadata": {
            "type": "object",
            "nullable": True,
            "description": "Any JSON object; it is stored with the message.",
        },
    },
}
WEBHOOK_ANSWER = {
    "type": "object",
    "required": ["conversation_id", "chunk_id", "position", "created", "duplicate", "is_guest", "status"],
    "properties": {
        "conversation_id": {"type": "string", "format": "uuid", "nullable": True},
        "chunk_id": {"type": "integer", "nullable": True},
        "position": {"type": "integer", "nullable": True},
        "created": {"type": "boolean", "description": "True if the message opened the conversation."},
        "duplicate": {"type": "boolean", "description": "True if the message had arrived before."},
        "is_guest": {"type": "boolean"},
        "status": {"type": "string", "description": "The conversation's status, or `deleted` if it has been purged."},
    },
}


PROVIDER_ANSWER = {
    "type": "object",
    "required": ["messages", "receipts", "recorded"],
    "properties": {
        "messages": {"type": "integer", "description": "Number of messages of the batch that are stored."},
        "receipts": {"type": "integer", "description": "Number of receipts that moved a message forward."},
        "recorded": {"type": "integer", "description": "Number of events kept for staff to review."},
    },
}
CHANNEL = {
    "in": "path",
    "name": "channel",
    "required": True,
    "schema": {"type": "string", "enum": [channel.value for channel in WEBHOOK_CHANNELS]},
}
INBOUND = {
    "operationId": "webhooks_inbound",
    "tags": ["webhooks"],
    "description": "Store a person's message. It joins their open conversation on the channel or opens a new one."
    " Without an API key, the body is the provider's own signed payload.",
    "security": [{"ServiceKey": []}, {"BearerKey": []}],
    "parameters": [CHANNEL],
    "requestBody": {"required": True, "content": {JSON: {"schema": WEBHOOK_BODY}}},
    "responses": {
        "200": {
            "description": "The message is stored, once.",
            "content": {JSON: {"schema": success({"anyOf": [WEBHOOK_ANSWER, PROVIDER_ANSWER]})}},
        },
        "403": failure("The provider's signature is wrong, or the API key does not have the scope `messages:write`."),
        **failures("400", "401", "404", "405", "413", "415", "429", "500", "503"),
    },
}
STATUS: dict[str, Any] = {
    "tags": ["webhooks"],
    "description": "Take what a provider reports apart from messages, in its own signed payload: delivery receipts, the"
    " end of a call. Providers that expect XML are answered in XML.",
    "security": [],
    "parameters": [CHANNEL],
    "responses": {
        "200": {"description": "The report is stored.", "content": {JSON: {"schema": success(PROVIDER_ANSWER)}}},
        "403": failure("The provider's signature is wrong."),
        **failures("400", "401", "404", "405", "500", "503"),
    },
}
STATUS_POSTED = {**STATUS, "responses": {**STATUS["responses"], **failures("413")}}
HANDSHAKE = {
    "operationId": "webhooks_handshake",
    "tags": ["webhooks"],
    "description": "Answer a provider's check that this address is ours, by returning its challenge.",
    "security": [],
    "parameters": [
        CHANNEL,
        *(
            {"in": "query", "name": f"hub.{name}", "schema": {"type": "string"}}
            for name in ("mode", "verify_token", "challenge")
        ),
    ],
    "responses": {
        "200": {"description": "The challenge.", "content": {"text/plain": {"schema": {"type": "string"}}}},
        "403": failure("No channel account of this channel has this verify token."),
        **failures("404", "405", "500", "503"),
    },
}

RETELL = {
    "operationId": "webhooks_retell",
    "tags": ["webhooks"],
    "description": "Take Retell's events about its chats. `x-retell-signature` signs the body.",
    "security": [],
    "requestBody": {
        "required": True,
        "content": {
            JSON: {
                "schema": {
                    "type": "object",
                    "required": ["event", "chat"],
                    "properties": {
                        "event": {"type": "string", "description": "chat_started, chat_ended or chat_analyzed."},
                        "chat": {"type": "object", "description": "The chat as Retell has it."},
                    },
                }
            }
        },
    },
    "responses": {
        "200": {
            "description": "The event is stored, once.",
            "content": {
                JSON: {
                    "schema": success(
                        {
                            "type": "object",
                            "required": ["known"],
                            "properties": {
                                "known": {
                                    "type": "boolean",
                                    "description": "True if the chat belongs to a conversation here.",
                                }
                            },
                        }
                    )
                }
            },
        },
        "403": failure("No configured Retell API key has signed it."),
        **failures("400", "405", "413", "415", "500", "503"),
    },
}


def _health(name: str, description: str, data: dict[str, Any], *statuses: str) -> dict[str, Any]:
    answer = {
        "description": "All is well.",
        "content": {JSON: {"schema": success({"type": "object", "properties": data})}},
    }
    return {
        "get": {
            "operationId": name,
            "tags": ["health"],
            "description": description,
            "security": [],
            "responses": {"200": answer, **failures("405", "500", *statuses)},
        }
    }


# Of a message to send: a text, or files.
SEND_NEEDS: list[dict[str, Any]] = [
    {"required": ["content"], "not": {"required": ["template"]}},
    {
        "required": ["attachments"],
        "properties": {"attachments": {"minItems": 1}},
        "not": {"anyOf": [{"required": ["template"]}, {"required": ["choices"]}]},
    },
    {
        "required": ["template"],
        "not": {"anyOf": [{"required": [other]} for other in ("content", "choices", "attachments")]},
    },
]

HEALTH = {
    "/healthz": _health("healthz", "Answer 200 while the web process is alive.", {"status": {"type": "string"}}),
    "/readyz": _health(
        "readyz",
        "Answer 200 while this process can serve. Otherwise 503: `database_away`, `not_migrated`, `earlier_version` or "
        "`stopping`.",
        {"status": {"type": "string"}},
        "503",
    ),
}


def add_webhooks(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Add the routes that are no DRF views, and what all routes share (a hook of drf-spectacular)."""
    components = result.setdefault("components", {})
    components.setdefault("schemas", {})["Failure"] = FAILURE
    # Generators of clients make no class of a schema with `anyOf`, and pass over `not`.
    components["schemas"]["Send"] |= {"additionalProperties": False, "not": {"not": {"anyOf": SEND_NEEDS}}}
    components["schemas"]["NewAttachment"]["additionalProperties"] = False
    components.setdefault("securitySchemes", {}).update(
        ServiceKey={"type": "apiKey", "in": "header", "name": "X-Service-API-Key"},
        BearerKey={"type": "http", "scheme": "bearer"},
        Session={"type": "apiKey", "in": "cookie", "name": settings.SESSION_COOKIE_NAME},
        CSRFToken={"type": "apiKey", "in": "header", "name": "X-CSRFToken"},
    )
    result["paths"]["/webhooks/{channel}/inbound"] = {"get": HANDSHAKE, "post": INBOUND}
    result["paths"]["/webhooks/{channel}/status"] = {
        "get": {**STATUS, "operationId": "webhooks_status_by_get"},
        "post": {**STATUS_POSTED, "operationId": "webhooks_status"},
    }
    result["paths"]["/webhooks/retell"] = {"post": RETELL}
    result["paths"].update(HEALTH)
    # Each of its fields may be left out, but not all of them.
    result["paths"]["/conversations/{id}/send"]["post"]["requestBody"]["required"] = True
    return result
