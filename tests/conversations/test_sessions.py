"""Whose session a request has: read from its row each time, whatever the cookie holds."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import BACKEND_SESSION_KEY, get_user_model
from django.contrib.sessions.models import Session
from django.test import Client as Browser
from django.utils import timezone

from conversations.http.sessions import BACKEND, EARLIER_BACKEND, SessionStore

pytestmark = pytest.mark.django_db

PAGE = "/copilot"
UNAUTHORIZED = 401


@pytest.fixture
def agnes() -> Any:
    return get_user_model().objects.create_user("agnes", password="correct horse battery")


@pytest.fixture
def browser(agnes: Any) -> Browser:
    browser = Browser()
    browser.force_login(agnes)
    assert status(browser) == 200
    return browser


def status(browser: Browser) -> int:
    """Return the status of the answer to a request for the user's own sessions."""
    return browser.get(PAGE).status_code


def test_a_session_that_began_with_the_earlier_backend_goes_on(browser: Browser) -> None:
    session = SessionStore(browser.cookies["sessionid"].value)
    assert session[BACKEND_SESSION_KEY] == BACKEND
    session[BACKEND_SESSION_KEY] = EARLIER_BACKEND
    session.save()
    assert status(browser) == 200


def test_an_inactive_or_deleted_user_is_nobody(browser: Browser, agnes: Any) -> None:
    agnes.is_active = False
    agnes.save()
    assert status(browser) == UNAUTHORIZED
    agnes.is_active = True
    agnes.save()
    assert status(browser) == 200
    agnes.delete()
    assert status(browser) == UNAUTHORIZED


@pytest.mark.parametrize("how", ["its time is over", "its row is gone", "the password is another"])
def test_a_session_ends(browser: Browser, agnes: Any, how: str) -> None:
    row = Session.objects.filter(pk=browser.cookies["sessionid"].value)
    if how == "its time is over":
        row.update(expire_date=timezone.now() - timedelta(seconds=1))
    elif how == "its row is gone":
        row.delete()
    else:
        agnes.set_password("another horse battery")
        agnes.save()
    assert status(browser) == UNAUTHORIZED


@pytest.mark.parametrize("key", ["x", "a" * 32, "a" * 5_000, "\x00" * 32, "' OR '1'='1' --", "é" * 32, "%s" * 20])
def test_a_cookie_that_is_no_sessions_is_nobodys(key: str) -> None:
    browser = Browser()
    browser.cookies["sessionid"] = key
    assert status(browser) == UNAUTHORIZED
    assert SessionStore(key).load() == {}
