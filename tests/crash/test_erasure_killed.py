"""kill -9 of an erasure, at every step of it: whoever goes on with it comes to the same end, and nothing is left."""

from __future__ import annotations

import copy
import json
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import requests
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.utils import timezone

from conversations.models import (
    Assistant,
    ChannelAccount,
    Client,
    Contact,
    Conversation,
    EngineChatRemoval,
    Erasure,
    SendPause,
)
from conversations.services.core import audit_log
from conversations.services.retention import erasure as erasing
from memory.models import MemoryVector
from tests.bounds import rounds
from tests.crash import eraser, stage
from tests.crash.stage import Convo, eventually
from tests.fakes.pinecone import FakePinecone
from tests.fakes.retell import FakeRetell
from tests.fakes.server import Fault
from tests.sizes import times

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]  # the first test waits for Convo to start, and for two lives

SECRET = "cron-secret"
SWEPT = {"Authorization": f"Bearer {SECRET}"}
# Where something is kept about to be deleted, once the person's rows are gone.
UNFINISHED = (Erasure, EngineChatRemoval, MemoryVector)
EVERY = times(3, 1)  # once the person's rows are gone, it is killed at every third step, or at each


@dataclass(frozen=True)
class Person:
    """Somebody, and what they talk about. None of these words stands in anything else."""

    name: str
    phone: str
    word: str

    def are_in(self, texts: Iterable[str]) -> list[str]:
        """Those of the texts that say something of them."""
        words = [self.name.lower(), self.phone, self.word]
        return [text[:300] for text in texts if any(word in text.lower() for word in words)]


BOB = Person("Bob Builder", "51999000088", "kettle")  # who stays


class World:
    """Convo with Pinecone and Retell, in which people live."""

    def __init__(self, convo: Convo, index: FakePinecone, retell: FakeRetell) -> None:
        self.convo, self.index, self.retell = convo, index, retell
        self.client = Client.objects.get()
        self.lives(BOB)

    def lives(self, who: Person) -> str:
        """They write, are answered, have the session closed and remembered, write again; and are known in trails.
        Returns the user id."""
        convo = self.convo
        for text in (f"My {who.word} leaks", f"It is the large {who.word}"):
            convo.post(convo.meta.text_webhook(text, sender=who.phone, name=who.name)).raise_for_status()
            convo.becomes_quiet()
        first = Conversation.objects.get(contact__phone=f"+{who.phone}")
        step = {"description": f"Mend the {who.word}"}
        self.call(f"conversations/{first.pk}/steps", step, **{"Idempotency-Key": f"mend-{who.word}"})
        self.call(f"conversations/{first.pk}/close", {"reason": f"{who.word} mended"})
        self.sweep()
        remembered = Conversation.objects.filter(pk=first.pk, remembered_at__isnull=False)
        eventually(remembered.exists, "it is remembered")
        convo.post(convo.meta.text_webhook(f"The {who.word} again", sender=who.phone, name=who.name))
        convo.becomes_quiet()
        reaction = {"from": who.phone, "id": f"wamid.{who.word}", "timestamp": "1700000000", "type": "reaction"}
        convo.post(convo.meta.webhook(messages=[{**reaction, "reaction": {"message_id": "x", "emoji": "+1"}}]))
        contact = Contact.objects.get(phone=f"+{who.phone}")
        account, until = ChannelAccount.objects.get(provider="whatsapp"), timezone.now() + timedelta(hours=1)
        SendPause.objects.create(channel_account=account, to_address=who.phone, until=until)
        user, _ = get_user_model().objects.get_or_create(username="mona")
        audit_log.record(user, "changed", contact, self.client.pk, {"name": ("", who.name)})
        kind = ContentType.objects.get_for_model(Contact)
        logged = {"object_id": str(contact.pk), "object_repr": who.name, "action_flag": CHANGE}
        LogEntry.objects.create(user=user, content_type=kind, **logged)
        return contact.user_id

    def call(self, path: str, body: Any, **headers: str) -> None:
        headers = {"X-Service-API-Key": self.convo.key, **headers}
        requests.post(f"{self.convo.base_url}/{path}", json=body, headers=headers, timeout=60).raise_for_status()

    def sweep(self) -> dict[str, Any]:
        """What the clock does, by HTTP."""
        answer = requests.post(f"{self.convo.base_url}/cron/sweep", headers=SWEPT, timeout=60)
        return dict(answer.json()["data"])

    def erase(self, user_id: str, step: int = 0) -> str:
        """Return the step where it was killed; '' where it came to its end."""
        order = (self.client.sub_domain, user_id, str(step), str(self.convo.folder / "steps"))
        erasing = self.convo.start("eraser", "-m", eraser.MODULE, *order)
        code, reached = erasing.wait(), self.steps()
        assert code in (0, -signal.SIGKILL), f"it failed, after {reached[-1:]}: {erasing.log.read_text()}"
        return reached[-1] if code else ""

    def steps(self) -> list[str]:
        """Return the names of the steps that the last erasure reached."""
        return (self.convo.folder / "steps").read_text().splitlines()

    # --- what there is

    def outside(self) -> tuple[Any, Any]:
        """What Pinecone and Retell have."""
        return copy.deepcopy(self.index.namespaces), copy.deepcopy(self.retell.chats)

    def traces(self, who: Person) -> dict[str, list[str]]:
        """Every table, store and log that says something of the person, with what."""
        logs = {log.name: log.read_text(errors="replace").splitlines() for log in self.convo.folder.glob("*.log")}
        chats = [json.dumps(chat.as_json()) for chat in self.retell.chats.values()]
        places = {**every_row(), **logs, "Pinecone": [repr(self.index.namespaces)], "Retell": chats}
        return {place: found for place, texts in places.items() if (found := who.are_in(texts))}


def every_row() -> dict[str, list[str]]:
    """The rows of all tables that there are, each with all of its columns as text."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1"
        )
        tables = [table for (table,) in cursor.fetchall()]
        cursor.execute(" UNION ALL ".join(f"SELECT '{table}', t::text FROM {table} t" for table in tables))
        found: dict[str, list[str]] = {}
        for table, row in cursor.fetchall():
            found.setdefault(table, []).append(row)
    return {table: sorted(rows) for table, rows in found.items()}


@pytest.fixture(scope="module")
def world(tmp_path_factory, django_db_blocker) -> Iterator[World]:
    with (
        django_db_blocker.unblock(),
        stage.database() as url,
        FakePinecone(api_key="pc") as index,
        FakeRetell() as retell,
        stage.Convo(
            url,
            tmp_path_factory.mktemp("convo"),
            LOG_LEVEL="DEBUG",
            CRON_SECRET=SECRET,
            PINECONE_HOST=index.url,
            PINECONE_API_KEY="pc",
            RETELL_BASE_URL=retell.url,
            RETELL_API_KEY=retell.key,
        ) as convo,
    ):
        Assistant.objects.update(engine="retell", retell_agent_id="agent_collections")
        convo.begin_dispatcher()
        convo.start_web()
        yield World(convo, index, retell)


def unfinished() -> list[Any]:
    return [model._default_manager.in_bulk() for model in UNFINISHED]


def restore(rows: list[Any]) -> None:
    for model in reversed(UNFINISHED):
        model._default_manager.all().delete()
    for model, kept in zip(UNFINISHED, rows, strict=True):
        model._default_manager.bulk_create(kept.values())


def said_by_the_certificate() -> dict[str, Any]:
    facts = erasing.verify(Erasure.objects.latest("begun_at").certificate)
    assert facts.pop("finished_at")
    return facts


def test_an_erasure_that_is_killed_at_any_step_and_resumed_leaves_nothing(world: World) -> None:
    zebulon = Person("Zebulon", "51999000077", "quagmire")
    user_id = world.lives(zebulon)
    assert len(world.traces(zebulon)) >= 14, "this test finds what there is"
    before, outside = every_row(), world.outside()

    killed_at: list[str] = []
    for _ in rounds("Erasing", lambda: f"killed at {killed_at[-5:]}", most=500):
        if not Contact.objects.filter(user_id=user_id).exists():
            break
        killed_at.append(world.erase(user_id, step=len(killed_at) + 1))
        if not Erasure.objects.exists():
            assert every_row() == before, f"half an erasure: {killed_at[-1]}"
            assert world.outside() == outside, f"half an erasure: {killed_at[-1]}"
    assert killed_at[-1] == "after the commit"
    over_the_network = [step for step in killed_at if "Pinecone" in step or "Retell" in step]
    assert over_the_network == [], "a transaction over the network"

    def end() -> tuple[Any, ...]:
        return said_by_the_certificate(), world.outside(), world.traces(zebulon)

    begun, outside = unfinished(), world.outside()
    killed_at, ends = [], []
    for _ in rounds("Erasing", lambda: f"killed at {killed_at[-5:]}", most=500):
        step = world.erase(user_id, step=EVERY * (len(killed_at) + 1))
        if not step:
            break
        killed_at.append(step)
        assert world.erase(user_id) == ""
        ends.append(end())
        restore(begun)
        world.index.namespaces, world.retell.chats = (copy.deepcopy(each) for each in outside)
    steps = set(world.steps())
    facts, (vectors, chats), traces = end()
    assert traces == {}
    assert (facts["removed"]["sessions"], facts["removed"]["chats"]) == (2, 2)
    assert [len(kept) for kept in vectors.values()] == [MemoryVector.objects.count()]
    assert len(chats) == 2, "Bob's"
    for found, step in zip(ends, killed_at, strict=True):
        assert found == (facts, (vectors, chats), traces), step
    assert {"before Pinecone", "after Pinecone", "before Retell", "after Retell", "after the commit"} <= steps
    assert len(killed_at) >= 30 // EVERY
    after = every_row()
    for table, rows in before.items():
        assert set(BOB.are_in(rows)) <= set(BOB.are_in(after[table])), table


def test_providers_that_are_down_at_first_are_cleared_by_the_sweep(world: World) -> None:
    yolanda = Person("Yolanda", "51999000099", "manometer")
    user_id = world.lives(yolanda)
    world.retell.fail_next(Fault(cut="before"), times=3)
    world.index.fail_next(Fault(status=503), times=5)
    assert world.erase(user_id) == ""
    erasure = Erasure.objects.latest("begun_at")
    assert not erasure.certificate
    assert erasure.problem
    assert world.traces(yolanda).keys() == {"Retell"}
    eventually(lambda: world.sweep()["erased"], "the sweep goes on with it")
    assert said_by_the_certificate()["removed"] == erasure.removed
    assert world.traces(yolanda) == {}
    assert len(world.retell.chats) == 2, "Bob's"
