"""Many sessions at once: counts before, progress after, and nobody else's among them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.urls import reverse
from django.utils import timezone

from conversations.models import BulkJob, Client, Contact, Conversation, ConversationEvent, Membership
from conversations.services.core.ledger import SYSTEM
from conversations.services.staff_actions import corrections, seed_helpers
from tests import factories
from tests.conversations.back_office import sign_in

pytestmark = pytest.mark.django_db

LIST = "/admin/conversations/conversation/"


def many(client: Client, number: int) -> list[Conversation]:
    """Open sessions of as many contacts."""
    account = factories.SandboxFactory(client=client, channel="sms")
    contacts = Contact.objects.bulk_create(
        Contact(client=client, user_id=f"user-{n:03}", phone=f"+519990{n:05}", is_guest=False) for n in range(number)
    )
    return Conversation.objects.bulk_create(
        Conversation(client=client, contact=contact, channel="sms", channel_account=account) for contact in contacts
    )


def ask(http, kind: str, query: str = "") -> Any:
    return http.get(f"{LIST}bulk/{kind}/{query}")


def run(http, path: str) -> Any:
    """What the progress page's script does. Returns the job."""
    job = path.rstrip("/").split("/")[-1]
    rounds = 0
    while not http.post(reverse("admin:conversations_conversation_bulk_go_on", args=[job])).json()["ended"]:
        rounds += 1
        assert rounds < 100
    return BulkJob.objects.get(pk=job)


def test_all_that_match_are_closed_in_batches_with_a_line_in_each_ledger(manager, shop):
    found = many(shop, 60)
    Conversation.objects.filter(pk__in=[each.pk for each in found[:10]]).update(
        status="expired", ended_at=timezone.now(), ended_by="timeout"
    )
    page = ask(manager, "close", "?channel__exact=sms")
    assert (page.context["total"], page.context["affected"]) == (60, 50)
    assert page.context["counts"] == {"active": 50, "expired": 10}
    started = manager.post(f"{LIST}bulk/close/?channel__exact=sms", {"reason": "Shop closes"})
    assert started.status_code == 302
    assert b"0</span> of 60" in manager.get(started["Location"]).content
    job = run(manager, started["Location"])
    assert (job.handled, job.changed, job.refused) == (60, 50, 10)
    assert Conversation.objects.filter(status="closed", ended_by="staff", end_reason="Shop closes").count() == 50
    lines = ConversationEvent.objects.filter(kind="closed")
    assert set(lines.values_list("actor_name", "cause")) == {("mona", "Shop closes")}
    assert b"Finished." in manager.get(started["Location"]).content
    assert run(manager, started["Location"]).handled == 60


def test_filters_that_make_no_sense_are_a_404(manager, shop):
    for query in ("?nonsense=1", "?started_at__gte=never"):
        assert ask(manager, "close", query).status_code == 404, query


def test_selected_ones_lead_to_the_same_question(manager, shop):
    chosen = many(shop, 5)[:2]
    answer = manager.post(
        LIST, {"action": "close_selected", "_selected_action": [str(each.pk) for each in chosen], "select_across": 0}
    )
    page = manager.get(answer["Location"])
    assert page.context["total"] == 2
    assert b"Close 2 conversations" in page.content


def test_an_assistant_is_given_sessions_of_its_own_client_only(manager, shop, neighbour):
    user = get_user_model().objects.get(username="mona")
    Membership.objects.create(user=user, client=neighbour, role="manager")
    mine, theirs = many(shop, 2), factories.ConversationFactory(client=neighbour)
    bob = factories.AssistantFactory(client=shop, key="bob", is_default=False)
    started = manager.post(f"{LIST}bulk/assign/", {"assistant": str(bob.pk)})
    job = run(manager, started["Location"])
    assert (job.changed, job.refused) == (2, 1)
    assert set(Conversation.objects.filter(assistant=bob)) == set(mine)
    theirs.refresh_from_db()
    assert theirs.assistant is None
    assert ConversationEvent.objects.filter(kind="assistant_assigned", actor_name="mona", cause="bob").count() == 2


def test_ended_and_remembered_sessions_are_archived_by_hand(manager, shop):
    remembered, fresh, still_open = many(shop, 3)
    over = {"status": "closed", "ended_at": timezone.now(), "ended_by": "user"}
    Conversation.objects.filter(pk=fresh.pk).update(**over)
    Conversation.objects.filter(pk=remembered.pk).update(**over, remembered_at=timezone.now())
    assert ask(manager, "archive").context["affected"] == 2
    started = manager.post(f"{LIST}bulk/archive/")
    job = run(manager, started["Location"])
    assert (job.changed, job.refused) == (1, 2)
    remembered.refresh_from_db()
    assert remembered.status == "archived"
    assert not remembered.chunks.exists()
    assert ConversationEvent.objects.get(kind="archived").actor_name == "mona"
    still_open.refresh_from_db()
    assert still_open.status == "active"


def test_sessions_leave_as_json_lines_and_their_ledgers_say_so(manager, session):
    seed_helpers.add_step(session.pk, "Ask")
    corrections.correct(session.pk, 3, "Where is my <package>?", actor=SYSTEM, now=timezone.now())
    corrections.redact(session.pk, 4, actor=SYSTEM, now=timezone.now())
    assert ask(manager, "export").context["total"] == 1
    answer = manager.post(f"{LIST}bulk/export/")
    [line] = b"".join(answer.streaming_content).splitlines()
    told = json.loads(line)
    assert told["contact"] == {"user_id": "ann", "name": "Ann", "phone": "+51999999999"}
    assert told["steps"] == [{"description": "Ask", "status": "pending"}]
    assert told["chunks"][2]["content"] == "Where is my <package>?"
    assert told["chunks"][2]["original"] == "Where is my parcel?"
    assert told["chunks"][3]["content"] == "[redacted]"
    assert ConversationEvent.objects.get(kind="exported").actor_name == "mona"


@pytest.mark.parametrize("who", ["viewer", "agent"])
def test_only_managers_do_many_at_once(who, request, session):
    http = request.getfixturevalue(who)
    for kind in ("close", "assign", "archive", "export"):
        assert ask(http, kind).status_code == 404
        assert http.post(f"{LIST}bulk/{kind}/").status_code == 404
    html = http.get(LIST).content.decode()
    assert "All that match" not in html
    assert "close_selected" not in html
    http.post(LIST, {"action": "close_selected", "_selected_action": [str(session.pk)]})
    session.refresh_from_db()
    assert session.status == "active"


def test_who_manages_one_client_and_reads_another_changes_only_the_first(manager, shop, neighbour):
    user = get_user_model().objects.get(username="mona")
    Membership.objects.create(user=user, client=neighbour, role="viewer")
    many(shop, 2)
    theirs = factories.ConversationFactory(client=neighbour)
    assert ask(manager, "close").context["total"] == 2
    assert ask(manager, "close", f"?ids={theirs.pk}").context["total"] == 0
    assert ask(manager, "close", "?ids=nonsense").status_code == 404


def test_a_job_is_its_makers_and_stops_where_their_role_does(manager, shop):
    many(shop, 30)
    started = manager.post(f"{LIST}bulk/close/")["Location"]
    job = started.rstrip("/").split("/")[-1]
    other = sign_in("other", shop, "manager")
    assert other.get(started).status_code == 404
    assert other.post(reverse("admin:conversations_conversation_bulk_go_on", args=[job])).status_code == 404
    Membership.objects.filter(user__username="mona").update(role="agent")
    assert run(manager, started).changed == 0
    assert not Conversation.objects.filter(status="closed").exists()


def test_nothing_that_matches_is_nothing_to_do(manager, shop):
    assert b"There is nothing to do." in ask(manager, "close").content
    assert manager.post(f"{LIST}bulk/close/").status_code == 200
    assert not BulkJob.objects.exists()
