"""A task that fails in the queue: its log, its row, and the end of that row."""

from __future__ import annotations

import logging
from datetime import timedelta
from multiprocessing import Value
from queue import Queue
from uuid import uuid4

import pytest
from django.utils import timezone
from django_q.models import Failure, Task
from django_q.monitor import monitor
from django_q.worker import worker

from conversations import tasks
from conversations.queue import FAILURES_KEPT, TaskFailedError
from conversations.services.history import archive, remember
from conversations.services.jobs import sweep
from tests import factories
from tests.json_lines import json_lines

pytestmark = pytest.mark.django_db
PHONE = "+51" + "9" * 9


def _fail(*_: object) -> None:
    raise ValueError(f"cannot read {PHONE}")


@pytest.mark.django_db(transaction=True)
def test_what_a_task_s_error_quotes_is_not_kept(monkeypatch, caplog):
    """Here django-q2's own worker runs the task, and its monitor stores and logs what was raised."""
    monkeypatch.setattr(archive, "archive", _fail)
    given, results = Queue(), Queue()
    task = {"id": uuid4().hex, "name": "archive", "func": "conversations.tasks.archive", "args": (), "kwargs": {}}
    for each in ({**task, "started": timezone.now()}, "STOP"):
        given.put(each)
    worker(given, results, Value("f", -1), timeout=None)
    results.put("STOP")
    with caplog.at_level("ERROR", "django-q"):
        monitor(results)

    [failure] = Failure.objects.all()
    assert "builtins.ValueError in archive" in failure.result
    assert PHONE not in failure.result
    assert "task failed: archive" in caplog.text
    assert "see the log" in caplog.messages[-1]  # what django-q2 says
    assert PHONE not in caplog.messages[-1]


def test_every_task_keeps_quiet_of_what_its_error_says(monkeypatch):
    names = ["sweep", "settle_chats", "summarise", "remember_ended", "erase", "archive", "clean_up", "refresh_models"]
    monkeypatch.setattr(tasks, "timezone", None)  # whatever a task does first, it fails
    for service in ("chat_endings", "summaries", "remember"):
        monkeypatch.setattr(tasks, service, None)
    for name in names:
        with pytest.raises(TaskFailedError, match=f"builtins.AttributeError in {name}"):
            getattr(tasks, name)()


def test_failures_are_kept_for_a_time():
    now = timezone.now()
    for age in (FAILURES_KEPT + timedelta(hours=1), FAILURES_KEPT - timedelta(hours=1)):
        stopped = now - age
        Task.objects.create(
            id=uuid4().hex,
            name="sweep",
            func="conversations.tasks.sweep",
            started=stopped,
            stopped=stopped,
            success=False,
            result="ValueError",
        )
    sweep.sweep(now)
    assert [now - failure.stopped < FAILURES_KEPT for failure in Failure.objects.all()] == [True]


def test_what_is_logged_far_inside_a_task_names_the_task_and_the_conversation(monkeypatch, shop):
    ended = factories.ConversationFactory(
        client=shop, status="closed", ended_by="user", **dict.fromkeys(("ended_at", "remember_due_at"), timezone.now())
    )

    def refuse(*_: object, **__: object) -> None:
        logging.getLogger("memory").warning("the model refuses")
        raise ValueError

    monkeypatch.setattr(remember.memory, "remember", refuse)
    with json_lines() as lines:
        tasks.remember_ended()
    for line in (*lines("the model refuses"), *lines("not remembered yet")):
        assert (line["task"], line["conversation"]) == ("remember_ended", str(ended.pk))
    assert lines("the model refuses")
    assert lines("not remembered yet")
    [done] = lines("remembered: 0")
    assert "conversation" not in done
