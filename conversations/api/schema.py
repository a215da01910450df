"""The OpenAPI description: every answer in its envelope, every way to fail, and the door that is no DRF view."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import orjson
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema

from conversations.api.serializers import NOT_BLANK
from conversations.http.envelope import JSON, only_get
from conversations.http.idempotency import HEADER, PATTERN, OncePerKey

FAILURE = {
    "type": "object",
    "required": ["success", "error", "code"],
    "properties": {
        "success": {"type": "boolean", "enum": [False]},
        "error": {"type": "string", "description": "A sentence."},
        "code": {"type": "string", "description": "A machine word."},
        "details": {"type": "object", "description": "What to mend, such as the problems of each field."},
    },
}
FAILURES = {
    "400": "The request makes no sense; `details` names the fields.",
    "401": "No API key, or one that is unknown or revoked; in the copilot, nobody is signed in.",
    "403": "The key is another client's than the one that is named; in the copilot, the CSRF token is none.",
    "404": "There is no such thing, or it is another client's.",
    "405": "The route has other methods: see `Allow`.",
    "409": "It is in no state that allows this.",
    "413": "The body is too large.",
    "415": "The body is not said to be JSON.",
    "429": "Too many requests; Retry-After says when to come back.",
    "500": "Our own fault.",
    "503": "Not now: the same request may succeed in a moment.",
}
WITH_BODY = {"409", "413", "415"}
COPILOT = "copilot"
IDEMPOTENCY_KEY = {
    "in": "header",
    "name": HEADER,
    "description": "Your own name for this request. The same again, with the same body, is done once and gives the"
    " first answer for 24 hours; with another body it is a 409.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": PATTERN},
}


class EnvelopeSchema(AutoSchema):
    """Wraps what drf-spectacular makes of a view."""

    def get_operation_id(self) -> str:
        """The view's own word for it: `conversations_send`."""
        return f"{self._group()}_{getattr(self.view, 'action', 'detail')}"

    def get_tags(self) -> list[str]:
        """One group."""
        return [self._group()]

    def _group(self) -> str:
        return str(getattr(self.view, "schema_group", "conversations"))

    def get_auth(self) -> list[dict[str, list[str]]]:
        """Either header; of the copilot, Django's session, and where something changes its token as well."""
        if self._group() == COPILOT:
            return [{"Session": []} if self.method == "GET" else {"Session": [], "CSRFToken": []}]
        return [{"ServiceKey": []}, {"BearerKey": []}]

    def get_operation(self, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        """The operation with its failures."""
        operation = super().get_operation(*args, **kwargs)
        if operation is None:
            return None
        left_out = (WITH_BODY if self.method == "GET" else set()) | (set() if "{" in self.path else {"404"})
        left_out |= set() if self._group() in ("sync", COPILOT) else {"403"}
        left_out -= {"404"} if self._group() == COPILOT else set()
        operation["responses"].update(failures(*(FAILURES.keys() - left_out)))
        if self.method == "POST" and isinstance(self.view, OncePerKey):
            operation.setdefault("parameters", []).append(IDEMPOTENCY_KEY)
        return operation

    def _get_response_for_code(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        response: dict[str, Any] = super()._get_response_for_code(*args, **kwargs)  # type: ignore[no-untyped-call]
        for media, content in response.get("content", {}).items():
            if media == JSON:
                content["schema"] = success(_in_pages(content.get("schema", {})))
        return response


def success(data: dict[str, Any]) -> dict[str, Any]:
    """The schema of a success."""
    return {
        "type": "object",
        "required": ["success", "data"],
        "properties": {"success": {"type": "boolean", "enum": [True]}, "data": data},
    }


def failure(description: str) -> dict[str, Any]:
    """A response that is a failure."""
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Failure"}}}
    return {"description": description, "content": content}


def failures(*statuses: str) -> dict[str, Any]:
    """The responses of these statuses."""
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
        "user_id": _text("Your own id of the person.", minLength=1, pattern=NOT_BLANK),
        "message": {"type": "string", "minLength": 1, "maxLength": 500_000, "pattern": NOT_BLANK},
        "phone": _text(
            "With the country code, such as +51999999999; the person is no guest any more.",
            format="phone",
            nullable=True,
        ),
        "name": _text("What the person is called.", nullable=True),
        "message_id": _text("Unique for the person on the channel: the same again changes nothing.", nullable=True),
        "thread": _text("On voice: the call's id.", nullable=True),
        "metadata": {"type": "object", "nullable": True, "description": "Kept with the message."},
    },
}
WEBHOOK_ANSWER = {
    "type": "object",
    "required": ["conversation_id", "chunk_id", "position", "created", "duplicate", "is_guest", "status"],
    "properties": {
        "conversation_id": {"type": "string", "format": "uuid", "nullable": True},
        "chunk_id": {"type": "integer", "nullable": True},
        "position": {"type": "integer", "nullable": True},
        "created": {"type": "boolean", "description": "Whether the message opened the session."},
        "duplicate": {"type": "boolean", "description": "Whether the message was here before."},
        "is_guest": {"type": "boolean"},
        "status": {"type": "string", "description": "The session's, or `deleted` where it was purged since."},
    },
}


PROVIDER_ANSWER = {
    "type": "object",
    "required": ["messages", "receipts", "recorded"],
    "properties": {
        "messages": {"type": "integer", "description": "How many messages of the batch are stored."},
        "receipts": {"type": "integer", "description": "How many receipts moved a message forward."},
        "recorded": {"type": "integer", "description": "How many events were kept for staff to look at."},
    },
}
CHANNEL = {
    "in": "path",
    "name": "channel",
    "required": True,
    "schema": {"type": "string", "enum": ["messenger", "whatsapp", "sms", "orb", "voice"]},
}
INBOUND = {
    "operationId": "webhooks_inbound",
    "tags": ["webhooks"],
    "description": "A person's message. It goes to their open session on the channel, or opens one."
    " Without a key, a provider's own signed payload.",
    "security": [{"ServiceKey": []}, {"BearerKey": []}],
    "parameters": [CHANNEL],
    "requestBody": {"required": True, "content": {JSON: {"schema": WEBHOOK_BODY}}},
    "responses": {
        "200": {
            "description": "It is stored, once.",
            "content": {JSON: {"schema": success({"anyOf": [WEBHOOK_ANSWER, PROVIDER_ANSWER]})}},
        },
        "403": failure("The provider's signature does not fit."),
        **failures("400", "401", "404", "405", "413", "415", "500", "503"),
    },
}
STATUS: dict[str, Any] = {
    "tags": ["webhooks"],
    "description": "What a provider reports elsewhere than messages, in its own signed payload: what became of a"
    " message, that a call is over. Providers that read XML are answered in XML.",
    "security": [],
    "parameters": [CHANNEL],
    "responses": {
        "200": {"description": "It is taken.", "content": {JSON: {"schema": success(PROVIDER_ANSWER)}}},
        "403": failure("The provider's signature does not fit."),
        **failures("400", "401", "404", "405", "500", "503"),
    },
}
STATUS_POSTED = {**STATUS, "responses": {**STATUS["responses"], **failures("413")}}
HANDSHAKE = {
    "operationId": "webhooks_handshake",
    "tags": ["webhooks"],
    "description": "How a provider asks whether the address is ours.",
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
        "403": failure("No account on the channel has this verify token."),
        **failures("404", "405", "500", "503"),
    },
}

RETELL = {
    "operationId": "webhooks_retell",
    "tags": ["webhooks"],
    "description": "What Retell says of its chats, with its signature (`x-retell-signature`) over the body.",
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
            "description": "It is noted, once.",
            "content": {
                JSON: {
                    "schema": success(
                        {
                            "type": "object",
                            "required": ["known"],
                            "properties": {"known": {"type": "boolean", "description": "Whether the chat is ours."}},
                        }
                    )
                }
            },
        },
        "403": failure("No API key of ours has signed it."),
        **failures("400", "405", "413", "415", "500", "503"),
    },
}


def _health(name: str, description: str, data: dict[str, Any], *statuses: str) -> dict[str, Any]:
    answer = {"description": "Yes.", "content": {JSON: {"schema": success({"type": "object", "properties": data})}}}
    return {
        "get": {
            "operationId": name,
            "tags": ["health"],
            "description": description,
            "security": [],
            "responses": {"200": answer, **failures("405", "500", *statuses)},
        }
    }


HEALTH = {
    "/healthz": _health("healthz", "Whether the process lives.", {"status": {"type": "string"}}),
    "/readyz": _health(
        "readyz",
        "Whether the database answers and the work gets done.",
        {"oldest_reply_seconds": {"type": "number"}, "oldest_message_seconds": {"type": "number"}},
        "503",
    ),
}


def add_webhooks(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Describe the doors that are no DRF views, and what all routes share."""
    components = result.setdefault("components", {})
    components.setdefault("schemas", {})["Failure"] = FAILURE
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
    return result


@only_get
def openapi(request: HttpRequest) -> HttpResponse:
    """The description as JSON, for anybody."""
    return HttpResponse(_description(), content_type=JSON)


@lru_cache(maxsize=1)
def _description() -> bytes:
    """Made once a process: it takes a tenth of a second, and nobody needs a key to ask for it."""
    schema = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return orjson.dumps(schema, default=str)
