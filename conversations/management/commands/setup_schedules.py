"""The command `manage.py setup_schedules`."""

from typing import Any

from django.core.management.base import BaseCommand

from conversations.queue import set_up_schedules


class Command(BaseCommand):
    """Create the schedules of the queue."""

    help = "Create the schedules of the queue. Repeating it changes nothing."

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(f"Scheduled: {', '.join(set_up_schedules())}.")
