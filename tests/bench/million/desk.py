"""The pages of the desk among a million conversations: inbox, search, person and reports.

The pages are asked for over HTTP, one after the other, by somebody who is signed in and an agent of the first client,
whose are 40 % of the conversations.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

import requests

from tests.bench.million import rows
from tests.bench.million.rows import Say
from tests.bench.million.watching import spread

EACH = 40  # pages of a kind
WARM_UP = 3  # pages before them
FIRST_NAMES = ["José", "Maria", "Anneke", "Łukasz", "Søren", "Zoë", "Ibrahim", "Noor", "Chiara", "Beatriz"]


def prepare(plan: rows.Plan, say: Say) -> None:
    """Write names, labels and teams, and count the figures of the whole time."""
    from django.core.management import call_command

    from conversations.models import Label, Team
    from conversations.services.figures import days, keeping

    client = plan.clients[0]
    labels = [Label.objects.get_or_create(client_id=client, name=name)[0].pk for name in ("vip", "refund", "delivery")]
    teams = [Team.objects.get_or_create(client_id=client, name=name)[0].pk for name in ("Sales", "Support")]
    with rows.connection() as database, rows.timed(say, "names, labels and teams"):
        names = "ARRAY[" + ", ".join(f"'{each}'" for each in FIRST_NAMES) + "]"
        database.execute(
            f"UPDATE contacts SET name = ({names})[1 + {rows.drawn('right(phone, 9)::bigint', len(FIRST_NAMES))}]"
            " || ' ' || initcap(split_part((SELECT text FROM bench.sentences WHERE n = "
            f"{rows.drawn('right(phone, 9)::bigint * 3', rows.SENTENCES)}), ' ', 2)) WHERE phone IS NOT NULL"
        )
        database.execute(
            "INSERT INTO desk_conversation_labels (client_id, conversation_id, label_id)"
            " SELECT client_id, id, ($2::bigint[])[1 + i % 3] FROM bench.sessions WHERE client_id = $1 AND i % 4 = 0",
            [client, labels],
        )
        database.execute(
            "INSERT INTO desk_states (client_id, conversation_id, team_id)"
            " SELECT client_id, id, ($2::bigint[])[1 + i % 2] FROM bench.sessions WHERE client_id = $1 AND i % 3 = 0",
            [client, teams],
        )
        database.execute("VACUUM (ANALYZE) contacts, desk_conversation_labels, desk_states")
    with rows.timed(say, "figures of the whole time, with the sums by day"):
        call_command("count_figures", verbosity=0, stderr=_Silent(), stdout=_Silent())
        days.sum_days(plan.at - keeping.AGAIN)
    with rows.connection() as database:
        database.execute("VACUUM (ANALYZE) quarter_figures, quarter_times, day_figures, day_times")
        found = database.execute("SELECT (SELECT count(*) FROM quarter_figures), (SELECT count(*) FROM quarter_times)")
        say("  {:,} rows of figures, {:,} of times\n".format(*(found.fetchone() or (0, 0))))


class _Silent:
    def write(self, _text: str) -> None:
        """Write nothing: a year has 2,000 lines of progress."""


def measure(plan: rows.Plan, url: str, asked: dict[str, list[str]], say: Say) -> None:
    """Measure each kind of page."""
    with requests.Session() as http:
        http.headers["Cookie"] = _signed_in(plan.clients[0])
        for kind, paths in _pages(plan, asked).items():
            seconds, size = [], 0
            for number, path in enumerate(paths[:WARM_UP] + paths):
                begun = time.perf_counter()
                answer = http.get(f"{url}{path}", timeout=60, allow_redirects=False)
                if answer.status_code != 200:
                    raise AssertionError(f"{path}: {answer.status_code}")
                if number >= WARM_UP:
                    seconds.append(time.perf_counter() - begun)
                    size += len(answer.content)
            say(f"    {kind:>32}: {spread(seconds)}, {size / len(paths) / 1000:.0f} kB\n")


def _signed_in(client_id: UUID) -> str:
    from django.contrib.auth import get_user_model
    from django.test import Client

    from conversations.models import Membership

    user = get_user_model().objects.create_user("desk", is_staff=True)
    Membership.objects.create(user=user, client_id=client_id, role="agent")
    browser = Client()
    browser.force_login(user)
    return "; ".join(f"{name}={morsel.value}" for name, morsel in browser.cookies.items())


def _pages(plan: rows.Plan, asked: dict[str, list[str]]) -> dict[str, list[str]]:
    dice, client = random.Random(5), plan.clients[0]
    with rows.connection() as database:

        def drawn(what: str, which: str) -> list[str]:
            found = database.execute(
                f"SELECT {what} FROM bench.sessions WHERE client_id = $1 AND {which}"
                f" ORDER BY md5(i::text) LIMIT {EACH}",
                [client],
            )
            return [str(value) for (value,) in found]

        open_ones, ended = drawn("id", "is_open"), drawn("id", "NOT is_open AND chunks > 0 AND i <= 1000000")
        contacts, phones = drawn("contact_id", "NOT is_guest"), drawn("900000000 + person", "NOT is_guest")
        longest = drawn("id", f"chunks >= {rows.PEOPLE[1].chunks // rows.PEOPLE[1].sessions}")
    some_names = [
        f"{dice.choice(FIRST_NAMES).lower()} {word[:4]}" for word in dice.choices(asked["rare words"], k=EACH)
    ]
    find = "/admin/inbox/find/?q="
    return {
        "inbox": ["/admin/inbox/"] * EACH,
        "inbox, longest waiting": ["/admin/inbox/list/?order=waiting"] * EACH,
        "inbox, unassigned": ["/admin/inbox/list/?tab=unassigned"] * EACH,
        "inbox, ended": ["/admin/inbox/list/?tab=ended"] * EACH,
        "an open conversation": [f"/admin/inbox/{pk}/pane/" for pk in open_ones],
        "one that ended": [f"/admin/inbox/{pk}/pane/" for pk in ended],
        "one of many messages": [f"/admin/inbox/{pk}/pane/" for pk in longest],
        "search: a first name": [f"{find}{name}" for name in FIRST_NAMES] * (EACH // len(FIRST_NAMES)),
        "search: two parts of a name": [f"{find}{name}" for name in some_names],
        "search: four digits": [f"{find}{phone[-4:]}" for phone in phones],
        "search: a phone number": [f"{find}%2B51{phone}" for phone in phones],
        **{f"search: {kind}": [f"{find}{each}" for each in words[:EACH]] for kind, words in asked.items()},
        "a person": [f"/admin/conversations/contact/{pk}/change/" for pk in contacts],
        **{f"report of {days} days": list(_reports(plan, days, dice)) for days in (1, 30, 90, 365)},
    }


def _reports(plan: rows.Plan, days: int, dice: random.Random) -> Iterator[str]:
    step = {1: "hour", 30: "day", 90: "day", 365: "month"}[days]
    for _ in range(EACH):
        last = plan.at.date() - timedelta(days=dice.randrange(7))
        yield f"/admin/reports/?first={last - timedelta(days=days - 1)}&last={last}&step={step}"
