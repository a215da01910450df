"""What people who run bots have reported: their providers' own payloads, and the prompt that the model gets after them.

The payloads stand in tests/payloads/reported with the public reports that they come from. Accounts, people and ids are
invented, and what stands in angle brackets is filled in here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from channels_out.simulators import messenger, plivo_payloads, whatsapp
from conversations.models import Activity, Assistant, Chunk, Client, Contact, Conversation, Message, Turn
from conversations.services.core.ledger import SYSTEM
from conversations.services.staff_actions.outreach import Outreach, start_outreach
from conversations.services.tenants import setup
from conversations.services.transitions import takeover
from tests.conftest import reply_to_all, send_all
from tests.conversations import meta_doors
from tests.conversations.meta_doors import account_at, post
from tests.conversations.test_plivo_sms_webhook import post as post_form
from tests.fakes.dialog360 import FakeDialog360
from tests.fakes.messenger import FakeMessenger
from tests.fakes.meta import FakeMeta
from tests.fakes.openai import FakeOpenAI
from tests.fakes.plivo import FakePlivo
from tests.prompts import heard, spoken

pytestmark = pytest.mark.django_db
REPORTED = Path(__file__).parents[1] / "payloads" / "reported"

account, page = meta_doors.account, meta_doors.page


def posts_of(name: str, **filled: str) -> list[Any]:
    """Return the payloads of the case, with what stands in angle brackets filled in."""
    text = json.dumps(json.loads((REPORTED / f"{name}.json").read_text())["posts"])
    now = int(time.time())
    known = {"<unix seconds now>": str(now), "<now>": str(now), "1764394000000": str(now * 1000), **filled}
    for mark, value in known.items():
        text = text.replace(mark, value)
    return list(json.loads(text))


def arrives(provider: Any, payload: Any, channel: str = "whatsapp") -> None:
    ours = provider.phone_number_id if channel == "whatsapp" else provider.page
    named = json.dumps(payload).replace("111000111", ours).replace("222000222", ours)
    status, outcome = post(provider.signed(json.loads(named)), channel)
    assert status == 200, outcome


def plays(provider: Any, name: str, channel: str = "whatsapp", **filled: str) -> None:
    for payload in posts_of(name, **filled):
        arrives(provider, payload, channel)


def prompt() -> list[dict[str, str]]:
    """Write and send the replies that are owed, and return what the model was given last."""
    Conversation.objects.update(reply_due_at=timezone.now())
    reply_to_all()
    send_all()
    turn = Turn.objects.exclude(prompt=None).order_by("started_at").last()
    assert turn is not None
    return turn.prompt["messages"]


def in_words(told: list[dict[str, str]]) -> str:
    return "\n".join(each["content"] or "" for each in told if each["role"] != "system")


def test_an_advertisement_is_told_with_its_title_and_link(meta, account):
    plays(meta, "ad_referral")
    told = in_words(prompt())
    for words in ("Casa de 3 quartos", "A partir de 250 mil", "https://fb.me/abcd", "120237770872380049"):
        assert words in told
    assert Chunk.objects.get(role="user").metadata["referral"]["ctwa_clid"] == "AffXYZ"


def test_a_product_of_the_catalogue_is_told_by_its_id(meta, account):
    plays(meta, "referred_product")
    told = in_words(prompt())
    assert "SKU-1234" in told
    assert "619431863167996" in told


def test_a_shop_s_product_is_told_with_title_and_price(page):
    plays(page, "messenger_product", "messenger")
    told = in_words(prompt())
    for words in ("is it available?", "Slate roof tile", "$ 4.90", "12345678910"):
        assert words in told


def test_the_person_whom_we_wrote_to_is_one_although_their_number_is_written_otherwise(meta, account, shop):
    Assistant.objects.filter(client=shop).update(template_name="news", template_language="es_AR")
    meta.known_as["541123456702"] = {"wa_id": "5491123456702"}
    wanted = Outreach(channel="whatsapp", phone="+54 11 2345-6702", goal="An unpaid invoice")
    start_outreach(shop, wanted, actor=SYSTEM, now=timezone.now())
    prompt()
    answer, stop = posts_of("argentina_business_initiated")
    arrives(meta, answer)
    told = prompt()
    assert heard(told)[-1] == "hi, about that debt"
    assert any("news" in each or "invoice" in each for each in spoken(told)), "what we wrote to the other number"
    assert Conversation.objects.count() == 1
    arrives(meta, stop)
    assert Contact.objects.get().opted_out


def test_a_burst_is_read_in_the_order_in_which_it_was_written(meta, account):
    for payload in posts_of("burst_order"):
        [message] = payload["entry"][0]["changes"][0]["value"]["messages"]
        message["timestamp"] = str(int(message["timestamp"]) - 10 + int(message["text"]["body"]))
        arrives(meta, payload)
    assert [each[-1] for each in heard(prompt())[-3:]] == ["1", "2", "3"]


def test_a_colleague_in_the_app_settles_what_is_owed_and_the_next_prompt_has_their_words(meta, account):
    plays(meta, "coexistence_echo_while_reply_owed")
    assert (reply_to_all(), meta.sent) == (0, [])
    takeover.hand_back(Conversation.objects.get().pk, actor=SYSTEM, now=timezone.now())
    arrives(meta, again_from(meta, "51999200004", "When?"))
    assert any("Thanks, I see it. Your order is confirmed" in each for each in spoken(prompt()))


def again_from(meta: FakeMeta, sender: str, text: str) -> Any:
    """Return the payload of a further text of the person."""
    return json.loads(meta.text_webhook(text, sender=sender).body)


def test_a_colleague_in_the_page_s_inbox_does_the_same(page, account):
    plays(page, "messenger_page_inbox_echo", "messenger")
    assert reply_to_all() == 0
    conversation = Conversation.objects.get()
    assert (conversation.reply_owed, bool(conversation.taken_over_at)) == (False, True)
    assert conversation.chunks.latest("position").content == "Booked for 10!"


def test_an_edit_is_answered_as_edited_and_a_deleted_message_is_not_shown(meta, account):
    first, edit, secret, revoke = posts_of("edit_and_revoke")
    for payload in (first, edit):
        arrives(meta, payload)
    assert heard(prompt())[-1].endswith("Please deliver to Lima street 9")
    turns = Turn.objects.count()
    for payload in (secret, revoke):
        arrives(meta, payload)
    assert reply_to_all() == 0
    assert Turn.objects.count() == turns
    arrives(meta, again_from(meta, "51999200003", "Hello"))
    assert "9876" not in json.dumps(prompt())


def test_a_model_s_marks_are_the_channel_s_own(meta, account, shop, settings):
    case = json.loads((REPORTED / "markdown.json").read_text())
    Assistant.objects.filter(client=shop).update(engine="openai", model="tiny")
    with FakeOpenAI() as model:
        settings.OPENAI_BASE_URL = model.base_url
        model.then("reply", text=case["provider_fake"]["model answers"])
        plays(meta, "markdown")
        assert heard(prompt())[-1] == "total?"
    [sent] = meta.sent
    assert "*Total:* 120 USD" in sent.text
    assert "https://pay.example/x" in sent.text
    assert not any(mark in sent.text for mark in ("**", "###", "]("))


def test_what_messenger_cannot_pass_on_is_known_to_have_been_written(page):
    plays(page, "messenger_is_unsupported", "messenger")
    assert heard(prompt())[-1] == "[a message that Messenger cannot pass on]"


def test_what_whatsapp_cannot_pass_on_is_known_to_have_been_written(meta, account):
    plays(meta, "unsupported_131060_first_contact")
    assert heard(prompt())[-1] == "[a message that WhatsApp cannot pass on]"
    assert Conversation.objects.get().contact.phone == "+51999100001"


def test_a_user_id_alone_is_somebody(meta, account):
    plays(meta, "pass_bsuid_only")
    assert heard(prompt())[-1] == "phone hidden now"
    assert meta.sent[-1].to == "US.134912086553027"


def test_a_button_without_its_message_is_read_by_its_text(meta, account):
    plays(meta, "pass_button_without_context")
    assert heard(prompt())[-1] == "Confirm"
    assert Chunk.objects.get(role="user").metadata["payload"] == "confirm_7"


def test_what_a_message_quotes_stands_beside_it(meta, account):
    arrives(meta, again_from(meta, "51999200001", "What do you have?"))
    prompt()
    plays(meta, "quoted_reply", **{"<wamid of an older reply of ours>": meta.sent[-1].wamid})
    said = Chunk.objects.filter(role="ai").earliest("position").content[:40]
    note, words = heard(prompt())[-1].split("\n")
    assert note.startswith("[Note: this quotes your message “" + said)
    assert words == "this one please"


def test_a_thumb_is_no_message_and_the_next_prompt_has_it(meta, account):
    first, reaction = posts_of("reaction_thumbs_up")
    arrives(meta, first)
    prompt()
    text = json.dumps(reaction, ensure_ascii=False).replace("<wamid of our reply>", meta.sent[-1].wamid)
    arrives(meta, json.loads(text))
    assert reply_to_all() == 0
    assert Activity.objects.get().chunk.role == "ai"
    arrives(meta, again_from(meta, "51999200001", "At nine"))
    assert "the person reacted with 👍 to your message" in heard(prompt())[-1]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_sentence_that_means_stop_is_one_and_nothing_is_said_but_that(sms, number):
    plivo = sms
    form = posts_of("sms_opt_out_sentences")[number]
    comes(plivo, form)
    assert Contact.objects.get().opted_out
    assert reply_to_all() == 0
    assert not Conversation.objects.get().reply_owed


def test_help_has_a_fixed_answer(sms):
    comes(sms, posts_of("sms_opt_out_sentences")[3])
    assert reply_to_all() == 0
    assert Message.objects.count() == 1


@pytest.fixture
def sms(shop: Client, settings: Any) -> Iterator[FakePlivo]:
    """The shop's number for SMS."""
    settings.PUBLIC_BASE_URL = "https://convo.example"
    with FakePlivo() as plivo:
        setup.create_channel_account(
            shop, channel="sms", provider="plivo", address=plivo.number, credentials=plivo.credentials
        )
        yield plivo


def comes(plivo: FakePlivo, form: dict[str, str]) -> None:
    whole = plivo_payloads.sms(
        sender=form["From"], to=plivo.number, text=form["Text"], message_uuid=form["MessageUUID"]
    )
    response = post_form(plivo.post("/webhooks/sms/inbound", whole))
    assert response.status_code == 200


def test_a_failed_receipt_of_a_closed_window_sends_the_template(meta, account, shop):
    Assistant.objects.filter(client=shop).update(template_name="news", template_language="es")
    arrives(meta, again_from(meta, "51999510001", "Hello"))
    prompt()
    message = Message.objects.get()
    filled = {"<our wamid>": meta.sent[-1].wamid, "<our id>": str(message.pk)}
    plays(meta, "status_failed_131047", **filled)
    send_all()
    assert meta.sent[-1].template == "news es"
    arrives(meta, again_from(meta, "51999510001", "What was that?"))
    assert "news" in " ".join(spoken(prompt())), "the model knows what went instead"


def test_each_of_two_numbers_is_answered_by_its_own_assistant(meta, account, shop):
    sales, support = posts_of("two_numbers_one_client")
    with FakeMeta("444000444") as other:
        second = account_at(other, shop)
        for own, key in ((account, "sales"), (second, "support")):
            own.assistant = Assistant.objects.create(client=shop, key=key, name=key, system_prompt=f"You are {key}.")
            own.save()
        arrives(meta, sales)
        status, _ = post(other.signed(support), "whatsapp")
        assert status == 200
        prompt()
        assert [len(meta.sent), len(other.sent)] == [1, 1]
    found = {}
    for turn in Turn.objects.all():
        told = turn.prompt["messages"]
        found[heard(told)[-1]] = told[0]["content"].partition(".")[0]
    assert found == {"SALES: price of slate tiles?": "You are sales", "SUPPORT: my roof leaks": "You are support"}


# --- the same kinds on other channels and in other forms --------------------------------------------------------------
def test_a_contact_card_is_told_as_all_that_it_says(meta, account):
    card = {
        "name": {"formatted_name": "Bob Tiles", "first_name": "Bob"},
        "org": {"company": "Tiles & Sons"},
        "phones": [{"phone": "+51 988 777 666", "type": "WORK"}],
        "emails": [{"email": "bob@tiles.example"}],
    }
    post(meta.webhook(messages=[whatsapp.message("contacts", [card])]), "whatsapp")
    told = heard(prompt())[-1]
    for words in ("Bob Tiles", "Tiles & Sons", "+51 988 777 666", "bob@tiles.example"):
        assert words in told


@pytest.mark.parametrize("kind", ["page", "instagram"])
def test_what_a_message_quotes_stands_beside_it_on_messenger_and_instagram(shop, kind):
    address = "17841400000000001" if kind == "instagram" else "222000222"
    with FakeMessenger(address) as provider:
        account_at(provider, shop)
        who = {"sender": {"id": "5800000000000001"}, "recipient": {"id": address}}

        def says(mid: str, words: str, **more: Any) -> None:
            item = {**who, "timestamp": int(time.time() * 1000), "message": {"mid": mid, "text": words, **more}}
            payload = messenger.payload(address, item) | {"object": kind}
            assert post(provider.signed(payload), "messenger")[0] == 200

        says("m_1", "What do you have?")
        prompt()
        says("m_2", "this one please", reply_to={"mid": provider.sent[-1].mid})
        note, words = heard(prompt())[-1].split("\n")
    assert note.startswith("[Note: this quotes your message “")
    assert words == "this one please"


def test_through_360dialog_a_reaction_and_a_missed_call_do_the_same(shop):
    with FakeDialog360() as provider:
        account_at(provider, shop)
        arrives(provider, json.loads(provider.text_webhook("I want an appointment", sender="51999200001").body))
        prompt()
        reaction = json.dumps(posts_of("reaction_thumbs_up")[1]).replace(
            "<wamid of our reply>", provider.sent[-1].wamid
        )
        arrives(provider, json.loads(reaction))
        call = {"id": "wacid.1", "from": "51999200001", "event": "terminate", "direction": "USER_INITIATED"}
        change = whatsapp.change(provider.phone_number_id)
        change["field"], change["value"]["calls"] = "calls", [{**call, "status": "FAILED"}]
        arrives(provider, whatsapp.around(change))
        assert reply_to_all() == 0
        arrives(provider, json.loads(provider.text_webhook("At nine", sender="51999200001").body))
        told = heard(prompt())[-1]
    assert "the person reacted with 👍 to your message" in told
    assert "the person called, and nobody answered" in told
