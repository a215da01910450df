"""Drafts for approval: an assistant proposes, and a colleague sends, edits or discards. No customer sees it before."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone

from conversations.admin.access import Role
from conversations.engines.contract import EngineError, Reply, ToolAction
from conversations.models import (
    Assistant,
    Chunk,
    Client,
    ClientDay,
    Conversation,
    ConversationEvent,
    Message,
    Proposal,
    Step,
    Turn,
)
from conversations.services.core.errors import ConflictError, InvalidError
from conversations.services.core.ledger import SYSTEM, Actor
from conversations.services.delivery import opt_outs
from conversations.services.history import archive, remember
from conversations.services.jobs.forecast import upcoming_events
from conversations.services.replies import leases, pipeline
from conversations.services.staff_actions import corrections, proposals, send
from conversations.services.transitions import assigning, closing, takeover
from tests import factories
from tests.conftest import Door, reply_to_all, send_all
from tests.conversations.back_office import do
from tests.conversations.staff import signed_in, staff
from tests.conversations.test_inbox import names
from tests.races.threads import outcomes

pytestmark = pytest.mark.django_db

LATER = timedelta(hours=1)


@pytest.fixture
def proposing(shop: Client) -> Assistant:
    """The shop's assistant, which proposes."""
    Assistant.objects.filter(client=shop).update(proposes=True)
    return Assistant.objects.get(client=shop, is_default=True)


@pytest.fixture
def agnes(shop: Client) -> Any:
    """An agent of the shop."""
    return staff("agnes", shop=Role.AGENT)


@pytest.fixture
def actor(agnes: Any) -> Actor:
    """The agent as the cause of what happens."""
    return Actor("staff", "agnes", agnes.pk)


def answered(door: Door, *words: str, user_id: str = "ann", **more: Any) -> Proposal:
    """Let somebody write and the assistant propose, and return the proposal."""
    door.says("Hello", user_id=user_id, name=user_id)
    commit(*(words or ("**Certainly**, at 5.",)), **more)
    return Proposal.objects.get(conversation__contact__user_id=user_id, state="open")


def commit(text: str, turn: Any = None, **more: Any) -> Turn:
    [claimed] = [turn] if turn else leases.claim(timezone.now() + LATER, 1)
    pipeline.prepare(claimed)
    pipeline.commit(claimed, Reply(text, "offline", **more), timezone.now())
    return Turn.objects.get(pk=claimed.turn_id)


def said() -> list[str]:
    return list(Chunk.objects.filter(role="ai").order_by("id").values_list("content", flat=True))


def test_the_forecast_and_the_transcript_name_the_proposal_that_waits(door, shop, proposing, agnes, actor):
    conversation_id = door.says("Hello")["conversation_id"]
    http, page = signed_in(agnes), f"/admin/conversations/conversation/{conversation_id}/change/"
    commit("We **open** at <nine>.")
    conversation = Conversation.objects.get()
    assert [each.says for each in upcoming_events(conversation, timezone.now()) if each.what == "approved"] == [
        "A colleague sends, edits or discards the proposal"
    ]
    html = http.get(page).content.decode()
    assert "We **open** at &lt;nine&gt;." in html
    assert f'href="/admin/inbox/{conversation_id}/"' in html
    proposals.discard(conversation.pk, Proposal.objects.get().pk, actor=actor, now=timezone.now(), client=shop)
    conversation = Conversation.objects.get()
    assert not [each for each in upcoming_events(conversation, timezone.now()) if each.what == "approved"]
    assert "A proposal waits" not in http.get(page).content.decode()


def kinds() -> list[str]:
    return list(ConversationEvent.objects.order_by("id").values_list("kind", flat=True))


# --- proposing --------------------------------------------------------------------------------------------------------
def test_a_reply_waits_and_nothing_reaches_the_customer(door: Door, proposing: Assistant, agnes: Any) -> None:
    proposal = answered(door)
    send_all()
    conversation = Conversation.objects.get()
    assert (proposal.text, proposal.state, proposal.inbound_sequence) == ("**Certainly**, at 5.", "open", 1)
    assert (said(), Message.objects.count(), conversation.reply_owed) == ([], 0, False)
    assert Turn.objects.get().status == "committed"
    assert kinds()[-1] == "reply_proposed"
    http = signed_in(agnes)
    assert names(http, tab="unassigned") == ["ann"]
    assert http.get("/admin/inbox/list/").json()["counts"]["unassigned"] == 1
    shown = http.get(f"/admin/inbox/{conversation.pk}/pane/").content.decode()
    assert "The assistant proposes" in shown
    assert "**Certainly**, at 5." in shown
    assert reply_to_all() == 0, "no further reply is owed"


def test_a_proposal_is_sent_as_the_assistants_words(door: Door, proposing: Assistant, agnes: Any) -> None:
    proposal = answered(door)
    conversation = Conversation.objects.get()
    status, body = do(signed_in(agnes), conversation, "send-proposal", proposal=proposal.pk)
    assert (status, body["said"]) == (200, "The reply is on its way.")
    send_all()
    [chunk] = Chunk.objects.filter(role="ai")
    assert (chunk.content, chunk.author_id) == ("**Certainly**, at 5.", None)
    assert chunk.metadata["proposal"] == {"id": proposal.pk, "by": "agnes", "edited": False}
    assert Message.objects.get().text == "Certainly, at 5.", "in the channel's formatting"
    assert Message.objects.get().status in ("sent", "delivered")
    conversation.refresh_from_db()
    assert (conversation.taken_over_at, conversation.needs_staff_since) == (None, None)
    assert Turn.objects.get().chunk_id == chunk.pk, "what the model was given is one click away"
    assert names(signed_in(agnes), tab="unassigned") == []
    assert "proposal_sent" in kinds()
    bubble = (
        do(signed_in(agnes), conversation, "note", text="x")
        and signed_in(agnes).get(f"/admin/inbox/{conversation.pk}/pane/").content.decode()
    )
    assert "proposal, sent by agnes" in bubble


def test_an_edited_proposal_is_the_colleagues_words_beside_what_was_proposed(
    door: Door, proposing: Assistant, agnes: Any
) -> None:
    proposal = answered(door)
    conversation = Conversation.objects.get()
    http = signed_in(agnes)
    assert do(http, conversation, "send-edited-proposal", proposal=proposal.pk, text="  ")[0] == 409
    assert do(http, conversation, "send-edited-proposal", proposal=proposal.pk, text="At *6*.")[0] == 200
    [chunk] = Chunk.objects.filter(role="ai")
    assert (chunk.content, chunk.author_id, chunk.metadata["proposal"]["edited"]) == ("At *6*.", agnes.pk, True)
    proposal.refresh_from_db()
    assert (proposal.state, proposal.is_edited, proposal.chunk_id) == ("sent", True, chunk.pk)
    assert proposal.text == "**Certainly**, at 5.", "what was proposed is kept beside it"
    shown = http.get(f"/admin/inbox/{conversation.pk}/pane/").content.decode()
    assert "proposal, edited by agnes" in shown
    assert "As the assistant proposed it" in shown


def test_a_discarded_proposal_is_gone(door: Door, proposing: Assistant, agnes: Any) -> None:
    proposal = answered(door)
    conversation, http = Conversation.objects.get(), signed_in(agnes)
    for _ in range(2):
        assert do(http, conversation, "discard-proposal", proposal=proposal.pk)[0] == 200
    assert do(http, conversation, "send-proposal", proposal=proposal.pk)[0] == 409
    conversation.refresh_from_db()
    assert (said(), conversation.needs_staff_since, conversation.reply_owed) == ([], None, False)
    assert kinds().count("proposal_discarded") == 1
    assert names(http, tab="unassigned") == []


# --- who may ----------------------------------------------------------------------------------------------------------
def test_viewers_and_other_clients_staff_send_nothing(
    door: Door, proposing: Assistant, neighbour: Client, agnes: Any
) -> None:
    proposal = answered(door)
    conversation = Conversation.objects.get()
    viewer = signed_in(staff("vera", shop=Role.VIEWER))
    assert do(viewer, conversation, "send-proposal", proposal=proposal.pk)[0] == 403
    assert (
        "Only agents and managers can send it" in viewer.get(f"/admin/inbox/{conversation.pk}/pane/").content.decode()
    )
    foreign = signed_in(staff("frank", **{neighbour.sub_domain: Role.MANAGER}))
    for action in ("send-proposal", "discard-proposal", "send-edited-proposal"):
        answer = foreign.post(
            f"/admin/conversations/conversation/{conversation.pk}/do/{action}/", {"proposal": proposal.pk, "text": "x"}
        )
        assert answer.status_code == 404
    for nonsense in ("", "0", "x", str(proposal.pk + 1), "9" * 30):
        assert do(signed_in(agnes), conversation, "send-proposal", proposal=nonsense)[0] == 404
    assert said() == []


def test_a_proposal_of_another_conversation_is_not_found(door: Door, proposing: Assistant, agnes: Any) -> None:
    answered(door)
    theirs = answered(door, user_id="bob")
    ours = Conversation.objects.get(contact__user_id="ann")
    assert do(signed_in(agnes), ours, "send-proposal", proposal=theirs.pk)[0] == 404


# --- what makes it void -----------------------------------------------------------------------------------------------
def test_a_newer_message_makes_it_out_of_date_and_a_new_one_is_made(
    door: Door, proposing: Assistant, agnes: Any
) -> None:
    first = answered(door)
    door.says("And on Sunday?", user_id="ann")
    conversation, http = Conversation.objects.get(), signed_in(agnes)
    shown = http.get(f"/admin/inbox/{conversation.pk}/pane/").content.decode()
    assert "Out of date" in shown
    assert 'data-action="send-proposal"' not in shown
    status, body = do(http, conversation, "send-proposal", proposal=first.pk)
    assert (status, "has written again" in body["said"]) == (409, True)
    commit("Closed on Sunday.")
    first.refresh_from_db()
    assert first.state == "outdated"
    newest = Proposal.objects.get(state="open")
    assert (newest.text, newest.inbound_sequence) == ("Closed on Sunday.", 2)
    assert do(http, conversation, "send-proposal", proposal=first.pk)[0] == 409
    assert do(http, conversation, "send-proposal", proposal=newest.pk)[0] == 200
    assert said() == ["Closed on Sunday."]


@pytest.mark.parametrize("how", ["takes over", "replies", "program sends", "closes"])
def test_a_person_who_answers_otherwise_discards_it(
    door: Door, proposing: Assistant, agnes: Any, actor: Actor, how: str
) -> None:
    proposal = answered(door)
    conversation, now = Conversation.objects.get(), timezone.now()
    if how == "takes over":
        takeover.take_over(conversation.pk, actor=actor, now=now)
    elif how == "replies":
        assert do(signed_in(agnes), conversation, "reply", text="I am Agnes.")[0] == 200
    elif how == "program sends":
        send.send(conversation.pk, "From the till.", actor=Actor("api", "till"), now=now)
    else:
        closing.close(conversation.pk, ended_by="staff", actor=actor, now=now)
    proposal.refresh_from_db()
    assert proposal.state == ("open" if how == "closes" else "discarded")
    assert do(signed_in(agnes), conversation, "send-proposal", proposal=proposal.pk)[0] == 409
    assert "Certainly" not in " ".join(said())
    assert "data-proposal" not in signed_in(agnes).get(f"/admin/inbox/{conversation.pk}/pane/").content.decode()
    conversation.refresh_from_db()
    assert conversation.needs_staff_since is None


def test_nothing_is_sent_to_somebody_who_opted_out(door: Door, proposing: Assistant, agnes: Any) -> None:
    proposal = answered(door)
    conversation = Conversation.objects.get()
    opt_outs.opt_out(conversation.contact_id, channel="sms", reason="said so", actor=SYSTEM, now=timezone.now())
    status, body = do(signed_in(agnes), conversation, "send-proposal", proposal=proposal.pk)
    assert (status, said()) == (409, []), body


def test_a_proposal_that_was_sent_is_sent_although_it_is_taken_over_meanwhile(
    door: Door, proposing: Assistant, actor: Actor
) -> None:
    proposal = answered(door)
    conversation = Conversation.objects.get()
    proposals.send(conversation.pk, proposal.pk, None, actor=actor, now=timezone.now(), client=conversation.client)
    takeover.take_over(conversation.pk, actor=Actor("staff", "max"), now=timezone.now())
    send_all()
    assert Message.objects.get().status in ("sent", "delivered")


# --- what the model asks for beside it --------------------------------------------------------------------------------
def test_steps_move_at_once_and_a_goodbye_waits_for_the_words(
    door: Door, proposing: Assistant, actor: Actor, shop: Client
) -> None:
    door.says("Hello", user_id="ann")
    conversation = Conversation.objects.get()
    step = Step.objects.create(conversation=conversation, description="Ask for the size", rank=1)
    actions = (ToolAction("complete_step", {"step_id": step.pk}), ToolAction("end_conversation"))
    commit("Goodbye!", tool_actions=actions)
    step.refresh_from_db()
    conversation.refresh_from_db()
    assert (step.status, conversation.is_open) == ("complete", True)
    proposal = Proposal.objects.get(state="open")
    proposals.send(conversation.pk, proposal.pk, None, actor=actor, now=timezone.now(), client=shop)
    conversation.refresh_from_db()
    assert (conversation.status, conversation.ended_by) == ("closed", "user")
    send_all()
    assert Message.objects.get().status in ("sent", "delivered"), "the last words go out"


def test_an_assistant_that_asks_for_a_person_says_nothing_by_itself(
    door: Door, proposing: Assistant, agnes: Any
) -> None:
    door.says("I want a person", user_id="ann")
    commit("I call somebody.", tool_actions=(ToolAction("ask_for_human", {"reason": "a refund"}),))
    conversation = Conversation.objects.get()
    assert (said(), conversation.taken_over_name, conversation.needs_staff_reason) == ([], "", "a refund")
    proposal = Proposal.objects.get(state="open")
    assert do(signed_in(agnes), conversation, "send-proposal", proposal=proposal.pk)[0] == 200
    conversation.refresh_from_db()
    assert conversation.taken_over_name == "agnes", "it waited for a person, and has one now"
    send_all()
    assert Message.objects.get().status in ("sent", "delivered")


def test_a_rule_that_hands_over_says_nothing_by_itself(door: Door, proposing: Assistant) -> None:
    Assistant.objects.update(human_phrases="human please")
    door.says("Human please", user_id="ann")
    reply_to_all()
    conversation = Conversation.objects.get()
    assert (said(), conversation.taken_over_at is not None) == ([], True)


def test_choices_go_with_it(door: Door, proposing: Assistant, agnes: Any) -> None:
    offered = {"options": [{"id": "a", "title": "At 5"}, {"id": "b", "title": "At 6"}], "label": ""}
    proposal = answered(door, "When?", tool_actions=(ToolAction("offer_choices", offered),))
    conversation = Conversation.objects.get()
    assert "At 6" in signed_in(agnes).get(f"/admin/inbox/{conversation.pk}/pane/").content.decode()
    do(signed_in(agnes), conversation, "send-proposal", proposal=proposal.pk)
    assert "2. At 6" in Message.objects.get().text


def test_the_disclosure_goes_before_the_first_words(door: Door, proposing: Assistant, agnes: Any) -> None:
    Assistant.objects.update(disclosure="I am a machine.")
    proposal = answered(door)
    conversation = Conversation.objects.get()
    assert "I am a machine." in signed_in(agnes).get(f"/admin/inbox/{conversation.pk}/pane/").content.decode()
    do(signed_in(agnes), conversation, "send-proposal", proposal=proposal.pk)
    assert said() == ["I am a machine.\n\n**Certainly**, at 5."]


# --- where no reply can be written ------------------------------------------------------------------------------------
def test_a_failure_calls_staff_and_says_nothing(door: Door, proposing: Assistant) -> None:
    door.says("Hello", user_id="ann")
    [claimed] = leases.claim(timezone.now() + LATER, 1)
    pipeline.fail(claimed, EngineError("No.", code="http_400", retryable=False), timezone.now())
    conversation = Conversation.objects.get()
    assert (said(), conversation.needs_staff_since is not None) == ([], True)


def test_a_quota_that_is_used_up_calls_staff_and_says_nothing(door: Door, proposing: Assistant, shop: Client) -> None:
    Client.objects.filter(pk=shop.pk).update(tokens_per_day=1, quota_sentence="Tomorrow again.")
    door.says("Hello", user_id="ann")
    [claimed] = leases.claim(timezone.now() + LATER, 1)
    pipeline.hold_back(claimed, timezone.now())
    conversation = Conversation.objects.get()
    assert (said(), conversation.needs_staff_since is not None) == ([], True)


def test_what_a_model_takes_is_counted(door: Door, proposing: Assistant) -> None:
    from conversations.engines.contract import Usage

    answered(door, "Certainly.", usage=(Usage("gpt-x", 30, 50, 0),))
    assert ClientDay.objects.get().tokens == 80


# --- the mode ---------------------------------------------------------------------------------------------------------
def test_the_mode_is_not_for_the_copilot_nor_for_retell(shop: Client) -> None:
    assistant = Assistant.objects.get(client=shop, is_default=True)
    for fields in ({"in_copilot": True}, {"engine": "retell", "retell_agent_id": "agent_1"}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Assistant.objects.filter(pk=assistant.pk).update(proposes=True, **fields)
        for name, value in {"proposes": True, **fields}.items():
            setattr(assistant, name, value)
        with pytest.raises(ValidationError, match="proposes"):
            assistant.validate_constraints()
        assistant.refresh_from_db()


def test_it_cannot_be_given_a_conversation_of_the_copilot(shop: Client, proposing: Assistant) -> None:
    conversation = factories.ConversationFactory(client=shop, channel="web", login_id=staff("lo").pk)
    with pytest.raises(InvalidError, match="copilot"):
        assigning.assign(conversation.pk, proposing, actor=SYSTEM, client=shop)


def test_an_own_agent_that_answers_later_proposes_as_well(door: Door, proposing: Assistant, shop: Client) -> None:
    door.says("Hello", user_id="ann")
    [claimed] = leases.claim(timezone.now() + LATER, 1)
    pipeline.prepare(claimed)
    pipeline.commit(claimed, Reply("", "agent", later_until=timezone.now() + LATER), timezone.now())
    assert Turn.objects.get().status == "running"
    pipeline.commit(claimed, Reply("Later.", "agent", called_back=True), timezone.now())
    assert (said(), Proposal.objects.get().text) == ([], "Later.")


def test_a_caller_on_the_phone_does_not_wait_for_a_colleague(door: Door, proposing: Assistant) -> None:
    door.says("Hello", user_id="ann", channel="voice", thread="call-1")
    reply_to_all()
    assert Proposal.objects.count() == 0
    assert len(said()) == 1


def test_an_assistant_that_proposes_no_more_sends_and_ends_what_waited(door: Door, proposing: Assistant) -> None:
    first = answered(door)
    Assistant.objects.update(proposes=False)
    door.says("Hello?", user_id="ann")
    commit("Here I am.")
    first.refresh_from_db()
    conversation = Conversation.objects.get()
    assert (said(), first.state, conversation.needs_staff_since) == (["Here I am."], "outdated", None)


# --- at once ----------------------------------------------------------------------------------------------------------
@pytest.mark.django_db(transaction=True)
def test_of_two_colleagues_and_double_clicks_it_is_sent_once(door: Door, proposing: Assistant, shop: Client) -> None:
    people = [staff(name, shop=Role.AGENT) for name in ("agnes", "max")]
    proposal = answered(door)
    conversation = Conversation.objects.get()

    def send_it(user: Any, text: str | None) -> Any:
        actor = Actor("staff", user.username, user.pk)
        return lambda: (
            proposals.send(conversation.pk, proposal.pk, text, actor=actor, now=timezone.now(), client=shop).pk
        )

    jobs = [send_it(people[n % 2], None if n % 3 else "Edited.") for n in range(12)]
    results = outcomes(jobs)
    sent = {each for each in results if not isinstance(each, Exception)}
    refused = [each for each in results if isinstance(each, Exception)]
    assert len(sent) == 1, results
    assert all(isinstance(each, ConflictError) and each.code == "decided" for each in refused), refused
    assert Chunk.objects.filter(role="ai").count() == 1
    assert Message.objects.count() == 1
    assert kinds().count("proposal_sent") == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("other", ["message", "takeover", "discard", "reply"])
def test_sending_races_with_whatever_makes_it_void(
    door: Door, proposing: Assistant, shop: Client, agnes: Any, actor: Actor, other: str
) -> None:
    """Either it was sent before, or nothing of it is."""
    max_ = Actor("staff", "max")
    for number in range(6):
        Conversation.objects.update(reply_owed=False)
        proposal = answered(door, user_id=f"person-{number}")
        conversation = Conversation.objects.get(contact__user_id=f"person-{number}")

        def rival(pk: Any = conversation.pk, proposal_pk: int = proposal.pk, number: int = number) -> Any:
            now = timezone.now()
            if other == "message":
                return door.says("Wait", user_id=f"person-{number}")
            if other == "takeover":
                return takeover.take_over(pk, actor=max_, now=now)
            if other == "discard":
                return proposals.discard(pk, proposal_pk, actor=max_, now=now, client=shop)
            return send.send(pk, "By hand.", actor=max_, now=now, takes_over=True)

        def sending(pk: Any = conversation.pk, proposal_pk: int = proposal.pk) -> Any:
            return proposals.send(pk, proposal_pk, None, actor=actor, now=timezone.now(), client=shop)

        sent, _ = outcomes([sending, rival])
        proposal.refresh_from_db()
        found = Chunk.objects.filter(conversation=conversation, role="ai", content__contains="Certainly").count()
        if isinstance(sent, Exception):
            assert (isinstance(sent, ConflictError), found) == (True, 0), sent
            assert proposal.state in ("open", "discarded")
        else:
            assert (found, proposal.state) == (1, "sent")


@pytest.mark.django_db(transaction=True)
def test_a_process_that_dies_in_between_leaves_nothing_half_done(
    door: Door, proposing: Assistant, shop: Client, actor: Actor, monkeypatch: Any
) -> None:
    """Whatever was written before the commit is undone with it, and the next try sends it once."""
    proposal = answered(door)
    conversation = Conversation.objects.get()

    def die(*_args: Any, **_named: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(proposals.takeover, "note_written", die)
        with pytest.raises(SystemExit):
            proposals.send(conversation.pk, proposal.pk, None, actor=actor, now=timezone.now(), client=shop)
    proposal.refresh_from_db()
    assert (proposal.state, said(), Message.objects.count()) == ("open", [], 0)
    for _ in range(2):
        proposals.send(conversation.pk, proposal.pk, None, actor=actor, now=timezone.now(), client=shop)
    assert (len(said()), Message.objects.count()) == (1, 1)


# --- what becomes of it -----------------------------------------------------------------------------------------------
def test_a_redaction_reaches_what_was_proposed(door: Door, proposing: Assistant, actor: Actor, shop: Client) -> None:
    proposal = answered(door, "Your code is 4711-XYZ.")
    conversation = Conversation.objects.get()
    chunk = proposals.send(
        *(conversation.pk, proposal.pk, "Your code is 4711-XYZ, dear."), actor=actor, now=timezone.now(), client=shop
    )
    corrections.redact(conversation.pk, chunk.position, actor=actor, now=timezone.now(), client=shop)
    proposal.refresh_from_db()
    assert "4711" not in proposal.text
    assert "4711" not in str(list(Turn.objects.values_list("draft", flat=True)))


def test_an_archived_conversation_keeps_no_proposals(
    door: Door, proposing: Assistant, actor: Actor, shop: Client
) -> None:
    answered(door)
    conversation = Conversation.objects.get()
    Conversation.objects.update(is_guest=False)
    closing.close(conversation.pk, ended_by="staff", actor=actor, now=timezone.now())
    remember.remember_ended()
    archive.archive_one(conversation.pk, actor=actor, now=timezone.now())
    assert Proposal.objects.count() == 0


def test_the_list_of_proposals_shows_what_became_of_them(
    door: Door, proposing: Assistant, actor: Actor, shop: Client, neighbour: Client
) -> None:
    proposal = answered(door)
    answered(door, "Quagmire", user_id="bob")
    conversation = Conversation.objects.get(contact__user_id="ann")
    proposals.send(conversation.pk, proposal.pk, "Other words", actor=actor, now=timezone.now(), client=shop)
    manager = signed_in(staff("mona", shop=Role.MANAGER))
    shown = manager.get("/admin/conversations/proposal/").content.decode()
    for words in ("**Certainly**", "Other words", "Quagmire", "agnes"):
        assert words in shown, words
    assert "Quagmire" not in manager.get("/admin/conversations/proposal/?state=sent").content.decode()
    foreign = signed_in(staff("frank", **{neighbour.sub_domain: Role.MANAGER}))
    assert "Quagmire" not in foreign.get("/admin/conversations/proposal/").content.decode()
