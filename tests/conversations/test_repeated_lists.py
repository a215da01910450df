"""The event loop gives lists of the inbox again without Django, and only what Django would give at that moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.db import OperationalError, connections
from django.test import Client as HttpClient
from django.utils import timezone

from conversations.admin.access import Role
from conversations.endpoints import repeated, web_application
from conversations.endpoints.web_application import WebApplication
from conversations.models import Client, Conversation, Membership
from conversations.services.core.ledger import Actor
from conversations.services.core.statements import ThisThread
from conversations.services.desk import inbox, own
from conversations.services.tenants import preferences
from conversations.services.transitions import takeover
from convo_project import wsgi
from tests import factories
from tests.conftest import Door
from tests.conversations.staff import PASSWORD, staff
from tests.conversations.staff import signed_in as signed_in_before

pytestmark = pytest.mark.django_db(transaction=True)

LIST = "/admin/inbox/list/"
QUERY = "tab=all&by_itself=1"

Answer = tuple[int, dict[str, str], bytes]


class InThreads(ThisThread):
    """Work in threads, as the event loop's statements have it done, each time with a connection of its own."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool

    async def in_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._done, work, arguments)

    @staticmethod
    def _done(work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        try:
            return work(*arguments)
        finally:
            connections.close_all()


class Request:
    """A request of RSGI, and its exchange."""

    http_version, scheme, method, path = "1.1", "http", "GET", LIST
    server, client = "testserver:80", "127.0.0.1:5000"

    def __init__(self, http: HttpClient, query: str, headers: dict[str, str]) -> None:
        cookie = "; ".join(f"{name}={morsel.value}" for name, morsel in http.cookies.items())
        self.query_string, self.headers = query, {"host": "testserver", "cookie": cookie, **headers}
        self.answer: Answer = (0, {}, b"")

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        # The length is the server's, and the moment at which an answer that nobody keeps expires says nothing.
        named = {name: value for name, value in headers if name.lower() not in ("content-length", "expires")}
        self.answer = (status, named, body)


class Web:
    """The web application, with Django behind it."""

    def __init__(self, pool: ThreadPoolExecutor, loop: asyncio.Runner) -> None:
        self.asked_django = 0
        self._loop = loop
        self._application = WebApplication(self._django, 16)
        self.asked_django, self._statements = 0, InThreads(pool)

    def _django(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        self.asked_django += 1
        return wsgi.application(environ, start_response)

    def get(self, *https: HttpClient, query: str = QUERY, apart: float = 0.0, **headers: str) -> list[Answer]:
        """Return the answers to the browsers, which all ask at once, or so many seconds apart."""
        requests: list[Any] = [Request(http, query, headers) for http in https]

        async def come(place: int, each: Any) -> None:
            await asyncio.sleep(place * apart)
            await self._application.answer(self._statements, each, each, b"")

        async def ask() -> None:
            await asyncio.gather(*(come(place, each) for place, each in enumerate(requests)))

        self._loop.run(ask())
        return [each.answer for each in requests]

    def by_itself(self, *https: HttpClient, **given: Any) -> list[Answer]:
        """The same; Django must not have been asked."""
        before = self.asked_django
        found = self.get(*https, **given)
        assert self.asked_django == before
        return found

    def by_django(self, *https: HttpClient, **given: Any) -> list[Answer]:
        """The same; Django must have been asked by each."""
        before = self.asked_django
        found = self.get(*https, **given)
        assert self.asked_django == before + len(https)
        return found

    def know(self, *https: HttpClient, **given: Any) -> None:
        """Have Django decide twice about each of the browsers."""
        for _ in range(2):
            self.by_django(*https, **given)


def signed_in(user: Any) -> HttpClient:
    """A browser that has opened the inbox, which is noted in its session."""
    http = signed_in_before(user)
    http.get("/admin/inbox/")
    return http


@pytest.fixture
def web() -> Iterator[Web]:
    with ThreadPoolExecutor(4) as pool, asyncio.Runner() as loop:
        yield Web(pool, loop)


def test_the_answer_is_django_s(web: Web, door: Door, shop: Client) -> None:
    door.says("<b>Olá</b> & \u202etxt", name="María", user_id="maria")
    http = signed_in(staff("ann", shop=Role.AGENT))
    web.know(http)
    answer = web.by_itself(http)
    assert answer == web.by_django(http, query="tab=all")
    assert answer[0][0] == 200
    assert "no-store" in answer[0][1]["Cache-Control"]
    assert "&lt;b&gt;Olá&lt;/b&gt; &amp; " in answer[0][2].decode()


@pytest.mark.parametrize("query", ["tab=mine", "tab=unassigned", "tab=ended", "tab=all&order=late", "tab=all&after=x"])
def test_each_list_is_django_s(web: Web, door: Door, shop: Client, query: str) -> None:
    for name in ("One", "Two", "Three"):
        door.says("Hello", name=name, user_id=name)
    takeover.take_over(Conversation.objects.first().pk, actor=Actor("system"), now=timezone.now())  # type: ignore[union-attr]
    https = [signed_in(staff(name, shop=Role.AGENT)) for name in ("ann", "bea")]
    web.know(*https)
    assert web.by_itself(*https, query=f"{query}&by_itself=1") == web.by_django(*https, query=query)


def test_what_comes_is_in_the_next_answer(web: Web, door: Door, shop: Client) -> None:
    http = signed_in(staff("ann", shop=Role.AGENT))
    web.know(http)
    for words in ("first words", "later words"):
        door.says(words, user_id="maria")
        assert words in web.by_itself(http)[0][2].decode()


def test_who_asks_at_once_gets_each_their_own(web: Web, door: Door, shop: Client) -> None:
    """Two agents, one of them has the conversation and the other has seen it; one reads Spanish; a stranger sees
    nothing of it."""
    other = factories.ClientFactory(sub_domain="other")
    factories.AssistantFactory(client=other, key="eve")
    ann, bea, cleo = (
        staff("ann", shop=Role.AGENT),
        staff("bea", shop=Role.AGENT),
        staff("cleo", other=Role.AGENT),
    )
    pk = door.says("Hello", name="Maria", user_id="maria")["conversation_id"]
    takeover.take_over(pk, actor=Actor("staff", "ann", ann.pk), now=timezone.now())
    door.says("Are you there?", user_id="maria")
    own.note_seen(shop.pk, pk, bea.pk, 1_000, timezone.now())
    preferences.choose(bea.pk, language="es", time_zone="Asia/Tokyo")
    https = [signed_in(each) for each in (ann, bea, cleo)]
    web.know(*https)
    found = web.by_itself(*https)
    assert found == web.by_django(*https, query="tab=all")
    of_ann, of_bea, of_cleo = (body.decode() for _, _, body in found)
    assert "ib-unread" in of_ann
    assert "ib-unread" not in of_bea
    assert "ib-mine" in of_ann
    assert "ib-mine" not in of_bea
    assert "espera" in of_bea
    assert ["Maria" in each for each in (of_ann, of_bea, of_cleo)] == [True, True, False]


def test_all_who_are_told_the_same_news_are_in_one_reading(
    web: Web, shop: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """News reaches one after another."""
    https = [signed_in(staff(name, shop=Role.AGENT)) for name in ("ann", "bea", "cleo", "dora")]
    web.know(*https)
    read, together = repeated._bodies, []

    def note(asked: Any) -> Any:
        together.append(len(asked))
        return read(asked)

    monkeypatch.setattr(repeated, "_bodies", note)
    monkeypatch.setattr(repeated, "GATHERED_SECONDS", 0.5)
    web.by_itself(*https, apart=0.05)
    assert together == [4]


def test_a_reading_does_not_wait_for_ever_for_one_more(web: Web, shop: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    http = signed_in(staff("ann", shop=Role.AGENT))
    web.know(http)
    monkeypatch.setattr(repeated, "LONGEST_GATHERED_SECONDS", 0.0)
    monkeypatch.setattr(repeated, "GATHERED_SECONDS", 3_600.0)
    assert web.by_itself(http)[0][0] == 200


@pytest.mark.parametrize("zones", [("Etc/GMT+5", "Etc/GMT+5"), ("Europe/Madrid", "Asia/Tokyo")])
def test_each_reads_the_time_of_their_own_zone(web: Web, door: Door, shop: Client, zones: tuple[str, str]) -> None:
    door.says("Hello", user_id="maria")
    https, hours = [], []
    at = Conversation.objects.get().last_message_at
    for name, zone in zip(("ann", "bea"), zones, strict=True):
        user = staff(name, shop=Role.AGENT)
        preferences.choose(user.pk, language="en", time_zone=zone)
        https.append(signed_in(user))
        hours.append(at.astimezone(ZoneInfo(zone)).strftime("%H:%M</time>"))
    web.know(*https)
    found = web.by_itself(*https)
    assert found == web.by_django(*https, query="tab=all")
    assert [hour in body.decode() for hour, (_, _, body) in zip(hours, found, strict=True)] == [True, True]


def test_a_list_that_cannot_be_read_fails_nobody_else(
    web: Web, door: Door, shop: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Django answers who asked for it, with the error that it is."""
    factories.AssistantFactory(client=factories.ClientFactory(sub_domain="other"), key="eve")
    door.says("Hello", name="Maria", user_id="maria")
    https = [signed_in(staff("ann", shop=Role.AGENT)), signed_in(staff("cleo", other=Role.AGENT))]
    web.know(*https)
    read = inbox.pages

    def fails_for_others(client_ids: Any, *rest: Any) -> Any:
        if shop.pk not in client_ids:
            raise OperationalError("away")
        return read(client_ids, *rest)

    monkeypatch.setattr(inbox, "pages", fails_for_others)
    before = web.asked_django
    (ours, _, body), (theirs, _, _) = web.get(*https)
    assert (ours, theirs, web.asked_django) == (200, 503, before + 1)
    assert b"Maria" in body


def _sign_out(_: Any) -> None:
    Session.objects.all().delete()


def _lose_the_role(_: Any) -> None:
    Membership.objects.all().delete()


def _deactivate(user: Any) -> None:
    get_user_model().objects.filter(pk=user.pk).update(is_active=False)


def _take_the_back_office(user: Any) -> None:
    get_user_model().objects.filter(pk=user.pk).update(is_staff=False)


def _change_the_password(user: Any) -> None:
    user.set_password(f"{PASSWORD}-and-more")
    user.save()


def _require_a_second_factor(_: Any) -> None:
    Client.objects.update(requires_second_factor=True)


CHANGES = [
    (_sign_out, 302),
    (_lose_the_role, 403),
    (_deactivate, 302),
    (_take_the_back_office, 302),
    (_change_the_password, 302),
    (_require_a_second_factor, 302),
]


@pytest.mark.parametrize(("change", "status"), CHANGES)
def test_who_may_read_it_no_more_gets_nothing_from_then_on(
    web: Web, door: Door, shop: Client, change: Callable[[Any], None], status: int
) -> None:
    door.says("A secret", user_id="maria")
    user = staff("ann", shop=Role.AGENT)
    http = signed_in(user)
    web.know(http)
    assert b"A secret" in web.by_itself(http)[0][2]
    change(user)
    [(found, _, body)] = web.by_django(http)
    assert found == status
    assert b"A secret" not in body
    web.by_django(http)  # and it stays Django's


def test_a_new_role_and_another_language_count_from_the_next_answer_on(web: Web, door: Door, shop: Client) -> None:
    other = factories.ClientFactory(sub_domain="other", name="Other")
    user = staff("ann", other=Role.VIEWER)
    door.says("Hello", name="Maria", user_id="maria")
    http = signed_in(user)
    web.know(http)
    assert b"Maria" not in web.by_itself(http)[0][2]
    Membership.objects.create(user=user, client=shop, role=Role.VIEWER)
    assert b"Maria" in web.by_django(http)[0][2]
    preferences.choose(user.pk, language="pt-br", time_zone="")
    assert web.by_django(http)[0][1]["Content-Language"] == "pt-br"
    other.delete()


def test_a_superuser_sees_a_client_that_is_added(web: Web, door: Door, shop: Client) -> None:
    http = signed_in(get_user_model().objects.create_superuser("boss", "", PASSWORD))
    web.know(http)
    web.by_itself(http)
    factories.ClientFactory(sub_domain="other")
    web.by_django(http)


@pytest.mark.parametrize("headers", [{"accept-language": "es"}, {"cookie": "sessionid=stranger"}, {"host": "evil"}])
def test_another_asker_is_not_taken_for_the_one_who_is_known(web: Web, shop: Client, headers: dict[str, str]) -> None:
    http = signed_in(staff("ann", shop=Role.AGENT))
    web.know(http)
    web.by_django(http, **headers)


def test_what_a_person_waits_for_is_not_gathered(web: Web, shop: Client) -> None:
    http = signed_in(staff("ann", shop=Role.AGENT))
    web.know(http)
    web.by_django(http, query="tab=all")


def test_a_decision_counts_for_a_minute(web: Web, shop: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    http = signed_in(staff("ann", shop=Role.AGENT))
    monkeypatch.setattr(repeated, "LASTS_SECONDS", 0.0)
    web.know(http)
    web.by_django(http)


def test_a_decision_counts_only_if_nothing_changed_around_it(web: Web, shop: Client) -> None:
    user = staff("ann", shop=Role.AGENT)
    http = signed_in(user)
    web.by_django(http)
    Membership.objects.update(role=Role.VIEWER)
    web.by_django(http)
    web.by_django(http)
    web.by_itself(http)


def test_a_reading_that_fails_is_django_s_and_without_a_database_it_is_a_503(
    web: Web, shop: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    http = signed_in(staff("ann", shop=Role.AGENT))
    web.know(http)

    def failing(error: Exception) -> Callable[..., Any]:
        def fail(_: Any) -> Any:
            raise error

        return fail

    with monkeypatch.context() as patched:
        patched.setattr(repeated.session_state, "states_of", failing(OperationalError("away")))
        assert (web.by_itself(http)[0][0], web.by_itself(http)[0][2]) == (503, web_application.AWAY)
    with monkeypatch.context() as patched:
        patched.setattr(repeated, "_bodies", failing(ValueError("a fault")))
        assert web.by_django(http)[0][0] == 200
