"""The feed of streamed replies: hands the text and the end of turns to the readers of this process.

One thread asks the database for all readers, a few times a second while there are any, with one connection. Nobody
waits in a thread for it: a reader is woken when there is something to read. Any process can do this for any turn: it
keeps nothing but its readers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from django.db import InterfaceError, OperationalError, connection

from conversations.models import Chunk, Turn
from conversations.services.copilot.sessions import memberships_of, with_text_and_feedback
from conversations.services.core.cluster import can_ask_others, is_cluster, of_each
from conversations.services.core.rotation import by_client
from conversations.services.core.row_level_security import confined_to
from conversations.services.core.sql import rows

log = logging.getLogger(__name__)

POLL_SECONDS = 0.1
IDLE_SECONDS = 2.0  # without readers, after which the thread and its connection end
AWAY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ReadPosition:
    """A reader's position: the number of characters read of an attempt."""

    attempt: int = 0
    characters: int = 0


@dataclass(frozen=True, slots=True)
class ReplyPart:
    """The next text of a reply. `start`: the number of characters before it; 0 begins the reply, also again."""

    attempt: int
    start: int
    text: str

    @property
    def end(self) -> ReadPosition:
        """Return the reader's position after this part."""
        return ReadPosition(self.attempt, self.start + len(self.text))


@dataclass(frozen=True, slots=True)
class ReplyEnd:
    """The end of a turn.

    turn    None if it was deleted with its conversation
    chunk   the reply, or as much of it as was written; None if nothing was
    """

    turn: Turn | None
    chunk: Chunk | None


FeedUpdate = ReplyPart | ReplyEnd


@dataclass(eq=False)
class Reader:
    """A reader of a turn. `position` advances with the text that the reader was given."""

    turn_id: UUID
    user_id: int
    position: ReadPosition
    _updates: deque[FeedUpdate] = field(default_factory=deque)
    _wake: Callable[[], object] = lambda: None
    _delta_start = 0  # of the delta that holds the position: a reader that comes back may name any position

    @property
    def wanted(self) -> ReadPosition:
        """Return the position from which deltas that begin there or later hold all that the reader has not read."""
        return ReadPosition(self.position.attempt, self._delta_start)

    def take(self) -> FeedUpdate | None:
        """Return the next update, or None if there is none yet."""
        return self._updates.popleft() if self._updates else None

    def call_when_ready(self, wake: Callable[[], object]) -> None:
        """Call `wake`, in the feed's thread, whenever there is an update."""
        self._wake = wake

    def _put(self, update: FeedUpdate) -> None:
        self._updates.append(update)
        self._wake()

    def give(self, part: ReplyPart) -> None:
        """Hand the reader the part, as far as it has not read it."""
        known = self.position.characters if part.attempt == self.position.attempt else 0
        if part.attempt < self.position.attempt or part.start > known:
            return  # of an earlier attempt, or after a part that is not there yet
        if text := part.text[known - part.start :]:
            new = ReplyPart(part.attempt, known, text)
            self.position = new.end
            self._put(new)
        self._delta_start = part.end.characters if part.end == self.position else part.start

    def end(self, turn: Turn | None, chunk: Chunk | None) -> None:
        """Hand the reader the rest of the reply and the end of the turn."""
        if turn and chunk:
            self.give(ReplyPart(turn.attempt, 0, chunk.content))
        self._put(ReplyEnd(turn, chunk))


class Feed:
    """The readers of this process, and the thread that asks the database for them."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._wake = threading.Event()
        self._readers: set[Reader] = set()
        self._thread: threading.Thread | None = None

    def read(self, turn_id: UUID, user_id: int, position: ReadPosition) -> Reader:
        """Return a reader of the turn from the position on, until `leave`. The caller has checked that the user may."""
        reader = Reader(turn_id, user_id, position)
        with self._guard:
            self._readers.add(reader)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="copilot-feed", daemon=True)
                self._thread.start()
        self._wake.set()
        return reader

    def leave(self, reader: Reader) -> None:
        """Remove the reader."""
        with self._guard:
            self._readers.discard(reader)

    def _run(self) -> None:
        while self._has_readers():
            try:
                connection.close_if_unusable_or_obsolete()
                self._give_updates()
                pause = POLL_SECONDS
            except (OperationalError, InterfaceError):
                connection.close()
                pause = AWAY_SECONDS
            except Exception:
                log.exception("the copilot feed failed; it tries again")
                connection.close()
                pause = AWAY_SECONDS
            time.sleep(pause)  # also where readers come meanwhile: hundreds may, one after the other
        connection.close()

    def _has_readers(self) -> bool:
        """Wait for readers and return whether there are any. If not, the thread ends; the next reader starts one."""
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

    def _give_updates(self) -> None:
        with self._guard:
            readers = list(self._readers)
        if not readers:
            return
        try:
            self._give_to(readers)
        except OperationalError:
            if not can_ask_others():
                raise
            for _ in of_each([([reader],) for reader in readers], self._give_to):
                pass

    def _give_to(self, readers: Sequence[Reader]) -> None:
        members = memberships_of(*{reader.user_id for reader in readers})
        clients = list({client_id for _, client_id in members})  # by their ids a cluster asks their servers alone
        running = _running(clients, {reader.turn_id for reader in readers})
        over = {each.turn_id for each in readers if (each.user_id, running.get(each.turn_id)) not in members}
        with confined_to(*{reader.user_id for reader in readers}):
            # The ended turns first: the deltas of a turn are deleted when it ends.
            ended = _ended(members, over) if over else {}
            parts = _new_parts(running, [reader for reader in readers if reader.turn_id not in ended])
        for reader in readers:
            for part in parts.get(reader.turn_id, ()):
                reader.give(part)
            if reader.turn_id in ended:
                reader.end(*ended[reader.turn_id])
                self.leave(reader)


def _running(clients: Sequence[UUID], turn_ids: set[UUID]) -> dict[UUID, UUID]:
    """Return the client of each of the turns that still runs.

    This is asked ten times a second for all turns that are read, in the application's own role.
    """
    statement = """
        SELECT id, client_id FROM conversation_turns
        WHERE client_id = ANY($1::uuid[]) AND id = ANY($2::uuid[]) AND status = 'running'"""
    return dict(rows(statement, clients, list(turn_ids)))


def _ended(members: set[tuple[int, UUID]], turn_ids: set[UUID]) -> dict[UUID, tuple[Turn | None, Chunk | None]]:
    """Return the turns that have ended or were deleted, with their chunks, by id.

    members: the users with the clients that they are members of. The role sees rows of any of the users at any of the
    clients, also where this one is no longer that one's member.
    turn_ids: those that do not run any more, or that their readers may not read any more
    """
    theirs = Turn.objects.filter(client__in={client_id for _, client_id in members}, pk__in=turn_ids)
    found = theirs.defer("prompt", "draft")
    turns = {turn.pk: turn for turn in found if (turn.login_id, turn.client_id) in members}
    over = {pk: turn for pk, turn in turns.items() if turn.status != Turn.Status.RUNNING}
    said = by_client({turn.chunk_id: turn.client_id for turn in over.values() if turn.chunk_id})
    written = {client_id: Chunk.objects.filter(client=client_id, pk__in=ids) for client_id, ids in said.items()}
    chunks = {each.pk: each for pk, theirs in written.items() for each in with_text_and_feedback(theirs, pk)}
    ended: dict[UUID, tuple[Turn | None, Chunk | None]] = dict.fromkeys(turn_ids - set(turns), (None, None))
    return ended | {pk: (turn, chunks.get(turn.chunk_id or 0)) for pk, turn in over.items()}


_WANTED = """
    SELECT wanted.turn_id, d.attempt, d.start, d.text
    FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::int[]) AS wanted (client_id, turn_id, attempt, start)"""
_NEWER = """d.client_id = wanted.client_id AND d.turn_id = wanted.turn_id
        AND (d.attempt, d.start) >= (wanted.attempt, wanted.start)"""
# OFFSET 0 keeps the planner from joining, which looks at all deltas of all turns.
_OF_EACH_TURN = f"""
    CROSS JOIN LATERAL (SELECT d.attempt, d.start, d.text FROM copilot_deltas d WHERE {_NEWER} OFFSET 0) d"""
# Citus knows no OFFSET there, and finds the servers by the clients' ids.
_BY_JOIN = f"""
    JOIN copilot_deltas d ON {_NEWER}
    WHERE d.client_id = ANY ($1::uuid[])"""


def _new_parts(running: Mapping[UUID, UUID], readers: Sequence[Reader]) -> dict[UUID, list[ReplyPart]]:
    """Return the text that the slowest reader of each turn wants, in order, by turn.

    running: the client of each turn
    """
    slowest: dict[UUID, ReadPosition] = {}
    for reader in readers:
        known = slowest.get(reader.turn_id, reader.wanted)
        slowest[reader.turn_id] = min(known, reader.wanted, key=lambda each: (each.attempt, each.characters))
    found: dict[UUID, list[ReplyPart]] = {}
    for turn_id, attempt, start, text in rows(
        _WANTED + (_BY_JOIN if is_cluster() else _OF_EACH_TURN) + " ORDER BY wanted.turn_id, d.attempt, d.start",
        [running[turn_id] for turn_id in slowest],
        list(slowest),
        [position.attempt for position in slowest.values()],
        [position.characters for position in slowest.values()],
    ):
        found.setdefault(turn_id, []).append(ReplyPart(attempt, start, text))
    return found


feed = Feed()
