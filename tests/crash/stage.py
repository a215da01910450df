"""Convo as it runs: web and dispatcher as processes of their own, on a database of their own, between fake providers.

    with database() as url, Convo(url, folder) as convo:
        web, dispatcher = convo.start_web(), convo.start_dispatcher()
        convo.post(convo.meta.text_webhook("Hello"))
        dispatcher.kill()

Everything that is killed is killed with SIGKILL, at a moment that is held open: by the fake of a provider (`Hold`), or
by a trigger in the database (`Convo.held`), so that nothing depends on the speed of the machine.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import environ
import psycopg
import requests
from django.conf import settings
from django.db import OperationalError, connection
from django.utils import timezone

from conversations.models import ChannelAccount, Conversation, Message, Turn
from conversations.services.core.sql import column
from conversations.services.tenants import api_keys
from convo_project import embedded_postgres, postgres_place, processes
from convo_project.address import free_port
from tests import databases, factories
from tests.crash.preloaded import Preloaded
from tests.database_url import url_of
from tests.fakes.meta import FakeMeta, SignedWebhook
from tests.fakes.openai import FakeOpenAI
from tests.races.invariants import assert_sound

SECONDS = 60.0  # for whatever must happen; nothing here takes so long but on a machine that does something else
LOCK = 4_711
STOP = "tests_stop_here"


def eventually(condition: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
    """The condition's value once it is true; meanwhile the database may be away."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if value := condition():
                return value
        except (OperationalError, psycopg.OperationalError):
            connection.close()
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)


def state_of(pid: int) -> str:
    """The state of a process, in Linux's letters: T for one that is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def children_of(parent: int) -> list[int]:
    """The children of a process that live."""
    found = []
    for pid in processes.pids():
        with suppress(OSError):
            state, its_parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
            if int(its_parent) == parent and state != "Z":
                found.append(pid)
    return sorted(found)


# --- databases --------------------------------------------------------------------------------------------------------


@contextmanager
def database() -> Iterator[str]:
    """The address of a new, migrated database on the server that the tests use. Models in this process read it too."""
    new = {**connection.settings_dict, "NAME": f"crash_{os.getpid()}_{uuid4().hex[:8]}"}
    databases.make(new["NAME"])
    try:
        with databases.read(new):
            yield url_of(new)
    finally:
        databases.drop(new["NAME"])


class Postgres:
    """A server of our own that may be killed: the embedded one of a home."""

    def __init__(self, home: Path) -> None:
        self.home = home

    @contextmanager
    def running(self) -> Iterator[str]:
        """The address of its migrated database. Models in this process read it too."""
        embedded_postgres.start(self.home)
        try:
            url = embedded_postgres.database_url(self.home)
            database = environ.Env.db_url_config(url)
            databases.fill(database)
            with databases.read(database):
                yield url
        finally:
            embedded_postgres.remove(self.home)

    @property
    def pid(self) -> int:
        """The postmaster's."""
        return int((postgres_place.place_of(self.home).data / "postmaster.pid").read_text().splitlines()[0])

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """All its processes stand still inside the block, as on a machine that is swapped out; none is gone."""
        pids = [self.pid]
        os.kill(self.pid, signal.SIGSTOP)
        try:
            eventually(lambda: state_of(self.pid) == "T", "PostgreSQL makes no further processes")
            for pid in children_of(self.pid):
                os.kill(pid, signal.SIGSTOP)
                pids.append(pid)
            yield
        finally:
            for pid in reversed(pids):
                os.kill(pid, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL to the postmaster, which is gone then; its backends end when they notice."""
        os.kill(self.pid, signal.SIGKILL)
        eventually(lambda: not embedded_postgres.is_running(self.home), "the postmaster is gone")

    def start(self) -> None:
        """Start it again on what is on disk."""
        embedded_postgres.start(self.home)

    def kill_a_backend(self) -> None:
        """SIGKILL to a process that serves Convo; PostgreSQL ends all others and recovers by itself."""
        pids = "SELECT pid FROM pg_stat_activity WHERE application_name = 'convo' AND pid <> pg_backend_pid()"
        [pid, *_] = eventually(lambda: column(f"{pids} ORDER BY state = 'active' DESC"), "somebody is connected")
        os.kill(pid, signal.SIGKILL)


# --- processes --------------------------------------------------------------------------------------------------------


class Process:
    """A process of Convo's with all that it forks, and what it logs."""

    def __init__(self, preloaded: Preloaded, arguments: list[str], log: Path) -> None:
        self._preloaded, self.log = preloaded, log
        self.pid = preloaded.start(arguments, log)

    @property
    def is_alive(self) -> bool:
        return self._preloaded.exit_code(self.pid) is None

    def children(self) -> list[int]:
        """Its children that live."""
        return children_of(self.pid)

    def kill(self) -> None:
        """Send SIGKILL to all of it, and wait for its end."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()

    def terminate(self) -> None:
        """Send SIGTERM."""
        os.kill(self.pid, signal.SIGTERM)

    def stop(self) -> int:
        """Send SIGTERM, wait for its end and return the exit code."""
        self.terminate()
        return self.wait()

    def wait(self) -> int:
        """Wait for its end and return the exit code, negative for a signal."""
        assert processes.wait_for(lambda: not self.is_alive, SECONDS), self.log.read_text()
        code = self._preloaded.exit_code(self.pid)
        assert code is not None
        return code

    def has_logged(self, words: str) -> bool:
        return words in self.log.read_text(errors="replace")


class Hold:
    """Called, it holds its callers until `go_on`; `reached` when `count` are held. Further calls are not held."""

    def __init__(self, count: int = 1) -> None:
        self._left, self._guard = count, threading.Lock()
        self._reached, self._go_on = threading.Event(), threading.Event()

    def __call__(self) -> None:
        with self._guard:
            if not self._left:
                return
            self._left -= 1
            if not self._left:
                self._reached.set()
        self._go_on.wait(SECONDS)

    def reached(self) -> None:
        """Return when they are held."""
        assert self._reached.wait(SECONDS), "nobody came to where this test holds"

    def go_on(self) -> None:
        self._go_on.set()


class Provider(FakeMeta):
    """Meta, which can hold a request before or after it takes the message."""

    def __init__(self) -> None:
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None
        super().__init__()

    def handle(self, request: Any) -> Any:
        if b'"status":"read"' in request.body.replace(b" ", b""):
            return super().handle(request)  # a read mark is no message
        self.before()
        reply = super().handle(request)
        self.after()
        return reply


class Convo:
    """Its processes, what they share, and the world around them: `openai`, `meta`, a client with accounts and a key."""

    def __init__(self, database_url: str, folder: Path, **variables: str) -> None:
        self.folder, self.database_url, self.port = folder, database_url, free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.openai, self.meta = FakeOpenAI(), Provider()
        self._started: list[Process] = []
        self.variables = {
            **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
            **processes.mark(folder),  # should we be killed, they end as well
            "DATABASE_URL": database_url,
            "CONVO_HOME": str(folder),
            "SECRET_KEY": settings.SECRET_KEY,
            "CREDENTIALS_KEYS": ",".join(settings.CREDENTIALS_KEYS),
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "PUBLIC_BASE_URL": self.base_url,
            "WEB_WORKERS": "2",
            "WEB_THREADS": "8",
            "DISPATCH_REPLIES": "16",
            "DISPATCH_SENDS": "16",
            "DISPATCH_POLL_SECONDS": "0.05",
            "LEASE_SECONDS": "1",
            "REPLY_ATTEMPTS": "20",
            "RETRY_BASE_SECONDS": "0.05",
            "RETRY_MOST_SECONDS": "1",
            "API_REQUESTS_PER_MINUTE": "0",
            "OPENAI_API_KEY": "",
            "OPENAI_BASE_URL": self.openai.base_url,
            "GRAPH_BASE_URL": self.meta.base_url,
            **variables,
        }
        client = factories.ClientFactory(name="Shop", sub_domain=f"shop-{uuid4().hex[:8]}")
        factories.AssistantFactory(client=client, engine="openai")
        factories.SandboxFactory(client=client, channel="sms")
        ChannelAccount.objects.create(
            client=client,
            channel="whatsapp",
            provider="whatsapp",
            address=self.meta.phone_number_id,
            credentials={name: getattr(self.meta, name) for name in ("access_token", "app_secret", "verify_token")},
        )
        self.client_id, self.key = str(client.pk), api_keys.create_api_key(client)[1]

    def __enter__(self) -> Self:
        self.openai.__enter__()
        self._preloaded = Preloaded(self.variables, self.folder / "preloaded.log")
        return self

    @contextmanager
    def of_tree(self, tree: Path, **variables: str) -> Iterator[Convo]:
        """The same Convo by the code of another tree, whose web process has a port of its own."""
        other = copy(self)
        other.port, other._started = free_port(), []
        other.base_url, other.folder = f"http://127.0.0.1:{other.port}", self.folder / "other"
        other.folder.mkdir()
        other.variables = {**self.variables, "PORT": str(other.port), **variables}
        other._preloaded = Preloaded(other.variables, other.folder / "preloaded.log", tree)
        try:
            yield other
        finally:
            for process in other._started:
                process.kill()
            other._preloaded.close()

    def __exit__(self, *_exception: object) -> None:
        for process in self._started:
            process.kill()
        self._preloaded.close()
        self.openai.__exit__()
        self.meta.close()

    # --- what runs

    def start_web(self) -> Process:
        """The web process with its workers, once it answers."""
        web = self.start("web", "-m", "convo_project.web")
        eventually(lambda: self._answers() or self._died(web), "the web process answers")
        return web

    def kill_workers(self, web: Process) -> Process:
        """SIGKILL to every worker. Returns the web process that answers then: the same with new workers or, where it
        gave up because they had been killed a moment ago too, a new one, as `make up` starts it.
        """
        workers = web.children()
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: not set(workers) & set(web.children()), "the workers are gone")
        eventually(lambda: not web.is_alive or (web.children() and self._answers()), "the web process answers, or ends")
        return web if web.is_alive else self.start_web()

    def start_dispatcher(self, *arguments: str) -> Process:
        """A dispatcher, once it works."""
        dispatcher = self.begin_dispatcher(*arguments)
        eventually(lambda: dispatcher.has_logged("dispatcher started"), "the dispatcher works")
        return dispatcher

    def begin_dispatcher(self, *arguments: str) -> Process:
        """A dispatcher that is just starting."""
        return self.start("dispatcher", "manage.py", "dispatch", *arguments)

    def webs(self) -> list[Process]:
        """The web processes that live."""
        return self._alive("web")

    def dispatchers(self) -> list[Process]:
        """The dispatchers that live."""
        return self._alive("dispatcher")

    def _alive(self, name: str) -> list[Process]:
        return [process for process in self._started if process.is_alive and process.log.stem.endswith(name)]

    def start(self, name: str, *arguments: str) -> Process:
        """Start a program, given as Python's arguments; its log is called after `name`."""
        log = self.folder / f"{len(self._started)}-{name}.log"
        process = Process(self._preloaded, list(arguments), log)
        self._started.append(process)
        return process

    def _answers(self) -> bool:
        with suppress(requests.RequestException):
            return requests.get(f"{self.base_url}/healthz", timeout=5).status_code == 200
        return False

    def _died(self, process: Process) -> bool:
        assert process.is_alive, process.log.read_text()
        return False

    @contextmanager
    def held(self, table: str, when: str, count: int = 1) -> Iterator[Callable[[], None]]:
        """Whoever writes a row of the table where `when` is true of NEW stands still inside the block, just before.

        Gives a function that returns once `count` of them stand there. After the block they go on, if they live.
        """
        parameters = connection.get_connection_params() | {"cursor_factory": None}
        with psycopg.connect(self._conninfo(parameters), autocommit=True) as own:
            own.execute("SELECT pg_advisory_lock(%s)", [LOCK])
            own.execute(
                f"CREATE OR REPLACE FUNCTION {STOP}() RETURNS trigger LANGUAGE plpgsql AS "
                f"$$ BEGIN PERFORM pg_advisory_xact_lock({LOCK}); RETURN NEW; END $$"
            )
            own.execute(
                f"CREATE TRIGGER {STOP} BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW WHEN ({when}) "
                f"EXECUTE FUNCTION {STOP}()"
            )
            here = "database = (SELECT oid FROM pg_database WHERE datname = current_database())"  # others test beside
            waiting = f"SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = {LOCK} AND NOT granted AND {here}"
            try:
                yield lambda: eventually(
                    lambda: len(own.execute(waiting).fetchall()) >= count, "somebody comes to where this holds"
                )
            finally:
                own.execute("SELECT pg_advisory_unlock(%s)", [LOCK])
                own.execute(f"DROP TRIGGER {STOP} ON {table}")

    def _conninfo(self, parameters: Mapping[str, Any]) -> str:
        names = ("host", "port", "user", "password", "dbname")
        return psycopg.conninfo.make_conninfo(**{name: parameters[name] for name in names if parameters.get(name)})

    # --- what comes in

    def post(self, webhook: SignedWebhook) -> requests.Response:
        """Deliver what Meta posts, once."""
        return requests.post(
            f"{self.base_url}/webhooks/whatsapp/inbound",
            data=webhook.body,
            headers=dict(webhook.headers),
            timeout=SECONDS,
        )

    def post_own(self, **said: str) -> requests.Response:
        """Deliver our own JSON on sms, once."""
        return requests.post(
            f"{self.base_url}/webhooks/sms/inbound",
            json={"client_id": self.client_id, **said},
            headers={"X-Service-API-Key": self.key},
            timeout=SECONDS,
        )

    def says(self, text: str, person: str) -> None:
        """The person writes over WhatsApp."""
        answer = self.post(self.meta.text_webhook(text, sender=person))
        assert answer.status_code == 200, answer.text

    # --- what came of it

    def nothing_is_due(self) -> bool:
        """Every reply is written, every message gone or given up."""
        return not (
            Conversation.objects.filter(reply_owed=True).exists()
            or Turn.objects.filter(status="running").exists()
            or Message.objects.filter(status__in=["queued", "claimed", "sending"]).exists()
        )

    def becomes_quiet(self) -> None:
        """Wait until nothing is due."""
        try:
            eventually(self.nothing_is_due, "everything is answered and sent")
        except AssertionError as late:
            raise AssertionError(f"{late}\n{self._what_is_due()}") from None

    def _what_is_due(self) -> str:
        """What waits, and the ends of the dispatchers' logs."""
        owed = Conversation.objects.filter(reply_owed=True).values(
            *("id", "status", "reply_due_at", "reply_attempts", "reply_crashes", "replies_failed"),
            *("taken_over_at", "needs_staff_reason"),
        )
        turns = Turn.objects.filter(status="running").values()
        sends = Message.objects.filter(status__in=["queued", "claimed", "sending"]).values()
        rows = [f"{rows.model.__name__}: {row}" for rows in (owed, turns, sends) for row in rows[:5]]
        logs = [f"{process.log.name}:\n{process.log.read_text()[-4_000:]}" for process in self._started]
        return "\n".join([f"now {timezone.now()}", *rows, *logs])

    def sent_to(self, person: str) -> list[str]:
        """The texts that Meta took for the person."""
        return [message.text for message in self.meta.sent if message.to == person]

    def assert_everything_went_once(self) -> None:
        """No message reached Meta twice; those that reached it are those that our rows say have, or may have."""
        taken = Counter(message.our_message_id for message in self.meta.sent)
        assert set(taken.values()) <= {1}, [text for text, times in taken.items() if times > 1]
        ours = Message.objects.filter(channel_account__provider="whatsapp")
        left = {str(pk) for pk in ours.filter(status__in=["sent", "delivered", "read"]).values_list("pk", flat=True)}
        unclear = {str(pk) for pk in ours.filter(status="unknown").values_list("pk", flat=True)}
        assert left <= set(taken) <= left | unclear
        assert_sound()


class Crowd:
    """People who write, on WhatsApp and to our own door, from entering the block to leaving it.

    Each waits `pause` seconds before a message. It is delivered again until it is taken, as providers do, and only then
    comes the next. `said` is what was taken of each person, in order; `refusals` are the answers that were no success.
    """

    def __init__(self, convo: Convo, people: int = 8, pause: float = 0.01) -> None:
        self._convo, self._pause = convo, pause
        self._over = threading.Event()
        self.said: dict[str, list[str]] = {f"5198888{number:04}": [] for number in range(people)}
        self.refusals: list[requests.Response] = []
        self.interrupted = 0
        self._threads = [
            threading.Thread(target=self._writes, args=(person, number % 2 == 0), daemon=True)
            for number, person in enumerate(self.said)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(SECONDS)

    def goes_on(self, messages: int = 24) -> None:
        """Return when so many more messages were taken."""
        enough = self._taken() + messages
        eventually(lambda: self._taken() >= enough, f"{messages} more messages are taken")

    def _taken(self) -> int:
        return sum(len(said) for said in self.said.values())

    def _writes(self, person: str, at_the_provider: bool) -> None:
        while not self._over.wait(self._pause):
            number = str(len(self.said[person]))
            # In letters too: to the brake on loops, texts that differ by numbers alone are alike.
            text = f"message {number} of {person}, {''.join('abcdefghij'[int(digit)] for digit in number)}"
            if at_the_provider:
                webhook = self._convo.meta.text_webhook(text, sender=person)
                self._deliver(partial(self._convo.post, webhook))
            else:
                self._deliver(partial(self._convo.post_own, user_id=person, message=text, message_id=text))
            self.said[person].append(text)

    def _deliver(self, post: Callable[[], requests.Response]) -> None:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            try:
                answer = post()
            except requests.RequestException:
                self.interrupted += 1
            else:
                if answer.status_code == 200:
                    return
                self.refusals.append(answer)
            time.sleep(0.05)
        raise AssertionError("a message was never taken")

    def assert_heard_once_each(self) -> None:
        """Every message is in its person's one session, once, in order."""
        for person, said in self.said.items():
            [conversation] = Conversation.objects.filter(contact__user_id=person)
            assert list(conversation.chunks.filter(role="user").values_list("content", flat=True)) == said
        assert_sound()

    def assert_answered(self) -> None:
        """The last that was said in every session is an answer to the person's last words."""
        for person, said in self.said.items():
            last = Conversation.objects.get(contact__user_id=person).chunks.last()
            assert (last.role, last.content) == ("ai", f"You said: {said[-1]}")


def is_envelope(answer: requests.Response) -> bool:
    """Whether a failure is told as every failure is."""
    try:
        body = json.loads(answer.content)
    except ValueError:
        return False
    return body.get("success") is False and bool(body.get("error")) and bool(body.get("code"))
