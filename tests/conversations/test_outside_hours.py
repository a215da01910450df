"""Outside a client's hours: who answers, when a person takes over, what the customer and the staff are told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from conversations.engines import registry
from conversations.engines.contract import ASK_FOR_HUMAN, EngineError, Reply, ToolAction
from conversations.models import Assistant, Chunk, Client, Conversation, ConversationEvent, PendingHandover
from conversations.services.core.ledger import Actor
from conversations.services.core.locking import editing
from conversations.services.jobs import forecast, sweep
from conversations.services.staff_actions import merge_sessions
from conversations.services.staff_actions import send as staff_send
from conversations.services.tenants import client_hours
from conversations.services.transitions import closing, handovers, takeover
from tests.conftest import Door, reply_to_all, send_all
from tests.conversations.staff import signed_in, staff
from tests.races.threads import together

pytestmark = pytest.mark.django_db

MADRID = ZoneInfo("Europe/Madrid")
FRIDAY = datetime(2026, 11, 27, 20, 0, tzinfo=MADRID)  # closed
MONDAY = datetime(2026, 11, 30, 9, 0, tzinfo=MADRID)  # the next opening
OFFICE = [[[540, 1080]]] * 5 + [[], []]
SENTENCE = "Our colleagues are away right now. One of them answers you from Monday 9:00 on."


class Parrot:
    """Says what it is told to, and asks for a person where it is told to."""

    name = "offline"

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answer: Any = Reply("Hello", self.name)
        monkeypatch.setitem(registry.ENGINES, "offline", self)

    def reply(self, _request: Any) -> Reply:
        if isinstance(self.answer, Exception):
            raise self.answer
        found: Reply = self.answer
        return found

    def asks_for_a_person(self, text: str) -> None:
        self.answer = Reply(text, self.name, tool_actions=(ToolAction(ASK_FOR_HUMAN, {"reason": "a refund"}),))


@pytest.fixture
def parrot(monkeypatch: pytest.MonkeyPatch) -> Parrot:
    return Parrot(monkeypatch)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The services' clock, which shows Friday evening; `clock(moment)` sets it."""
    shown = {"now": FRIDAY}
    monkeypatch.setattr(timezone, "now", lambda: shown["now"].astimezone(UTC))
    return lambda moment: shown.update(now=moment)


def set_hours(shop: Client, outside: str = "assistant", **more: Any) -> None:
    Client.objects.filter(pk=shop.pk).update(time_zone="Europe/Madrid")
    client_hours.store(shop, {"week": OFFICE, "outside": outside, **more})


def wish_by_phrase(shop: Client) -> None:
    Assistant.objects.filter(client=shop).update(
        human_phrases="a person please", takeover_sentence="A colleague comes."
    )


def now_there() -> Conversation:
    return Conversation.objects.get()


def said() -> list[str]:
    return [chunk.content for chunk in Chunk.objects.filter(role="ai").order_by("id")]


def kinds() -> list[str]:
    return list(ConversationEvent.objects.order_by("id").values_list("kind", flat=True))


def test_without_a_choice_nothing_changes(door: Door, shop: Client, clock: Any) -> None:
    set_hours(shop, "always")
    wish_by_phrase(shop)
    door.says("A person please")
    reply_to_all()
    assert now_there().taken_over_at is not None
    assert said() == ["A colleague comes."]


def test_a_wish_for_a_person_waits_for_the_next_opening_and_the_assistant_goes_on(
    door: Door, shop: Client, parrot: Parrot, clock: Any
) -> None:
    set_hours(shop)
    wish_by_phrase(shop)
    door.says("A person please")
    reply_to_all()
    conversation = now_there()
    assert (conversation.taken_over_at, conversation.needs_staff_since, conversation.reply_owed) == (None, None, False)
    assert said() == [SENTENCE]
    assert send_all() == 1
    assert PendingHandover.objects.get().due_at == MONDAY
    door.says("And what is your address?")
    reply_to_all()
    assert said() == [SENTENCE, "Hello"]
    assert handovers.make_due(MONDAY - timedelta(minutes=1)) == 0
    clock(MONDAY)
    assert handovers.make_due(MONDAY) == 1
    conversation = now_there()
    assert conversation.needs_staff_since == conversation.taken_over_at == MONDAY
    assert conversation.needs_staff_reason == "a person was asked for"
    assert handovers.make_due(MONDAY) == 0, "once"
    door.says("Hello?")
    assert reply_to_all() == 0
    assert [each for each in kinds() if "over" in each] == ["handover_noted", "taken_over"]


def test_whoever_asks_again_is_told_the_same_time_again(door: Door, shop: Client, clock: Any) -> None:
    set_hours(shop)
    wish_by_phrase(shop)
    for _ in range(2):
        door.says("A person please")
        reply_to_all()
        clock(FRIDAY + timedelta(days=1))
    assert said() == [SENTENCE, SENTENCE]
    assert PendingHandover.objects.count() == 1
    assert kinds().count("handover_noted") == 1


def test_what_the_model_asks_for_waits_and_its_words_are_said_first(
    door: Door, shop: Client, parrot: Parrot, clock: Any
) -> None:
    set_hours(shop)
    parrot.asks_for_a_person("I call somebody.")
    for _ in range(2):
        door.says("I want my money back")
        reply_to_all()
    assert said() == ["I call somebody.", SENTENCE, "I call somebody."], "when is told once beside words"
    assert PendingHandover.objects.get().reason == "a refund"


@pytest.mark.parametrize("phrase", [True, False])
def test_who_asks_for_a_person_gets_one_at_once_where_the_client_says_so(
    door: Door, shop: Client, parrot: Parrot, clock: Any, phrase: bool
) -> None:
    set_hours(shop, "wish")
    wish_by_phrase(shop)
    parrot.asks_for_a_person("")
    door.says("A person please" if phrase else "My parcel")
    reply_to_all()
    assert now_there().needs_staff_since is not None
    assert not PendingHandover.objects.exists()


def test_replies_that_fail_wait_as_well_also_where_a_wish_does_not(
    door: Door, shop: Client, parrot: Parrot, clock: Any
) -> None:
    set_hours(shop, "wish")
    Assistant.objects.filter(client=shop).update(human_after_failures=1, fallback="Sorry.")
    parrot.answer = EngineError("broken", code="refused", retryable=False)
    door.says("Hello")
    reply_to_all()
    assert said() == ["Sorry.", SENTENCE]
    assert now_there().taken_over_at is None
    assert PendingHandover.objects.get().due_at == MONDAY


def test_an_unsure_reply_is_not_said_and_the_customer_is_told_when(
    door: Door, shop: Client, parrot: Parrot, clock: Any
) -> None:
    set_hours(shop)
    Assistant.objects.filter(client=shop).update(human_below_confidence=0.9)
    parrot.answer = Reply("Perhaps", "offline", confidence=0.2)
    door.says("Hello")
    assert reply_to_all() == 1
    assert said() == [SENTENCE]
    assert not now_there().reply_owed


def test_within_the_hours_and_on_the_phone_nobody_waits(door: Door, shop: Client, clock: Any) -> None:
    set_hours(shop)
    terms = client_hours.terms(shop.pk)
    inside = MONDAY + timedelta(hours=1)
    assert handovers.waits_until(terms, "sms", inside, is_wish=False) is None
    assert handovers.waits_until(terms, "voice", FRIDAY, is_wish=False) is None
    assert handovers.waits_until(terms, "sms", FRIDAY, is_wish=False) == MONDAY


@pytest.mark.parametrize("what", ["takes over", "writes", "closes"])
def test_a_colleague_who_comes_first_ends_the_wait(door: Door, shop: Client, clock: Any, what: str) -> None:
    set_hours(shop)
    wish_by_phrase(shop)
    door.says("A person please")
    reply_to_all()
    pk, ann = now_there().pk, Actor("staff", "ann")
    if what == "takes over":
        takeover.take_over(pk, actor=ann, now=FRIDAY)
        takeover.hand_back(pk, actor=ann, now=FRIDAY)
    elif what == "writes":
        staff_send.send(pk, "I am here.", actor=ann, now=FRIDAY)
        takeover.hand_back(pk, actor=ann, now=FRIDAY)
    else:
        closing.close(pk, ended_by="staff", actor=ann, now=FRIDAY)
    assert handovers.make_due(MONDAY) == 0
    assert not PendingHandover.objects.exists()
    assert now_there().needs_staff_since is None


def test_the_conversation_lives_until_the_opening_over_the_weekend(door: Door, shop: Client, clock: Any) -> None:
    set_hours(shop)
    wish_by_phrase(shop)
    door.says("A person please")
    reply_to_all()
    Conversation.objects.update(last_message_at=FRIDAY)
    sweep.sweep(MONDAY - timedelta(minutes=1))
    assert now_there().is_open
    assert handovers.make_due(MONDAY) == 1


def test_hours_that_change_meanwhile_move_it_to_the_next_opening(door: Door, shop: Client, clock: Any) -> None:
    set_hours(shop)
    wish_by_phrase(shop)
    door.says("A person please")
    reply_to_all()
    client_hours.store(shop, {"holidays": [{"on": "2026-11-30", "name": "Saint Andrew", "hours": []}]})
    assert handovers.make_due(MONDAY) == 0
    assert PendingHandover.objects.get().due_at == MONDAY + timedelta(days=1)
    client_hours.store(shop, {"week": [[]] * 7, "holidays": []})
    assert handovers.make_due(MONDAY + timedelta(days=1)) == 1


def test_a_hand_over_that_waits_holds_up_nothing_in_its_conversation(door: Door, shop: Client, clock: Any) -> None:
    set_hours(shop)
    wish_by_phrase(shop)
    door.says("A person please")
    reply_to_all()
    locks = []
    for moment in (MONDAY - timedelta(minutes=1), MONDAY):
        with CaptureQueriesContext(connection) as seen:
            handovers.make_due(moment)
        locks.append(any("FOR NO KEY UPDATE" in each["sql"] for each in seen))
    assert locks == [False, True]


def test_a_crash_in_the_middle_leaves_it_to_be_done_again(
    door: Door, shop: Client, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_hours(shop)
    wish_by_phrase(shop)
    door.says("A person please")
    reply_to_all()

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(takeover, "record", die)
        with pytest.raises(KeyboardInterrupt):
            handovers.make_due(MONDAY)
    assert PendingHandover.objects.count() == 1
    assert now_there().taken_over_at is None
    assert handovers.make_due(MONDAY) == 1


@pytest.mark.django_db(transaction=True)
def test_two_tasks_at_a_time_hand_over_once(door: Door, shop: Client, clock: Any) -> None:
    set_hours(shop)
    wish_by_phrase(shop)
    door.says("A person please")
    reply_to_all()
    done = together(*[lambda: handovers.make_due(MONDAY)] * 2)
    assert sorted(done) == [0, 1]
    assert kinds().count("taken_over") == 1


def test_it_follows_the_conversation_into_which_another_is_merged(door: Door, shop: Client, clock: Any) -> None:
    set_hours(shop)
    wish_by_phrase(shop)
    door.says("A person please", user_id="ann")
    reply_to_all()
    door.says("Hello", user_id="ann too")
    other, into = (Conversation.objects.get(contact__user_id=each) for each in ("ann", "ann too"))
    with editing(into.pk, shop) as one, editing(other.pk, shop) as two:
        merge_sessions.merge_conversations(one, two, actor=Actor("system"), now=FRIDAY)
    assert PendingHandover.objects.get().conversation_id == into.pk


def test_the_sentence_is_the_clients_own_in_their_language(door: Door, shop: Client, clock: Any) -> None:
    set_hours(shop, outside_sentence="Volvemos el {when}.", outside_language="es")
    wish_by_phrase(shop)
    door.says("A person please")
    reply_to_all()
    assert said() == ["Volvemos el lunes 9:00."]


def test_no_sentence_says_nothing(door: Door, shop: Client, clock: Any) -> None:
    set_hours(shop, outside_sentence="")
    wish_by_phrase(shop)
    door.says("A person please")
    reply_to_all()
    assert said() == []
    assert PendingHandover.objects.exists()


def test_staff_see_when_in_the_forecast_the_timeline_and_the_inbox(door: Door, shop: Client, clock: Any) -> None:
    set_hours(shop)
    wish_by_phrase(shop)
    door.says("A person please")
    reply_to_all()
    event = next(each for each in forecast.upcoming_events(now_there(), FRIDAY) if each.what == "handed_over")
    assert event.at == MONDAY
    assert event.says == "The conversation is handed over to a person: Monday 9:00 in Europe/Madrid"
    clock(datetime.now(UTC))  # else nobody is signed in
    http = signed_in(staff("ann", shop="agent"))
    client_hours.store(shop, {"outside_language": "en"})
    page = http.get(f"/admin/inbox/{now_there().pk}/").content.decode()
    assert "Handed over to a person at the next opening: Monday" in page
    record = http.get(f"/admin/conversations/conversation/{now_there().pk}/change/").content.decode()
    assert "handover noted" in record
