"""The task queue: tasks are enqueued by name, and the recurring ones are scheduled here."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import wraps

from django.db.models import DateTimeField, ExpressionWrapper, Value
from django_q.brokers.orm import ORM
from django_q.models import Schedule, Task
from django_q.tasks import async_task

from conversations import heartbeat, log_context

log = logging.getLogger(__name__)

TASKS = "conversations.tasks"
SCHEDULES = {
    # task: minutes between two runs
    "sweep": 5,
    "hand_over": 1,
    "tell_staff": 1,
    "archive": 60,
    "clean_up": 1440,
    "refresh_models": 1440,
    "refresh_templates": 60,
}

LATE = timedelta(minutes=5)  # a long task delays the next one
FAILURES_KEPT = timedelta(days=30)


class Broker(ORM):  # type: ignore[misc]
    """django-q2's queue in the database. Its sentinel, which minds the workers, gives signs of life."""

    def set_stat(self, key: str, value: str, timeout: int) -> None:
        """Store the sentinel's state, as it does each time its loop turns."""
        heartbeat.beat()
        super().set_stat(key, value, timeout)


class TaskFailedError(Exception):
    """A task failed; the text is the class of its error."""


def task(work: Callable[[], None]) -> Callable[[], None]:
    """Return the task with an error's sentence left out: django-q2 logs it and stores it, and it can quote a person."""

    @wraps(work)
    def run() -> None:
        with log_context.about(task=work.__name__):
            try:
                work()
            except Exception as error:
                log.exception("task failed: %s", work.__name__)
                kind = type(error)
                raise TaskFailedError(
                    f"{kind.__module__}.{kind.__qualname__} in {work.__name__}; see the log"
                ) from None

    return run


def delete_old_failures(now: datetime) -> int:
    """Delete the failed tasks that ended more than FAILURES_KEPT ago, and return how many there were."""
    at = Value(now, output_field=DateTimeField())  # PostgreSQL subtracts from any time
    old = ExpressionWrapper(at - Value(FAILURES_KEPT), output_field=DateTimeField())
    deleted: int = Task.objects.filter(success=False, stopped__lt=old)._raw_delete(using="default")
    return deleted


def enqueue(name: str) -> None:
    """Run a task of conversations/tasks.py soon; in a transaction, after its commit.

    A lost task does no harm: its work is due on rows, and the sweep enqueues it again.
    """
    async_task(f"{TASKS}.{name}")


def set_up_schedules() -> list[str]:
    """Store each schedule of SCHEDULES once, without changing when it runs next, and return their names."""
    for name, minutes in SCHEDULES.items():
        duplicates = Schedule.objects.filter(name=name).order_by("id").values_list("id", flat=True)[1:]
        Schedule.objects.filter(id__in=list(duplicates)).delete()
        Schedule.objects.update_or_create(
            name=name,
            defaults={
                "func": f"{TASKS}.{name}",
                "schedule_type": Schedule.MINUTES,
                "minutes": minutes,
                "repeats": -1,
            },
        )
    return list(SCHEDULES)


def late_since(now: datetime) -> datetime | None:
    """Return since when a scheduled task is overdue by more than LATE; None if none is, or nothing is scheduled."""
    due = Schedule.objects.filter(name__in=SCHEDULES, next_run__lt=now - LATE).order_by("next_run")
    since: datetime | None = due.values_list("next_run", flat=True).first()
    return since
