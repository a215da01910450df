"""The commands of a cluster on a database that is none, and the rules that Citus sets to statements."""

from __future__ import annotations

import os
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from tests.databases import CLUSTER
from tests.named_clients import refused_by_citus


@pytest.mark.skipif(CLUSTER in os.environ, reason="this database has Citus")
def test_a_database_without_citus_is_told_so(db: Any) -> None:
    with pytest.raises(CommandError, match="no Citus"):
        call_command("distribute")
    with pytest.raises(CommandError, match="no Citus"):
        call_command("distribute", "--dry-run")


@pytest.mark.parametrize(
    ("statement", "refused"),
    [
        ("UPDATE contacts c SET hold_until = c.hold_until + '1 day'::interval WHERE c.client_id = $1", True),
        ("UPDATE contacts SET hold_until = $2::timestamptz + '1 day'::interval WHERE client_id = $1", False),
        ("UPDATE contacts c SET name = now()::text || c.name WHERE c.client_id = $1", True),
        ("UPDATE contacts c SET last = (c.last AT TIME ZONE 'UTC' + '1 day'::interval) AT TIME ZONE 'UTC'", False),
        ("SELECT id FROM contacts FOR UPDATE", True),
        ("SELECT id FROM contacts WHERE client_id = ANY ($1) FOR UPDATE", True),
        ("SELECT id FROM contacts WHERE client_id = $1 FOR UPDATE", False),
        ("SELECT id FROM clients FOR UPDATE", False),
    ],
)
def test_what_citus_refuses_is_found(statement: str, refused: bool) -> None:
    assert bool(refused_by_citus(statement)) == refused
