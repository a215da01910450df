"""The page of reports, its CSV files and its route: who sees what, in whose days, at what cost."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from conversations.models import (
    ClientHours,
    Conversation,
    ConversationLabel,
    DeskState,
    Label,
    QuarterFigures,
    QuarterTimes,
    Rating,
    StaffAction,
    Team,
)
from conversations.services.core.ledger import SYSTEM
from conversations.services.figures import counting
from conversations.services.transitions import closing
from tests import factories
from tests.conftest import reply_to_all
from tests.conversations.back_office import page_of
from tests.conversations.staff import signed_in, staff, superuser

pytestmark = pytest.mark.django_db
PAGE = "/admin/reports/"
DAY = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
ON_THAT_DAY = {"first": "2026-03-10", "last": "2026-03-10"}


def rows_of(answer: Any) -> list[list[str]]:
    """The rows of a CSV file, without the mark at its beginning."""
    assert answer.status_code == 200
    text = b"".join(answer.streaming_content).decode()
    assert text.startswith("\ufeff")
    return list(csv.reader(io.StringIO(text.removeprefix("\ufeff"))))


def figures(client: Any, at: datetime = DAY, **more: Any) -> None:
    QuarterFigures.objects.create(**{"client": client, "quarter": at, "channel": "sms", "opened": 3, **more})


def titles(answer: Any) -> dict[str, str]:
    return {str(card["title"]): card["words"] for card in answer.context["cards"]}


def test_an_agent_sees_the_figures_of_their_client_and_of_no_other(shop, neighbour):
    figures(shop)
    figures(neighbour, opened=50)
    http = signed_in(staff("ann", shop="agent"))
    answer = http.get(PAGE, ON_THAT_DAY)
    assert (answer.status_code, titles(answer)["Opened"]) == (200, "3")
    assert "Neighbour" not in answer.content.decode()
    for wanted in (neighbour.pk, uuid4(), "nonsense"):
        for way in ("", "each-conversation.csv", "messages.csv"):
            assert http.get(f"{PAGE}{way}", {"client": wanted, **ON_THAT_DAY}).status_code == 404
    both = signed_in(superuser())
    assert titles(both.get(PAGE, {"client": neighbour.pk, **ON_THAT_DAY}))["Opened"] == "50"


def test_who_has_no_role_sees_nothing_and_who_has_one_finds_it_in_the_menu(shop, client):
    assert client.get(PAGE).status_code == 302
    assert signed_in(staff("nobody")).get(PAGE).status_code == 403
    html = signed_in(staff("ann", shop="viewer")).get("/admin/inbox/").content.decode()
    assert 'href="/admin/reports/"' in html


def test_days_are_the_client_s_and_another_period_is_compared(shop):
    shop.time_zone = "America/Lima"  # five hours behind
    shop.save(update_fields=["time_zone"])
    for hours, opened in ((-8, 1), (-7, 10), (16, 100), (17, 1000)):
        figures(shop, DAY + timedelta(hours=hours), opened=opened)
    answer = signed_in(staff("ann", shop="agent")).get(PAGE, ON_THAT_DAY)
    assert titles(answer)["Opened"] == "110"
    opened = next(card for card in answer.context["cards"] if card["title"] == "Opened")
    assert opened["change"] == "> +999 %"
    assert "Days are those of America/Lima." in answer.content.decode()


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"first": "2026-02-30"}, "Write days as"),
        ({"first": "2026-03-11", "last": "2026-03-10"}, "must not be after the last"),
        ({"first": "2020-01-01", "last": "2026-03-10"}, "at most 366 days"),
        ({"first": "0001-01-01", "last": "0001-01-01"}, "no figures of that time"),
        ({"step": "minute"}, "There is no such step"),
        ({"first": "2026-03-01", "last": "2026-03-10", "step": "hour"}, "at most 7 days"),
        ({"channel": "pigeon"}, "There is no such channel"),
        ({"assistant": "ada"}, "There is no such assistant"),
        ({"colleague": "9" * 40}, "There is no such colleague"),
        ({"label": "-1"}, "There is no such label"),
        ({"team": "sales"}, "There is no such team"),
    ],
)
def test_what_makes_no_sense_is_said_and_the_usual_report_is_shown(shop, query, sentence):
    http = signed_in(staff("ann", shop="agent"))
    answer = http.get(PAGE, query)
    assert answer.status_code == 200
    assert sentence in answer.content.decode()
    refused = http.get(f"{PAGE}messages.csv", query)
    assert (refused.status_code, sentence in refused.content.decode()) == (400, True)


def test_every_chart_has_its_table_and_its_csv_with_the_same_figures(shop):
    ann = staff("ann", shop="agent")
    label = Label.objects.create(client=shop, name="=vip")
    of_ann = {"colleague_id": ann.pk, "messages_out": 4, "ratings": 2, "satisfied": 1, "rating_sum": 6, "opened": 0}
    figures(shop, messages_in=7, ended=2, late=1, answered_alone=1, tokens=1234, cost="0.5")
    figures(shop, **of_ann)
    figures(shop, label_id=label.pk)
    team = Team.objects.create(client=shop, name="Sales")
    figures(shop, team_id=team.pk, opened=2, ended=2, late=1)
    QuarterTimes.objects.create(client=shop, quarter=DAY, channel="sms", kind="first", bucket=10, number=5)
    http = signed_in(ann)
    answer = http.get(PAGE, ON_THAT_DAY)
    shown = {chart["name"]: chart for chart in answer.context["charts"]}
    assert json.loads(shown["messages"]["data"])["datasets"][0]["data"][12] == 7
    for name, chart in shown.items():
        [head, *lines] = rows_of(http.get(chart["csv"]))
        assert len(lines) == len(chart["rows"]) == 24, name
        assert len(head) == 1 + len(chart["columns"])
    assert rows_of(http.get(shown["messages"]["csv"]))[13] == ["2026-03-10 12:00", "7", "4"]
    assert rows_of(http.get(shown["satisfaction"]["csv"]))[13] == ["2026-03-10 12:00", "50.0", "0", "2", "3.0"]
    splits = {split["name"]: [row[0] for row in split["rows"]] for split in answer.context["splits"]}
    assert splits == {
        "channel": ["SMS"],
        "assistant": ["No assistant"],
        "colleague": ["Nobody of the staff", "ann"],
        "team": ["Sales"],
        "label": ["=vip"],
    }
    assert rows_of(http.get(shown["late"]["csv"]))[13] == ["2026-03-10 12:00", "1", "2", "50.0"]
    [head, of_sales] = rows_of(http.get(f"{PAGE}team.csv", ON_THAT_DAY))
    assert (of_sales[0], of_sales[head.index("late")]) == ("Sales", "1")
    narrowed = http.get(PAGE, {**ON_THAT_DAY, "team": team.pk})
    assert (titles(narrowed)["Opened"], titles(narrowed)["Late"]) == ("2", "1")
    assert rows_of(http.get(f"{PAGE}label.csv", ON_THAT_DAY))[1][0] == "'=vip"
    assert http.get(f"{PAGE}nonsense.csv").status_code == 404
    assert "$0.50" in answer.content.decode()


def test_the_page_has_no_script_of_its_own_and_says_where_there_is_nothing(shop):
    answer = signed_in(staff("ann", shop="agent")).get(PAGE)
    html = answer.content.decode()
    assert "There are no figures of this time yet." in html
    assert "no-store" in answer["Cache-Control"]
    assert "'unsafe-inline'" not in answer["Content-Security-Policy"].partition("script-src")[2].partition(";")[0]


def test_a_page_costs_the_same_whatever_the_figures_are(shop):
    ann = staff("ann", shop="agent")
    http = signed_in(ann)

    def statements() -> list[str]:
        with CaptureQueriesContext(connection) as seen:
            assert http.get(PAGE, ON_THAT_DAY).status_code == 200
        return [each["sql"] for each in seen.captured_queries]

    statements()  # the first one of a session stores it
    few = statements()
    for number in range(40):
        figures(shop, DAY + timedelta(minutes=15 * number), channel=("sms", "whatsapp")[number % 2])
        figures(shop, DAY + timedelta(minutes=15 * number), colleague_id=ann.pk, label_id=number)
        team = Team.objects.create(client=shop, name=f"Team {number}")
        figures(shop, DAY + timedelta(minutes=15 * number), team_id=team.pk)
    many = statements()
    assert (len(few), len(many)) == (15, 15)
    assert not [each for each in many if "FROM conversations " in each or "conversation_chunks" in each]


# --- a row for each conversation --------------------------------------------------------------------------------------
def test_there_is_a_row_for_each_conversation_without_formulas(door, shop, monkeypatch):
    monkeypatch.setattr("conversations.services.export.report_rows.BATCH", 2)
    shop.time_zone = "Europe/Madrid"
    shop.save(update_fields=["time_zone"])
    for number in range(5):
        said = door.says("Hello", user_id=f"=cmd{number}", name="+SUM(A1)")
    reply_to_all()
    last = Conversation.objects.get(pk=said["conversation_id"])
    label = Label.objects.create(client=shop, name="vip")
    ConversationLabel.objects.create(client=shop, conversation=last, label=label)
    team = Team.objects.create(client=shop, name="+Sales")
    DeskState.objects.create(client=shop, conversation=last, team=team)
    ClientHours.objects.create(client=shop, counts_business_time=False, resolve_within=timedelta(hours=1))
    Conversation.objects.filter(pk=last.pk).update(started_at=timezone.now() - timedelta(hours=2))
    closing.close(last.pk, ended_by="staff", actor=SYSTEM, now=timezone.now())
    Rating.objects.create(conversation=last, scale="five", asked_at=timezone.now(), score=2, rated_at=timezone.now())
    ann = staff("ann", shop="agent")
    http = signed_in(ann)
    [head, *lines] = rows_of(http.get(f"{PAGE}each-conversation.csv"))
    assert len({line[0] for line in lines}) == len(lines) == 5
    row = next(dict(zip(head, line, strict=True)) for line in lines if line[0] == str(last.pk))
    assert (row["user_id"], row["name"], row["labels"], row["rating"]) == ("'=cmd4", "'+SUM(A1)", "vip", "2")
    assert (row["messages_in"], row["messages_out"], row["assistant"], row["status"]) == ("1", "1", "Ada", "closed")
    assert (row["team"], row["late"]) == ("'+Sales", "yes")
    assert sum(dict(zip(head, line, strict=True))["late"] == "yes" for line in lines) == 1
    assert row["started_at"][-6:] in ("+01:00", "+02:00")
    assert float(row["first_response_seconds"]) >= 0
    assert StaffAction.objects.filter(verb="exported", user_name="ann", client=shop).count() == 1
    assert len(rows_of(http.get(f"{PAGE}each-conversation.csv", {"label": label.pk}))) == 2
    assert len(rows_of(http.get(f"{PAGE}each-conversation.csv", {"team": team.pk}))) == 2
    assert len(rows_of(http.get(f"{PAGE}each-conversation.csv", {"channel": "whatsapp"}))) == 1


# --- by HTTP ----------------------------------------------------------------------------------------------------------
def test_a_program_reads_the_same_figures(door, shop, neighbour):
    figures(shop, messages_in=7)
    figures(neighbour, opened=50)
    QuarterTimes.objects.create(client=shop, quarter=DAY, channel="sms", kind="first", bucket=0, number=5)
    found = door.get("/reports?days=3&last=2026-03-11")
    assert (found["total"]["opened"], found["before"]["opened"], found["time_zone"]) == (3, 0, "UTC")
    assert [(each["begins"][:10], each["messages_in"]) for each in found["steps"]] == [
        ("2026-03-09", 0),
        ("2026-03-10", 7),
        ("2026-03-11", 0),
    ]
    assert found["channels"][0]["name"] == "sms"
    assert found["total"]["first_response"]["median"] == 0.5
    assert door.get("/reports?days=1&last=2026-03-10&channel=whatsapp&assistant=ada")["total"]["opened"] == 0
    assert len(door.get("/reports")["steps"]) == 30
    team = Team.objects.create(client=shop, name="Sales")
    figures(shop, team_id=team.pk, opened=2, late=1)
    assert door.get("/reports?days=1&last=2026-03-10&team=Sales")["total"]["late"] == 1
    [of_sales] = door.get("/reports?days=1&last=2026-03-10")["teams"]
    assert (of_sales["name"], of_sales["opened"]) == ("Sales", 2)


@pytest.mark.parametrize("more", ["", "&channel=sms", "&assistant=nobody", "&label=none", "&team=none", "&step=month"])
def test_what_is_not_there_has_no_figures(door, shop, more):
    figures(shop)
    total = door.get(f"/reports?days=1&last=2026-03-10{more}")["total"]
    assert total["opened"] == (0 if "no" in more else 3)


@pytest.mark.parametrize(("last", "first"), [("0001-01-01", "2001-12-02"), ("9999-12-31", "2199-12-02")])
def test_far_days_count_as_the_nearest_that_are_known(door, last, first):
    assert door.get(f"/reports?last={last}")["first"] == first


@pytest.mark.parametrize(
    "query",
    ["last=nonsense", "last=2026-02-30", "days=0", "days=367", "step=hour", "channel=pigeon", "label=%20", "team=%20"],
)
def test_a_query_that_makes_no_sense_is_refused(door, query):
    status, envelope = door.call("GET", f"/reports?{query}")
    assert (status, envelope["success"]) == (400, False)


# --- where ratings are shown ------------------------------------------------------------------------------------------
def test_a_rating_is_on_the_conversation_s_page_in_the_inbox_in_the_api_and_in_the_transcript(door, shop):
    conversation_id = door.says("Hello")["conversation_id"]
    closing.close(conversation_id, ended_by="staff", actor=SYSTEM, now=timezone.now())
    assert door.get(f"/conversations/{conversation_id}")["rating"] is None
    conversation = Conversation.objects.get()
    Rating.objects.create(
        conversation=conversation, scale="five", asked_at=timezone.now(), score=2, rated_at=timezone.now()
    )
    http = signed_in(staff("ann", shop="agent"))
    for address in (page_of(conversation), f"/admin/inbox/{conversation_id}/pane/"):
        assert "<dd data-rating>2 of 5</dd>" in http.get(address).content.decode()
    assert door.get(f"/conversations/{conversation_id}")["rating"]["score"] == 2
    transcript = door.http.get(f"/conversations/{conversation_id}/transcript", headers={"X-Service-API-Key": door.key})
    assert json.loads(b"".join(transcript.streaming_content))["data"]["rating"]["score"] == 2
    Rating.objects.update(scale="thumbs", score=5)
    assert "👍 thumb up" in http.get(page_of(conversation)).content.decode()


def test_a_manager_sets_up_a_question_and_an_agent_does_not(shop):
    manager, agent = signed_in(staff("mona", shop="manager")), signed_in(staff("ann", shop="agent"))
    add = "/admin/conversations/survey/add/"
    body = {"client": shop.pk, "channel": "sms", "is_active": "on", "text": "Well?", "scale": "five", "days_between": 7}
    assert agent.post(add, body).status_code == 403
    assert manager.post(add, {**body, "text": "x" * 901}).status_code == 200
    assert manager.post(add, {**body, "days_between": -1}).status_code == 200
    assert shop.surveys.count() == 0
    assert manager.post(add, body).status_code == 302
    assert (shop.surveys.get().text, shop.surveys.get().days_between) == ("Well?", 7)
    again = manager.post(add, body)
    assert (again.status_code, shop.surveys.count()) == (200, 1)


def test_counting_and_the_page_agree(door, shop):
    factories.AssistantFactory(client=shop, key="bob", name="Bob", is_default=False)
    door.says("Hello")
    reply_to_all()
    began = counting.quarter_of(timezone.now() - timedelta(minutes=15))
    counting.count(began, began + timedelta(minutes=45))
    answer = signed_in(staff("ann", shop="agent")).get(PAGE)
    assert (titles(answer)["Opened"], titles(answer)["Messages in"]) == ("1", "1")
    assert [row[0] for split in answer.context["splits"] if split["name"] == "assistant" for row in split["rows"]] == [
        "Ada"
    ]
