"""What a list of the back office costs, and what it says where it is empty."""

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


@pytest.mark.parametrize(
    ("path", "said", "offered"),
    [
        ("conversation/?waits=person", "Nobody waits for a person.", "Show all"),
        ("conversation/?status__exact=closed", "Nothing matches.", "Show all"),
        ("conversation/", "Nobody has written yet.", ""),
        ("feedback/", "No user of the copilot has rated a reply yet.", ""),
        ("apikey/", "No program has a key yet.", "Add API key"),
    ],
)
def test_an_empty_list_says_what_is_missing_and_what_to_do(shop: Client, path: str, said: str, offered: str) -> None:
    page = signed_in(staff("ann", shop=Role.MANAGER)).get(f"/admin/conversations/{path}").content.decode()
    beginning = page.index('<div class="nothing">')
    shown = page[beginning : page.index("</div>", beginning)]
    assert said in shown
    assert offered in shown
    assert ("<a " in shown) == bool(offered)


def _cost(http: object, path: str) -> int:
    with CaptureQueriesContext(connection) as seen:
        assert http.get(path).status_code == 200  # type: ignore[attr-defined]
    return len(seen)
