"""Secrets for commands: read from standard input, so that they stand in no list of processes and no shell history."""

from __future__ import annotations

import sys
from getpass import getpass

from django.core.management.base import CommandError


def secret(value: str, option: str) -> str:
    """Return the value, or the next line of standard input if it is `-`. A person who types it sees no echo.

    option: how the command line named the secret, for the sentence of the CommandError if there is no line
    """
    if value != "-":
        return value
    if sys.stdin.isatty():
        return getpass(f"{option}: ")
    line = sys.stdin.readline().strip()
    if not line:
        raise CommandError(f"{option} reads the value from standard input, which was empty.")
    return line
