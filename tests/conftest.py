"""What most tests stand on: a shop with a key and sandbox accounts, and doors to knock at."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.test import Client as HttpClient
from django.test import TransactionTestCase
from django.utils import timezone

from channels_out.contract import SendResult
from channels_out.kinds import Channel
from conversations.engines.contract import Reply
from conversations.engines.registry import ask
from conversations.models import ChannelAccount, Client, Conversation, Message
from conversations.services.delivery import claiming
from conversations.services.delivery import sending as delivery
from conversations.services.delivery.sending import deliver
from conversations.services.media import claims as media_claims
from conversations.services.media import fetching
from conversations.services.replies import fetched_files, leases, pipeline, tool_runner, transcripts
from conversations.services.tenants import api_keys
from memory.language_models.contract import LLMError
from tests import bounds, databases, factories, named_clients

# Files of few tests that take long come first, so that in the end nobody waits for one of them.
FIRST = (
    "tests/convo_project/test_launch.py",
    "tests/conversations/test_schemathesis.py",
    "tests/convo_project/test_embedded_postgres.py",
    *("tests/crash/", "tests/client/", "tests/races/", "tests/copilot/", "tests/convo_project/"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files of FIRST first, in its order."""
    items.sort(key=lambda item: next((n for n, path in enumerate(FIRST) if item.nodeid.startswith(path)), len(FIRST)))


def pytest_configure() -> None:
    """Each test client makes the middleware anew, and whitenoise would list all static files each time."""
    settings.WHITENOISE_AUTOREFRESH = True


@pytest.fixture(scope="session")
def django_db_setup(
    django_test_environment: None,
    django_db_modify_db_settings: None,
    django_db_blocker: Any,
    django_db_keepdb: bool,
    django_db_createdb: bool,
) -> Iterator[None]:
    """The database of this process's tests, as pytest-django makes it, but copied; and emptied without TRUNCATE."""
    if url := os.environ.get(databases.CLUSTER):
        with django_db_blocker.unblock(), pytest.MonkeyPatch.context() as patch, databases.cluster(url):
            patch.setattr(TransactionTestCase, "_fixture_teardown", lambda _self: databases.empty())
            yield
        return
    name = connection.creation._get_test_db_name()
    with pytest.MonkeyPatch.context() as patch, databases.read({**connection.settings_dict, "NAME": name}):
        patch.setattr(TransactionTestCase, "_fixture_teardown", lambda _self: databases.empty())
        with django_db_blocker.unblock():
            databases.make(name, keep=django_db_keepdb and not django_db_createdb)
            databases.is_cluster()  # asked once in a process, so that no test counts it
            connection.close()
        yield
    if not django_db_keepdb:
        with django_db_blocker.unblock():
            databases.drop(name)


@pytest.fixture(autouse=True)
def _quick(settings: Any) -> None:
    """Nothing in a test waits for a retry, whatever the machine's own settings say."""
    settings.ALLOWED_HOSTS = ["*"]
    settings.API_REQUESTS_PER_MINUTE = 0
    settings.OPENAI_API_KEY = settings.OPENAI_BASE_URL = ""
    settings.PINECONE_API_KEY = settings.PINECONE_HOST = ""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(autouse=True)
def _media_of_its_own(settings: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Each test has an empty media storage."""
    settings.MEDIA_ROOT = tmp_path_factory.mktemp("media")


@pytest.fixture
def shop(db: Any) -> Client:
    """A client with an offline assistant and a sandbox account on every channel."""
    client = factories.ClientFactory(name="Shop", sub_domain="shop")
    factories.AssistantFactory(client=client, key="ada")
    ChannelAccount.objects.bulk_create(factories.SandboxFactory.build(client=client, channel=each) for each in Channel)
    return client


@pytest.fixture
def key(shop: Client) -> str:
    """An API key of the shop."""
    return api_keys.create_api_key(shop, "tests")[1]


class Door:
    """The shop's programs: JSON in, (status, envelope) out."""

    def __init__(self, shop: Client, key: str) -> None:
        self.shop, self.key, self.http = shop, key, HttpClient(raise_request_exception=False)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        raw = body if isinstance(body, bytes | str) else json.dumps(body)
        headers = {"X-Service-API-Key": self.key, **headers} if self.key else headers
        answer = self.http.generic(
            method, path, raw if body is not None else b"", content_type="application/json", headers=headers
        )
        return answer.status_code, json.loads(answer.content)

    def get(self, path: str) -> Any:
        status, envelope = self.call("GET", path)
        assert status == 200, envelope
        return envelope["data"]

    def says(self, message: str, *, channel: str = "sms", user_id: str = "ann", **more: Any) -> Any:
        """What the webhook answers to a person's message."""
        body = {"client_id": str(self.shop.pk), "user_id": user_id, "message": message, **more}
        status, envelope = self.call("POST", f"/webhooks/{channel}/inbound", body)
        assert status == 200, envelope
        return envelope["data"]


@pytest.fixture
def door(shop: Client, key: str) -> Door:
    """The shop's programs."""
    return Door(shop, key)


def fetch_all(*, at: datetime | None = None, most: int = bounds.MOST) -> int:
    """Fetch what is due, as a dispatcher does, on this thread; `at`: as if it were that time. Returns how many."""
    fetched = 0
    for _ in bounds.rounds("Fetching", list, most):
        token, claimed = media_claims.claim(at or timezone.now(), 100)
        if not claimed:
            break
        for client_id, attachment_id in claimed:
            fetched += 1
            goes_on = True
            if wanted := fetching.begin(client_id, attachment_id, token, timezone.now()):
                goes_on = fetched_files.record(wanted, fetching.fetch(wanted), timezone.now())
            recording = transcripts.begin(client_id, attachment_id, token, timezone.now()) if goes_on else None
            if recording:
                said = transcripts.write_down(recording)
                written = transcripts.record_failed if isinstance(said, LLMError) else transcripts.record_written
                written(recording, said, timezone.now())  # type: ignore[operator]
    return fetched


def reply_to_all(*, most: int = bounds.MOST) -> int:
    """Do what a dispatcher does until nothing is due, on this thread. Returns how many turns were taken.

    Raises AssertionError, which names the conversations that still owe a reply, after `most` rounds.
    """
    taken = 0
    for _ in bounds.rounds("Replying", _owing, most):
        claims = leases.claim(timezone.now(), 100)
        if not claims:
            break
        for claim in claims:
            taken += 1
            if claim.calls:
                tool_runner.make_waiting(claim, lambda work, *values: work(*values))
            prepared = pipeline.prepare(claim)
            if prepared is None:
                continue  # a rule gave the session to a person
            request, engine = prepared
            outcome = ask(engine, request)
            settle = pipeline.commit if isinstance(outcome, Reply) else pipeline.fail
            settle(claim, outcome, timezone.now())
    return taken


def _owing() -> list[str]:
    """Each conversation that owes a reply, with its newest turn."""
    found = []
    for each in Conversation.objects.filter(reply_owed=True).order_by("started_at"):
        turn = each.turns.order_by("-started_at").first()
        said = f"turn {turn.attempt} {turn.status} {turn.code}".strip() if turn else "no turn"
        found.append(f"conversation {each.pk} ({each.status}, due {each.reply_due_at}): {said}")
    return found


def send_all(*, may_refuse: bool = False, most: int = bounds.MOST) -> int:
    """Send what is due, on this thread. Returns how many sends were tried.

    may_refuse: a claimed message may turn out not to be sent any more

    Raises AssertionError, which names the messages that are still to be sent, after `most` rounds.
    """
    tried = 0
    for _ in bounds.rounds("Sending", _unsent, most):
        token, ids = claiming.claim(timezone.now(), 100)
        if not ids:
            break
        for message_id in ids:
            sending = delivery.begin(message_id, token, timezone.now())
            if sending is None and may_refuse:
                continue
            tried += 1
            assert sending is not None
            outcome = deliver(sending)
            settle = delivery.record_sent if isinstance(outcome, SendResult) else delivery.record_failed
            settle(sending, outcome, timezone.now())
    return tried


def _unsent() -> list[str]:
    """Each message that is still to be sent, with its state."""
    unsent = Message.objects.filter(status__in=["queued", "claimed", "sending"]).order_by("created_at", "part")
    return [
        f"message {each.pk} of conversation {each.conversation_id}"
        f" ({each.status}, part {each.part}, due {each.due_at}): attempt {each.attempts} {each.code}".strip()
        for each in unsent
    ]


@pytest.fixture(autouse=True, scope="session")
def _statements() -> Iterator[list[str]]:
    wrong: list[str] = []
    with named_clients.watched(wrong):
        yield wrong


@pytest.fixture(autouse=True)
def _clients_are_named(request: pytest.FixtureRequest, _statements: list[str]) -> Iterator[None]:
    """Every statement of ours that touches clients' rows names the client, or its function is in the list.

    A test that makes a statement forget the client is marked `forgets_the_client`.
    """
    yield
    if request.node.get_closest_marker("forgets_the_client"):
        _statements.clear()
    wrong = list(dict.fromkeys(_statements))
    _statements.clear()
    if wrong and os.environ.get("NAMED_OUT"):
        with open(os.environ["NAMED_OUT"], "a") as out:
            out.writelines(line.replace("\n", " ") + "\n" for line in wrong)
        return
    assert not wrong, "\n".join(wrong)
