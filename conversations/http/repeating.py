"""Answers that may be given again without Django while what a view decided still holds.

A view that is asked for the same again and again, by many users at once, describes how: for whom it is, and what reads
the answers of many at once. The event loop (endpoints/repeated.py) asks the rows each time whether anything has changed
that the decision rested on (`session_state`). If so, the view decides anew.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse

from conversations.services.tenants import session_state

BY_ITSELF = "by_itself=1"  # ends the query of what a page asks for by itself; for others a person waits

Read = Callable[[Sequence[tuple[Any, str]]], list[bytes | None]]


@dataclass(frozen=True, slots=True)
class Repeatable:
    """A view's decision about a session.

    viewer  for whom the answer is, as `read` wants it
    state   of the session's rows, behind the decision
    read    returns the bodies for viewers and the queries that they ask, in this order; None where Django answers. For
            one alone it returns the body, or raises
    """

    session_key: str
    user_id: int
    viewer: Hashable
    state: bytes
    read: Read


class RepeatableResponse(HttpResponse):
    """A response with the decision that it rests on; None where it may not be repeated."""

    repeatable: Repeatable | None = None


def answer(request: HttpRequest, viewer: Hashable, read: Read) -> RepeatableResponse:
    """Return what `read` has for the viewer, as JSON, with the decision that the viewer may have it."""
    query = request.META.get("QUERY_STRING", "")
    [body] = read([(viewer, query)])
    if body is None:
        raise RuntimeError("A view that asks for one alone is told the error.")
    response = RepeatableResponse(body, content_type="application/json")
    key, user_id = request.session.session_key, int(request.user.pk or 0)
    if key and query.endswith(BY_ITSELF) and (state := session_state.states_of({key: user_id}).get(key)):
        response.repeatable = Repeatable(key, user_id, viewer, state, read)
    return response
