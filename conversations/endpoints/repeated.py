"""Answers that the event loop gives again without Django, to those for whom a view has decided (http/repeating.py).

    request ─► known? ─► with others that wait ─► one thread: still as decided? ─► read for all at once ─► answers
                └──────────────────────────────────────────────┴─► Django, which decides anew

A decision counts from its second time on: the rows that it rested on read the same before it was made and after it. It
counts for a minute at most, since limits of time (of an idle session) are to be noticed without a change in any row.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

from django.db import InterfaceError, OperationalError

from conversations.http.repeating import BY_ITSELF, Read, Repeatable
from conversations.http.wsgi_bridge import Headers, Response, Scope
from conversations.services.core.statements import Statements
from conversations.services.tenants import session_state

log = logging.getLogger(__name__)

PATH = "/admin/inbox/list/"
LASTS_SECONDS = 60.0
RENEWED_WITHIN_SECONDS = 15  # before that, so that Django does not decide anew for all who came at once at one moment
GATHERED_SECONDS = 0.02  # for which requests wait for one more
LONGEST_GATHERED_SECONDS = 0.3  # as long as all watchers of a process are told news (services/desk/live.py), and longer
APART_SECONDS = 1.0  # between the beginnings of two readings
# Between two answers of a reading, so that a message which arrives meanwhile waits for one of them; and for them all.
SENT_APART_SECONDS = 0.003
SENT_WITHIN_SECONDS = 0.2
MOST_TOGETHER = 200
MOST_WAITING = 1_000
MOST_KNOWN = 2_000
LONGEST = 8_000  # characters by which an asker is known
# All of a request that a view may look at, but for its address: who asks, in which language, and from where.
LOOKED_AT = {"host", "cookie", "accept-language", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port"}

Asker = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Known:
    """A decision of a view.

    noted_at, until  in seconds of the monotonic clock
    is_certain       the rows read the same before it was made
    """

    repeatable: Repeatable
    headers: Headers
    noted_at: float
    until: float
    is_certain: bool


@dataclass(frozen=True, slots=True)
class _Waiting:
    repeatable: Repeatable
    query: str
    body: asyncio.Future[bytes | None]


class Repeated:
    """The latest decisions of views in this process, and the requests that wait for an answer by them."""

    def __init__(self) -> None:
        self._known: dict[Asker, _Known] = {}
        self._waiting: list[_Waiting] = []
        self._reading: asyncio.Task[None] | None = None
        self._read_at = 0.0

    async def answer(self, statements: Statements, scope: Scope) -> tuple[Headers, bytes] | None:
        """Return the headers and the body of a 200, or None for what Django answers.

        Raises Django's database errors.
        """
        if not _is_repeated(scope) or not self._known or len(self._waiting) >= MOST_WAITING:
            return None
        known = self._known.get(_asker(scope))
        if known is None or not known.is_certain or known.until < monotonic():
            return None
        body: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(known.repeatable, scope.query_string, body))
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_for_all(statements))
        found = await body
        return None if found is None else (known.headers, found)

    def note(self, scope: Scope, begun: float, response: Response) -> None:
        """Note what a view decided about a request that began at `begun`, in seconds of the monotonic clock."""
        if not _is_repeated(scope):
            return
        asker = _asker(scope)
        before = self._known.pop(asker, None)
        made = response.repeatable
        if (
            made is None
            or sum(len(value) for _, value in asker) > LONGEST
            or response.status != 200
            or any(name.lower() == "set-cookie" for name, _ in response.headers)
        ):
            return
        is_same = before is not None and before.repeatable == made
        if before and is_same and before.noted_at >= begun:  # another of the asker's requests was answered meanwhile
            self._known[asker] = before
            return
        headers = [(name, value) for name, value in response.headers if name.lower() != "content-length"]
        until = begun + LASTS_SECONDS - hash(asker) % RENEWED_WITHIN_SECONDS
        self._known[asker] = _Known(made, headers, monotonic(), until, is_certain=is_same)
        oldest = next(iter(self._known))
        if len(self._known) > MOST_KNOWN or self._known[oldest].until < monotonic():
            del self._known[oldest]

    async def _read_for_all(self, statements: Statements) -> None:
        try:
            while self._waiting:
                await self._gather()
                self._read_at = monotonic()
                asked, self._waiting = self._waiting[:MOST_TOGETHER], self._waiting[MOST_TOGETHER:]
                await _answer(statements, asked)
        finally:
            self._reading = None

    async def _gather(self) -> None:
        """Wait until the last reading is long enough ago, and then until nobody has come for a moment."""
        await asyncio.sleep(self._read_at + APART_SECONDS - monotonic())
        count, until = 0, monotonic() + LONGEST_GATHERED_SECONDS
        while count < len(self._waiting) < MOST_TOGETHER and monotonic() < until:
            count = len(self._waiting)
            await asyncio.sleep(GATHERED_SECONDS)


async def _answer(statements: Statements, asked: Sequence[_Waiting]) -> None:
    bodies: list[bytes | None] = [None] * len(asked)
    failure: Exception | None = None
    try:
        bodies = await statements.in_thread(_bodies, [(each.repeatable, each.query) for each in asked])
    except (OperationalError, InterfaceError) as error:
        failure = error
    except Exception:
        log.exception("reading for many at once failed")  # Django tries each by itself
    for each, body in zip(asked, bodies, strict=True):
        if each.body.done():  # the client is gone
            continue
        if failure:
            each.body.set_exception(failure)
        else:
            each.body.set_result(body)
        await asyncio.sleep(min(SENT_APART_SECONDS, SENT_WITHIN_SECONDS / len(asked)))


def _bodies(asked: Sequence[tuple[Repeatable, str]]) -> list[bytes | None]:
    """Return the bodies; None for each that the rows do not decide as before."""
    states = session_state.states_of({made.session_key: made.user_id for made, _ in asked})
    by_read: dict[Read, list[int]] = {}
    for place, (made, _) in enumerate(asked):
        if states.get(made.session_key) == made.state:
            by_read.setdefault(made.read, []).append(place)
    bodies: list[bytes | None] = [None] * len(asked)
    for read, places in by_read.items():
        found = read([(asked[place][0].viewer, asked[place][1]) for place in places])
        for place, body in zip(places, found, strict=True):
            bodies[place] = body
    return bodies


def _is_repeated(scope: Scope) -> bool:
    return scope.path == PATH and scope.method == "GET" and scope.query_string.endswith(BY_ITSELF)


def _asker(scope: Scope) -> Asker:
    headers = [(name, value) for name, value in scope.headers.items() if name in LOOKED_AT]
    return (("scheme", scope.scheme), *headers)
