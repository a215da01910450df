"""Templates end to end: the account's catalogue, and what programs, staff, openings and the assistant send of it."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from django.utils import timezone

from channels_out.simulators import whatsapp
from conversations import tasks
from conversations.models import (
    Assistant,
    ChannelAccount,
    Chunk,
    Client,
    Contact,
    Conversation,
    Message,
    MessageTemplate,
    Turn,
)
from conversations.services.core.errors import ConflictError
from conversations.services.core.ledger import SYSTEM
from conversations.services.delivery import template_catalogue
from conversations.services.staff_actions import resend
from tests import factories
from tests.conftest import reply_to_all, send_all
from tests.conversations import meta_doors
from tests.conversations.back_office import sign_in
from tests.conversations.meta_doors import account_at, post
from tests.fakes.dialog360 import FakeDialog360
from tests.prompts import spoken

pytestmark = pytest.mark.django_db
ANA = "51999999999"
ORDER = whatsapp.template(
    "order_update",
    "Hello {{1}}, your order {{2}} is on its way.",
    footer="The shop",
    buttons=[{"type": "QUICK_REPLY", "text": "Where is it?"}],
)
AS_READ = "Hello Ana, your order 4711 is on its way.\n\nThe shop"
NEWS = whatsapp.template("news", "We wrote to you: {{1}}", category="MARKETING")
VALUES = {"name": "order_update", "variables": ["Ana", "4711"]}

account = meta_doors.account


@pytest.fixture
def catalogue(meta, account) -> ChannelAccount:
    """The account, whose business account has templates that were read."""
    meta.templates[:] = [ORDER, NEWS]
    ChannelAccount.objects.filter(pk=account.pk).update(business_id=whatsapp.BUSINESS_ACCOUNT)
    account.refresh_from_db()
    assert template_catalogue.refresh(account, timezone.now()) == 2
    return account


def conversation_of(meta) -> Conversation:
    status, outcome = post(meta.text_webhook("hello", sender=ANA), "whatsapp")
    assert status == 200, outcome
    return Conversation.objects.get()


def sends(door, conversation, **body):
    return door.call("POST", f"/conversations/{conversation.pk}/send", body)


def too_late() -> None:
    """The person last wrote two days ago."""
    Chunk.objects.filter(role="user").update(created_at=timezone.now() - timedelta(days=2))


# --- the catalogue
def test_the_catalogue_is_read_page_by_page_and_kept_fresh(meta, account):
    meta.templates[:] = [whatsapp.template(f"t{n}", "Hello") for n in range(150)]
    post(meta.text_webhook("hello"), "whatsapp")  # which names the business account
    tasks.refresh_templates()
    account.refresh_from_db()
    assert (MessageTemplate.objects.filter(client=account.client).count(), account.templates_problem) == (150, "")
    meta.templates[:] = [whatsapp.template("t1", "Hello again", status="PAUSED", quality="RED")]
    tasks.refresh_templates()
    assert MessageTemplate.objects.count() == 150, "it is fresh"
    ChannelAccount.objects.update(templates_at=timezone.now() - timedelta(hours=1))
    tasks.refresh_templates()
    [left] = MessageTemplate.objects.all()
    assert (left.name, left.status, left.quality, left.components[0]["text"]) == ("t1", "PAUSED", "RED", "Hello again")


def test_360dialog_lists_the_number_s_templates(shop):
    with FakeDialog360() as dialog:
        account = account_at(dialog, shop)
        dialog.templates[:] = [ORDER, *(whatsapp.template(f"t{n}", "Hello") for n in range(120))]
        assert template_catalogue.refresh(account, timezone.now()) == 121
    assert MessageTemplate.objects.get(name="order_update").status == "APPROVED"


def test_a_list_that_cannot_be_read_leaves_what_is_known_and_says_why(meta, catalogue):
    meta.error_next(131000, status=500)
    with pytest.raises(ConflictError) as refused:
        template_catalogue.refresh(catalogue, timezone.now())
    assert refused.value.code == "no_templates"
    catalogue.refresh_from_db()
    assert catalogue.templates_problem
    assert MessageTemplate.objects.count() == 2


def test_without_the_business_account_staff_are_told_what_to_do(meta, account):
    with pytest.raises(ConflictError) as refused:
        template_catalogue.refresh(account, timezone.now())
    assert "write its id on the account's page" in str(refused.value)


def test_a_webhook_changes_one_template_at_once(meta, catalogue):
    change = {
        "field": "message_template_status_update",
        "value": {
            "event": "PAUSED",
            "message_template_id": 1,
            "message_template_name": "order_update",
            "message_template_language": "en_US",
            "reason": "NONE",
        },
    }
    status, outcome = post(meta.signed(whatsapp.around(change)), "whatsapp")
    assert status == 200, outcome
    assert MessageTemplate.objects.get(name="order_update").status == "PAUSED"
    assert MessageTemplate.objects.get(name="news").status == "APPROVED"


# --- programs
def test_a_program_sends_a_template_and_the_transcript_has_it_as_it_was_read(meta, catalogue, door):
    conversation = conversation_of(meta)
    too_late()
    status, envelope = sends(door, conversation, template=VALUES)
    assert status == 201, envelope
    chunk = envelope["data"]["chunk"]
    assert (chunk["content"], chunk["metadata"]["template"]) == (
        AS_READ,
        {"name": "order_update", "language": "en_US", "buttons": ["Where is it?"]},
    )
    assert send_all() == 1
    assert meta.sent[0].content["template"] == {
        "name": "order_update",
        "language": {"code": "en_US"},
        "components": [
            {"type": "body", "parameters": [{"type": "text", "text": "Ana"}, {"type": "text", "text": "4711"}]}
        ],
    }
    conversation.refresh_from_db()
    assert not conversation.reply_owed
    post(meta.text_webhook("thanks", sender=ANA), "whatsapp")
    assert reply_to_all() == 1
    prompt = Turn.objects.get(chunk__isnull=False).prompt["messages"]
    assert "\n\n".join(spoken(prompt)) == AS_READ, "without a mark: it is what the person read"


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        ("PAUSED", "template_refused", "paused"),
        ("REJECTED", "template_refused", "rejected"),
        ("PENDING", "template_refused", "not approved"),
        ("DISABLED", "template_refused", "disabled"),
        ("SOMETHING", "template_refused", "SOMETHING"),
    ],
)
def test_what_is_not_approved_is_refused_with_a_sentence(meta, catalogue, door, status, code, words):
    conversation = conversation_of(meta)
    MessageTemplate.objects.update(status=status)
    answer, envelope = sends(door, conversation, template=VALUES)
    assert (answer, envelope["code"]) == (409, code)
    assert words in envelope["error"]
    assert not Message.objects.exists()


@pytest.mark.parametrize(
    ("template", "code"),
    [
        ({"name": "nothing"}, "unknown_template"),
        ({"name": "order_update", "language": "de"}, "unknown_template"),
        ({"name": "order_update"}, "template"),
        ({"name": "order_update", "variables": ["Ana", "1", "2"]}, "template"),
        ({"name": "order_update", "variables": ["Ana", "1"], "colour": "red"}, "invalid"),
        ({"name": 7}, "invalid"),
        ({}, "invalid"),
        ("order_update", "invalid"),
        ([], "invalid"),
    ],
)
def test_a_template_that_does_not_fit_is_refused_and_nothing_is_sent(meta, catalogue, door, template, code):
    conversation = conversation_of(meta)
    status, envelope = sends(door, conversation, template=template)
    assert (status in (400, 409), envelope["code"]) == (True, code), envelope
    [sentence] = envelope["details"]["template"]
    assert envelope["error"].endswith(sentence)
    assert not Message.objects.exists()


def test_content_or_a_template_but_not_both(meta, catalogue, door):
    conversation = conversation_of(meta)
    for body in ({}, {"content": "Hello", "template": VALUES}, {"template": VALUES, "choices": ["Yes"]}):
        assert sends(door, conversation, **body)[0] == 400
    assert not Message.objects.exists()


def test_where_there_are_no_templates_the_sentence_says_so(door):
    conversation_id = door.says("hello")["conversation_id"]
    status, envelope = door.call("POST", f"/conversations/{conversation_id}/send", {"template": VALUES})
    assert (status, envelope["code"]) == (409, "no_templates")


def test_a_person_who_wants_no_marketing_gets_what_is_none(meta, catalogue, door):
    conversation = conversation_of(meta)
    Contact.objects.update(
        opted_out={"whatsapp:marketing": {"since": "2026-11-30", "word": "marketing", "by": "contact"}}
    )
    status, envelope = sends(door, conversation, template={"name": "news", "variables": ["x"]})
    assert (status, envelope["code"]) == (409, "no_marketing")
    assert sends(door, conversation, template=VALUES)[0] == 201
    assert send_all() == 1


def test_the_catalogue_in_the_api_is_the_client_s_own(meta, catalogue, door, neighbour):
    other = account_at(meta.__class__("555"), neighbour)
    MessageTemplate.objects.create(
        client=neighbour, channel_account=other, name="theirs", language="en", status="APPROVED", seen_at=timezone.now()
    )
    page = door.get("/templates?limit=1")
    rest = door.get(f"/templates?cursor={page['next']}")
    found = {each["name"]: each for each in page["items"] + rest["items"]}
    assert (sorted(found), rest["next"]) == (["news", "order_update"], None)
    order = found["order_update"]
    assert (order["variables"], order["header"], order["buttons"]) == (["1", "2"], "", [False])
    assert (order["status"], order["quality"], order["account"]) == ("APPROVED", "GREEN", catalogue.address)
    assert door.call("GET", "/templates?cursor=x")[0] == 400


# --- openings
def test_a_conversation_begins_with_a_template(meta, catalogue, door):
    body = {"channel": "whatsapp", "phone": f"+{ANA}", "template": VALUES}
    status, envelope = door.call("POST", "/conversations", body)
    assert status == 201, envelope
    assert reply_to_all() == 0, "the assistant writes nothing of its own"
    assert send_all() == 1
    assert meta.sent[0].template == "order_update en_US"
    assert Chunk.objects.get(role="ai").content == AS_READ


def test_an_opening_whose_template_is_refused_opens_nothing(meta, catalogue, door):
    MessageTemplate.objects.update(status="PAUSED")
    body = {"channel": "whatsapp", "phone": f"+{ANA}", "template": VALUES}
    status, envelope = door.call("POST", "/conversations", body)
    assert (status, envelope["code"]) == (409, "template_refused")
    assert not Conversation.objects.exists()
    assert not Contact.objects.exists()


# --- the assistant's, after 24 hours
@pytest.fixture
def news(shop: Client, catalogue: ChannelAccount) -> Assistant:
    """The shop's assistant, whose template has its own words as the variable."""
    assistant = Assistant.objects.get(client=shop)
    assistant.template_name, assistant.template_language = "news", "en_US"
    assistant.template_variables = "{text}"
    assistant.save()
    return assistant


def late_reply(meta, door, text="The plumber comes on Friday."):
    conversation = conversation_of(meta)
    too_late()
    status, envelope = sends(door, conversation, content=text)
    assert status == 201, envelope
    assert send_all(may_refuse=True) <= 1
    return conversation


def last_prompt(meta) -> str:
    post(meta.text_webhook("and when?", sender=ANA), "whatsapp")
    assert reply_to_all() == 1
    turn = Turn.objects.exclude(prompt=None).order_by("started_at").last()
    assert turn is not None
    return str(turn.prompt["messages"])


def test_the_assistant_s_words_are_the_template_s_variable(meta, door, news):
    late_reply(meta, door, "The plumber comes\non Friday.")
    [parameter] = meta.sent[0].content["template"]["components"][0]["parameters"]
    assert parameter == {"type": "text", "text": "The plumber comes on Friday."}
    prompt = last_prompt(meta)
    assert "The plumber comes" in prompt
    assert "Not delivered" not in prompt, "the person read these words"


def test_words_that_are_too_long_are_shortened_and_the_prompt_says_what_was_read(meta, door, news):
    late_reply(meta, door, "The plumber comes on Friday. " * 1_500)
    text = meta.sent[0].content["template"]["components"][0]["parameters"][0]["text"]
    assert text.endswith("…")
    prompt = last_prompt(meta)
    assert "Not delivered: the approved template news was sent instead" in prompt
    assert "instead of your message the person read “We wrote to you: The plumber" in prompt


def test_other_values_come_from_the_contact_and_the_conversation(meta, door, news):
    news.template_name, news.template_variables = "order_update", "{name|there}\n{order}"
    news.save()
    conversation = conversation_of(meta)
    Conversation.objects.update(variables={"order": "4711"})
    too_late()
    sends(door, conversation, content="Hello?")
    assert send_all() == 1
    message = Message.objects.get()
    assert message.content["template"]["text"] == AS_READ
    prompt = last_prompt(meta)
    assert "instead of your message the person read “Hello Ana, your order 4711 is on its way." in prompt


@pytest.mark.parametrize(
    ("variables", "status", "words"),
    [
        ("", "APPROVED", "The template's variable 1 has no value."),
        ("{text}\n{text}", "APPROVED", "The template has no variable 2."),
        ("{nobody}", "APPROVED", "The template's variable 1 has no value."),
        ("{text}", "PAUSED", "WhatsApp has paused this template"),
        ("{text}", "REJECTED", "WhatsApp has rejected this template"),
    ],
)
def test_a_template_that_cannot_be_sent_fails_with_a_sentence(meta, door, news, variables, status, words):
    Assistant.objects.update(template_variables=variables)
    MessageTemplate.objects.update(status=status)
    late_reply(meta, door)
    message = Message.objects.get()
    assert (message.status, message.code) == ("failed", "outside_window")
    assert words in message.reason
    assert not meta.sent


def test_a_template_that_the_account_does_not_have_fails_with_a_sentence(meta, door, news):
    Assistant.objects.update(template_name="old_news")
    late_reply(meta, door)
    assert "no template of the assistant's name and language" in Message.objects.get().reason


def test_an_account_whose_templates_are_not_known_sends_the_name_as_before(meta, account, shop, door):
    Assistant.objects.filter(client=shop).update(
        template_name="news", template_language="en", template_variables="{text}"
    )
    late_reply(meta, door)
    assert meta.sent[0].template == "news en"
    assert meta.sent[0].content["template"]["components"] == [
        {"type": "body", "parameters": [{"type": "text", "text": "The plumber comes on Friday."}]}
    ]


def test_a_template_is_sent_again_as_it_was(meta, catalogue, door):
    conversation = conversation_of(meta)
    sends(door, conversation, template=VALUES)
    meta.error_next(132015)
    assert send_all() == 1
    message = Message.objects.get()
    assert message.status == "failed"
    resend.resend(message.pk, actor=SYSTEM, now=timezone.now(), conversation_id=conversation.pk)
    assert send_all() == 1
    assert meta.sent[0].content["template"]["components"], "with its values"


# --- staff
def page_of(staff, conversation, query=""):
    return staff.get(f"/admin/conversations/conversation/{conversation.pk}/template/{query}")


def test_staff_choose_a_template_fill_it_in_and_send_it(meta, catalogue, shop):
    conversation = conversation_of(meta)
    MessageTemplate.objects.filter(name="news").update(status="PAUSED")
    staff = sign_in("agnes", shop, "agent")
    transcript = staff.get(f"/admin/conversations/conversation/{conversation.pk}/change/").content.decode()
    assert "Send a template" in transcript
    listed = page_of(staff, conversation).content.decode()
    assert "WhatsApp has paused this template" in listed
    order = MessageTemplate.objects.get(name="order_update")
    query = f"?template={order.pk}"
    form = page_of(staff, conversation, query).content.decode()
    assert all(f"Variable {number}" in form for number in (1, 2))
    address = f"/admin/conversations/conversation/{conversation.pk}/template/{query}"
    blank = staff.post(address, {"variable_0": "Ana", "variable_1": " "})
    assert (blank.status_code, Message.objects.count()) == (200, 0)
    sent = staff.post(address, {"variable_0": "Ana", "variable_1": "4711"})
    assert sent.status_code == 302
    chunk = Chunk.objects.get(role="ai")
    assert (chunk.content, chunk.author.username) == (AS_READ, "agnes")
    assert send_all() == 1
    shown = staff.get(f"/admin/conversations/conversation/{conversation.pk}/change/").content.decode()
    assert "template order_update: sent" in shown
    assert '<li dir="auto">Where is it?</li>' in shown


def test_who_may_only_look_or_is_another_client_s_sends_no_template(meta, catalogue, shop, neighbour):
    conversation = conversation_of(meta)
    assert page_of(sign_in("vera", shop, "viewer"), conversation).status_code == 403
    assert page_of(sign_in("nina", neighbour, "manager"), conversation).status_code == 404
    other = MessageTemplate.objects.get(name="news")
    MessageTemplate.objects.filter(pk=other.pk).update(client=neighbour)
    query = f"?template={other.pk}"
    assert page_of(sign_in("agnes", shop, "agent"), conversation, query).status_code == 404


def test_a_refusal_is_shown_on_the_form(meta, catalogue, shop):
    conversation = conversation_of(meta)
    order = MessageTemplate.objects.get(name="order_update")
    Contact.objects.update(opted_out={"whatsapp": {"since": "2026-11-30", "word": "stop", "by": "contact"}})
    address = f"/admin/conversations/conversation/{conversation.pk}/template/?template={order.pk}"
    answer = sign_in("agnes", shop, "agent").post(address, {"variable_0": "Ana", "variable_1": "4711"})
    assert (answer.status_code, "has opted out" in answer.content.decode()) == (200, True)


def test_staff_begin_a_conversation_with_a_template(meta, catalogue, shop):
    staff = sign_in("agnes", shop, "agent")
    body = {"client": str(shop.pk), "channel": "whatsapp", "phone": f"+{ANA}", "template": "on"}
    answer = staff.post("/admin/conversations/conversation/new/", body)
    conversation = Conversation.objects.get()
    assert answer["Location"] == f"/admin/conversations/conversation/{conversation.pk}/template/"
    assert not conversation.reply_owed
    refused = staff.post("/admin/conversations/conversation/new/", {**body, "channel": "sms", "phone": "+51999999998"})
    assert "Only WhatsApp has templates." in refused.content.decode()


def test_the_catalogue_and_the_account_s_page_in_the_back_office(meta, catalogue, shop):
    staff = sign_in("mona", shop, "manager")
    listed = staff.get("/admin/conversations/messagetemplate/").content.decode()
    assert all(words in listed for words in ("order_update", "Hello {{1}}, your order {{2}}"))
    order = MessageTemplate.objects.get(name="order_update")
    assert "Where is it?" in staff.get(f"/admin/conversations/messagetemplate/{order.pk}/change/").content.decode()
    page = f"/admin/conversations/channelaccount/{catalogue.pk}"
    assert "2 are known." in staff.get(f"{page}/change/").content.decode()
    meta.templates[:] = [ORDER]
    fetched = staff.post(f"{page}/templates/", follow=True)
    assert "The account has 1 templates." in fetched.content.decode(), fetched.redirect_chain


@pytest.mark.parametrize("how", ["answer", "receipt"])
def test_a_refusal_for_marketing_is_kept_as_the_person_s_choice(meta, catalogue, door, how):
    conversation = conversation_of(meta)
    news = {"name": "news", "variables": ["x"]}
    assert sends(door, conversation, template=news)[0] == 201
    if how == "answer":
        meta.error_next(131050)
    send_all()
    if how == "receipt":
        post(meta.status_webhook(meta.sent[0], "failed", error=131050), "whatsapp")
    assert Message.objects.get().status == "failed"
    assert Contact.objects.get().opted_out["whatsapp:marketing"]["word"] == "131050"
    status, envelope = sends(door, conversation, template=news)
    assert (status, envelope["code"]) == (409, "no_marketing")
    assert sends(door, conversation, template=VALUES)[0] == 201


def test_a_refusal_for_marketing_is_the_choice_of_the_person_it_was_sent_to(meta, catalogue, door, shop):
    conversation = conversation_of(meta)
    for number in (0, 2**128 - 1):  # before and after the person's own id
        factories.ContactFactory(client=shop, pk=UUID(int=number))
    sends(door, conversation, template={"name": "news", "variables": ["x"]})
    meta.error_next(131050)
    send_all()
    chosen = dict(Contact.objects.values_list("pk", "opted_out"))
    assert [pk for pk, opted_out in chosen.items() if opted_out] == [conversation.contact_id]
