"""Guessing passwords: so many tries a user name and address, and no word of whether there is such a user."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.test import Client as HttpClient
from django.utils import timezone

from conversations.models import SignInTries
from conversations.services.core.errors import TooManyError
from conversations.services.jobs import sweep
from conversations.services.tenants import sign_in_limits
from tests.conversations.staff import PASSWORD, superuser
from tests.races.threads import outcomes

pytestmark = pytest.mark.django_db
PAGES = ["/admin/login/", "/copilot/login"]


@pytest.fixture(autouse=True)
def _three(settings):
    settings.SIGN_IN_TRIES = 3
    superuser("boss")


def sign_in(page, name="boss", password="wrong", address="203.0.113.7", **headers):
    http = HttpClient(REMOTE_ADDR=address)
    return http.post(page, {"username": name, "password": password}, headers=headers)


@pytest.mark.parametrize("page", PAGES)
def test_who_guesses_is_stopped_and_learns_nothing(page):
    for name in ("boss", "nobody"):
        assert [sign_in(page, name).status_code for _ in range(4)] == [200, 200, 200, 429]
    refused = [sign_in(page, "boss"), sign_in(page, "nobody"), sign_in(page, "boss", PASSWORD)]
    assert len({answer.content for answer in refused}) == 1
    for answer in refused:
        assert answer.status_code == 429
        assert b"Try again in 15 minutes" in answer.content
        assert 0 < int(answer["Retry-After"]) <= 900
        assert "sessionid" not in answer.cookies
        assert "no-store" in answer["Cache-Control"]


def test_both_pages_count_together_and_case_and_width_of_the_name_make_no_difference():
    for page, name in zip([*PAGES, PAGES[0]], ["boss", "BOSS", "\uff42oss "], strict=True):
        sign_in(page, name)
    assert sign_in(PAGES[1], "boss", PASSWORD).status_code == 429


def test_another_address_goes_on_and_who_knows_the_password_is_not_counted():
    for _ in range(4):
        sign_in(PAGES[0])
    for _ in range(12):
        assert sign_in(PAGES[0], password=PASSWORD, address="198.51.100.1").status_code == 302
    assert sign_in(PAGES[0], password=PASSWORD).status_code == 429
    sign_in(PAGES[0], address="198.51.100.1")
    sign_in(PAGES[0], address="198.51.100.1")
    assert sign_in(PAGES[0], password=PASSWORD, address="198.51.100.1").status_code == 302
    assert sign_in(PAGES[0], address="198.51.100.1").status_code == 200, "what was mistyped before is forgotten"


def test_one_address_may_not_go_through_all_names_and_no_row_is_spent_on_the_rest():
    answers = [sign_in(PAGES[1], f"user {number}").status_code for number in range(35)]
    assert (answers.count(200), answers[30:]) == (30, [429] * 5)
    assert SignInTries.objects.count() == 1 + 2 * 30
    assert get_user_model().objects.count() == 1


def test_a_name_may_not_be_guessed_from_everywhere(settings):
    answers = [sign_in(PAGES[1], address=f"198.51.100.{number}").status_code for number in range(62)]
    assert answers == [200] * 60 + [429] * 2


def test_a_customer_s_ipv6_network_is_one_address():
    for number in range(3):
        sign_in(PAGES[0], address=f"2001:db8:1:2::{number}")
    assert sign_in(PAGES[0], address="2001:db8:1:2:ffff::1").status_code == 429
    assert sign_in(PAGES[0], address="2001:db8:1:3::1").status_code == 200


def test_the_proxy_s_word_counts_where_it_is_trusted_and_nobody_s_else(settings):
    for number in range(3):
        sign_in(PAGES[0], **{"X-Forwarded-For": f"10.0.0.{number}"})
    assert sign_in(PAGES[0], **{"X-Forwarded-For": "10.0.0.9"}).status_code == 429
    settings.TRUST_PROXY = True
    assert sign_in(PAGES[0], **{"X-Forwarded-For": "10.0.0.9"}).status_code == 200
    for _ in range(3):
        sign_in(PAGES[0], **{"X-Forwarded-For": "203.0.113.7, 10.0.0.8"})
    assert sign_in(PAGES[0], **{"X-Forwarded-For": "1.2.3.4, 10.0.0.8"}).status_code == 429


def test_after_a_quarter_of_an_hour_one_may_try_again_and_the_sweep_tidies_up():
    now = timezone.now()
    for _ in range(3):
        sign_in_limits.count_attempt("boss", "203.0.113.7", now)
    with pytest.raises(TooManyError) as caught:
        sign_in_limits.count_attempt("boss", "203.0.113.7", now + timedelta(minutes=14, seconds=30))
    assert caught.value.retry_after == 30
    sign_in_limits.count_attempt("boss", "203.0.113.7", now + timedelta(minutes=16))
    sweep.sweep(now + timedelta(minutes=40))
    assert not SignInTries.objects.exists()


@pytest.mark.parametrize("page", PAGES)
def test_who_is_signed_in_guesses_no_more_than_others(page):
    superuser("eve")
    eve = HttpClient(REMOTE_ADDR="203.0.113.7")
    assert eve.post(page, {"username": "eve", "password": PASSWORD}).status_code == 302
    guesses = [eve.post(page, {"username": "boss", "password": "wrong"}).status_code for _ in range(5)]
    assert guesses[3:] == [429, 429]


def test_without_a_limit_nothing_is_counted(settings):
    settings.SIGN_IN_TRIES = 0
    assert {sign_in(PAGES[0]).status_code for _ in range(20)} == {200}
    assert not SignInTries.objects.exists()


@pytest.mark.parametrize("name", ["", " ", "x" * 5000, "\x00", "🙂" * 200])
def test_names_that_make_no_sense_are_refused_like_any(name):
    assert sign_in(PAGES[1], name).status_code == 200


@pytest.mark.django_db(transaction=True)
def test_tries_at_the_same_moment_are_counted_too():
    def guess():
        return sign_in(PAGES[1]).status_code

    answers = outcomes([guess] * 12, threads=6)
    assert sorted(answers) == [200] * 3 + [429] * 9


# --- the counters ----------------------------------------------------------------------------------------------------
NOW = timezone.now()


def test_a_period_begins_with_its_first_attempt_and_ends_at_its_last_moment():
    who, period = sign_in_limits.counter("tests"), timedelta(seconds=60)
    moments = [(0, 0), (59, 0), (59.999, 1), (60, 0), (61, 0), (119.5, 1), (120, 0)]
    for after, wait in moments:
        assert sign_in_limits.count(who, 2, period, NOW + timedelta(seconds=after)) == wait, after


def test_a_wait_is_rounded_up_to_whole_seconds():
    who, period = sign_in_limits.counter("tests"), timedelta(seconds=60)
    sign_in_limits.count(who, 0, period, NOW)
    waits = [sign_in_limits.count(who, 0, period, NOW + timedelta(seconds=after)) for after in (0, 0.5, 1, 58.9)]
    assert waits == [60, 60, 59, 2]


def test_counts_are_kept_until_their_period_is_over():
    sign_in_limits.count(sign_in_limits.counter("tests"), 1, timedelta(seconds=60), NOW)
    sign_in_limits.delete_expired(NOW + timedelta(seconds=59.9))
    assert SignInTries.objects.exists()
    sign_in_limits.delete_expired(NOW + timedelta(seconds=60))
    assert not SignInTries.objects.exists()


def test_forgetting_one_counter_leaves_the_others():
    one, other = sign_in_limits.counter("tests", "1"), sign_in_limits.counter("tests", "2")
    for who in (one, other):
        sign_in_limits.count(who, 1, timedelta(seconds=60), NOW)
    sign_in_limits.forget(one)
    assert [sign_in_limits.count(who, 1, timedelta(seconds=60), NOW) for who in (one, other)] == [0, 60]


def test_every_part_of_a_counter_and_the_secret_key_matter(settings):
    parts = [("name", "a", "b"), ("pair", "a", "b"), ("name", "ab", ""), ("name", "a", "c"), ("name", "a")]
    found = {sign_in_limits.counter(*each) for each in parts}
    settings.SECRET_KEY = "another " * 8
    assert len(found | {sign_in_limits.counter(*parts[0])}) == 6


def test_a_success_takes_back_its_own_attempt_alone():
    """Of the address and of the name one attempt each; of the two together all."""
    for name in ("boss", "eve", "eve"):
        sign_in_limits.count_attempt(name, "203.0.113.7", NOW)
    sign_in_limits.record_success("eve", "203.0.113.7")
    counts = {bytes(each.who): each.count for each in SignInTries.objects.all()}
    network = "203.0.113.7"
    assert [counts[sign_in_limits.counter(*each)] for each in (("address", network), ("name", "eve"))] == [2, 1]
    assert counts[sign_in_limits.counter("pair", "eve", network)] == 0
    assert counts[sign_in_limits.counter("pair", "boss", network)] == 1
    for _ in range(4):
        sign_in_limits.record_success("eve", "203.0.113.7")
    assert min(SignInTries.objects.values_list("count", flat=True)) == 0, "no count is below zero"


def test_an_ipv4_address_is_itself_also_when_it_is_written_as_ipv6():
    for address in ("203.0.113.7", "::ffff:203.0.113.7", "::FFFF:203.0.113.7"):
        sign_in_limits.count_attempt("boss", address, NOW)
    with pytest.raises(TooManyError):
        sign_in_limits.count_attempt("boss", "203.0.113.7", NOW)
    sign_in_limits.count_attempt("boss", "::ffff:203.0.113.8", NOW)
    sign_in_limits.count_attempt("boss", "no address", NOW)


def _change(http, old, new="Another-long-pass-9"):
    fields = {"old_password": old, "new_password1": new, "new_password2": new}
    return http.post("/admin/password_change/", fields)


def test_an_open_session_is_no_place_to_guess_its_password():
    http = HttpClient(REMOTE_ADDR="203.0.113.7")
    http.force_login(get_user_model().objects.get(username="boss"))
    assert [_change(http, "wrong").status_code for _ in range(3)] == [200, 200, 200]
    refused = _change(http, PASSWORD)
    assert refused.status_code == 429
    assert 0 < int(refused["Retry-After"]) <= 900
    assert sign_in(PAGES[0], password=PASSWORD).status_code == 429
    assert get_user_model().objects.get(username="boss").check_password(PASSWORD)


def test_who_knows_the_old_password_may_try_new_ones_until_one_is_taken():
    http = HttpClient(REMOTE_ADDR="203.0.113.7")
    http.force_login(get_user_model().objects.get(username="boss"))
    assert [_change(http, PASSWORD, new="short").status_code for _ in range(5)] == [200] * 5
    assert _change(http, PASSWORD).status_code == 302
    assert get_user_model().objects.get(username="boss").check_password("Another-long-pass-9")


def test_nobody_changes_a_password_without_being_signed_in():
    answer = _change(HttpClient(), PASSWORD)
    assert (answer.status_code, answer["Location"]) == (302, "/admin/login/?next=/admin/password_change/")
