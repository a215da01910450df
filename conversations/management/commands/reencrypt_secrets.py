"""The command `manage.py reencrypt_secrets`."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from conversations.services.tenants import reencryption


class Command(BaseCommand):
    """Encrypt all secrets anew."""

    help = (
        "Encrypt credentials, secrets and second factors anew with the first of CREDENTIALS_KEYS, so that the others"
        " can be removed. It may be repeated."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Show what would be encrypted; change nothing.")

    def handle(self, *args: Any, **options: Any) -> None:
        dry_run = options["dry_run"]
        found = reencryption.run(
            dry_run=dry_run, progress=lambda kind, read: self.stderr.write(f"  {kind}: {read:,} read …")
        )
        for kind, each in found.items():
            what = "would be encrypted anew" if dry_run else "encrypted anew"
            self.stdout.write(f"{kind}: {each.anew:,} {what}, {each.already:,} had the first key already")
        if lost := [row for each in found.values() for row in each.lost]:
            raise CommandError(
                f"No key of CREDENTIALS_KEYS decrypts {len(lost):,} of them: {', '.join(lost[:20])}. Add their key and"
                " run this again, or enter the secrets again."
            )
        if changed := sum(each.changed for each in found.values()):
            raise CommandError(f"{changed:,} of them were changed meanwhile. Run this again.")
        self.stdout.write(
            "Dry run: nothing was changed." if dry_run else "All secrets have the first key. The other keys can go."
        )
