"""The command `manage.py remove_second_factor`."""

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser

from conversations.management.output import print_json
from conversations.services.core import audit_log
from conversations.services.tenants import second_factor


class Command(BaseCommand):
    """Remove a lost second factor."""

    help = "Remove the second factor of a user who has lost it, where no other superuser can do so in the back office."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--user", required=True, help="The user name.")

    def handle(self, *args: Any, **options: Any) -> None:
        user = get_user_model().objects.filter(username=options["user"]).first()
        if user is None:
            raise CommandError(f"There is no user {options['user']!r}.")
        removed = second_factor.remove(user)
        if removed:
            audit_log.record(user, "removed by command the second factor of", user, None)
        print_json(self, user=user.get_username(), removed=removed)
