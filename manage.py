#!/usr/bin/env python
"""Runs Convo's commands: `python manage.py help` lists them."""

import os
import sys

from convo_project import commands


def main() -> int:
    """Run one management command against the database of this checkout's CONVO_HOME, or of DATABASE_URL."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "convo_project.settings")
    return commands.manage(sys.argv)


if __name__ == "__main__":
    sys.exit(main())
