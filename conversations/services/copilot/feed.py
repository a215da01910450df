"""Reading along: what the pieces and the end of streamed turns are, for every reader of this process.

One thread asks for all of them, a few times a second while there are any, with one connection. Whoever reads waits for
that thread, and for the network, with none. Any process can do this for any turn: it keeps nothing but who waits.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from uuid import UUID

from django.db import InterfaceError, OperationalError, connection

from conversations.models import Chunk, Turn
from conversations.services.copilot.sessions import with_words
from conversations.services.core.row_level_security import confined_to
from conversations.services.core.sql import rows

log = logging.getLogger(__name__)

POLL_SECONDS = 0.1
IDLE_SECONDS = 2.0  # without readers, after which the thread and its connection go
AWAY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ReadPosition:
    """How far somebody has read: so many characters of an attempt."""

    attempt: int = 0
    characters: int = 0


@dataclass(frozen=True, slots=True)
class ReplyPart:
    """What comes next in the reply. `start` 0 begins it, anew if there was something before."""

    attempt: int
    start: int
    text: str

    @property
    def end(self) -> ReadPosition:
        """Where it leaves its reader."""
        return ReadPosition(self.attempt, self.start + len(self.text))


@dataclass(frozen=True, slots=True)
class ReplyEnd:
    """The turn is over; `chunk` is the reply, or the part of it that was said, None where nothing was. No turn: it was
    deleted with its session."""

    turn: Turn | None
    chunk: Chunk | None


News = ReplyPart | ReplyEnd


@dataclass(eq=False)
class Reader:
    """Somebody who reads along. `place` moves on with what they are given."""

    turn_id: UUID
    user_id: int
    place: ReadPosition
    _news: SimpleQueue[News] = field(default_factory=SimpleQueue)

    def wait(self, seconds: float) -> News | None:
        """What is new, None if nothing is within `seconds`."""
        try:
            return self._news.get(timeout=seconds)
        except Empty:
            return None

    def give(self, piece: ReplyPart) -> None:
        """The piece, or what of it they have not read."""
        known = self.place.characters if piece.attempt == self.place.attempt else 0
        if piece.attempt < self.place.attempt or piece.start > known:
            return  # of an attempt that is no more, or behind a piece that was not seen yet
        if text := piece.text[known - piece.start :]:
            new = ReplyPart(piece.attempt, known, text)
            self.place = new.end
            self._news.put(new)

    def end(self, turn: Turn | None, chunk: Chunk | None) -> None:
        """The rest of the reply, and that it is over."""
        if turn and chunk:
            self.give(ReplyPart(turn.attempt, 0, chunk.content))
        self._news.put(ReplyEnd(turn, chunk))


class Feed:
    """The readers of this process, and the thread that looks for them."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._wake = threading.Event()
        self._readers: set[Reader] = set()
        self._thread: threading.Thread | None = None

    def read(self, turn_id: UUID, user_id: int, place: ReadPosition) -> Reader:
        """Somebody reads the turn from there on, whom the caller has found to be allowed to; until `leave`."""
        reader = Reader(turn_id, user_id, place)
        with self._guard:
            self._readers.add(reader)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="copilot-feed", daemon=True)
                self._thread.start()
        self._wake.set()
        return reader

    def leave(self, reader: Reader) -> None:
        """They read no more."""
        with self._guard:
            self._readers.discard(reader)

    def _run(self) -> None:
        while self._somebody_reads():
            try:
                connection.close_if_unusable_or_obsolete()
                self._look()
                pause = POLL_SECONDS
            except (OperationalError, InterfaceError):
                connection.close()
                pause = AWAY_SECONDS
            except Exception:
                log.exception("the copilot's feed stumbled")
                connection.close()
                pause = AWAY_SECONDS
            self._wake.clear()
            self._wake.wait(pause)
        connection.close()

    def _somebody_reads(self) -> bool:
        """Whether there are readers, or come some in a while. If not, the thread ends; the next reader begins one."""
        for _ in range(int(IDLE_SECONDS / POLL_SECONDS)):
            with self._guard:
                if self._readers:
                    return True
            self._wake.wait(POLL_SECONDS)
            self._wake.clear()
        with self._guard:
            if self._readers:
                return True
            self._thread = None
            return False

    def _look(self) -> None:
        with self._guard:
            readers = list(self._readers)
        if not readers:
            return
        with confined_to(*{reader.user_id for reader in readers}):
            # What has ended first: as long as it has not, its pieces are there.
            over = _ended({reader.turn_id for reader in readers})
            pieces = _pieces([reader for reader in readers if reader.turn_id not in over])
        for reader in readers:
            for piece in pieces.get(reader.turn_id, ()):
                reader.give(piece)
            if reader.turn_id in over:
                reader.end(*over[reader.turn_id])
                self.leave(reader)


def _ended(turn_ids: set[UUID]) -> dict[UUID, tuple[Turn | None, Chunk | None]]:
    """Those of the turns that run no more, or are gone, with their chunks."""
    turns = {turn.pk: turn for turn in Turn.objects.filter(pk__in=turn_ids).defer("prompt", "draft")}
    over = {pk: turn for pk, turn in turns.items() if turn.status != Turn.Status.RUNNING}
    written = Chunk.objects.filter(pk__in=[turn.chunk_id for turn in over.values() if turn.chunk_id])
    chunks = {chunk.pk: chunk for chunk in with_words(written)} if over else {}
    ended: dict[UUID, tuple[Turn | None, Chunk | None]] = dict.fromkeys(turn_ids - set(turns), (None, None))
    return ended | {pk: (turn, chunks.get(turn.chunk_id or 0)) for pk, turn in over.items()}


def _pieces(readers: Sequence[Reader]) -> dict[UUID, list[ReplyPart]]:
    """What was written since the slowest reader of each turn looked, in order."""
    slowest: dict[UUID, ReadPosition] = {}
    for reader in readers:
        place = slowest.get(reader.turn_id, reader.place)
        slowest[reader.turn_id] = min(place, reader.place, key=lambda each: (each.attempt, each.characters))
    found: dict[UUID, list[ReplyPart]] = {}
    for turn_id, attempt, start, text in rows(
        """
        SELECT d.turn_id, d.attempt, d.start, d.text
        FROM copilot_deltas d
        JOIN unnest($1::uuid[], $2::int[], $3::int[]) AS read (turn_id, attempt, characters)
          ON d.turn_id = read.turn_id
         AND (d.attempt > read.attempt OR d.attempt = read.attempt AND d.start + length(d.text) > read.characters)
        ORDER BY d.turn_id, d.attempt, d.start
        """,
        list(slowest),
        [place.attempt for place in slowest.values()],
        [place.characters for place in slowest.values()],
    ):
        found.setdefault(turn_id, []).append(ReplyPart(attempt, start, text))
    return found


feed = Feed()
