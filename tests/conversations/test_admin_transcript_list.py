"""The list of sessions: what it shows, how one is found, and that it costs the same however many there are."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from conversations.models import Client, Contact, Conversation
from conversations.services.staff_actions import seed_helpers
from tests import factories
from tests.conversations.back_office import sign_in
from tests.named_clients import IN_CLUSTER

pytestmark = pytest.mark.django_db

LIST = "/admin/conversations/conversation/"


def listed(http, **query):
    """The contacts' user ids, in the order of the list."""
    answer = http.get(LIST, query)
    assert answer.status_code == 200, (answer.status_code, answer.get("Location"))
    return [session.contact.user_id for session in answer.context["cl"].result_list]


@pytest.fixture
def three(shop: Client):
    """Sessions of Ann (closed), Bob (owes a reply) and Cleo (needs a person), the newest last."""
    now = timezone.now()
    found = {}
    for hours, name in ((72, "ann"), (48, "bob"), (0, "cleo")):
        contact = factories.ContactFactory(
            client=shop, user_id=name, name=name.title(), phone=f"+5199900{hours:04}", is_guest=False
        )
        found[name] = factories.ConversationFactory(
            client=shop, contact=contact, channel="sms" if name == "ann" else "whatsapp", aged=timedelta(hours=hours)
        )
    Conversation.objects.filter(pk=found["ann"].pk).update(status="closed", ended_at=now, ended_by="staff")
    Conversation.objects.filter(pk=found["bob"].pk).update(reply_owed=True, reply_due_at=now)
    Conversation.objects.filter(pk=found["cleo"].pk).update(needs_staff_since=now, needs_staff_reason="angry")
    return found


def test_it_shows_the_newest_first_with_all_that_staff_ask_for(viewer, session):
    seed_helpers.add_step(session.pk, "one")
    seed_helpers.update_step(seed_helpers.add_step(session.pk, "two").pk, "complete")
    html = viewer.get(LIST).content.decode()
    for shown in ("Ann", "+51999999999", "active", "sms", "Shop", "Ada", "1/2", "just now"):
        assert shown in html
    assert "offline" in html  # what was said last: the offline engine's reply says what it is


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ["cleo", "bob", "ann"]),
        ({"status__exact": "closed"}, ["ann"]),
        ({"channel__exact": "whatsapp"}, ["cleo", "bob"]),
        ({"waits": "person"}, ["cleo"]),
        ({"waits": "reply"}, ["bob"]),
        ({"is_guest__exact": "1"}, []),
        ({"q": "bob"}, ["bob"]),
        ({"q": "+51999000072"}, ["ann"]),
        ({"q": "51 999-00"}, ["cleo", "bob", "ann"]),
        ({"q": "+52"}, []),
        ({"q": "nobody'; DROP TABLE conversations; --"}, []),
        ({"q": "%"}, []),
    ],
)
def test_it_is_narrowed_down_and_searched(viewer, three, query, expected):
    assert listed(viewer, **query) == expected


def test_it_says_in_what_time_something_was_said(viewer, three):
    html = viewer.get(LIST).content.decode()
    assert "just now" in html
    assert "2\xa0days ago" in html


@pytest.mark.skipif(IN_CLUSTER, reason="a cluster plans on its workers")
@pytest.mark.parametrize(
    ("query", "index"),
    [
        ({}, "conversations_newest"),
        ({"status__exact": "closed"}, "conversations_by_status"),
        ({"channel__exact": "sms"}, "conversations_by_channel"),
        ({"started_at__gte": "2026-01-01T00:00:00+00:00"}, "conversations_newest"),
        ({"waits": "person"}, "needs_staff"),
        ({"waits": "reply"}, "reply_owed"),
        ({"q": "ann"}, "contact_id"),
    ],
)
def test_every_way_to_narrow_it_down_has_an_index(three, query, index):
    """What PostgreSQL does where it can choose neither a scan of the table nor a sort of it."""
    boss = sign_in("boss")
    with connection.cursor() as cursor:
        for way in ("seqscan", "bitmapscan", "hashjoin", "mergejoin", "sort"):  # what pays on a few rows
            cursor.execute(f"SET LOCAL enable_{way} = off")
        if index != "conversations_newest":  # for three rows, one index is as good as another
            cursor.execute("DROP INDEX conversations_newest")
        page = boss.get(LIST, query).context["cl"]
        statement, values = page.queryset[:51].query.sql_with_params()
        cursor.execute("EXPLAIN " + statement, values)
        plan = "\n".join(line for [line] in cursor.fetchall())
    assert index in plan, plan


def test_a_session_is_found_by_its_id(viewer, three):
    assert listed(viewer, q=str(three["bob"].pk)) == ["bob"]
    assert listed(viewer, q=f" {three['bob'].pk} ".upper()) == ["bob"]


def test_dates_lead_from_years_to_days(viewer, three):
    links = viewer.get(LIST).context["cl"].date_links
    assert [link.name for link in links][:3] == ["Today", "Yesterday", "Last 7 days"]
    year = next(link for link in links if link.name == str(timezone.now().year))
    months = viewer.get(LIST + year.link).context["cl"].date_links
    month = next(link for link in months if link.name == f"{timezone.now():%B}")
    days = viewer.get(LIST + month.link).context["cl"].date_links
    today = viewer.get(LIST + days[-1].link).context["cl"]
    assert [each.contact.user_id for each in today.result_list] == ["cleo"]
    assert today.date_links[0].name == "← All dates"


def test_another_clients_sessions_are_neither_listed_nor_found(three, neighbour):
    stranger = sign_in("stan", neighbour, "manager")
    assert listed(stranger) == []
    for query in (
        {"q": "bob"},
        {"q": str(three["bob"].pk)},
        {"q": "+5199900"},
        {"client__id__exact": str(three["bob"].client_id)},
    ):
        assert listed(stranger, **query) == []
    assert "Shop" not in stranger.get(LIST).content.decode()


def test_pages_follow_each_other_without_counting(viewer, shop, django_assert_max_num_queries):
    account = factories.SandboxFactory(client=shop, channel="sms")
    contacts = Contact.objects.bulk_create(Contact(client=shop, user_id=f"u{n:03}") for n in range(120))
    now = timezone.now()
    Conversation.objects.bulk_create(
        Conversation(
            client=shop, contact=contact, channel="sms", channel_account=account, started_at=now - timedelta(minutes=n)
        )
        for n, contact in enumerate(contacts)
    )
    viewer.get(LIST)
    with CaptureQueriesContext(connection) as seen:
        first = listed(viewer)
    assert not [query for query in seen.captured_queries if "COUNT(*)" in query["sql"]]
    assert len(seen) <= 10
    assert (first + listed(viewer, p=2) + listed(viewer, p=3)) == [f"u{n:03}" for n in range(120)]
    assert listed(viewer, p=4) == []
    assert listed(viewer, p=-1) == first
    assert 'p=2"' in viewer.get(LIST).content.decode()
    assert 'p=4"' not in viewer.get(LIST, {"p": 3}).content.decode()


@pytest.mark.parametrize("table", ["contact", "chunk", "message", "turn", "step", "inboundevent", "conversationevent"])
def test_no_long_list_counts(session, table):
    boss = sign_in("boss")
    with CaptureQueriesContext(connection) as seen:
        assert boss.get(reverse(f"admin:conversations_{table}_changelist")).status_code == 200
    assert not [query for query in seen.captured_queries if f'COUNT(*) AS "__count" FROM "{table}' in query["sql"]]
    assert not [query for query in seen.captured_queries if 'COUNT(*) AS "__count" FROM "co' in query["sql"]]
