"""Convo's own folder, CONVO_HOME: its owner, locks, private files and generated secrets."""

from __future__ import annotations

import base64
import fcntl
import os
import pwd
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

QUICKSTART = "quickstart.json"  # in a home whose database has been prepared
RESTORING = "restoring"  # in a home into which a restore began and did not end


class CannotStartError(Exception):
    """Convo cannot run here. The message tells the user why, and what to do next."""


def _fernet_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


# The secrets in `secrets.env`, and how each is generated. They are never replaced: stored credentials need them.
GENERATED = {"SECRET_KEY": lambda: secrets.token_urlsafe(50), "CREDENTIALS_KEYS": _fernet_key}


def claim(home: Path) -> None:
    """Create `home` if it is missing, and check that it belongs to the user we run as.

    Raises CannotStartError if it cannot be created, or belongs to somebody else. Root may not use it either: root's
    files would lock the owner out, and root's database lies elsewhere.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = home.stat().st_uid
    except OSError as problem:
        raise CannotStartError(
            f"CONVO_HOME {home} cannot be used ({problem.strerror}). Set CONVO_HOME to a folder of your own."
        ) from None
    if owner != os.geteuid():
        raise CannotStartError(
            f"CONVO_HOME {home} belongs to {_user_name(owner)}, and you are {_user_name(os.geteuid())}. "
            f"Run this as {_user_name(owner)}, or set CONVO_HOME to a folder of your own."
        )


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def ensure_secrets(home: Path) -> None:
    """Add missing secrets to `home/secrets.env` (0600). Existing ones are unchanged.

    Simultaneous starts wait for each other, so that all of them read the same secrets.
    """
    path = home / "secrets.env"
    with locked(home / "secrets.lock"):
        lines = path.read_text().splitlines() if path.exists() else []
        present = {line.partition("=")[0].strip() for line in lines}
        missing = [f"{name}={make()}" for name, make in GENERATED.items() if name not in present]
        if missing:
            write_private(path, "\n".join([*lines, *missing]) + "\n")


def write_private(path: Path, text: str) -> None:
    """Write `text` to `path`, readable by its owner only. A crash leaves either the old content or the new one."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(descriptor, 0o600)  # a umask may have taken the owner's right to write as well
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def open_lock(path: Path) -> int:
    """Return a descriptor of the lock file `path`, created if it is missing. Child programs do not inherit it."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def try_lock(path: Path) -> int | None:
    """Return a descriptor that holds the lock `path` until it is closed or we die; None if somebody else holds it."""
    descriptor = open_lock(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until nobody else is inside a block that is locked with the same `path`, then enter the block."""
    descriptor = open_lock(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
