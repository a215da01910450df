"""The OpenAPI description: each answer in its envelope, each failure, and the events that Convo posts.

The routes that are no DRF views are in `webhook_schema.py`; summaries, examples and the order in `examples.py`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import orjson
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema

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
