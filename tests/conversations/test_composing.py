"""The composer: previews, choices and files of a reply, the question before a takeover, and typing to the customer."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import timezone

from channels_out.formatting import Formatting
from conversations.admin.access import Role
from conversations.admin.composing import shown_marks
from conversations.models import Assistant, Chunk, Client, Conversation, Message, Presence
from conversations.services.core.ledger import Actor
from conversations.services.desk import typing
from conversations.services.transitions import takeover
from tests.conftest import Door, reply_to_all, send_all
from tests.conversations.back_office import do
from tests.conversations.meta_doors import account_at, post
from tests.conversations.staff import signed_in, staff
from tests.fakes.meta import FakeMeta
from tests.fakes.server import Fault
from tests.races.threads import eventually

pytestmark = pytest.mark.django_db


@pytest.fixture
def agnes(shop: Client) -> Any:
    """An agent of the shop."""
    return staff("agnes", shop=Role.AGENT)


def written(meta: FakeMeta, shop: Client) -> Conversation:
    """Return a conversation on WhatsApp whose newest message the provider delivered."""
    account_at(meta, shop)
    post(meta.text_webhook("Hello", message_id="wamid.in1"), "whatsapp")
    return Conversation.objects.get()


def types(http: Any, conversation: Conversation, **more: str) -> int:
    fields = {"here": "yes", "typing": "yes", **more}
    status: int = http.post(f"/admin/inbox/{conversation.pk}/presence/", fields).status_code
    return status


def shown(http: Any, conversation: Conversation, text: str, **more: str) -> tuple[int, str]:
    answer = http.post(f"/admin/inbox/{conversation.pk}/preview/", {"text": text, **more})
    return answer.status_code, answer.content.decode()


# --- the preview ------------------------------------------------------------------------------------------------------
def test_whatsapps_marks_are_shown_as_what_they_mean(meta: FakeMeta, shop: Client, agnes: Any) -> None:
    status, html = shown(signed_in(agnes), written(meta, shop), "*bold* _it_ ~no~ `a*b*` 2*3*4\n> said <b>")
    assert status == 200
    for part in (
        "<strong>bold</strong>",
        "<em>it</em>",
        "<s>no</s>",
        "<code>a*b*</code>",
        "2*3*4",
        "<q>said &lt;b&gt;",
    ):
        assert part in html, part
    assert "On WhatsApp" in html


def test_what_an_assistant_wrote_is_shown_in_the_channels_formatting(meta: FakeMeta, shop: Client, agnes: Any) -> None:
    conversation = written(meta, shop)
    text = "**Open** until [five](https://shop.example)"
    assert "**Open**" in shown(signed_in(agnes), conversation, text)[1], "staff's own text is sent as it is written"
    html = shown(signed_in(agnes), conversation, text, proposal="yes")[1]
    assert "<strong>Open</strong> until five: https://shop.example" in html


def test_a_long_text_is_shown_in_its_messages_and_choices_as_the_channel_has_them(
    door: Door, meta: FakeMeta, shop: Client, agnes: Any
) -> None:
    http, conversation = signed_in(agnes), written(meta, shop)
    html = shown(http, conversation, "word " * 2000)[1]
    assert html.count("ib-preview-part") > 1
    assert f"in {html.count('ib-preview-part')} messages" in html
    assert '<li dir="auto">At 6</li>' in shown(http, conversation, "When?", choices="At 5\nAt 6")[1]
    door.says("Hello", user_id="bob")
    on_sms = Conversation.objects.get(channel="sms")
    assert "2. At 6" in shown(http, on_sms, "When?", choices="At 5\nAt 6")[1], "a channel without buttons numbers them"
    assert "needs a title of its own" in shown(http, on_sms, "When?", choices="A\nA")[1]
    assert "Nothing is written yet" in shown(http, on_sms, "  ")[1]


def test_a_preview_stores_and_sends_nothing(meta: FakeMeta, shop: Client, agnes: Any) -> None:
    conversation = written(meta, shop)
    shown(signed_in(agnes), conversation, "Hello", choices="A\nB", proposal="yes")
    assert (Chunk.objects.filter(role="ai").count(), Message.objects.count()) == (0, 0)


def test_viewers_and_other_clients_staff_see_no_preview(meta: FakeMeta, shop: Client, neighbour: Client) -> None:
    conversation = written(meta, shop)
    viewer, foreign = staff("vera", shop=Role.VIEWER), staff("frank", **{neighbour.sub_domain: Role.MANAGER})
    assert shown(signed_in(viewer), conversation, "x")[0] == 403
    assert shown(signed_in(foreign), conversation, "x")[0] == 404


def test_nothing_that_people_write_becomes_html() -> None:
    for hostile in ("<script>x</script>", "*<img src=x>*", "`<b>`", "> <i>", "```\n<u>\n```"):
        html = str(shown_marks(hostile, Formatting.WHATSAPP))
        for tag in ("<script", "<img", "<b>", "<i>", "<u>"):
            assert tag not in html, hostile
    assert str(shown_marks("*a* <b>", Formatting.PLAIN)) == "*a* &lt;b&gt;"


# --- the question before a takeover -----------------------------------------------------------------------------------
def test_a_client_may_have_staff_asked_before_their_reply_takes_over(door: Door, shop: Client, agnes: Any) -> None:
    door.says("Hello")
    reply_to_all()
    conversation, http = Conversation.objects.get(), signed_in(agnes)
    assert "data-asks-takeover" not in http.get(f"/admin/inbox/{conversation.pk}/pane/").content.decode()
    Client.objects.filter(pk=shop.pk).update(asks_before_takeover=True)
    assert "data-asks-takeover" in http.get(f"/admin/inbox/{conversation.pk}/pane/").content.decode()
    said = Chunk.objects.count()
    status, body = do(http, conversation, "reply", text="I am Agnes.")
    assert (status, "Send again to take it over" in body["said"], Chunk.objects.count()) == (409, True, said)
    assert do(http, conversation, "reply", text="I am Agnes.", takes_over="yes")[0] == 200
    conversation.refresh_from_db()
    assert conversation.taken_over_name == "agnes"
    assert do(http, conversation, "reply", text="And more.")[0] == 200, "once it is theirs, nobody is asked"
    assert "data-asks-takeover" not in http.get(f"/admin/inbox/{conversation.pk}/pane/").content.decode()


def test_without_the_policy_a_reply_takes_over_as_before(door: Door, agnes: Any) -> None:
    door.says("Hello")
    conversation = Conversation.objects.get()
    assert do(signed_in(agnes), conversation, "reply", text="I am Agnes.")[0] == 200
    conversation.refresh_from_db()
    assert conversation.taken_over_name == "agnes"


def test_a_file_and_choices_are_sent_from_the_inbox(door: Door, agnes: Any) -> None:
    door.says("Hello")
    conversation, http = Conversation.objects.get(), signed_in(agnes)
    page = http.get(f"/admin/inbox/{conversation.pk}/pane/").content.decode()
    assert 'id="ib-reply-choices"' in page
    assert 'id="ib-reply-files"' in page
    note = SimpleUploadedFile("note.txt", b"Opening hours", "text/plain")
    assert do(http, conversation, "reply", text="When?", choices="At 5\nAt 6", files=note)[0] == 200
    chunk = Chunk.objects.get(role="ai")
    assert chunk.content == "When?\n[file] note.txt"
    assert [each["title"] for each in chunk.metadata["choices"]["options"]] == ["At 5", "At 6"]


# --- typing -----------------------------------------------------------------------------------------------------------
def test_the_customer_sees_that_a_colleague_types_at_most_once_in_a_while(
    meta: FakeMeta, shop: Client, agnes: Any
) -> None:
    conversation, http = written(meta, shop), signed_in(agnes)
    for _ in range(3):
        assert types(http, conversation) == 204
    eventually(lambda: meta.marked, "the customer is shown it")
    assert types(http, conversation, typing="no") == 204
    [mark] = meta.marked
    assert (mark["message_id"], mark["typing_indicator"]) == ("wamid.in1", {"type": "text"})
    Presence.objects.update(told_at=timezone.now() - typing.EVERY - timedelta(seconds=1))
    types(http, conversation)
    eventually(lambda: len(meta.marked) == 2, "after a while it is shown again")


def test_two_colleagues_who_type_show_it_once(meta: FakeMeta, shop: Client, agnes: Any) -> None:
    conversation, max_ = written(meta, shop), staff("max", shop=Role.AGENT)
    now = timezone.now()
    for user in (agnes, max_):
        Presence.objects.create(conversation=conversation, user=user, seen_at=now)
    assert typing.show(conversation, agnes.pk, now)
    assert not typing.show(conversation, max_.pk, now)


@pytest.mark.parametrize("who", ["viewer", "foreign", "not the holder", "not asked yet", "opted out", "ended"])
def test_nobody_is_shown_typing_by_those_who_may_not_write_there(
    meta: FakeMeta, shop: Client, neighbour: Client, agnes: Any, who: str
) -> None:
    conversation, user = written(meta, shop), agnes
    if who == "viewer":
        user = staff("vera", shop=Role.VIEWER)
    elif who == "foreign":
        user = staff("frank", **{neighbour.sub_domain: Role.MANAGER})
    elif who == "not the holder":
        takeover.take_over(conversation.pk, actor=Actor("staff", "max", None), now=timezone.now())
    elif who == "not asked yet":
        Client.objects.filter(pk=shop.pk).update(asks_before_takeover=True)
    elif who == "opted out":
        contact = conversation.contact
        contact.opted_out = {"whatsapp": {"since": "2026-11-30T10:00:00+00:00", "by": "contact"}}
        contact.save()
    else:
        Conversation.objects.update(reply_owed=False, status="closed", ended_at=timezone.now(), ended_by="staff")
    assert types(signed_in(user), conversation) == (404 if who == "foreign" else 204)
    assert not Presence.objects.filter(told_at__isnull=False).exists()
    assert meta.marked == []


def test_a_provider_that_refuses_costs_nothing(meta: FakeMeta, shop: Client, agnes: Any, caplog: Any) -> None:
    conversation = written(meta, shop)
    meta.fail_next(Fault(500))
    assert types(signed_in(agnes), conversation) == 204
    eventually(lambda: "read mark refused" in caplog.text, "the refusal is logged")
    assert meta.marked == []


def test_a_channel_without_the_sign_is_left_alone(door: Door, agnes: Any) -> None:
    door.says("Hello")
    assert types(signed_in(agnes), Conversation.objects.get()) == 204
    assert not Presence.objects.filter(told_at__isnull=False).exists()


def test_an_assistant_that_proposes_is_not_shown_as_typing(meta: FakeMeta, shop: Client) -> None:
    from conversations.services.delivery import read_marks

    conversation = written(meta, shop)
    Assistant.objects.update(proposes=True)
    mark = read_marks.mark_for_newest(conversation.client_id, conversation.pk)
    assert mark is not None
    mark.show(typing=True)
    assert "typing_indicator" not in meta.marked[0]
    send_all()
