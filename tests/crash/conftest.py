"""Convo's processes, for the tests of a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.crash import stage


@pytest.fixture(scope="module")
def convo(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, django_db_blocker: Any
) -> Iterator[stage.Convo]:
    """Convo on a database of its own, with the VARIABLES of the file. Nothing runs yet; what runs is ended at the end,
    and until then serves one test after another."""
    variables = getattr(request.module, "VARIABLES", {})
    with (
        django_db_blocker.unblock(),
        stage.database() as url,
        stage.Convo(url, tmp_path_factory.mktemp("convo"), **variables) as convo,
    ):
        yield convo


@pytest.fixture
def web(convo: stage.Convo) -> stage.Process:
    """The web process: what the test before left, or a new one."""
    return next(iter(convo.webs()), None) or convo.start_web()


@pytest.fixture
def dispatcher(convo: stage.Convo, web: stage.Process) -> stage.Process:
    """A dispatcher beside the web process: what the test before left, or a new one."""
    return next(iter(convo.dispatchers()), None) or convo.start_dispatcher()
