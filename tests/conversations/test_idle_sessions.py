"""A session ends when its user has done nothing for long."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client as HttpClient
from django.utils import timezone

from conversations.http.signed_in import SEEN, SIGNED_IN
from tests.conversations.sign_in_doors import by_password, is_signed_in
from tests.conversations.staff import staff

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("shop")]


@pytest.fixture
def http(settings: Any) -> HttpClient:
    settings.SIGN_IN_IDLE_MINUTES = 30
    http = by_password(staff("ann", shop="agent"))
    assert is_signed_in(http)
    return http


def seen(http: HttpClient, minutes: float) -> None:
    """The user did something so many minutes ago."""
    session = http.session
    session[SEEN] = (timezone.now() - timedelta(minutes=minutes)).timestamp()
    session.save()


def test_who_does_nothing_for_long_is_signed_out(http):
    seen(http, 31)
    answer = http.get("/admin/inbox/")
    assert (answer.status_code, answer["Location"]) == (302, "/admin/login/?next=/admin/inbox/")
    assert not is_signed_in(http)


def test_a_session_that_was_idle_for_too_long_does_not_come_back_when_the_limit_is_raised(http, settings):
    seen(http, 31)
    assert not is_signed_in(http)
    settings.SIGN_IN_IDLE_MINUTES = 60
    assert not is_signed_in(http)


def test_the_copilot_s_routes_know_it_too(http):
    seen(http, 31)
    assert http.get("/copilot").status_code == 401


def test_who_does_something_now_and_then_stays(http):
    for _ in range(3):
        seen(http, 29)
        assert is_signed_in(http)
        assert http.session[SEEN] > (timezone.now() - timedelta(minutes=1)).timestamp()


@pytest.mark.parametrize("path", ["/admin/inbox/list/", "/admin/inbox/5f0c7a52-0000-4000-8000-000000000000/news/"])
def test_what_an_open_page_asks_by_itself_keeps_nobody_signed_in(http, path):
    seen(http, 29)
    assert http.get(path).status_code in (200, 404)
    assert http.session[SEEN] < (timezone.now() - timedelta(minutes=28)).timestamp()
    seen(http, 31)
    assert http.get(path).status_code == 302


def test_the_row_of_the_session_is_written_once_a_minute(http):
    seen(http, 0.5)
    before = http.session[SEEN]
    http.get("/admin/inbox/")
    assert http.session[SEEN] == before


def test_without_a_limit_a_session_goes_on(http, settings):
    settings.SIGN_IN_IDLE_MINUTES = 0
    seen(http, 5000)
    assert is_signed_in(http)


def test_two_weeks_after_signing_in_the_busiest_signs_in_again(http):
    session = http.session
    session[SIGNED_IN] = (timezone.now() - timedelta(days=13, hours=23)).timestamp()
    session.save()
    assert is_signed_in(http)
    session = http.session
    session[SIGNED_IN] = (timezone.now() - timedelta(days=14)).timestamp()
    session.save()
    assert not is_signed_in(http)


def test_a_session_from_before_there_was_a_limit_begins_now(http):
    session = http.session
    del session[SEEN]
    session.save()
    assert is_signed_in(http)
    assert SEEN in http.session
