"""The JSON envelope of every response of the API, made by views, by DRF or by Django.

Success: `{"success": true, "data": …}`. Failure: `{"success": false, "error": sentence, "code": word, "details"?: …}`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import orjson
from django.conf import settings
from django.core.exceptions import DisallowedHost, RequestDataTooBig
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.views import defaults
from django.views.decorators.csrf import csrf_exempt
from rest_framework import exceptions, negotiation, parsers, renderers, status
from rest_framework.request import Request
from rest_framework.response import Response

from channels_out.shapes import has_more_nodes
from conversations.services.core.errors import (
    ConflictError,
    DomainError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    NotSignedError,
    TooManyError,
    UnavailableError,
)
from conversations.services.core.json import dumps

JSON = "application/json"
FIRST_ROUNDED = 2.0**63  # whole numbers beyond 64 bits are read as fractions of this size and more
LARGE_NUMBER = "must not hold numbers beyond 64 bits; send them as strings"
MOST_LEVELS = 100  # levels of nesting in a body; orjson writes at most 254
MOST_VALUES = 50_000  # of a body, which is parsed before the API key is looked up
CHALLENGE = 'Bearer realm="convo"'
NOT_FOUND = "There is no such route. /docs/ lists them."
NOT_JSON = "Send the body as JSON, with the header Content-Type: application/json."
SERVER_FAULT = "Something went wrong in Convo. The error has been logged."

STATUS_OF: dict[type[DomainError], int] = {
    InvalidError: 400,
    NotSignedError: 401,
    ForbiddenError: 403,
    NotFoundError: 404,
    ConflictError: 409,
    TooManyError: 429,
    UnavailableError: 503,
}
HEADERS_OF: dict[int, dict[str, str]] = {401: {"WWW-Authenticate": CHALLENGE}, 503: {"Retry-After": "1"}}


def failure_body(code: str, error: str, details: Any = None) -> dict[str, Any]:
    """Return the envelope of a failure as an object."""
    body = {"success": False, "error": error, "code": code}
    return {**body, "details": details} if details else body


DATABASE_AWAY = failure_body(
    "unavailable", "The database is unavailable for a moment. Send the request again with the same message id."
)


def database_away() -> HttpResponse:
    """Return a 503. The message may be stored or not: sent again with the same message id, it is stored once."""
    return HttpResponse(orjson.dumps(DATABASE_AWAY), status=503, content_type=JSON, headers={"Retry-After": "1"})


def success(data: Any, status: int = 200) -> HttpResponse:
    """Return a success as an HTTP response."""
    return HttpResponse(orjson.dumps({"success": True, "data": data}, default=str), status=status, content_type=JSON)


def failure(
    status: int, code: str, error: str, details: Any = None, headers: Mapping[str, str] | None = None
) -> HttpResponse:
    """Return a failure as an HTTP response."""
    body = orjson.dumps(failure_body(code, error, details), default=str)
    return HttpResponse(body, status=status, content_type=JSON, headers=dict(headers or {}))


def refusal(error: DomainError) -> HttpResponse:
    """Return the HTTP response for a service's error."""
    return failure(status_of(error), error.code, str(error), error.details, headers_of(error))


def headers_of(error: DomainError) -> Mapping[str, str] | None:
    """Return the headers that belong to a service's error: Retry-After or WWW-Authenticate; None for none."""
    if isinstance(error, TooManyError):
        return {"Retry-After": str(error.retry_after)}
    return HEADERS_OF.get(status_of(error))


def status_of(error: DomainError) -> int:
    """Return the HTTP status of a service's error."""
    return next((status for kind, status in STATUS_OF.items() if isinstance(error, kind)), 400)


def too_large(limit: int) -> HttpResponse:
    """Return a 413 for a body of more than `limit` bytes."""
    return failure(413, "too_large", larger_than(limit))


def larger_than(limit: int) -> str:
    """Return the error sentence for a body of more than `limit` bytes."""
    return f"The body is larger than {limit:,} bytes."


def wrong_method(method: str | None, *allowed: str) -> HttpResponse:
    """Return a 405 that names the allowed methods."""
    names = ", ".join(allowed)
    return failure(405, "method_not_allowed", _wrong_method(method, names), headers={"Allow": names})


def _wrong_method(method: str | None, allowed: str) -> str:
    return f"This route does not take {method}. It takes {allowed}."


def not_json() -> HttpResponse:
    """Return a 415 that asks for JSON."""
    return failure(415, "unsupported_media_type", NOT_JSON)


def is_json(content_type: str | None) -> bool:
    """Return whether the Content-Type is JSON."""
    return (content_type or "").partition(";")[0].strip().lower() == JSON


def get_only(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """Return the view for GET and HEAD; other methods get a 405."""

    @wraps(view)
    def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.method not in ("GET", "HEAD"):
            return wrong_method(request.method, "GET", "HEAD")
        return view(request, *args, **kwargs)

    return csrf_exempt(checked)


class EnvelopeRenderer(renderers.BaseRenderer):
    """DRF's renderer that puts what a view returns into the envelope; the exception handler does so with failures."""

    media_type = JSON
    format = "json"
    charset = None

    def render(
        self,
        data: Any,
        accepted_media_type: str | None = None,
        renderer_context: Mapping[str, Any] | None = None,
    ) -> bytes:
        """Return the body of the response."""
        response: Response | None = (renderer_context or {}).get("response")
        if response is None or not response.exception:
            data = {"success": True, "data": data}
        return dumps(data)


class JSONOnly(negotiation.BaseContentNegotiation):
    """DRF's content negotiation that answers in JSON whatever the request accepts."""

    def select_parser(self, request: Request, parsers: Any) -> Any:
        """Return the first parser that takes the body's type."""
        return negotiation.DefaultContentNegotiation().select_parser(request, parsers)

    def select_renderer(self, request: Request, renderers: Any, format_suffix: str | None = None) -> Any:
        """Return the first renderer."""
        return renderers[0], renderers[0].media_type


class TooLargeError(exceptions.APIException):
    """The body is too large (413)."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_code = "too_large"


class StrictJSONParser(parsers.BaseParser):
    """DRF's parser for JSON by RFC 8259: UTF-8, no NaN, no lone surrogates; nor NUL, which PostgreSQL cannot store."""

    media_type = JSON

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        """Return the body's value. Raises ParseError, or TooLargeError over MAX_API_BYTES."""
        limit = settings.MAX_API_BYTES
        try:
            body = parser_context["request"]._request.body
        except RequestDataTooBig:
            raise TooLargeError(larger_than(limit)) from None
        if len(body) > limit:
            raise TooLargeError(larger_than(limit))
        try:
            return loads(body)
        except ValueError as error:
            raise exceptions.ParseError(str(error)) from None


def loads(body: bytes) -> Any:
    """Return the value of a JSON body. Raises ValueError with a sentence for the caller of the API."""
    if not body:
        raise ValueError("The body is empty. Send a JSON object.")
    if has_more_nodes(body, MOST_VALUES):
        raise ValueError(f"The body has more than {MOST_VALUES:,} values.")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"The body is not valid JSON: {error}.") from None
    # A value cannot nest deeper than it has brackets, so most bodies need no walk.
    if body.count(b"[") + body.count(b"{") > MOST_LEVELS and _nests_deeper(value, MOST_LEVELS):
        raise ValueError(f"The body nests more than {MOST_LEVELS} levels deep.")
    if b"\\u0000" in body and _has_nul(value):
        raise ValueError("The body contains the character NUL (\\u0000), which cannot be stored.")
    return value


def has_large_number(value: Any) -> bool:
    """Return whether the value of a body holds a number beyond 64 bits, which was rounded when the body was read."""
    if isinstance(value, float):
        return abs(value) >= FIRST_ROUNDED
    return any(map(has_large_number, _children(value)))


def _nests_deeper(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [child for holder in level for child in _children(holder) if isinstance(child, dict | list)]
        if not level:
            return False
    return True


def _children(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    return any(map(_has_nul, _children(value))) or (isinstance(value, dict) and any(map(_has_nul, value)))


def exception_handler(error: Exception, context: Mapping[str, Any]) -> Response | None:
    """Return DRF's response to an error of a view. None for a fault of Convo: Django logs it and answers 500."""
    if isinstance(error, DomainError):
        status = status_of(error)
        answer = Response(failure_body(error.code, str(error), error.details), status=status, headers=headers_of(error))
    elif isinstance(error, Http404):
        answer = Response(failure_body("not_found", "There is no such object."), status=404)
    elif isinstance(error, exceptions.ValidationError):
        answer = Response(failure_body("invalid", _first_sentence(error.detail), error.detail), status=400)
    elif isinstance(error, OperationalError | InterfaceError):
        answer = Response(DATABASE_AWAY, status=503, headers={"Retry-After": "1"})
    elif isinstance(error, exceptions.APIException):
        answer = Response(failure_body(_code(error), _sentence(error, context)), status=error.status_code)
        _headers(answer, error)
    else:
        return None
    return answer


def _code(error: exceptions.APIException) -> str:
    return {"parse_error": "malformed", "throttled": "rate_limited"}.get(error.default_code, error.default_code)


def _sentence(error: exceptions.APIException, context: Mapping[str, Any]) -> str:
    if isinstance(error, exceptions.UnsupportedMediaType):
        return NOT_JSON
    if isinstance(error, exceptions.MethodNotAllowed):
        return _wrong_method(context["request"].method, ", ".join(context["view"].allowed_methods))
    return str(error.detail)


def _headers(answer: Response, error: exceptions.APIException) -> None:
    if challenge := getattr(error, "auth_header", None):
        answer["WWW-Authenticate"] = challenge
    if wait := getattr(error, "wait", None):
        answer["Retry-After"] = str(max(1, int(wait)))


def _first_sentence(detail: Any, path: str = "") -> str:
    if isinstance(detail, dict):
        key, inner = next(iter(detail.items()))
        return _first_sentence(inner, f"{path}.{key}" if path else str(key))
    if isinstance(detail, list):
        return _first_sentence(detail[0], path)
    return f"{path}: {detail}" if path and path != "non_field_errors" else str(detail)


def _is_page(request: HttpRequest) -> bool:
    return request.path_info.startswith("/admin/")


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Return the 400 that Django asks for: a page in the back office, an envelope elsewhere."""
    if _is_page(request):
        return defaults.bad_request(request, exception)
    if isinstance(exception, RequestDataTooBig):
        return too_large(settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
    if isinstance(exception, DisallowedHost):
        return failure(400, "unknown_host", "Convo does not serve this host name. Add it to ALLOWED_HOSTS.")
    return failure(400, "malformed", "The request cannot be read.")


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Return the 403 that Django asks for: a page in the back office, an envelope elsewhere."""
    if _is_page(request):
        return defaults.permission_denied(request, exception)
    return failure(403, "permission_denied", "You do not have permission to do this.")


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Return the 404 that Django asks for: a page in the back office, an envelope elsewhere."""
    if _is_page(request):
        return defaults.page_not_found(request, exception)
    return failure(404, "not_found", NOT_FOUND)


def server_error(request: HttpRequest) -> HttpResponse:
    """Return the 500 that Django asks for, or a 503 where the database is away: a page in the back office, an envelope
    elsewhere."""
    is_away = isinstance(sys.exc_info()[1], OperationalError | InterfaceError)
    if not _is_page(request):
        return database_away() if is_away else server_fault()
    page = defaults.server_error(request)
    if is_away:
        page.status_code, page["Retry-After"] = 503, "1"
    return page


def server_fault() -> HttpResponse:
    """Return a 500 for a fault of Convo."""
    return failure(500, "server_error", SERVER_FAULT)
