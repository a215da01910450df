"""The only way to the tasks: by name. What runs by the clock is scheduled here."""

from __future__ import annotations

from datetime import datetime, timedelta

from django_q.models import Schedule
from django_q.tasks import async_task

TASKS = "conversations.tasks"
SCHEDULES = {
    # task: minutes between two runs
    "sweep": 5,
    "archive": 60,
    "clean_up": 1440,
}

LATE = timedelta(minutes=5)  # a task that takes its time keeps the next one waiting


def enqueue(task: str) -> None:
    """The task of conversations/tasks.py runs soon; in a transaction, once that is committed.

    A task that is lost is no harm: what it would do is due on rows, and the sweep asks for it again.
    """
    async_task(f"{TASKS}.{task}")


def set_up_schedules() -> list[str]:
    """Every schedule exists once and says what SCHEDULES says; when it runs next is left alone. Returns their names."""
    for name, minutes in SCHEDULES.items():
        doubled = Schedule.objects.filter(name=name).order_by("id").values_list("id", flat=True)[1:]
        Schedule.objects.filter(id__in=list(doubled)).delete()
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
    """Since when a scheduled task is due that nobody runs; None where the clock is kept, or nothing is scheduled."""
    due = Schedule.objects.filter(name__in=SCHEDULES, next_run__lt=now - LATE).order_by("next_run")
    since: datetime | None = due.values_list("next_run", flat=True).first()
    return since
