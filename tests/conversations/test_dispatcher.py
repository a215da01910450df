"""The dispatcher as it runs: many waits at once, no connection held meanwhile, and a clean stop."""

from __future__ import annotations

import threading
import time

import pytest
from django.db import connection, connections

from conversations.engines import registry
from conversations.engines.contract import Reply
from conversations.models import Chunk, Conversation, Message, Turn
from conversations.services.replies.dispatcher import LOOK_SECONDS, ROW_THREADS, Dispatcher

pytestmark = pytest.mark.django_db(transaction=True)


class Gate:
    """An engine at which everybody waits until it is opened."""

    name = "offline"

    def __init__(self):
        self.opened, self.inside, self.most, self.guard = threading.Event(), 0, 0, threading.Lock()

    def reply(self, request):
        with self.guard:
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.opened.wait(60)
        with self.guard:
            self.inside -= 1
        return Reply("Hello", "offline")


@pytest.fixture
def gate(monkeypatch):
    gate = Gate()
    monkeypatch.setitem(registry.ENGINES, "offline", gate)
    yield gate
    gate.opened.set()


@pytest.fixture
def dispatcher(settings):
    """A dispatcher of 64 replies running on a thread of its own; stopped at the end."""
    settings.DISPATCH_REPLIES = 64
    running = Dispatcher(patience=20)

    def run():
        running.run()
        connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    yield running
    running.stop()
    thread.join(30)
    assert not thread.is_alive()


def eventually(what, seconds=60):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def connections_of_ours():
    with connection.cursor() as cursor:
        cursor.execute(  # the server's own vacuum is none of them
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND backend_type = 'client backend'"
        )
        return cursor.fetchone()[0]


def test_sixty_four_replies_are_waited_for_at_once_and_hold_no_connections(door, gate, dispatcher):
    for number in range(70):
        door.says("Hello", user_id=f"user-{number}")
    eventually(lambda: gate.inside == 64)

    assert Turn.objects.filter(status="running").count() == 64
    assert connections_of_ours() <= ROW_THREADS + 2, "the rows' threads, the loop's and this test's"
    gate.opened.set()
    eventually(lambda: Message.objects.filter(status="delivered").count() == 70)
    assert Chunk.objects.filter(role="ai").count() == 70
    assert gate.most == 64


def test_looks_for_what_is_due_keep_their_pace_however_many_replies_end(door, gate, dispatcher):
    for number in range(60):
        door.says("Hello", user_id=f"user-{number}")
    eventually(lambda: gate.inside == 60)
    look, looks, began = dispatcher.tick, [], time.monotonic()
    dispatcher.tick = lambda: looks.append(1) or look()
    gate.opened.set()
    eventually(lambda: Message.objects.filter(status="delivered").count() == 60)

    assert len(looks) <= (time.monotonic() - began) / LOOK_SECONDS + 3


def test_a_message_is_answered_and_delivered(door, dispatcher):
    conversation_id = door.says("Hello")["conversation_id"]
    eventually(lambda: Message.objects.filter(status="delivered").exists())
    roles = [chunk["role"] for chunk in door.get(f"/conversations/{conversation_id}")["chunks"]]
    assert roles == ["system", "memory", "user", "ai"]


def test_a_lease_is_renewed_while_the_engine_waits(door, gate, dispatcher, settings):
    settings.LEASE_SECONDS = 1
    door.says("Hello")
    eventually(lambda: gate.inside == 1)
    first = Turn.objects.get().lease_until
    eventually(lambda: Turn.objects.get().lease_until > first)
    time.sleep(1.5)
    gate.opened.set()
    eventually(lambda: Turn.objects.get().status == "committed")
    assert Turn.objects.count() == 1


def test_a_stop_gives_back_what_was_not_finished(door, gate):
    dispatcher = Dispatcher(patience=0.2)
    thread = threading.Thread(target=lambda: (dispatcher.run(), connections.close_all()))
    thread.start()
    door.says("Hello")
    eventually(lambda: gate.inside == 1)
    dispatcher.stop()
    thread.join(30)

    assert Turn.objects.get().status == "abandoned"
    assert Conversation.objects.get().reply_owed is True
    gate.opened.set()
    eventually(lambda: gate.inside == 0)
    assert not Chunk.objects.filter(role="ai").exists()
