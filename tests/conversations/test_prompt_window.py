"""The parts of a prompt: the messages in its window, their words, and what is known beside them."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.utils import timezone

from conversations.models import (
    Assistant,
    Chunk,
    Client,
    Contact,
    Conversation,
    Correction,
    Message,
    RollingSummary,
    Step,
)
from conversations.services.replies import prompt_context, summaries
from conversations.services.replies.prompt_context import SUPERSEDED, prompt_for, prompt_record, view_of
from memory import marks
from memory.context import ConversationView, Prompt
from tests import factories

pytestmark = pytest.mark.django_db

SETTLED = prompt_context.HISTORY_LENGTH


@pytest.fixture
def conversation(shop: Client) -> Conversation:
    """A conversation that has been opened and has a goal."""
    contact = factories.ContactFactory(client=shop, name="Ann", phone="+51999999999", is_guest=False)
    found: Conversation = factories.ConversationFactory(
        client=shop, contact=contact, assistant=Assistant.objects.get(client=shop), last_position=2, goal="Sell"
    )
    for position, role in enumerate(("system", "memory"), start=1):
        Chunk.objects.create(conversation=found, position=position, role=role, content=f"The {role}")
    return found


@pytest.fixture
def summarised(settings: Any) -> None:
    """A model is configured that writes summaries; nothing here asks it."""
    settings.OPENAI_API_KEY = "sk-1"


def say(conversation: Conversation, *texts: str, role: str = "user", **more: Any) -> list[Chunk]:
    said = []
    for text in texts:
        conversation.last_position += 1
        at = conversation.last_position
        said.append(Chunk.objects.create(conversation=conversation, position=at, role=role, content=text, **more))
    Conversation.objects.filter(pk=conversation.pk).update(last_position=conversation.last_position)
    return said


def talk(conversation: Conversation, count: int) -> None:
    """So many messages were said in turn, the person's first: m3, m4 …"""
    for _ in range(count):
        at = conversation.last_position + 1
        say(conversation, f"m{at}", role="user" if at % 2 else "ai")


def read(conversation: Conversation) -> Conversation:
    related = ("assistant", "contact", "client", "rolling_summary")
    return Conversation.objects.select_related(*related).get(pk=conversation.pk)


def view(conversation: Conversation, *steps: Step, **more: Any) -> ConversationView:
    return view_of(read(conversation), steps, **more)


def shown(conversation: Conversation) -> list[str]:
    return [entry.content for entry in view(conversation).entries]


def prompted(conversation: Conversation) -> Prompt:
    found = read(conversation)
    return prompt_for(found, view_of(found, []))


def numbers(first: int, last: int) -> list[str]:
    return [f"m{number}" for number in range(first, last + 1)]


# --- words ------------------------------------------------------------------------------------------------------------
def test_the_newest_correction_of_a_message_is_what_is_read(conversation):
    one, two = say(conversation, "one", "two")
    for text in ("first", "second"):
        Correction.objects.create(chunk=one, kind="correction", text=text)
    Correction.objects.create(chunk=two, kind="redaction", text="", reason="asked")
    assert shown(conversation) == ["second", "two"]


def test_the_opening_is_read_as_it_was_corrected_and_once(conversation, shop):
    memory = Chunk.objects.get(role="memory")
    Correction.objects.create(chunk=memory, kind="correction", text="Corrected")
    say(conversation, "Told later", role="system")
    say(conversation, "Recalled later", role="memory")
    other = factories.ConversationFactory(client=shop)
    Chunk.objects.create(conversation=other, position=1, role="system", content="Another's")
    found = view(conversation)
    assert (found.system_prompt, found.memory, list(found.entries)) == ("The system", "Corrected", [])


def test_a_person_who_spoke_before_anything_was_opened_is_heard_once(shop):
    bare = factories.ConversationFactory(client=shop, assistant=None)
    say(bare, "First", "Second")
    found = view(bare)
    assert [entry.content for entry in found.entries] == ["First", "Second"]
    assert (found.system_prompt, found.memory) == ("", "")


def test_only_what_was_said_in_this_conversation_and_not_superseded_is_shown(conversation, shop):
    say(conversation, "Hello")
    say(conversation, "Half an", role="ai", metadata={SUPERSEDED: True})
    say(conversation, "A caller", role="voice", metadata={"kind": "call"})
    say(conversation, "Whole", role="ai")
    say(factories.ConversationFactory(client=shop, last_position=5), "Elsewhere")
    assert shown(conversation) == ["Hello", "A caller", "Whole"]
    assert [entry.role for entry in view(conversation).entries] == ["user", "voice", "ai"]
    assert [entry.position for entry in view(conversation).entries] == [3, 5, 6]


def test_each_message_has_its_own_fate_and_its_own_author(conversation):
    grace = get_user_model().objects.create_user("grace", first_name="Grace", last_name="Hopper")
    theirs, lost, sent = (say(conversation, text, role=role)[0] for text, role in (("a", "user"), *[("b", "ai")] * 2))
    Chunk.objects.filter(pk=sent.pk).update(author=grace)
    for chunk, status in ((theirs, "failed"), (lost, "failed"), (sent, "sent")):
        Message.objects.create(conversation=conversation, chunk=chunk, to_kind="phone", text="", status=status)
    entries = view(conversation).entries
    assert [entry.delivery for entry in entries] == ["", marks.SENDING_FAILED, ""]
    assert [(entry.by_staff, entry.author) for entry in entries] == [(False, "")] * 2 + [(True, "Grace Hopper")]


def test_parts_are_told_in_their_order(conversation):
    """A template that went as the first part stands for all of the message."""
    [ours] = say(conversation, "Hi", role="ai")
    usual = {"conversation": conversation, "chunk": ours, "to_kind": "phone", "text": "", "parts": 2}
    Message.objects.create(part=2, status="cancelled", **usual)
    Message.objects.create(part=1, status="read", template="we_are_back es", **usual)
    assert view(conversation).entries[0].delivery == marks.template_instead("we_are_back")


def test_texts_are_cleaned_by_the_rules_of_today(conversation, shop):
    secret = "tangerine"
    say(conversation, f"My {secret}")
    Chunk.objects.filter(role="memory").update(content=f"Likes {secret}")
    goal = {"description": f"wants {secret}"}
    Conversation.objects.update(goal=secret, summary=secret, topic=secret, variables={"a": secret}, current_goal=goal)
    steps = [
        Step.objects.create(conversation=conversation, description=secret, by_assistant=ours) for ours in (True, False)
    ]
    Client.objects.update(redaction_patterns=[secret])
    assert secret not in str(view(conversation, *steps))


# --- beside the messages ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("uses_tools", [True, False])
def test_steps_that_the_assistant_set_itself_are_background(conversation, uses_tools):
    Assistant.objects.update(uses_tools=uses_tools)
    given, own = (
        Step.objects.create(conversation=conversation, description=text, by_assistant=text == "own")
        for text in ("given", "own")
    )
    found = view(conversation, given, own)
    assert found.pending_steps == [f"given [step {given.pk}]" if uses_tools else "given"]
    assert found.own_steps == [f"own [step {own.pk}]" if uses_tools else "own"]


def test_without_an_assistant_steps_have_no_number_and_the_budget_is_the_usual_one(conversation):
    Conversation.objects.update(assistant=None)
    step = Step.objects.create(conversation=conversation, description="given")
    found = view(conversation, step)
    assert (found.pending_steps, found.budget) == (["given"], prompt_context.CONTEXT_BUDGET)
    record = prompt_record(read(conversation), None, Prompt((), ()))
    assert record["request"] == {"model": "", "temperature": None, "max_tokens": None, "tools": False, "budget": None}
    assert record["summary"] == {"version": 0, "upto": 0}


def test_a_kept_prompt_says_what_was_asked_of_which_model(conversation):
    asked = {"model": "gpt-x", "temperature": 0.5, "max_tokens": 99, "uses_tools": True, "context_budget": 3_000}
    Assistant.objects.update(**asked)
    RollingSummary.objects.create(conversation=conversation, version=3, upto=2)
    found = read(conversation)
    record = prompt_record(found, found.assistant, Prompt((), ()))
    expected = {"model": "gpt-x", "temperature": 0.5, "max_tokens": 99, "tools": True, "budget": 3_000}
    assert record["request"] == expected
    assert record["summary"] == {"version": 3, "upto": 2}
    assert view(conversation).budget == 3_000


@pytest.mark.parametrize(
    ("goal", "wanted"),
    [({"description": "A refund"}, "A refund"), ("A refund", "A refund"), ({}, ""), ({"description": 5}, ""), ([], "")],
)
def test_what_the_person_wants_now_is_noted_in_whatever_form_it_was_kept(conversation, goal, wanted):
    Conversation.objects.update(topic="Parcels", current_goal=goal, variables={"due": "Friday"})
    found = view(conversation)
    assert found.notes == [("Topic", "Parcels"), ("What the person wants now", wanted)]
    assert found.variables == [("due", "Friday")]
    assert (found.goal, found.summary) == ("Sell", "")


def test_the_person_is_described_by_their_own_words(conversation):
    say(conversation, "Hola, ¿dónde está mi paquete? Lo espero desde el lunes, por favor")
    say(conversation, "Hello, I am looking for it and I will tell you where it is", role="ai")
    known = [("Name", "Ann"), ("Language", "Spanish"), ("Phone number", "known")]
    assert list(view(conversation).contact) == known
    Contact.objects.update(phone=None)
    Chunk.objects.filter(role="user").update(content="4711")
    assert list(view(conversation).contact) == [("Name", "Ann"), ("Language", ""), ("Phone number", "not known yet")]


def test_a_conversation_begins_until_something_was_said(conversation):
    assert view(conversation).begins
    assert view(conversation).older == 0
    say(conversation, "Hello")
    assert not view(conversation).begins


def test_the_time_is_the_given_one_or_the_clock_s_and_the_size_is_passed_on(conversation):
    before = timezone.now()
    found = view(conversation, ratio=2.0, window=7, reserve=3)
    assert before <= found.now <= timezone.now()
    assert (found.ratio, found.window, found.reserve) == (2.0, 7, 3)
    assert view(conversation, now=before).now == before


# --- the window -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("assistant", "length"), [({}, None), ({"history_length": 4}, 4), ({"history_length": 0}, 1)], ids=str
)
def test_as_many_messages_are_shown_as_the_assistant_wants(conversation, assistant, length):
    Assistant.objects.update(**{"name": "Ada", **assistant})
    talk(conversation, 30)
    length = length or Assistant.objects.get().history_length
    assert shown(conversation) == numbers(33 - length, 32)
    assert view(conversation).older == 30 - length


def test_without_an_assistant_ten_are_shown(conversation):
    Conversation.objects.update(assistant=None)
    talk(conversation, 30)
    assert shown(conversation) == numbers(33 - SETTLED, 32)


def test_all_that_is_not_answered_is_shown_to_the_hundredth_message(conversation):
    Assistant.objects.update(history_length=4)
    say(conversation, "Ours", role="ai")
    say(conversation, *numbers(4, 3 + 98))
    assert shown(conversation) == numbers(4, 101)
    say(conversation, *numbers(102, 104))
    assert shown(conversation) == numbers(5, 104)
    assert len(shown(conversation)) == prompt_context.MOST_UNANSWERED


def test_what_the_assistant_may_not_see_any_more_is_not_shown_nor_counted_as_older(conversation):
    talk(conversation, 20)
    Conversation.objects.update(history_from=20)
    assert shown(conversation) == numbers(21, 22)
    assert view(conversation).older == 0


@pytest.mark.usefixtures("summarised")
def test_what_is_not_summarised_yet_stays_for_a_while(conversation):
    Assistant.objects.update(history_length=4)
    talk(conversation, 30)
    assert shown(conversation) == numbers(3, 32), "all of it"
    rolling = RollingSummary.objects.create(conversation=conversation, upto=20)
    assert shown(conversation) == numbers(21, 32)
    assert view(conversation).older == 0
    RollingSummary.objects.filter(pk=rolling.pk).update(upto=0)
    talk(conversation, 60)
    most = 4 + summaries.MOST_UNSUMMARISED
    assert shown(conversation) == numbers(93 - most, 92)
    assert view(conversation).older == 90 - most


@pytest.mark.usefixtures("summarised")
def test_a_summary_is_wanted_from_the_tenth_message_before_the_history_on(conversation):
    Assistant.objects.update(history_length=4)
    talk(conversation, 4 + summaries.ABSORB_FROM - 1)
    prompted(conversation)
    assert not RollingSummary.objects.exists()
    talk(conversation, 1)
    prompted(conversation)
    assert RollingSummary.objects.get().wanted == 2 + summaries.ABSORB_FROM


@pytest.mark.usefixtures("summarised")
def test_what_is_in_the_summary_already_is_not_waited_for_again(conversation):
    Assistant.objects.update(history_length=4)
    talk(conversation, 30)
    RollingSummary.objects.create(conversation=conversation, upto=19)
    prompted(conversation)
    assert RollingSummary.objects.get().due_at is None, "nine are before the history"
    RollingSummary.objects.update(upto=18)
    prompted(conversation)
    rolling = RollingSummary.objects.get()
    assert (rolling.due_at is not None, rolling.wanted) == (True, 28)


@pytest.mark.usefixtures("summarised")
def test_what_has_no_room_in_the_budget_is_to_be_summarised_at_once(conversation):
    Assistant.objects.update(history_length=10, context_budget=1_000)
    say(conversation, *[f"{number} " + "word " * 150 for number in range(8)])
    first = min(part.position for part in prompted(conversation).parts if part.position)
    assert first > 3
    assert RollingSummary.objects.get().wanted == first - 1


def test_where_no_model_summarises_nothing_is_wanted_and_older_messages_go(conversation):
    Assistant.objects.update(history_length=4)
    talk(conversation, 60)
    assert shown(conversation) == numbers(59, 62)
    prompted(conversation)
    assert not RollingSummary.objects.exists()
