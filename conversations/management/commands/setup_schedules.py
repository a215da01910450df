"""manage.py setup_schedules"""

from typing import Any

from django.core.management.base import BaseCommand

from conversations.queue import set_up_schedules


class Command(BaseCommand):
    """Sets the schedules up."""

    help = "See to it that what runs by the clock is scheduled, once. Harmless to repeat."

    def handle(self, *args: Any, **options: Any) -> None:
        """Set them up."""
        self.stdout.write(f"Scheduled: {', '.join(set_up_schedules())}.")
