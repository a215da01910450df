"""The rate limit of API keys, and what tells one key from another."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from django.core.cache import cache
from django.test import RequestFactory

from conversations.http import throttling
from conversations.http.auth import actor, service_key
from conversations.http.throttling import KeyThrottle, count_request
from conversations.models import ApiKey


@pytest.fixture(autouse=True)
def clock(monkeypatch, settings):
    """The time, in seconds, at the beginning of a minute; two requests a minute are allowed."""
    settings.API_REQUESTS_PER_MINUTE = 2
    cache.clear()
    found = SimpleNamespace(now=1_800_000_000.0)
    monkeypatch.setattr(throttling, "time", SimpleNamespace(time=lambda: found.now))
    yield found
    cache.clear()


def test_so_many_requests_a_minute_are_allowed_and_no_more(clock):
    assert [count_request(1) for _ in range(4)] == [True, True, False, False]
    clock.now += 59.9
    assert count_request(1) is False
    clock.now += 0.1
    assert [count_request(1) for _ in range(3)] == [True, True, False], "a new minute"


def test_each_key_is_counted_by_itself():
    assert [count_request(key) for key in (1, 1, 1, 11, 2)] == [True, True, False, True, True]


def test_without_a_limit_nothing_is_counted(settings):
    settings.API_REQUESTS_PER_MINUTE = 0
    assert all(count_request(1) for _ in range(5))
    settings.API_REQUESTS_PER_MINUTE = 1
    assert count_request(1)


def test_who_is_refused_is_told_when_the_next_minute_begins(clock):
    clock.now += 12.5
    assert KeyThrottle().wait() == 47.5


def test_a_request_without_a_key_is_not_counted():
    request = SimpleNamespace(auth=None)
    assert all(KeyThrottle().allow_request(request, None) for _ in range(5))
    keyed = SimpleNamespace(auth=ApiKey(pk=7))
    assert [KeyThrottle().allow_request(keyed, None) for _ in range(3)] == [True, True, False]


# --- the key of a request --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({}, ""),
        ({"X-Service-API-Key": " k1 "}, "k1"),
        ({"Authorization": "Bearer k2"}, "k2"),
        ({"Authorization": "bearer  k2 "}, "k2"),
        ({"X-Service-API-Key": "k1", "Authorization": "Bearer k2"}, "k1"),
        ({"X-Service-API-Key": "", "Authorization": "Bearer k2"}, "k2"),
        ({"Authorization": "Basic k2"}, ""),
        ({"Authorization": "k2"}, ""),
        ({"Authorization": "Bearer"}, ""),
    ],
)
def test_the_key_is_read_from_either_header(headers, key):
    assert service_key(RequestFactory().get("/", headers=headers)) == key


@pytest.mark.parametrize(("name", "said"), [("Shop", "Shop (convo_ab)"), ("", "convo_ab")])
def test_the_ledger_names_a_key_by_more_than_its_name(name, said):
    """Several keys of a client may have one name."""
    found = actor(SimpleNamespace(auth=ApiKey(name=name, prefix="convo_ab")))
    assert (found.kind, found.name, found.user_id) == ("api", said, None)
