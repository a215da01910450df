"""A client's form: what of hours, holidays and promises is stored, what is refused, and who may see and change it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client as HttpClient
from django.urls import reverse

from conversations.models import Client, ClientHours, StaffAction
from conversations.services.tenants import client_hours

pytestmark = pytest.mark.django_db


def page_of(client: Client) -> str:
    return reverse("admin:conversations_client_change", args=[client.pk])


def form(http: HttpClient, client: Client) -> dict[str, Any]:
    """What a browser would post of the form as it is, without the rows of hours and holidays."""
    shown = http.get(page_of(client)).context["adminform"].form
    values = {name: shown[name].value() for name in shown.fields if name not in ("week", "holidays")}
    posted = {
        name: "on" if value is True else value
        for name, value in values.items()
        if value is not None and value is not False
    }
    return {**posted, "week-shown": "yes", "holidays-shown": "yes"}


def save(http: HttpClient, client: Client, **changed: Any) -> Any:
    return http.post(page_of(client), {**form(http, client), **changed})


def errors(answer: Any) -> dict[str, Any]:
    found: dict[str, Any] = answer.context["adminform"].form.errors
    return found


def day(number: int, *spans: tuple[str, str]) -> dict[str, list[str]]:
    return {
        f"week-{number}-from": [begin for begin, _ in spans],
        f"week-{number}-to": [end for _, end in spans],
    }


def holiday(on: str = "2026-12-25", name: str = "Christmas", hours: str = "") -> dict[str, list[str]]:
    return {"holidays-on": [on], "holidays-name": [name], "holidays-hours": [hours]}


def test_hours_are_stored_in_their_order_and_logged(manager: HttpClient, shop: Client) -> None:
    spans = day(0, ("14:00", "24:00"), ("9", "13:00")) | day(6, ("", ""))
    assert save(manager, shop, **spans, **holiday(hours="10:00-14:00, 16-18")).status_code == 302
    stored = ClientHours.objects.get()
    assert stored.week == [[[540, 780], [840, 1440]], *[[]] * 6]
    assert stored.holidays == [{"on": "2026-12-25", "name": "Christmas", "hours": [[600, 840], [960, 1080]]}]
    assert {"week", "holidays"} <= set(StaffAction.objects.get().changes)
    assert save(manager, shop, **spans, **holiday(hours="10:00-14:00, 16-18")).status_code == 302
    assert StaffAction.objects.count() == 1, list(StaffAction.objects.values_list("changes", flat=True))


def test_a_form_without_changes_stores_nothing(manager: HttpClient, shop: Client) -> None:
    assert save(manager, shop).status_code == 302
    assert not ClientHours.objects.exists()


@pytest.mark.parametrize(
    ("spans", "said"),
    [
        ([("9:00", "14:00"), ("13:00", "18:00")], "Tuesday: 9:00-14:00 and 13:00-18:00 overlap."),
        ([("18:00", "9:00")], "Tuesday: 18:00-9:00 ends before it begins."),
        ([("9:00", "")], "Tuesday: One of the two times is missing."),
        ([("9:00", "25:00")], "Tuesday: “25:00” is no time."),
        ([("nine", "17:00")], "Tuesday: “nine” is no time."),
        ([(f"{hour}:00", f"{hour}:30") for hour in range(7)], "Tuesday: A day has at most 6 spans."),
    ],
)
def test_wrong_hours_are_refused_with_the_day_and_the_reason(
    manager: HttpClient, shop: Client, spans: list[tuple[str, str]], said: str
) -> None:
    answer = save(manager, shop, **day(1, *spans))
    assert answer.status_code == 200
    assert errors(answer)["week"][0].startswith(said)
    assert not ClientHours.objects.exists()
    assert f'value="{spans[0][0]}"' in answer.content.decode(), "what was entered stays"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (holiday(on="25/12/2026"), "25/12/2026: Choose a date."),
        (holiday(name=""), "2026-12-25: Give the holiday a name."),
        (holiday(name="x" * 81), "2026-12-25: The name is longer than 80 characters."),
        (holiday(hours="14:00-10:00"), "2026-12-25: 14:00-10:00 ends before it begins."),
        (holiday(hours="in the morning"), "2026-12-25: “in the morning” is no time."),
        (
            {key: value * 2 for key, value in holiday().items()},
            "2026-12-25: This date is in the list twice.",
        ),
    ],
)
def test_wrong_holidays_are_refused(manager: HttpClient, shop: Client, row: dict[str, list[str]], said: str) -> None:
    answer = save(manager, shop, **day(0, ("9:00", "17:00")), **row)
    assert errors(answer)["holidays"][0].startswith(said)
    assert not ClientHours.objects.exists()


def test_what_needs_weekly_hours_is_refused_without(manager: HttpClient, shop: Client) -> None:
    answer = save(manager, shop, outside="assistant", **holiday())
    assert set(errors(answer)) == {"holidays", "outside"}


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"time_zone": "Europe/Atlantis"}, "time_zone"),
        ({"outside": "whatever"}, "outside"),
        ({"first_response_within": "0 minutes"}, "first_response_within"),
        ({"resolve_within": "soon"}, "resolve_within"),
        ({"outside_sentence": "x" * 1001}, "outside_sentence"),
        ({"outside_language": "xx"}, "outside_language"),
    ],
)
def test_other_nonsense_is_refused(manager: HttpClient, shop: Client, changed: dict[str, str], field: str) -> None:
    answer = save(manager, shop, **changed)
    assert set(errors(answer)) == {field}
    assert not ClientHours.objects.exists()


def test_promises_are_stored_and_taken_back(manager: HttpClient, shop: Client) -> None:
    save(manager, shop, first_response_within="5 minutes", resolve_within="2 days", answer_within="15 minutes")
    terms = client_hours.terms(shop.pk)
    assert (terms.first_response_within, terms.answer_within, terms.resolve_within) == (
        *(timedelta(minutes=5), timedelta(minutes=15), timedelta(days=2)),
    )
    save(manager, shop, first_response_within="", resolve_within="", answer_within="")
    assert client_hours.terms(shop.pk).longest_promise is None


def test_agents_read_them_and_cannot_change_them(agent: HttpClient, shop: Client) -> None:
    holidays = [{"on": "2026-12-25", "name": "Christmas", "hours": []}]
    client_hours.store(shop, {"week": [[[540, 1080]], *[[]] * 6], "holidays": holidays})
    client_hours.store(shop, {"resolve_within": timedelta(days=1)})
    page = agent.get(page_of(shop)).content.decode()
    assert "Monday 9:00-18:00; Tuesday closed" in page
    assert "2026-12-25 Christmas: closed" in page
    assert "resolved within 1 day" in page
    assert agent.post(page_of(shop), {"week-shown": "yes"}).status_code == 403
    assert any(ClientHours.objects.get().week)


def test_another_clients_hours_do_not_exist(manager: HttpClient, shop: Client, neighbour: Client) -> None:
    assert manager.get(page_of(neighbour)).status_code == 302
    manager.post(page_of(neighbour), {"week-shown": "yes", **day(0, ("9:00", "17:00"))})
    assert not ClientHours.objects.exists()


def test_a_new_client_may_have_hours_at_once(shop: Client, client: HttpClient, django_user_model: Any) -> None:
    client.force_login(django_user_model.objects.create_superuser("boss", "", "a-long-password"))
    add = reverse("admin:conversations_client_add")
    shown = client.get(add).context["adminform"].form
    values = {name: shown[name].value() for name in shown.fields if name not in ("week", "holidays")}
    posted = {
        name: "on" if value is True else value
        for name, value in values.items()
        if value is not None and value is not False
    }
    posted |= {"name": "New", "sub_domain": "new", "week-shown": "yes", "holidays-shown": "yes"}
    assert client.post(add, {**posted, **day(0, ("9:00", "17:00"))}).status_code == 302
    assert ClientHours.objects.get(client__sub_domain="new").week[0] == [[540, 1020]]
