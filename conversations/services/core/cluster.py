"""A database of several servers: Citus has placed the clients' rows on them (tenants/servers.py).

A statement that names one client runs on that client's server, as it would on one server alone. One over all clients
fails while any server is away, and may not look into each client's rows in turn. So what concerns all clients is asked
of each client there. On one server alone nothing here changes what is asked.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from typing import Any, TypeVar
from uuid import UUID

from django.db import OperationalError, connection
from django.db.models import Model, QuerySet

from conversations.services.core.silence import silence
from conversations.services.core.sql import column, rows

Done = TypeVar("Done")
AnyModel = TypeVar("AnyModel", bound=Model)

log = logging.getLogger(__name__)

_IS_CLUSTER = """
    SELECT EXISTS (
        SELECT FROM pg_dist_partition WHERE logicalrelid = to_regclass('conversations') AND partmethod = 'h')"""


def is_cluster() -> bool:
    """Return whether clients' rows are placed on several servers. Each process asks once."""
    return _is_cluster(*(str(connection.settings_dict[name]) for name in ("NAME", "HOST", "PORT")))


def is_known_cluster() -> bool:
    """Return the same; in an event loop, which waits for no answer, False as long as the process has not asked."""
    if _answers:  # the hot path: to name the connection's database costs more than all the rest
        return _answers[-1]
    return False if _is_event_loop() else is_cluster()


_answers: list[bool] = []


@cache
def _is_cluster(_name: str, _host: str, _port: str) -> bool:
    found = bool(rows("SELECT FROM pg_extension WHERE extname = 'citus'") and rows(_IS_CLUSTER)[0][0])
    _answers.append(found)
    return found


def can_ask_others() -> bool:
    """Return whether other servers can be asked after a statement failed. A lost connection is replaced."""
    if connection.in_atomic_block or not is_cluster():
        return False
    if not connection.is_usable():
        connection.close()
        try:
            connection.ensure_connection()
        except OperationalError:
            return False
    return True


def of_each(names: Iterable[tuple[Any, ...]], ask: Callable[..., Done]) -> Iterator[Done]:
    """Yield what `ask` returns for the values of each of the names. In a cluster those are left out whose server is
    away, or hangs."""
    for values in names:
        if silence.leaves_out(values):
            continue
        began = time.monotonic()
        try:
            done = ask(*values)
        except OperationalError as error:
            if not can_ask_others():
                raise
            log.warning("a server of the database is away: class=%s", type(error.__cause__ or error).__name__)
            silence.note_failure(values, began, all_clients)
            continue
        silence.note_answer(values)
        yield done


def all_clients() -> Sequence[UUID]:
    """Return the ids of all clients, which each server knows."""
    return column("SELECT id FROM clients ORDER BY id")


def clients_with(statement: str, *values: Any) -> Sequence[UUID]:
    """Return the clients that the statement lists; all clients while a server of a cluster is away."""
    if silence.is_anywhere():
        return all_clients()
    try:
        return column(statement, *values)
    except OperationalError:
        if not can_ask_others():
            raise
        return all_clients()


def for_each_with(statement: str, values: Sequence[Any], work: Callable[[UUID], Done]) -> Iterator[Done]:
    """Yield what `work` returns for each client that the statement lists, but for those whose server is away."""
    return of_each([(client_id,) for client_id in clients_with(statement, *values)], work)


def of_all(read: Callable[[UUID | None], Iterable[Done]], client_ids: Sequence[UUID] | None = None) -> list[Done]:
    """Return what `read(None)` returns, of all clients, or of these.

    While a server of a cluster is away, that is what `read` returns for each client whose server answers.
    """
    if not silence.is_anywhere():
        try:
            return list(read(None))
        except OperationalError:
            if not can_ask_others():
                raise
    names = [(pk,) for pk in (all_clients() if client_ids is None else client_ids)]
    return [found for each in of_each(names, lambda pk: list(read(pk))) for found in each]


def clients_that_answer(client_ids: Sequence[UUID] | None = None) -> list[UUID]:
    """Return those of the clients, or of all, whose server answers: a statement over these reaches no other."""
    asked = [(pk,) for pk in (all_clients() if client_ids is None else client_ids)]

    def ask(client_id: UUID) -> UUID:
        rows("SELECT 1 FROM contacts WHERE client_id = $1 LIMIT 1", client_id)
        return client_id

    return list(of_each(asked, ask))


def of_client(found: QuerySet[AnyModel], client_id: UUID | None) -> QuerySet[AnyModel]:
    """Return those of the rows that are the client's; all of them for None."""
    return found.filter(client=client_id) if client_id else found


def exists(found: QuerySet[AnyModel]) -> bool:
    """Return whether there is any such row of any client."""
    return any(of_all(lambda pk: [of_client(found, pk).exists()]))


def rows_over_all(statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Return the rows of a statement over all clients.

    `{only:t}` in it stands for `true`, or for the condition on one client where each is asked by itself.

    rows_over_all("SELECT … FROM conversation_turns t WHERE {only:t} AND …")
    """

    def read(client_id: UUID | None) -> list[tuple[Any, ...]]:
        if client_id is None:
            return rows(_ONLY.sub("true", statement), *values)
        return rows(_ONLY.sub(rf"\1.client_id = ${len(values) + 1}", statement), *values, client_id)

    return of_all(read)


_ONLY = re.compile(r"\{only:(\w+)\}")


def rows_of_each_client(statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Return the rows of the statement for each client in turn, whose id follows the values."""
    ids = [(pk,) for pk in all_clients()]
    return [found for each in of_each(ids, lambda pk: rows(statement, *values, pk)) for found in each]


# --- a server that does not answer ------------------------------------------------------------------------------------
SLOW_SECONDS = 1.0  # a server that refuses connections costs nothing; one that hangs costs as long as is waited for it
PAUSE_SECONDS = 2.0
PATIENCE_SECONDS = 3.0  # longer than a client's writes wait, as a rule, while it is moved
MOST_AT_ONCE = 4  # messages of one client in threads


class _Asked:
    """The statements of a client that are under way."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(MOST_AT_ONCE)
        self._began: list[float] = []
        self._away_until = 0.0

    def check(self) -> None:
        """Raise OperationalError where the client's server does not answer."""
        now = time.monotonic()
        if self._away_until > now or min(self._began, default=now) < now - PATIENCE_SECONDS:
            raise OperationalError(_SILENT)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold one of the client's places in threads. A thread that asks by itself needs none.

        Raises OperationalError where none gets free within PATIENCE_SECONDS.
        """
        if not _is_event_loop():
            yield
            return
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            raise OperationalError(_SILENT) from None
        try:
            yield
        finally:
            self._places.release()

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note a statement while it is under way, and whether it waited in vain."""
        began = time.monotonic()
        self._began.append(began)
        try:
            yield
        except OperationalError:
            if time.monotonic() - began > SLOW_SECONDS:
                self._away_until = time.monotonic() + PAUSE_SECONDS
            raise
        finally:
            self._began.remove(began)


_SILENT = "The client's server does not answer."
_asked: dict[UUID, _Asked] = {}


@asynccontextmanager
async def answering(client_id: UUID) -> AsyncIterator[None]:
    """Raise OperationalError at once where the client's server of a cluster does not answer.

    A message of the client's waits for it since seconds, or did so a moment ago, or all its places are taken. So a
    flood of one client's messages does not hold all threads while its server hangs.
    """
    asked = _asked.setdefault(client_id, _Asked())
    asked.check()
    async with asked.place():
        asked.check()
        with asked.noted():
            yield


def _is_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


# --- one row of what was found ----------------------------------------------------------------------------------------
class InsertSelect:
    """An INSERT of the row that a SELECT finds. Where the row gets a number, Citus asks every server for such a
    statement, so a cluster reads and writes by statements of their own.

        InsertSelect("desk_seen (client_id, …)", "SELECT s.client_id, … FROM conversations s WHERE …", "ON CONFLICT …")
    """

    def __init__(self, into: str, select: str, then: str) -> None:
        places = ", ".join(f"${number}" for number in range(1, into.count(",") + 2))
        self._at_once = f"INSERT INTO {into} {select} {then}"
        self._select, self._insert = select, f"INSERT INTO {into} VALUES ({places}) {then}"

    def rows(self, *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows of its RETURNING: none where nothing was found."""
        if not is_cluster():
            return rows(self._at_once, *values)
        return [written for found in rows(self._select, *values) for written in rows(self._insert, *found)]


# --- statements over some clients -------------------------------------------------------------------------------------
def of_one(statement: str, clients: str = "$1::uuid[]") -> str:
    """Return the statement for the first of `clients` alone, named wherever a client is: a cluster takes no other."""
    first = f"({clients})[1]"
    return re.sub(r"client_id = (ANY \(\$1::uuid\[\]\)|of_client|[a-z]+\.client_id)", f"client_id = {first}", statement)


def rows_of_clients(
    statement: str, client_ids: Sequence[UUID], *values: Any, at_once: bool = False
) -> list[tuple[Any, ...]]:
    """Return the rows of the statement for the clients $1, an array; the other values follow.

    In a cluster each client is asked by a statement of its own, so that the rows of several are to be sorted anew. Of
    several, those whose server is away are left out.

    at_once: a cluster takes the statement as it is; each client is asked where that fails
    """
    whole, alone = list(client_ids), of_one(statement)

    def of_one_alone(client_id: UUID | None) -> list[tuple[Any, ...]]:
        return rows(alone, [client_id], *values)

    if not is_cluster():
        return rows(statement, whole, *values)
    if len(whole) == 1:
        return of_one_alone(whole[0])
    if at_once:
        return of_all(lambda pk: of_one_alone(pk) if pk else rows(statement, whole, *values), whole)
    return [found for one in of_each([(pk,) for pk in whole], of_one_alone) for found in one]
