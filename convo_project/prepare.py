"""Prepares a running database: schema, schedules, a staff user and a demo client for trials.

`make up` runs it in a process of its own (`python -m convo_project.prepare`), which needs Django; the supervisor does
not.
"""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path

from convo_project import address, commands, env, unfit_database
from convo_project.home import QUICKSTART, write_private
from convo_project.terminal import complain, done

KEY_HEADER = "api-key.header"  # for curl's -H @file: the key is in no argument and on no screen


def prepare() -> None:
    """Prepare the database and write `CONVO_HOME/quickstart.json`. Running it again changes nothing.

    Raises CannotStartError if the database is of Convo 0.1 or 0.2.
    """
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "convo_project.settings")
    import django
    from django.core.management import CommandError, call_command
    from django.db import OperationalError

    unfit_database.refuse()
    django.setup()
    home = env.home()
    (home / "static").mkdir(exist_ok=True)  # STATIC_ROOT: nothing is collected, whitenoise asks for the folder
    try:
        call_command("migrate", interactive=False, verbosity=0)
        done("database schema")
        with redirect_stdout(io.StringIO()):
            call_command("setup_schedules")
        done("schedules")
        with redirect_stdout(io.StringIO()) as answer:
            call_command("setup_demo", "--quickstart", str(home / QUICKSTART))
    except (CommandError, OperationalError) as problem:
        complain(f"The database could not be prepared: {problem}")
        sys.exit(1)
    write_quickstart(home, json.loads(answer.getvalue()))
    done(f"staff user and demo client ({home / QUICKSTART})")


def write_quickstart(home: Path, demo: dict[str, str]) -> None:
    """Write `home/quickstart.json` with addresses and secrets, and its API key as a header file for curl."""
    public_url = env.url("PUBLIC_BASE_URL", address.base_url())
    facts = {
        "base_url": address.base_url(),
        "client_id": demo["client_id"],
        "sub_domain": demo["sub_domain"],
        "api_key": demo["api_key"],
        "admin_url": f"{public_url}/admin/",
        "simulator_url": f"{public_url}/admin/conversations/channelaccount/simulator/",
        "admin_username": demo["admin_username"],
        "admin_password": demo["admin_password"],
    }
    write_private(home / QUICKSTART, json.dumps(facts, indent=2) + "\n")
    write_private(home / KEY_HEADER, f"X-Service-API-Key: {demo['api_key']}\n")


if __name__ == "__main__":
    sys.exit(commands.with_database(prepare))
