"""The live news of the desk as a stream of server-sent events, and the signs of presence that browsers give."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.utils import timezone

from conversations.admin import access
from conversations.admin.transcript import no_store
from conversations.http.streams import EventStream, event, stream_limit
from conversations.models import Conversation
from conversations.services.core.errors import TooManyError
from conversations.services.desk import presence, typing
from conversations.services.desk.live import Watcher, live

LASTS_SECONDS = 120.0  # then the browser comes back, and what it may see is decided anew
RETRY_MS = 300


def stream(request: HttpRequest, client_ids: list[UUID]) -> HttpResponseBase:
    """Return the stream of news of these clients; 503 where the process has no room for another stream, 429 where the
    user has too many."""
    user_id = int(request.user.pk or 0)
    try:
        if not stream_limit.enter(user_id):
            return no_store(HttpResponse(status=503))
    except TooManyError as error:
        return no_store(JsonResponse({"said": str(error)}, status=429))
    watcher = live.watch(user_id, client_ids)

    def closed() -> None:
        live.leave(watcher)
        stream_limit.leave(user_id)

    return EventStream(_LiveEvents(watcher), closed)


def note_presence(request: HttpRequest, conversation: Conversation) -> HttpResponse:
    """Note that the user has the conversation open (`here`, with `typing`), or no more.

    The customer is shown that somebody who may reply is typing, where the channel can show it.
    """
    client_id, user_id = conversation.client_id, int(request.user.pk or 0)
    if request.POST.get("here") == "yes":
        is_typing = request.POST.get("typing") == "yes"
        now = timezone.now()
        presence.note(client_id, conversation.pk, user_id, is_typing=is_typing, now=now)
        if is_typing and access.can(request.user, access.Role.AGENT, client_id):
            typing.show(conversation, user_id, now)
    else:
        presence.leave(client_id, conversation.pk, user_id)
    return no_store(HttpResponse(status=204))


class _LiveEvents:
    """The events of a watcher: `hello` at first, then `news`."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher, self._until = watcher, monotonic() + LASTS_SECONDS

    @property
    def is_over(self) -> bool:
        """Return whether the browser has to come back."""
        return monotonic() > self._until

    def first(self) -> bytes:
        """Return the beginning: whoever hears it reads everything anew, since something may have been missed."""
        return f"retry: {RETRY_MS}\n".encode() + event("hello", {})

    def next(self) -> bytes | None:
        """Return the news since the last event, or None."""
        news = self._watcher.take()
        if news is None:
            return None
        told: dict[str, Any] = {"changed": news.changed, "alerts": news.alerts}
        if news.counts is not None:
            told["counts"] = news.counts
        if news.present is not None:
            told["present"] = {str(pk): people for pk, people in news.present.items()}
        return event("news", told)

    def call_when_ready(self, wake: Callable[[], object]) -> None:
        """Call `wake`, from any thread, whenever there may be a next event."""
        self._watcher.call_when_ready(wake)
