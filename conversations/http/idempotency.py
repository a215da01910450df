"""The header `Idempotency-Key`: a POST that is sent again, because it is unclear whether it arrived, is done once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

import orjson
from django.db.models import Max
from django.utils import timezone
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from conversations.http.auth import actor, key_of
from conversations.models import ConversationEvent
from conversations.services.core import audit_chain, idempotency
from conversations.services.core.idempotency import RefusedError, StoredResponse

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
PATTERN = r"^[!-~]([ -~]{0,253}[!-~])?$"  # printable ASCII; no blank at its ends, which HTTP strips
_WELL_FORMED = re.compile(PATTERN.replace("$", r"\Z"))
RETRYABLE = {400, 429}  # nothing was begun

Handler = Callable[..., Response]


class OncePerKey(APIView):
    """Base of DRF views whose POST is done once for an Idempotency-Key and answered alike for 24 hours.

    Final responses are stored: successes and refusals. The same key may try again where nothing was begun, because the
    request was invalid (400, as when a proxy cut its body off) or came too soon (429), and after a fault (5xx).
    """

    _newest: int | None = None  # the key's last line in the conversation's ledger, before an action that is audited

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Let a POST with a key be done once. Raises ValidationError for a malformed key."""
        super().initial(request, *args, **kwargs)
        if getattr(self, "action", None) in getattr(self, "audited", ()):
            self._newest = _newest_line(request, kwargs.get("pk"))
        key = request.headers.get(HEADER)
        handler: Handler | None = getattr(self, "post", None)
        if request.method == "POST" and key is not None and handler is not None:
            if not _WELL_FORMED.match(key):
                raise ValidationError({HEADER: ["Must be 1 to 255 printable ASCII characters."]})
            self.post = self._once(key, handler)

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the response, with what a program changed in the audit chain if the view's `audited` names the action.

        A request that changed nothing, because it came again, is not in it.
        """
        found = super().finalize_response(request, response, *args, **kwargs)
        if self._newest is not None and found.status_code < 400 and REPLAYED not in found:
            about = _conversation_id(response.data, kwargs.get("pk"))
            key, verb = key_of(request), str(getattr(self, "action", ""))
            if _newest_line(request, about) > self._newest:
                who = {"actor": "api", "actor_id": key.prefix}
                audit_chain.append(key.client_id, **who, verb=verb, object_type="conversation", object_id=about)
        return found

    def _once(self, key: str, handler: Handler) -> Handler:
        def handle(request: Request, *args: Any, **kwargs: Any) -> Response:
            def act() -> StoredResponse:
                return self._answer(handler, request, *args, **kwargs)

            fingerprint = _fingerprint(request)
            answer, again = idempotency.run_once(key_of(request).client, key, fingerprint, act, timezone.now())
            response = Response(answer.data, status=answer.status)
            response.exception = answer.status >= 400  # a failure is in its envelope already
            if again:
                response[REPLAYED] = "true"
            return response

        return handle

    def _answer(self, handler: Handler, request: Request, *args: Any, **kwargs: Any) -> StoredResponse:
        try:
            response = handler(request, *args, **kwargs)
        except Exception as error:
            failed = self.handle_exception(error)
            if failed.status_code in RETRYABLE or failed.status_code >= 500:
                raise
            raise RefusedError(StoredResponse(failed.status_code, failed.data)) from error
        return StoredResponse(response.status_code, response.data, _conversation_id(response.data, **kwargs))


def _newest_line(request: Request, conversation_id: UUID | None) -> int:
    """Return the id of the newest line in the conversation's ledger that the caller's key wrote, 0 for none."""
    if conversation_id is None:
        return 0
    caller, lines = actor(request), ConversationEvent.objects.filter(client=key_of(request).client_id)
    theirs = lines.filter(conversation=conversation_id, actor=caller.kind, actor_name=caller.name)
    newest: int | None = theirs.aggregate(newest=Max("id"))["newest"]
    return newest or 0


def _fingerprint(request: Request) -> bytes:
    """Return a hash of the method, path and body; equal JSON is an equal body. Raises what the parser raises."""
    body = orjson.dumps(request.data, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(b"\0".join([b"POST", request.get_full_path().encode(), body])).digest()


def _conversation_id(data: Any, pk: UUID | None = None, **_: Any) -> UUID | None:
    """Return the conversation that a response is about: the path's, or the one that was opened."""
    if pk is not None or not isinstance(data, dict):
        return pk
    try:
        return UUID(str(data.get("sessionId") or data.get("id")))
    except ValueError:
        return None
