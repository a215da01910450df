"""One person writes to two numbers of a client: each is answered by its own assistant, on itself."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
from django.utils import timezone

from channels_out.simulators import whatsapp
from conversations.models import Assistant, ChannelAccount, Chunk, Client, Conversation, ConversationEvent, Turn
from conversations.services.core.errors import ConflictError
from conversations.services.core.ledger import SYSTEM
from conversations.services.staff_actions.outreach import Outreach, start_outreach
from tests.conftest import reply_to_all, send_all
from tests.conversations import meta_doors
from tests.conversations.back_office import sign_in
from tests.conversations.meta_doors import account_at, post
from tests.fakes.meta import FakeMeta
from tests.races.threads import together

pytestmark = pytest.mark.django_db
ANA = "51999600001"

account = meta_doors.account


@pytest.fixture
def support() -> Iterator[FakeMeta]:
    """The shop's second number."""
    with FakeMeta("444000444") as fake:
        yield fake


@pytest.fixture
def second(support: FakeMeta, shop: Client, account: ChannelAccount) -> ChannelAccount:
    """The account of the second number."""
    return account_at(support, shop)


def own_assistant(shop: Client, account: ChannelAccount, key: str) -> Assistant:
    """Give the account an assistant of its own."""
    assistant = Assistant.objects.create(client=shop, key=key, name=key, system_prompt=f"You are {key}.")
    ChannelAccount.objects.filter(pk=account.pk).update(assistant=assistant)
    return assistant


def writes(number: FakeMeta, text: str, **about: str) -> None:
    status, outcome = post(number.text_webhook(text, sender=ANA, **about), "whatsapp")
    assert status == 200, outcome


def answers(number: FakeMeta) -> int:
    return len(number.sent)


def test_each_number_is_answered_by_its_own_assistant_on_itself(meta, support, account, second, shop):
    assistants = [own_assistant(shop, account, "sales"), own_assistant(shop, second, "support")]
    for number, text in ((meta, "SALES: price of slate tiles?"), (support, "SUPPORT: my roof leaks")):
        writes(number, text)
    assert reply_to_all() == 2
    assert send_all() == 2
    assert [answers(number) for number in (meta, support)] == [1, 1]
    found = Conversation.objects.order_by("started_at")
    assert [(each.assistant, each.channel_account) for each in found] == [
        (assistants[0], account),
        (assistants[1], second),
    ]
    assert len({each.contact_id for each in found}) == 1, "it is one person"
    prompts = [turn.prompt["messages"][0]["content"] for turn in Turn.objects.order_by("conversation__started_at")]
    assert ["You are sales." in prompts[0], "You are support." in prompts[1]] == [True, True]

    for number, text in ((support, "since Monday"), (meta, "and of oak?")):
        writes(number, text)
    assert (reply_to_all(), send_all()) == (2, 2)
    assert [answers(number) for number in (meta, support)] == [2, 2]
    assert Conversation.objects.count() == 2


def test_one_assistant_for_both_numbers_goes_on_in_one_conversation(meta, support, account, second, shop):
    writes(meta, "price of slate tiles?")
    assert (reply_to_all(), send_all()) == (1, 1)
    writes(support, "and of oak?")
    assert (reply_to_all(), send_all()) == (1, 1)
    assert [answers(number) for number in (meta, support)] == [1, 1], "the number that was written to answers"
    conversation = Conversation.objects.get()
    assert conversation.channel_account == second
    event = ConversationEvent.objects.get(kind="account_changed")
    assert (event.cause, event.data) == (str(second), {"channel_account_id": str(second.pk)})
    html = sign_in("agnes", shop, "agent").get(f"/admin/conversations/conversation/{conversation.pk}/change/")
    assert "account changed" in html.content.decode(), "staff see which number was written to"


def test_what_the_first_number_owes_is_answered_there(meta, support, account, second):
    writes(meta, "price of slate tiles?")
    writes(support, "my roof leaks")
    assert (reply_to_all(), send_all()) == (2, 2)
    assert [answers(number) for number in (meta, support)] == [1, 1]
    writes(support, "since Monday")
    assert Conversation.objects.count() == 2


def test_a_colleague_who_has_the_conversation_gets_what_is_written_to_the_other_number(meta, support, account, second):
    writes(meta, "I need a person")
    Conversation.objects.update(taken_over_at="2026-01-01T00:00:00Z", taken_over_name="Mona")
    writes(support, "is anybody there?")
    assert Conversation.objects.get().channel_account == second


def test_the_client_may_have_each_number_apart(meta, support, account, second, shop):
    Client.objects.filter(pk=shop.pk).update(numbers_apart=True)
    for number in (meta, support, meta):
        writes(number, "hello")
        assert (reply_to_all(), send_all()) == (1, 1)
    assert [answers(number) for number in (meta, support)] == [2, 1]
    threads = Conversation.objects.values_list("thread", "channel_account")
    assert set(threads) == {(str(account.pk), account.pk), (str(second.pk), second.pk)}
    assert Chunk.objects.filter(role="user").count() == 3


def test_what_was_open_before_the_numbers_were_apart_goes_on(meta, support, account, second, shop):
    writes(meta, "hello")
    Client.objects.filter(pk=shop.pk).update(numbers_apart=True)
    writes(meta, "are you there?")
    writes(support, "hello")
    assert list(Conversation.objects.order_by("started_at").values_list("thread", flat=True)) == ["", str(second.pk)]


def test_many_at_once_find_their_own_conversations(meta, support, account, second, shop):
    own_assistant(shop, second, "support")
    for number in (meta, support):
        writes(number, "hello")
    for number in (meta, support):
        texts = [whatsapp.text(f"line {n}", sender=ANA) for n in range(12)]
        status, outcome = post(number.webhook(messages=texts, contacts=[whatsapp.contact(ANA, "Ana")]), "whatsapp")
        assert (status, outcome["messages"]) == (200, 12)
    assert list(Conversation.objects.order_by("started_at").values_list("inbound_sequence", flat=True)) == [13, 13]


@pytest.mark.django_db(transaction=True)
def test_two_numbers_at_the_same_instant(meta, support, account, second, shop):
    own_assistant(shop, second, "support")
    together(*[partial(writes, number, f"hello {n}") for n in range(3) for number in (meta, support)])
    found = Conversation.objects.all()
    assert sorted(each.channel_account_id for each in found) == sorted([account.pk, second.pk])
    assert [each.inbound_sequence for each in found] == [3, 3]


def test_an_opening_from_our_side_finds_the_conversation_of_the_number(meta, support, account, second, shop):
    Client.objects.filter(pk=shop.pk).update(numbers_apart=True)
    writes(meta, "hello")
    with pytest.raises(ConflictError) as refused:
        start_outreach(shop, Outreach(channel="whatsapp", phone=f"+{ANA}"), actor=SYSTEM, now=timezone.now())
    assert refused.value.code == "already_open"
