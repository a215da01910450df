"""People and the assistant: who has a session, and that the other is silent."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from conversations.engines import registry
from conversations.engines.contract import EngineError, Reply
from conversations.models import Assistant, Chunk, Conversation, ConversationEvent, Message, Turn
from conversations.services.core.ledger import Actor
from conversations.services.delivery import claiming, sending
from conversations.services.jobs import sweep
from conversations.services.replies import failures, leases, phrases, pipeline, sinks
from conversations.services.staff_actions import send as staff_send
from conversations.services.transitions import takeover
from tests.bounds import rounds
from tests.conftest import reply_to_all, send_all
from tests.conversations.back_office import do, news, page_of, sign_in
from tests.prompts import heard, spoken

pytestmark = pytest.mark.django_db

HOURS = timedelta(hours=1)
GRACE = Actor("staff", "grace")
MAX = Actor("staff", "max")


class Parrot:
    """Says what it is told to, after `meanwhile`; notes what it was asked."""

    name = "offline"

    def __init__(self, monkeypatch):
        self.answer, self.meanwhile, self.asked = "Hello", lambda: None, []
        monkeypatch.setitem(registry.ENGINES, "offline", self)

    def reply(self, request):
        self.asked.append(request)
        self.meanwhile()
        if isinstance(self.answer, Exception):
            raise self.answer
        return Reply(self.answer, self.name)


@pytest.fixture
def parrot(monkeypatch):
    return Parrot(monkeypatch)


@pytest.fixture
def conversation(door):
    door.says("Hello")
    return Conversation.objects.get()


def taken(conversation, actor=GRACE, **how):
    return takeover.take_over(conversation.pk, actor=actor, now=timezone.now(), **how)


def said():
    return [chunk.content for chunk in Chunk.objects.filter(role="ai").order_by("id")]


def kinds():
    return list(ConversationEvent.objects.order_by("id").values_list("kind", flat=True))


def test_from_the_takeover_on_the_assistant_is_silent_also_in_mid_turn(parrot, conversation):
    parrot.meanwhile = lambda: taken(conversation)
    reply_to_all()
    turn = Turn.objects.get()
    assert (turn.status, turn.code, turn.draft) == ("dropped", "taken_over", "Hello")
    assert said() == []


def test_what_was_not_sent_yet_is_not_sent_also_by_who_has_claimed_it(parrot, conversation):
    reply_to_all()
    token, [claimed] = claiming.claim(timezone.now(), 10)
    taken(conversation)
    assert sending.begin(claimed, token, timezone.now()) is None
    message = Message.objects.get()
    assert (message.status, message.code) == ("cancelled", "taken_over")


def test_a_message_that_slipped_past_the_takeover_is_stopped_before_it_leaves(parrot, conversation):
    """Whatever put it there: where the bytes would go, who has the session is asked once more."""
    reply_to_all()
    Conversation.objects.update(taken_over_at=timezone.now())
    assert send_all_or_nothing() == 0
    assert Message.objects.get().code == "taken_over"
    Message.objects.update(status="queued")
    Conversation.objects.update(taken_over_at=None, status="closed", ended_at=timezone.now(), ended_by="staff")
    assert send_all_or_nothing() == 0
    assert Message.objects.get().code == "closed"


def send_all_or_nothing():
    token, ids = claiming.claim(timezone.now(), 10)
    return len([pk for pk in ids if sending.begin(pk, token, timezone.now())])


def test_what_staff_say_meanwhile_goes_out_and_is_in_the_context_after_the_hand_back(parrot, door, conversation):
    taken(conversation)
    door.says("I want my money back")
    assert reply_to_all() == 0
    assert Conversation.objects.get().waits_for_staff_since is not None
    staff_send.send(conversation.pk, "You get it on Monday.", actor=GRACE, now=timezone.now())
    assert send_all() == 1
    assert Conversation.objects.get().waits_for_staff_since is None
    door.says("And when exactly?")
    takeover.hand_back(conversation.pk, actor=GRACE, now=timezone.now())
    assert reply_to_all() == 1, "what is unanswered is answered by the assistant"

    given = parrot.asked[-1].prompt.messages
    assert heard(given) == ["Hello", "I want my money back", "And when exactly?"]
    assert spoken(given)[-1].endswith("You get it on Monday.")
    assert [message["role"] for message in given[-3:]] == ["user", "assistant", "user"]
    assert kinds() == ["opened", "taken_over", "sent", "handed_back"]


def test_a_hand_back_with_nothing_unanswered_says_nothing(parrot, conversation):
    taken(conversation)
    staff_send.send(conversation.pk, "Settled.", actor=GRACE, now=timezone.now())
    takeover.hand_back(conversation.pk, actor=GRACE, now=timezone.now())
    takeover.hand_back(conversation.pk, actor=GRACE, now=timezone.now())
    assert reply_to_all() == 0
    assert kinds().count("handed_back") == 1


def test_a_draft_from_before_the_takeover_is_not_said_after_the_hand_back(parrot, door, conversation):
    def meanwhile():
        taken(conversation)
        staff_send.send(conversation.pk, "I am human.", actor=GRACE, now=timezone.now())
        door.says("Good")
        takeover.hand_back(conversation.pk, actor=GRACE, now=timezone.now())
        parrot.meanwhile = lambda: None
        parrot.answer = "to Good"

    parrot.meanwhile = meanwhile
    reply_to_all()
    assert said() == ["I am human.", "to Good"]


def test_the_person_can_be_told(conversation):
    taken(conversation, tell=True)
    assert said() == ["A colleague will take it from here."]
    assert send_all() == 1
    taken(conversation, MAX, tell=True, from_colleague=True)
    assert len(said()) == 1, "they know already"


def test_a_takeover_stops_the_clock_and_the_hand_back_starts_it_anew(conversation):
    now = timezone.now()
    taken(conversation)
    takeover.stay(conversation, now)
    Conversation.objects.update(taken_over_until=now + 1000 * HOURS)
    sweep.sweep(now + 100 * HOURS)
    assert Conversation.objects.get().status == "active"
    takeover.hand_back(conversation.pk, actor=GRACE, now=now + 100 * HOURS)
    sweep.sweep(now + 100 * HOURS + timedelta(minutes=5))
    assert Conversation.objects.get().status == "active"
    sweep.sweep(now + 100 * HOURS + timedelta(minutes=11))
    assert Conversation.objects.get().status == "stale"
    sweep.sweep(now + 125 * HOURS)
    assert not Conversation.objects.filter(status__in=["active", "stale"]).exists()


def test_an_abandoned_takeover_hands_back_after_a_time_that_writing_renews(parrot, door, conversation):
    now = timezone.now()
    takeover.take_over(conversation.pk, actor=GRACE, now=now)
    staff_send.send(conversation.pk, "One moment", actor=GRACE, now=now + HOURS)
    door.says("Well?")
    assert sweep.sweep(now + 2.5 * HOURS).handed_back == 0
    assert sweep.preview(now + 3 * HOURS).handed_back == 1
    assert sweep.sweep(now + 3 * HOURS).handed_back == 1
    found = Conversation.objects.get()
    assert (found.taken_over_at, found.taken_over_name, found.status) == (None, "", "active")
    Conversation.objects.update(reply_due_at=now)
    assert reply_to_all() == 1
    assert ConversationEvent.objects.get(kind="handed_back").actor_name == "sweep"


def test_one_of_two_colleagues_has_it(conversation):
    taken(conversation)
    with pytest.raises(takeover.ConflictError, match="grace has this conversation"):
        taken(conversation, MAX)
    taken(conversation)
    taken(conversation, MAX, from_colleague=True)
    assert Conversation.objects.get().taken_over_name == "max"
    assert kinds() == ["opened", "taken_over", "taken_over"]


def test_a_close_takes_it_from_everybody(door, conversation):
    taken(conversation)
    door.call("POST", f"/conversations/{conversation.pk}/close", {})
    assert Conversation.objects.get().taken_over_at is None
    status, envelope = door.call("POST", f"/conversations/{conversation.pk}/takeover", {})
    assert (status, envelope["code"]) == (409, "ended")


# --- the API ---------------------------------------------------------------------------------------------------------
def test_a_program_takes_over_for_a_person_and_hands_back(parrot, door, conversation):
    path = f"/conversations/{conversation.pk}"
    status, envelope = door.call("POST", f"{path}/takeover", {"name": "Maria", "tell": True})
    assert (status, envelope["data"]["taken_over_by"]) == (200, "Maria")
    detail = door.get(path)
    assert (detail["taken_over_by"], detail["reply_owed"]) == ("Maria", True)
    assert detail["taken_over_until"] > detail["taken_over_at"]
    assert detail["chunks"][-1]["content"] == "A colleague will take it from here."
    assert reply_to_all() == 0
    status, envelope = door.call("POST", f"{path}/takeover", {"name": "Otto"})
    assert (status, envelope["code"], envelope["details"]["taken_over_by"]) == (409, "taken_over", "Maria")
    assert door.call("POST", f"{path}/takeover", {"name": "Otto", "from_colleague": True})[0] == 200
    assert door.get("/conversations")["items"][0]["taken_over_by"] == "Otto"
    status, envelope = door.call("POST", f"{path}/handback", {"reason": "settled"})
    assert (status, envelope["data"]["taken_over_at"]) == (200, None)
    assert reply_to_all() == 1
    assert ConversationEvent.objects.get(kind="handed_back").cause == "settled"


def test_what_a_program_sends_meanwhile_goes_out_is_an_answer_and_takes_the_session_from_nobody(
    parrot, door, conversation
):
    taken(conversation)
    until = Conversation.objects.get().taken_over_until
    path = f"/conversations/{conversation.pk}"
    status, envelope = door.call("POST", f"{path}/send", {"content": "Your parcel left the depot."})
    assert (status, envelope["data"]["messages"][0]["status"]) == (201, "queued")
    assert send_all() == 1
    assert Message.objects.get().status == "delivered"

    found = Conversation.objects.get()
    assert (found.taken_over_name, found.taken_over_until >= until) == ("grace", True)
    assert found.reply_owed is False
    assert kinds() == ["opened", "taken_over", "sent"]
    takeover.hand_back(conversation.pk, actor=GRACE, now=timezone.now())
    assert reply_to_all() == 0, "it was answered"
    door.says("Thanks")
    assert reply_to_all() == 1
    said_so_far = [message["content"] for message in parrot.asked[-1].prompt.messages]
    assert "Your parcel left the depot." in "\n".join(said_so_far)


def test_what_a_program_sends_to_a_session_that_waits_for_a_person_leaves_it_waiting(parrot, ada, door):
    conversation_id = door.says("I want to talk to a person")["conversation_id"]
    reply_to_all()
    door.call("POST", f"/conversations/{conversation_id}/send", {"content": "Somebody will be with you by noon."})
    found = Conversation.objects.get()
    assert (found.taken_over_at is not None, found.taken_over_name) == (True, "")
    assert found.needs_staff_since is not None
    door.says("Thanks")
    assert reply_to_all() == 0


# --- rules -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def ada(shop):
    Assistant.objects.update(human_phrases="human\ntalk to a person\nhablar con alguien", goodbye_phrases="Bye\nadiós")
    return Assistant.objects.get()


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["I want a HUMAN!"], "human"),
        (["please let me talk  to a\nperson."], "human"),
        (["¿Puedo hablar con alguien?"], "human"),
        (["human?", "or whoever"], "human"),
        (["That is inhuman"], ""),
        (["talk to no person"], ""),
        (["bye!"], "goodbye"),
        (["Thanks", "ADIÓS…"], "goodbye"),
        (["bye", "wait"], ""),
        (["don't say bye"], ""),
        (["…"], ""),
        ([], ""),
    ],
)
def test_phrases_are_found_as_people_write_them(ada, words, rule):
    assert phrases.rule_for(ada, words) == rule


def test_who_asks_for_a_person_waits_for_one_and_no_model_is_asked(parrot, ada, door):
    door.says("A human, please")
    reply_to_all()
    conversation = Conversation.objects.get()
    assert parrot.asked == []
    assert said() == ["A colleague will take it from here."]
    assert (conversation.taken_over_name, conversation.needs_staff_reason) == ("", "a person was asked for")
    assert Turn.objects.get().code == "human_wanted"
    staff_send.send(conversation.pk, "Here I am", actor=GRACE, now=timezone.now())
    assert Conversation.objects.get().taken_over_name == "grace", "who answers it has it"
    door.says("Great")
    takeover.hand_back(conversation.pk, actor=GRACE, now=timezone.now())
    assert reply_to_all() == 1
    assert said()[-1] == "Hello", "what a colleague saw is not asked for again"


def test_who_says_goodbye_gets_a_last_reply_and_the_session_ends(parrot, ada, door):
    door.says("Thanks")
    door.says("bye")
    parrot.answer = "Have a nice day!"
    reply_to_all()
    conversation = Conversation.objects.get()
    assert (conversation.status, conversation.ended_by) == ("closed", "user")
    assert send_all() == 1
    assert Message.objects.get().status == "delivered"
    closed = ConversationEvent.objects.get(kind="closed")
    assert (closed.actor, closed.cause) == ("contact", "said goodbye")


def test_who_goes_on_after_a_goodbye_is_not_cut_off(parrot, ada, door):
    door.says("bye")

    def meanwhile():
        parrot.meanwhile = lambda: None
        door.says("no, wait")

    parrot.meanwhile = meanwhile
    reply_to_all()
    assert Conversation.objects.get().status == "active"
    assert [turn.status for turn in Turn.objects.order_by("started_at")] == ["overtaken", "committed"]


def test_last_words_that_fail_for_a_moment_are_tried_again_after_the_end(parrot, ada, door, monkeypatch):
    from channels_out.adapters.sandbox import SandboxAdapter
    from channels_out.errors import SendError

    door.says("bye")
    reply_to_all()
    send = SandboxAdapter.send

    def once(self, account, message):
        monkeypatch.setattr(SandboxAdapter, "send", send)
        raise SendError("Later.", code="http_503", retryable=True)

    monkeypatch.setattr(SandboxAdapter, "send", once)
    send_all()
    Message.objects.update(due_at=timezone.now())
    send_all()
    assert Message.objects.get().status == "delivered"


def test_after_so_many_failures_in_a_row_a_person_has_it(parrot, door, settings):
    settings.REPLY_ATTEMPTS = 1
    parrot.answer = EngineError("no", code="http_500", retryable=True)
    for _ in range(3):
        assert Conversation.objects.filter(taken_over_at__isnull=False).count() == 0
        door.says("Hello")
        reply_to_all()
    conversation = Conversation.objects.get()
    assert conversation.taken_over_at is not None
    assert conversation.needs_staff_reason == f"3 replies in a row failed. {failures.explain('http_500')}"
    assert len(said()) == 1, "the fallback is said once"
    assert send_all() == 1


# --- the back office -------------------------------------------------------------------------------------------------
def test_an_agent_takes_it_writes_and_hands_it_back(parrot, door, shop, agent, viewer, conversation):
    assert "The assistant replies here." in agent.get(page_of(conversation)).content.decode()
    assert do(viewer, conversation, "take-over")[0] == 403
    assert do(agent, conversation, "take-over", tell="yes") == (
        200,
        {"said": "You have this conversation now. The assistant is silent.", "bubbles": []},
    )
    assert "You have this conversation." in news(agent, conversation).json()["sections"]["takeover"]
    assert "<bdi>agnes</bdi> has this conversation." in news(viewer, conversation).json()["sections"]["takeover"]
    other = sign_in("max", shop, "agent")
    assert do(other, conversation, "take-over")[0] == 409
    assert do(agent, conversation, "hand-back")[1]["said"] == "The assistant has this conversation again."
    assert reply_to_all() == 1


def test_the_inbox_shows_who_has_waited_longest_first_and_who_has_it(parrot, door, agent):
    for name in ("ann", "bob", "cleo", "dora"):
        door.says("Hello", user_id=name, name=name.title())
    now = timezone.now()
    ids = {each.contact.user_id: each.pk for each in Conversation.objects.select_related("contact")}
    takeover.take_over(ids["cleo"], actor=GRACE, now=now)
    Conversation.objects.filter(pk=ids["cleo"]).update(burst_began_at=now - 3 * HOURS)
    for hours, name in ((2, "ann"), (4, "bob")):
        Conversation.objects.filter(pk=ids[name]).update(needs_staff_since=now - hours * HOURS)
    page = agent.get("/admin/conversations/conversation/?waits=person").content.decode()
    assert page.index("Bob") < page.index("Cleo") < page.index("Ann")
    assert "Dora" not in page
    assert "a person, 3" in page
    assert "grace" in page


def test_a_turn_that_takes_processes_down_exhausts_nobody_but_itself(parrot, door, settings):
    """Eight sessions in one dispatcher, one of which kills it whenever it runs: the others are answered."""
    for number in range(8):
        door.says("Hello", user_id=f"person {number}")
    poison = Conversation.objects.get(contact__user_id="person 3").pk
    now, deaths = timezone.now(), 0
    for _ in rounds("Claiming", lambda: list(Turn.objects.values_list("conversation", "attempt", "status", "code"))):
        claims = leases.claim(now, 64, suspects=1)
        if not claims:
            break
        if poison in [claim.conversation_id for claim in claims if not claim.exhausted]:
            deaths += 1
            now += timedelta(seconds=settings.LEASE_SECONDS + 1)
            assert leases.recover(now) == len(claims)
            continue
        for claim in claims:
            if claim.exhausted:
                pipeline.fail(claim, EngineError("No.", code=sinks.CRASHED, retryable=False), now)
            else:
                pipeline.prepare(claim)
                pipeline.commit(claim, Reply("Hi", "offline"), now)
    assert deaths == settings.REPLY_ATTEMPTS
    assert Chunk.objects.filter(role="ai", content="Hi").count() == 7
    stopped = Conversation.objects.get(pk=poison)
    assert stopped.taken_over_at is not None
    assert stopped.needs_staff_reason.endswith(failures.explain("crashed"))
    assert not Turn.objects.exclude(conversation=poison).filter(status="failed").exists()


def test_a_dispatcher_that_is_stopped_costs_nobody_an_attempt(parrot, conversation):
    for _ in range(6):
        [claim] = leases.claim(timezone.now(), 10)
        assert not claim.exhausted
        assert leases.give_back({claim.turn_id: claim.client_id}, timezone.now()) == 1
    found = Conversation.objects.get()
    assert (found.reply_attempts, found.reply_crashes) == (0, 0)
