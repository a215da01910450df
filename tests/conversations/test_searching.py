"""Sessions found by what was said in them: by the API among the ended ones, by staff among all."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from django.urls import reverse
from django.utils import timezone

from conversations.admin import conversation_list
from conversations.models import Client, Conversation, Membership
from conversations.services.core.ledger import SYSTEM
from conversations.services.history import remember, search
from conversations.services.transitions import closing
from tests.conversations.back_office import sign_in
from tests.fakes.openai import FakeOpenAI
from tests.fakes.pinecone import FakePinecone
from tests.fakes.server import Fault

LIST = reverse("admin:conversations_conversation_changelist")


def ended(door: Any, message: str, **more: Any) -> str:
    """A session that is over and remembered."""
    session = door.says(message, **{"phone": "+51999000071", **more})["conversation_id"]
    closing.close(session, ended_by="system", actor=SYSTEM, now=timezone.now())
    remember.remember_ended()
    return str(session)


def searched(door: Any, **query: Any) -> Any:
    return door.get(f"/memory/search?{urlencode(query)}")


def test_ended_sessions_are_found_by_their_words_with_the_chunk_that_has_them(door):
    kettle = ended(door, "My kettle leaks since the storm")
    ended(door, "Where is my order?", user_id="bob", phone="+51999000072")
    page = searched(door, q="kettle leaking")
    [found] = page["items"]
    assert (page["next"], page["problem"]) == (None, None)
    assert (found["conversation_id"], found["position"], found["by"]) == (kettle, 3, "text")
    start, end = found["highlights"][0]
    assert found["snippet"][start:end] == "kettle"


def test_a_search_is_narrowed_to_a_person_a_channel_and_a_time(door):
    ended(door, "My kettle leaks")
    kettle = ended(door, "A kettle for me", user_id="bob", phone="+51999000072", channel="whatsapp")
    assert [found["conversation_id"] for found in searched(door, q="kettle", user_id="bob")["items"]] == [kettle]
    assert [found["conversation_id"] for found in searched(door, q="kettle", channel="whatsapp")["items"]] == [kettle]
    assert searched(door, q="kettle", user_id="nobody")["items"] == []
    assert searched(door, q="kettle", ended_before="2020-01-01T00:00:00Z")["items"] == []


@pytest.mark.parametrize("query", ["", "q=", "q=%00", "q=x&limit=0", "q=x&channel=pigeon", f"q={'x' * 501}"])
def test_a_search_that_makes_no_sense_is_a_400(door, query):
    status, envelope = door.call("GET", f"/memory/search?{query}")
    assert (status, envelope["success"]) == (400, False), envelope


def test_another_client_finds_nothing(door, neighbour, neighbours_key):
    ended(door, "My kettle leaks")
    door.key = neighbours_key
    assert searched(door, q="kettle")["items"] == []


def test_staff_find_open_and_ended_sessions_by_what_was_said(door, shop, neighbour):
    kettle = ended(door, "My kettle leaks", user_id="old")
    teapot = door.says("A teapot, 100% brown, and a KETTLE", user_id="new")["conversation_id"]
    ann = sign_in("ann", shop, Membership.Role.VIEWER)

    def listed(query: str, staff: Any = ann) -> set[str]:
        return {str(each.pk) for each in staff.get(LIST, {"q": query}).context["cl"].result_list}

    assert listed("kettle") == {kettle, teapot}
    assert listed("brown teapot") == {teapot}
    assert listed("1_0% brown") == set()
    assert listed("helicopter") == set()
    assert listed("new") == {teapot}, "by the user's id as before"
    assert listed("kettle", sign_in("stan", neighbour, Membership.Role.MANAGER)) == set()


def test_staff_see_where_it_was_said_and_get_there(door, shop):
    said = ["Hello", "My kettle <b>leaks</b>", *["And?"] * 3]
    for number, text in enumerate(said):
        old = door.says(text, user_id="old", phone="+51999000071", message_id=f"old {number}")["conversation_id"]
    closing.close(old, ended_by="system", actor=SYSTEM, now=timezone.now())
    remember.remember_ended()
    long = "I have had it for quite a while now and would not like to be without it: a KETTLE, and more kettles"
    for number, text in enumerate(["A teapot", long, "Yes?"]):
        new = door.says(text, user_id="new", message_id=f"new {number}")["conversation_id"]
    staff = sign_in("ann", shop, Membership.Role.VIEWER)
    page = staff.get(LIST, {"q": "kettle"}).content.decode()
    assert f'{old}/change/?at=4">My <mark>kettle</mark> &lt;b&gt;leaks&lt;/b&gt;</a>' in page
    assert f'{new}/change/?at=4">…to be without it: a <mark>KETTLE</mark>, and more <mark>kettles</mark></a>' in page
    assert "<mark>" not in staff.get(LIST, {"q": "new"}).content.decode(), "found by who it is with"


def test_by_meaning_sessions_are_found_where_that_is_configured(door, shop, settings):
    with FakeOpenAI(api_key="sk") as model, FakePinecone(api_key="pc") as index:
        settings.OPENAI_API_KEY, settings.OPENAI_BASE_URL = "sk", model.base_url
        settings.PINECONE_API_KEY, settings.PINECONE_HOST = "pc", index.url
        model.reply = lambda _messages: "A kettle leaks."
        kettle = ended(door, "My kettle is broken")
        staff = sign_in("ann", shop, Membership.Role.VIEWER)

        def listed(query: str) -> list[str]:
            return [str(each.pk) for each in staff.get(LIST, {"q": query}).context["cl"].result_list]

        assert listed("boiler") == [kettle]
        index.fail_next(Fault(status=401))
        assert listed("boiler") == [], "and no error"
        index.fail_next(Fault(status=401))
        assert "The search by meaning failed" in staff.get(LIST, {"q": "boiler"}).content.decode()

        assert searched(door, q="boiler")["problem"] is None
        index.fail_next(Fault(status=401))
        page = searched(door, q="kettle")
        assert ([found["conversation_id"] for found in page["items"]], page["problem"]) == ([kettle], "unauthorized")


def test_of_very_many_clients_the_chosen_one_is_searched(door, shop):
    Client.objects.bulk_create(Client(name=f"Client {n:03}", sub_domain=f"client-{n:03}") for n in range(60))
    session = door.says("A teapot")["conversation_id"]
    boss = sign_in("boss")
    narrowed = boss.get(LIST, {"q": "teapot", "client__id__exact": str(shop.pk)})
    assert [str(each.pk) for each in narrowed.context["cl"].result_list] == [session]


def found(query: str, **filters: str) -> tuple[set[str], str]:
    """What a superuser finds, and the page."""
    page = sign_in(f"boss {uuid4()}").get(LIST, {"q": query, **filters})
    return {str(each.pk) for each in page.context["cl"].result_list}, page.content.decode()


@pytest.mark.parametrize(
    "query",
    ["kettle tomorrow", '"the kettle" leaks', "-teapot kettle", "NUMERO", "numéro", "стекло", "水壶", "e-mail", "ettl"],
)
def test_an_open_session_is_found_by_all_its_words_however_they_are_written(door, query):
    for number, text in enumerate(["My número: the kettle, it leaks", "Стекло. 我的水壶漏水", "By E-mail. TOMORROW"]):
        session = door.says(text, message_id=f"m{number}")["conversation_id"]
    assert found(query)[0] == {session}


@pytest.mark.parametrize(
    "query", ["kettle -leaks", '"kettle the"', '"leaks by"', "kettle teapot", "-kettle", ".*", "k%e"]
)
def test_an_open_session_is_not_found_by_what_it_does_not_say(door, query):
    for number, text in enumerate(["My número: the kettle, it leaks", "By E-mail"]):
        door.says(text, message_id=f"m{number}")
    assert found(query)[0] == set()


def test_sessions_that_ended_and_are_not_in_memory_are_found(door):
    guest = door.says("My kettle leaks")["conversation_id"]
    waits = door.says("A kettle for me", user_id="bob", phone="+51999000072")["conversation_id"]
    for session in (guest, waits):
        closing.close(session, ended_by="system", actor=SYSTEM, now=timezone.now())
    sessions, page = found("kettle")
    assert sessions == {guest, waits}
    assert "My <mark>kettle</mark> leaks</a>" in page


def test_every_open_session_is_searched_and_the_page_says_where_that_took_too_long(door, monkeypatch):
    monkeypatch.setattr(search, "AT_ONCE", 1)
    old, *_ = [
        door.says("A kettle" if who == "old" else "Hello", user_id=who)["conversation_id"] for who in ("old", "new")
    ]
    assert found("kettle")[0] == {old}
    monkeypatch.setattr(search, "SECONDS", 0)
    sessions, page = found("kettle")
    assert (sessions, "Of the open conversations only the newest were searched, back to" in page) == (
        set(),
        True,
    )
    assert found("kettle", status__exact="active")[0] == set()
    Conversation.objects.filter(pk=old).update(started_at=timezone.now() - timedelta(days=3))
    last_week = (timezone.now() - timedelta(days=7)).isoformat(), (timezone.now() - timedelta(days=1)).isoformat()
    assert found("kettle", **dict(zip((conversation_list.FROM, conversation_list.TO), last_week, strict=True)))[0] == {
        old
    }


def test_what_the_list_is_narrowed_to_is_searched_and_not_only_shown(door, monkeypatch):
    monkeypatch.setattr(search, "FOUND", 1)
    by_sms = ended(door, "A kettle", channel="sms")
    ended(door, "A kettle, a kettle, a kettle", channel="whatsapp")
    sessions, page = found("kettle", channel__exact="sms")
    assert sessions == {by_sms}
    assert "More than 1 ended conversations match" in page
    for kind in ("export", "close"):  # "all that match" are not all that say so
        asked = sign_in(f"boss {uuid4()}").get(f"{LIST}bulk/{kind}/", {"q": "kettle"}).content.decode()
        assert "More than 1 ended conversations match" in asked


def test_the_page_says_how_far_back_guests_are_looked_for(door, monkeypatch):
    monkeypatch.setattr(search, "FEWEST_ENDED", 2)
    monkeypatch.setattr(search, "ENDED_LOOKED_AT", 2)
    for number in range(3):
        session = door.says("A kettle" if number == 0 else "Hello", user_id=f"guest {number}")["conversation_id"]
        closing.close(session, ended_by="system", actor=SYSTEM, now=timezone.now())
    sessions, page = found("kettle")
    assert sessions == set()
    assert "conversations and of those that are not remembered only the newest were searched" in page
