"""The OpenAPI description: each answer in its envelope, each failure, and the routes that are no DRF views.

Summaries, examples and the order of the routes are in `examples.py`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import orjson
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema

from channels_out.kinds import WEBHOOK_CHANNELS
from conversations.api.fields import NOT_BLANK
from conversations.http.envelope import JSON, get_only
from conversations.http.idempotency import HEADER, PATTERN, OncePerKey
from conversations.models import EventKind

FAILURE = {
    "type": "object",
    "required": ["success", "error", "code"],
    "properties": {
        "success": {"type": "boolean", "enum": [False]},
        "error": {"type": "string", "description": "A sentence for people."},
        "code": {"type": "string", "description": "A word for programs, such as `not_found`."},
        "details": {"type": "object", "description": "What to correct, such as the problems of each field."},
    },
}
FAILURES = {
    "400": "The request is invalid. `details` names the fields.",
    "401": "The API key is missing, unknown or revoked. In the copilot: nobody is signed in.",
    "403": "The key does not have the scope that `details` names, or belongs to another client than the one named."
    " In the copilot: the CSRF token is missing or wrong.",
    "404": "It does not exist, or belongs to another client.",
    "405": "The route does not take this method. `Allow` lists the methods that it takes.",
    "409": "Its state does not allow this. `code` says why.",
    "413": "The body is too large.",
    "415": "The Content-Type is not application/json.",
    "429": "Too many requests. `Retry-After` says when to try again.",
    "500": "An error of Convo. It has been logged.",
    "503": "Temporarily unavailable. Send the same request again.",
}
WITH_BODY = {"409", "413", "415"}
COPILOT = "copilot"
IDEMPOTENCY_KEY = {
    "in": "header",
    "name": HEADER,
    "description": "Your own name for this request, such as a UUID. The same key with the same body is carried out"
    " once and gets the first answer for 24 hours. With another body it is a 409.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": PATTERN},
}


class EnvelopeSchema(AutoSchema):
    """Describes a view as drf-spectacular does, with the envelope, the failures and the ways to authenticate."""

    def get_operation_id(self) -> str:
        """Return the group and the action, such as `conversations_send`."""
        return f"{self._group()}_{getattr(self.view, 'action', 'detail')}"

    def get_tags(self) -> list[str]:
        """Return the group; `examples.py` may choose another one."""
        return [self._group()]

    def _group(self) -> str:
        return str(getattr(self.view, "schema_group", "conversations"))

    def get_auth(self) -> list[dict[str, list[str]]]:
        """Return both key headers; for the copilot, the session, and the CSRF token where something changes."""
        if self._group() == COPILOT:
            return [{"Session": []} if self.method == "GET" else {"Session": [], "CSRFToken": []}]
        return [{"ServiceKey": []}, {"BearerKey": []}]

    def get_operation(self, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        """Return the operation with its failures, or None for a method that is not described."""
        operation = super().get_operation(*args, **kwargs)
        if operation is None:
            return None
        left_out = WITH_BODY.copy() if self.method == "GET" else set()
        left_out |= set() if self._names_something() else {"404"}
        operation["responses"].update(failures(*(FAILURES.keys() - left_out)))
        if self.method == "POST" and isinstance(self.view, OncePerKey):
            operation.setdefault("parameters", []).append(IDEMPOTENCY_KEY)
        return operation

    def _names_something(self) -> bool:
        """Return whether the path or the body names something that may not exist."""
        return "{" in self.path or self._group() == COPILOT or (self.method, self.path) == ("POST", "/conversations")

    def _get_response_for_code(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        response: dict[str, Any] = super()._get_response_for_code(*args, **kwargs)  # type: ignore[no-untyped-call]
        for kind, content in response.get("content", {}).items():
            if kind == JSON:
                content["schema"] = success(_in_pages(content.get("schema", {})))
        return response


def success(data: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a success with this `data`."""
    return {
        "type": "object",
        "required": ["success", "data"],
        "properties": {"success": {"type": "boolean", "enum": [True]}, "data": data},
    }


def failure(description: str) -> dict[str, Any]:
    """Return the response for a failure."""
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Failure"}}}
    return {"description": description, "content": content}


def failures(*statuses: str) -> dict[str, Any]:
    """Return the responses for failures with these statuses."""
    return {status: failure(FAILURES[status]) for status in sorted(statuses)}


def _in_pages(schema: dict[str, Any]) -> dict[str, Any]:
    if schema.get("type") != "array":
        return schema
    return {
        "type": "object",
        "required": ["items", "next"],
        "properties": {"items": schema, "next": {"type": "string", "nullable": True}},
    }


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


def openapi_31(description: dict[str, Any]) -> dict[str, Any]:
    """Return the description as OpenAPI 3.1, which has webhooks, and whose schemas are JSON Schema."""
    converted: dict[str, Any] = _with_null_as_type(description)
    return {
        **converted,
        "openapi": "3.1.0",
        "servers": [{"url": settings.PUBLIC_BASE_URL, "description": "This installation"}],
        "webhooks": event_webhooks(),
    }


def _with_null_as_type(node: Any) -> Any:
    if isinstance(node, list):
        return [_with_null_as_type(each) for each in node]
    if not isinstance(node, dict):
        return node
    schema = {
        name: _with_null_as_type(value) for name, value in node.items() if name not in ("nullable", "x-spec-enum-id")
    }
    if node.get("nullable") is not True:
        return schema
    if isinstance(schema.get("type"), str):
        return {
            **schema,
            "type": [schema["type"], "null"],
            **({"enum": [*schema["enum"], None]} if "enum" in schema else {}),
        }
    return {"anyOf": [schema, {"type": "null"}]}


def event_webhooks() -> dict[str, Any]:
    """Return the description of the requests that Convo makes: an event of each kind, posted to an endpoint."""
    headers = [
        {"in": "header", "name": name, "required": True, "description": description, "schema": {"type": "string"}}
        for name, description in (
            ("webhook-id", "The event's id, the same each time that it is posted."),
            ("webhook-timestamp", "Seconds since 1970."),
            (
                "webhook-signature",
                "`v1,` and the signature in base64, by Standard Webhooks; several while a secret changes.",
            ),
        )
    ]
    return {
        kind.value: {
            "post": {
                "operationId": f"event_{kind.value.replace('.', '_')}",
                "tags": ["events"],
                "summary": kind.label.rstrip("."),
                "description": f"{kind.label} Posted to each endpoint that wants it, at least once, in order for each"
                " conversation.",
                "security": [],
                "parameters": headers,
                "requestBody": {
                    "required": True,
                    "content": {JSON: {"schema": {"$ref": "#/components/schemas/Event"}}},
                },
                "responses": {
                    "2XX": {"description": "Taken. Anything else is tried again for three days."},
                    "410": {"description": "The endpoint is gone: it is paused."},
                },
            }
        }
        for kind in EventKind
    }


@get_only
def openapi(request: HttpRequest) -> HttpResponse:
    """Return the description as JSON. No key is needed."""
    return HttpResponse(_description(), content_type=JSON)


@lru_cache(maxsize=1)
def _description() -> bytes:
    # Made once a process: it takes a tenth of a second, and nobody needs a key to ask for it.
    schema = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return orjson.dumps(openapi_31(schema), default=str)
