"""A recorder of entered files, and the copilot's shop."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.copilot.conftest import model, no_thread_is_left, roofers, writer  # noqa: F401
from tests.structure.entered import Entered, Recorder

FIGURES = "STRUCTURE_FIGURES"  # names the file that the journeys' figures are written to


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """Return a recorder that is told of all functions that run from here on."""
    recorder = Recorder()
    with recorder.installed():
        yield recorder


@pytest.fixture(scope="module")
def journeys() -> Iterator[dict[str, Entered]]:
    """Return the place for what each journey enters; it is written to the file that is asked for."""
    journeys: dict[str, Entered] = {}
    yield journeys
    if path := os.environ.get(FIGURES):
        Path(path).write_text(json.dumps(journeys))
