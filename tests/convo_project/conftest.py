"""Homes whose embedded PostgreSQL has been made once, and copied: initdb takes two seconds of CPU a time."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from convo_project import embedded_postgres, postgres_place, postgres_record
from convo_project.home import claim

NewHome = Callable[..., Path]


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home whose server was made, and does not run."""
    home = tmp_path_factory.mktemp("made")
    embedded_postgres.start(home)
    embedded_postgres.stop(home)
    yield home
    embedded_postgres.remove(home)


@pytest.fixture
def new_home(tmp_path: Path) -> Iterator[NewHome]:
    """Makes homes without a server, and removes the servers that they have afterwards."""
    made = []

    def make(name: str = "home") -> Path:
        home = tmp_path / name
        claim(home)
        made.append(home)
        return home

    yield make
    for home in made:
        embedded_postgres.remove(home)


@pytest.fixture
def made_home(new_home: NewHome, made_once: Path) -> NewHome:
    """Makes homes whose server was made and does not run, and removes it afterwards."""

    def make(name: str = "home") -> Path:
        home = new_home(name)
        copy(made_once, home)
        return home

    return make


@pytest.fixture(scope="module")
def used_home(tmp_path_factory: pytest.TempPathFactory, made_once: Path) -> Iterator[Path]:
    """A home for many tests, whose server was made, and runs or not."""
    home = tmp_path_factory.mktemp("used")
    copy(made_once, home)
    yield home
    embedded_postgres.remove(home)


def copy(made: Path, home: Path) -> None:
    """Give `home` the server of `made`, which does not run, with its data and passwords."""
    source, target = postgres_place.place_of(made), postgres_place.place_of(home)
    postgres_place.folder(target.own, target.home.stat().st_uid, 0o700)
    postgres_place.make_folders(target)
    cp = shutil.which("cp") or ""
    for programs in source.base.glob("programs-*"):  # where root keeps them; they are only read
        subprocess.run([cp, "-al", programs, target.base], check=True)
    subprocess.run([cp, "-a", source.data, target.data], check=True)
    postgres_record.write(target, postgres_record.read(source))
