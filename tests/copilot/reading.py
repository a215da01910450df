"""How tests talk to the copilot: a browser without a screen, over real HTTP, that reads events as they come."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import requests
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.sessions.backends.db import SessionStore
from django.middleware.csrf import _get_new_csrf_string

from conversations.models import Client, Membership

SECONDS = 30.0


def user(name: str, *clients: Client, role: str = "viewer") -> Any:
    """Somebody who may sign in, a member of these clients."""
    made = get_user_model().objects.create_user(name, password="a-long-password")
    for client in clients:
        Membership.objects.create(user=made, client=client, role=role)
    return made


@dataclass(frozen=True)
class Event:
    """One event of a stream."""

    name: str
    data: Any
    id: str = ""


class Events:
    """A stream that is being read."""

    def __init__(self, answer: requests.Response) -> None:
        self.answer = answer
        answer.encoding = "utf-8"
        self._events = self._read()

    def _read(self) -> Iterator[Event]:
        fields: dict[str, str] = {}
        for line in self.answer.iter_lines(chunk_size=1, decode_unicode=True):
            if not line:
                if "event" in fields:
                    yield Event(fields["event"], json.loads(fields["data"]), fields.get("id", ""))
                fields = {}
            elif not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = value

    def __iter__(self) -> Iterator[Event]:
        return self._events

    def next(self, name: str) -> Event:
        """The next event, which is of that name."""
        event = next(self._events)
        assert event.name == name, event
        return event

    def rest(self) -> list[Event]:
        """All that come, until the stream ends."""
        return list(self._events)


def text_of(events: list[Event]) -> str:
    """What a reader of these events sees in the end."""
    text = ""
    for event in events:
        if event.name == "delta":
            text = event.data["text"] if event.data["start"] == 0 else text + event.data["text"]
    return text


def cookies_of(who: Any) -> dict[str, str]:
    """What a browser keeps of somebody who is signed in."""
    session = SessionStore()
    session["_auth_user_id"] = str(who.pk)
    session["_auth_user_backend"] = "django.contrib.auth.backends.ModelBackend"
    session["_auth_user_hash"] = who.get_session_auth_hash()
    session.save()
    return {
        settings.SESSION_COOKIE_NAME: str(session.session_key),
        settings.CSRF_COOKIE_NAME: _get_new_csrf_string(),
    }


class Browser:
    """Somebody's browser, signed in."""

    def __init__(self, base_url: str, who: Any) -> None:
        self.base_url = base_url
        self.http = requests.Session()
        self.http.cookies.update(cookies_of(who))
        self.http.headers["X-CSRFToken"] = self.http.cookies[settings.CSRF_COOKIE_NAME]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and envelope."""
        answer = self.http.request(method, self.base_url + path, json=body, headers=headers, timeout=SECONDS)
        return answer.status_code, answer.json()

    def get(self, path: str) -> Any:
        status, envelope = self.call("GET", path)
        assert status == 200, envelope
        return envelope["data"]

    @contextmanager
    def stream(self, method: str, path: str, body: Any = None, **headers: str) -> Iterator[Events]:
        """The events of an answer; leaving closes the connection."""
        with self.http.request(
            method, self.base_url + path, json=body, headers=headers, stream=True, timeout=SECONDS
        ) as answer:
            assert answer.status_code == 200, answer.text
            assert answer.headers["Content-Type"] == "text/event-stream"
            yield Events(answer)

    def ask(self, message: str, **more: Any) -> list[Event]:
        """All events of the reply to a message."""
        with self.stream("POST", "/copilot", {"message": message, **more}) as events:
            return events.rest()
