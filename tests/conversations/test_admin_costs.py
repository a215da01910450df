"""What a page of the back office asks the database does not grow with the rows that it shows."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from conversations.admin.access import Role
from conversations.models import Client
from tests.conversations.staff import signed_in, staff, superuser
from tests.conversations.test_admin_access import PAGES, full_house, path_of

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("who", ["manager", "superuser"])
def test_a_list_costs_the_same_however_many_rows_it_shows(shop: Client, neighbour: Client, who: str) -> None:
    full_house(shop, "One")
    http = signed_in(superuser() if who == "superuser" else staff("ann", shop=Role.MANAGER))
    before = {page: _cost(http, path_of(page, "changelist")) for page in PAGES for _ in range(2)}
    for word in ("Two", "Three", "Four"):
        full_house(shop, word)
    full_house(neighbour, "Five")
    grown = {}
    for page in PAGES:
        after = _cost(http, path_of(page, "changelist"))
        if after > before[page]:
            grown[page.opts.model_name] = (before[page], after)
    assert grown == {}


def _cost(http: object, path: str) -> int:
    with CaptureQueriesContext(connection) as seen:
        assert http.get(path).status_code == 200  # type: ignore[attr-defined]
    return len(seen)
