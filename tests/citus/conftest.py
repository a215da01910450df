"""Two clients on two servers of the cluster, and their programs."""

from __future__ import annotations

from typing import Any

import pytest

from conversations.models import Client
from tests.citus.places import door_of, on_two_servers
from tests.conftest import Door


@pytest.fixture
def both(transactional_db: Any) -> tuple[Client, Client]:
    """A client whose server answers, and one whose server will not."""
    return on_two_servers()


@pytest.fixture
def doors(both: tuple[Client, Client]) -> tuple[Door, Door]:
    """The programs of either."""
    here, there = both
    return door_of(here), door_of(there)
