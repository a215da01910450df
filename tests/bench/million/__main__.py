"""The costs of keeping a million sessions: the idle sweep, a purge, searches, the desk, exports, an erasure.

    make bench BENCH=".venv/bin/python -m tests.bench.million" ARGS="--sessions 1000000"

`make bench` gives a web process and a database of their own, which are gone afterwards; the rows are made in there
(rows.py) and then everything is done for real: messages come in over HTTP while guests are purged and a person is
erased, searches go by the API and by the back office, exports are processes of their own. A quarter of a
million takes ten minutes and 2 GB of disk on a busy machine; `--sessions 20000` shows that all of it works.
"""

from __future__ import annotations

import argparse
import cProfile
import itertools
import os
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

import requests

from tests.bench.million import desk, rows, searches
from tests.bench.million.watching import Messages, Transactions, memory_of, spread

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "convo_project.settings")
PROJECT = Path(__file__).parents[3]
SWEEPS = 30
MEASURED = ("purge", "sweep", "search", "desk", "export", "erase")
SLOW_PART = 0.002  # seconds


def say(what: str) -> None:
    """To whoever waits."""
    print(what, end="", flush=True)  # noqa: T201 - what it is for


# --- before -----------------------------------------------------------------------------------------------------------
def set_up(given: Any) -> rows.Plan:
    """Clients with sandboxes, and the rows."""
    from channels_out.kinds import Channel
    from conversations.models import ChannelAccount
    from conversations.services.tenants import setup

    clients = [UUID(given.client_id)]
    for number in range(rows.OTHERS):
        client = setup.create_client(f"Client {number}", f"client-{number}")
        clients.append(client.pk)
        for channel in Channel:
            ChannelAccount.objects.create(client=client, channel=channel, provider="sandbox", address="sandbox")
    plan = rows.Plan(given.sessions, given.guests, clients, datetime.now(UTC))
    begun = time.monotonic()
    rows.write(plan, say)
    say(f"written in {time.monotonic() - begun:.0f} s: {counts()}\n")
    check_documents()
    return plan


def counts() -> str:
    """How many rows there are, and how large the database is."""
    from django.db import connection

    tables = "conversations", "conversation_chunks", "contacts", "memories", "conversation_messages"
    with connection.cursor() as cursor:
        asked = ", ".join(f"(SELECT count(*) FROM {table})" for table in tables)
        cursor.execute(f"SELECT {asked}, pg_database_size(current_database()) / 1e9")
        *found, size = cursor.fetchone()
    counted = ", ".join(f"{count:,} {table}" for count, table in zip(found, tables, strict=True))
    return f"{counted}; {size:.1f} GB"


def check_documents() -> None:
    """Memory's own code would have indexed the same words."""
    from memory.models import Memory
    from memory.stores.database import DatabaseStore

    for known in Memory.objects.order_by("pk")[:20]:
        DatabaseStore().reindex(known.client_id, known.pk)
        if Memory.objects.get(pk=known.pk).document != known.document:
            raise AssertionError("The documents that were made here are not those that memory makes.")


# --- what is measured -------------------------------------------------------------------------------------------------
class Measured:
    """All of it, on the rows of one plan."""

    def __init__(self, plan: rows.Plan, given: Any) -> None:
        self.plan, self.given = plan, given
        self.words = rows.vocabulary()
        self.asked = searches.questions(self.words, rows.sentences(self.words), plan.open_from)

    def messages(self, who: Any, pause: float = 0.01) -> Messages:
        """Of the people that `who` names, over HTTP."""
        return Messages(self.given.url, self.given.api_key, self.given.client_id, who, pause)

    def others(self) -> Iterator[str]:
        """Our client's people with open sessions, for ever."""
        return itertools.cycle(self._user_ids("is_open AND NOT is_guest AND i <= $2", "i", self.plan.sessions))

    def _user_ids(self, which: str, order: str, *values: Any) -> list[str]:
        with rows.connection() as database:
            found = database.execute(
                f"SELECT 'person-' || person FROM bench.sessions WHERE client_id = $1 AND {which} ORDER BY {order}",
                [self.plan.clients[0], *values],
            ).fetchall()
        return [user_id for (user_id,) in found]

    def meanwhile(self, what: str, do: Any, same: Any) -> None:
        """`do` it, while others write, and `same`, whom it is about; with what all of them notice."""
        from django.db import connection

        with self.messages(partial(next, self.others())) as alone:
            time.sleep(2)
        connection.ensure_connection()
        watched = Transactions(connection.connection.info.backend_pid)
        with watched, self.messages(partial(next, self.others())) as others, self.messages(same) as own:
            begun = time.perf_counter()
            said = do()
            taken = time.perf_counter() - begun
        longest = max(watched.seconds, default=0.0)
        say(
            f"{what}: {said} in {taken:.1f} s\n"
            f"  transactions: {len(watched.seconds)}, the longest {longest:.3f} s;"
            f" longest wait for one of their locks {watched.wait:.3f} s\n"
            f"  messages of others alone: {spread(alone.seconds)}\n"
            f"  messages of others:       {spread(others.seconds)}\n"
            f"  messages of the same:     {spread(own.seconds)}\n"
        )

    def purge(self) -> None:
        """Expired guests, of whom some write again just now."""
        from conversations.services.retention import deletions, retention

        with rows.connection() as database:
            due = database.execute(
                "SELECT client_id, 'person-' || person FROM bench.sessions WHERE i > $1 AND status = 'expired'"
                " AND is_guest AND i <= $2 ORDER BY ended_at",
                [self.plan.sessions, self.plan.all],
            ).fetchall()
        gone = [0]

        def progress(_what: str, count: int) -> None:
            gone[0] = count

        next_ones = itertools.count()

        def somebody_next() -> str | None:
            """Of those who go next."""
            chosen = due[gone[0] :][next(next_ones) * 7 % deletions.BATCH :]
            return next((user_id for client_id, user_id in chosen if client_id == self.plan.clients[0]), None)

        def purge() -> str:
            return f"{retention.purge_guests(self.plan.at, progress):,} sessions"

        self.meanwhile("purge of guests", purge, somebody_next)
        with rows.connection() as database:  # as the server's own process does within some minutes
            database.execute("VACUUM (ANALYZE) conversations, conversation_chunks, conversation_messages, contacts")

    def sweep(self) -> None:
        """When nothing is due."""
        from conversations.services.jobs import sweep as lifecycle

        lifecycle.sweep(self.plan.at)
        profile, taken = cProfile.Profile(), []
        for number in range(SWEEPS):
            begun = time.perf_counter()
            if number % 2:
                profile.runcall(lifecycle.sweep, self.plan.at)
            else:
                lifecycle.sweep(self.plan.at)
                taken.append(time.perf_counter() - begun)
        say(f"idle sweep: {spread(taken)}\n")
        parts: dict[str, float] = {}
        of_sweep = next(key for key in pstats.Stats(profile).stats if key[2] == "sweep")  # type: ignore[attr-defined]
        for (_, _, name), (*_, callers) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
            if of_sweep in callers:
                parts[name] = parts.get(name, 0.0) + callers[of_sweep][3]
        runs = SWEEPS // 2
        for name, seconds in sorted(parts.items(), key=lambda part: -part[1]):
            say(f"  {name}: {1000 * seconds / runs:.2f} ms\n") if seconds / runs > 0.0001 else None
        self._explain_sweep(lifecycle)

    def _explain_sweep(self, lifecycle: Any) -> None:
        with rows.connection() as database:
            database.execute("SET enable_seqscan = off")
            plan = database.execute(
                f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) {lifecycle.DUE_BY_KIND.replace('$1', '$1::timestamptz')}",
                [self.plan.at],
            ).fetchall()
        say("".join(f"      {line}\n" for (line,) in plan))

    def search(self) -> None:
        """By the API, and by staff."""
        from django.contrib.auth import get_user_model
        from django.test import Client

        from conversations.services.history import search as searching
        from memory import services as memory

        client = self.plan.clients[0]
        with requests.Session() as http:
            http.headers["X-Service-API-Key"] = self.given.api_key

            def by_api(question: str) -> None:
                answer = http.get(f"{self.given.url}/memory/search", params={"q": question}, timeout=60)
                answer.raise_for_status()

            by_api("warm up")
            slowest = searches.measure("by the API (HTTP)", self.asked, by_api, say)
        with searches.explained("WITH newest", say):
            say(f"  the slowest, {slowest}:\n")
            memory.search(client, slowest)
        searches.measure(
            "by staff, open and ended",
            self.asked,
            lambda question: searching.search([client], question).sessions,
            say,
        )
        browser = Client(headers={"host": "localhost"})
        browser.force_login(get_user_model().objects.filter(is_superuser=True).first())
        some = {kind: questions[:5] for kind, questions in self.asked.items()}

        def page(question: str) -> None:
            path = f"/admin/conversations/conversation/?client__id__exact={client}&q={quote(question)}"
            if browser.get(path).status_code != 200:
                raise AssertionError(path)

        page("warm up")
        searches.measure("the page of the back office", some, page, say)

    def desk(self) -> None:
        """By a colleague who is signed in."""
        desk.prepare(self.plan, say)
        say("the desk (HTTP):\n")
        desk.measure(self.plan, self.given.url, self.asked, say)

    def export(self) -> None:
        """By the command, a process of its own."""
        from conversations.models import Client

        sub_domain = Client.objects.get(pk=self.plan.clients[0]).sub_domain
        say("export of a person, by the command:\n")
        for who in rows.PEOPLE:
            with tempfile.TemporaryDirectory() as folder:
                target = Path(folder) / "person.zip"
                command = [sys.executable, "manage.py", "export_contact", "--client", sub_domain]
                begun = time.perf_counter()
                process = subprocess.Popen(
                    [*command, "--user-id", who.user_id, "--to", str(target)],
                    cwd=PROJECT,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                most = 0.0
                while process.poll() is None:
                    most = max(most, memory_of(process.pid))
                    time.sleep(0.02)
                say(
                    f"  {who.chunks:,} chunks: {most:.0f} MB at most, {time.perf_counter() - begun:.1f} s, "
                    f"{target.stat().st_size / 1e6:.1f} MB of zip\n"
                )

    def erase(self) -> None:
        """Somebody with 10,000 chunks, who writes just then."""
        from conversations.models import Chunk, Contact, Erasure, Message
        from conversations.services.core.ledger import SYSTEM
        from conversations.services.retention import erasure as erasing
        from memory.models import Memory

        number = 1
        who = rows.PEOPLE[number].user_id
        contact = Contact.objects.get(client=self.plan.clients[0], user_id=who)
        say(f"to be erased: {erasing.preview(contact)}\n")

        def erase() -> str:
            erasure = erasing.begin(contact.pk, actor=SYSTEM, now=self.plan.at)
            return f"{erasure.removed['chunks']:,} chunks"

        self.meanwhile("erasure, rows", erase, lambda: who)
        begun = time.perf_counter()
        erasing.continue_erasures(self.plan.at)
        say(f"  the rest, and the certificate: {time.perf_counter() - begun:.2f} s\n")
        erasing.verify(Erasure.objects.get().certificate)
        assert not Chunk.objects.filter(conversation__contact=contact.pk).exists()
        assert not Memory.objects.filter(contact_id=contact.pk).exists()
        assert not Message.objects.filter(to_address=f"51{900_000_000 + rows.person_of(self.plan, number)}").exists()


def main() -> int:
    """Write, measure, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--url", "--pid", "--api-key", "--client-id"):
        parser.add_argument(name, required=True)
    parser.add_argument("--sessions", type=int, default=20_000)
    parser.add_argument("--guests", type=int, help="Expired, to be purged; as a rule a twentieth.")
    parser.add_argument("--only", nargs="+", choices=MEASURED)
    given = parser.parse_args()
    given.guests = given.guests or given.sessions // 20
    import django

    django.setup()
    measured = Measured(set_up(given), given)
    for name in given.only or MEASURED:
        getattr(measured, name)()
    return 0


if __name__ == "__main__":
    sys.exit(main())
