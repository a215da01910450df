"""A reply of the copilot reads no more rows while many are written for others, also on tables that are new."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.utils import timezone

from conversations.models import Client
from conversations.services.copilot import turns
from conversations.services.copilot.turns import UserMessage
from conversations.services.core.row_level_security import confined_to
from conversations.services.replies import leases, pipeline
from tests import databases, factories
from tests.copilot.members import as_user
from tests.copilot.reading import user

OTHERS = 200  # with fewer, PostgreSQL finds the right plan by itself
TRIES = 12  # the first five are planned for their values; the plan that is kept comes after them


@pytest.fixture(autouse=True)
def own_database(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """A new database as migrations make it, whose tables were never analyzed."""
    new = {**connection.settings_dict, "NAME": f"many_{os.getpid()}_{uuid4().hex[:8]}"}
    with django_db_blocker.unblock():
        databases.make(new["NAME"])
        try:
            with connection._nodb_cursor() as cursor:  # as the connections of a dispatcher are
                cursor.execute(f'ALTER DATABASE "{new["NAME"]}" SET enable_seqscan = off')
            with databases.read(new):
                yield
        finally:
            databases.drop(new["NAME"])


def asks(name: str, firm: Client) -> Any:
    """Somebody new, for whom a reply is being written."""
    who = user(name, firm)
    assert turns.ask(as_user(who), UserMessage("Hello"), timezone.now()).turn
    return who


def rows_read(act: Callable[[], Any]) -> float:
    """Return the number of rows that `act` reads each time."""
    before = _read()
    for _ in range(TRIES):
        act()
    return (_read() - before) / TRIES


def _read() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute("SELECT sum(seq_tup_read + COALESCE(idx_tup_fetch, 0)) FROM pg_stat_user_tables")
        [(count,)] = cursor.fetchall()
        return int(count)


@pytest.mark.parametrize("act", ["claimed turn", "limits"])
def test_it_reads_no_row_for_each_pair_of_others(act: str) -> None:
    firm = factories.ClientFactory()
    factories.AssistantFactory(client=firm, key="field", in_copilot=True)
    ann = asks("ann", firm)
    [claim] = leases.claim_streamed(timezone.now(), 1)

    def look_at_limits() -> None:
        with confined_to(ann.pk):
            turns._check_limits(as_user(ann), timezone.now())

    def look_at_claimed() -> None:
        assert pipeline._running(claim)

    look = look_at_claimed if act == "claimed turn" else look_at_limits
    rows_read(look)
    for number in range(OTHERS):
        asks(f"other-{number}", firm)
    kept = rows_read(look)
    connection.close()
    planned_anew = rows_read(look)
    assert max(kept, planned_anew) < 10 * OTHERS
