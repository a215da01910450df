"""Files in the simulator: what a person sends from their phone and what reaches it, through the real doors."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client as HttpClient
from django.urls import reverse
from django.utils import timezone

from channels_out.simulators.people import PEOPLE
from conversations.models import Attachment, ChannelAccount, Chunk, Client, Contact, MediaRemoval, SimulatedExchange
from conversations.services.core import files
from conversations.services.core.ledger import SYSTEM
from conversations.services.media import removals
from conversations.services.retention import erasure
from conversations.services.simulator import accounts, exchanges, phone, phone_files, simulator
from conversations.services.staff_actions import send
from tests.conftest import fetch_all, send_all
from tests.conversations.staff import signed_in, staff
from tests.media_files import document, picture

pytestmark = [pytest.mark.django_db(transaction=True)]

ANA = PEOPLE[0]


@pytest.fixture(autouse=True)
def simulated(shop: Client, live_server: Any, settings: Any) -> None:
    """The shop's simulated accounts, at a running server."""
    settings.INTERNAL_BASE_URL = settings.PUBLIC_BASE_URL = live_server.url
    accounts.set_up(shop)


def account_of(shop: Client, provider: str) -> ChannelAccount:
    return ChannelAccount.objects.get(client=shop, provider=provider, is_simulated=True)


def stored(client_id: Any) -> list[str]:
    """The folders of the client's files in the storage."""
    try:
        return sorted(files.storage().listdir(str(client_id))[0])
    except FileNotFoundError:
        return []


def choose(account: ChannelAccount, name: str, content: bytes, text: str = "", **more: Any) -> Any:
    """Ana sends a file from the page. Returns the answer."""
    http = more.pop("http", None) or signed_in(staff("mona", shop="manager"))
    chosen = io.BytesIO(content)
    chosen.name = name
    do = reverse("admin:simulator_do", args=[account.pk, "write"])
    return http.post(do, {"text": text, "file": chosen, **more})


def sends(account: ChannelAccount, name: str, content: bytes, caption: str = "") -> SimulatedExchange:
    """Ana sends a file. Returns the webhook that brought it."""
    file = phone_files.ChosenFile(name, io.BytesIO(content), len(content))
    exchange = simulator.write_message(account, ANA, caption, file=file, now=timezone.now())
    assert exchange.status == 200, exchange.answer
    return exchange


FILES = {
    # name: content, kind at Convo, type of WhatsApp's message, type of Messenger's attachment
    "house.jpg": (picture(80, 60), "image", "image", "image"),
    "note.ogg": (b"OggS" + b"\x00" * 60 + b"OpusHead", "voice", "audio", "audio"),
    "song.mp3": (b"ID3" + b"\x00" * 60, "audio", "audio", "audio"),
    "clip.mp4": (b"\x00\x00\x00\x18ftypmp42" + b"\x00" * 60, "video", "video", "video"),
    "plan.pdf": (document(), "document", "document", "file"),
}


@pytest.mark.parametrize("provider", ["whatsapp", "dialog360"])
@pytest.mark.parametrize("name", FILES)
def test_a_file_on_whatsapp_is_named_by_an_id_and_fetched_with_the_token(shop, provider, name):
    content, kind, as_type, _ = FILES[name]
    account = account_of(shop, provider)
    webhook = sends(account, name, content)
    [message] = json.loads(webhook.body)["entry"][0]["changes"][0]["value"]["messages"]
    assert message["type"] == as_type
    told = message[as_type]
    assert base64.b64decode(told["sha256"]) == hashlib.sha256(content).digest()
    assert told["id"].isdigit()
    assert told.get("voice", False) is (kind == "voice")
    assert told.get("filename", "") == (name if kind == "document" else "")
    assert "caption" not in told
    fetch_all()
    row = Attachment.objects.get(client=shop)
    assert (row.state, row.kind, row.source, row.size) == ("ready", kind, told["id"], len(content))
    assert b"".join(files.blocks(row.file)) == content
    asked = SimulatedExchange.objects.filter(account=account, kind="question").order_by("id")
    assert [each.address.partition("?")[0] for each in asked] == [f"/{told['id']}", "/whatsapp_business/attachments/"]


@pytest.mark.parametrize("name", FILES)
def test_a_file_on_messenger_is_named_by_its_link(shop, name):
    content, kind, _, as_type = FILES[name]
    webhook = sends(account_of(shop, "messenger"), name, content)
    [item] = json.loads(webhook.body)["entry"][0]["messaging"]
    [attachment] = item["message"]["attachments"]
    assert (attachment["type"], "text" in item["message"]) == (as_type, False)
    fetch_all()
    row = Attachment.objects.get(client=shop)
    expected = {"voice": "audio"}.get(kind, kind)  # Messenger does not say that it is a voice note
    assert (row.state, row.kind, row.source) == ("ready", expected, attachment["payload"]["url"])
    assert b"".join(files.blocks(row.file)) == content


def test_a_caption_is_in_the_transcript_and_the_file_beside_it_and_on_the_phone(shop):
    account = account_of(shop, "whatsapp")
    assert choose(account, "house.jpg", picture(80, 60), "Our <b>house</b>").status_code == 200
    chunk = Chunk.objects.get(client=shop, role="user")
    assert chunk.content == "[image] Our <b>house</b>"
    [mine] = phone.phone_messages(account, ANA)
    assert (mine.text, mine.file.name, mine.file.is_picture) == ("Our <b>house</b>", "house.jpg", True)
    http = signed_in(staff("nora", shop="manager"))
    there = http.get(reverse("admin:simulator_file", args=[account.pk, mine.file.exchange]))
    shown = HttpClient().get(there["Location"])
    assert (shown.status_code, shown["Content-Type"]) == (200, "image/jpeg")
    assert shown["Content-Disposition"].startswith("inline")
    assert "sandbox" in shown["Content-Security-Policy"]
    assert b"".join(shown.streaming_content) == picture(80, 60)


@pytest.mark.parametrize(
    ("name", "content", "text", "words"),
    [
        ("run.exe", b"MZ", "", "knows no such file"),
        ("house", b"\xff\xd8\xff", "", "knows no such file"),
        ("house.jpg", b"", "", "empty"),
        ("house.jpg", b"\xff\xd8\xff" + b"0" * 5_000_000, "", "at most 5 MB"),
        ("note.ogg", b"OggS", "Listen", "no caption"),
    ],
)
def test_a_file_that_the_phone_does_not_send_is_refused_and_nothing_is_kept(shop, name, content, text, words):
    answer = choose(account_of(shop, "whatsapp"), name, content, text)
    assert answer.status_code == 409
    assert words in answer.json()["said"]
    assert stored(shop.pk) == []
    assert not SimulatedExchange.objects.filter(account__client=shop).exists()


def test_a_file_is_no_larger_than_uploads_elsewhere(shop, settings):
    settings.MEDIA_MOST_MB = 1
    answer = choose(account_of(shop, "whatsapp"), "plan.pdf", document(1_000_001))
    assert (answer.status_code, "at most 1 MB" in answer.json()["said"]) == (409, True)


def test_a_channel_without_files_or_captions_says_so(shop):
    http = signed_in(staff("mona", shop="manager"))
    by_sms = ChannelAccount.objects.get(client=shop, provider="plivo", channel="sms")
    sms = choose(by_sms, "house.jpg", picture(8, 6), http=http)
    assert (sms.status_code, "sends no files" in sms.json()["said"]) == (409, True)
    page = choose(account_of(shop, "messenger"), "house.jpg", picture(8, 6), "Hello", http=http)
    assert (page.status_code, "no caption" in page.json()["said"]) == (409, True)
    nothing = http.post(reverse("admin:simulator_do", args=[account_of(shop, "messenger").pk, "write"]), {"text": " "})
    assert (nothing.status_code, nothing.json()["said"]) == (409, "Write something first.")


def test_a_file_that_lies_about_its_type_is_what_its_content_says(shop):
    sends(account_of(shop, "whatsapp"), "house.jpg", document())
    fetch_all()
    row = Attachment.objects.get(client=shop)
    assert (row.kind, row.content_type) == ("document", "application/pdf")


def test_a_file_is_handed_out_to_its_account_s_token_alone(client, shop, neighbour):
    account = account_of(shop, "whatsapp")
    media_id = sends(account, "house.jpg", picture(80, 60)).details["file"]["media_id"]
    accounts.set_up(neighbour)
    theirs = account_of(neighbour, "whatsapp")

    def ask(of: ChannelAccount, token: str) -> int:
        paths = [f"/{media_id}", f"/whatsapp_business/attachments/?mid={media_id}"]
        got = {client.get(f"/simulator/{of.pk}{path}", headers={"Authorization": token}).status_code for path in paths}
        return max(got)

    assert ask(account, f"Bearer {account.credentials['access_token']}") == 200
    assert ask(account, f"Bearer {theirs.credentials['access_token']}") == 401
    assert ask(theirs, f"Bearer {theirs.credentials['access_token']}") in (400, 404)
    assert ask(account, "") == 401


def test_a_link_is_for_its_account_and_runs_out(client, shop, monkeypatch):
    page, number = account_of(shop, "messenger"), account_of(shop, "whatsapp")
    webhook = sends(page, "house.jpg", picture(80, 60))
    link = json.loads(webhook.body)["entry"][0]["messaging"][0]["message"]["attachments"][0]["payload"]["url"]
    path = "/simulator/" + link.partition("/simulator/")[2]
    assert client.get(path).status_code == 200
    assert client.get(path.replace(str(page.pk), str(number.pk))).status_code == 404
    assert client.get(path + "x").status_code == 404
    SimulatedExchange.objects.filter(pk=webhook.pk).update(created_at=timezone.now() - phone_files.LIFETIME)
    assert client.get(path).status_code == 404
    [mine] = phone.phone_messages(page, ANA)
    assert mine.file.is_there is False


def test_members_of_another_client_get_no_file(shop, neighbour):
    account = account_of(shop, "whatsapp")
    exchange = sends(account, "house.jpg", picture(80, 60))
    address = reverse("admin:simulator_file", args=[account.pk, exchange.pk])
    assert signed_in(staff("nina", neighbour="manager")).get(address).status_code == 404
    assert signed_in(staff("vic", shop="viewer")).get(address).status_code in (403, 404)


@pytest.mark.parametrize("provider", ["whatsapp", "messenger"])
def test_what_we_send_is_on_the_phone(shop, provider):
    account = account_of(shop, provider)
    simulator.write_message(account, ANA, "Where is it?", now=timezone.now())
    conversation = phone.newest_conversation(account, ANA)
    uploads = [("map.png", io.BytesIO(picture(80, 60, form="PNG"))), ("plan.pdf", io.BytesIO(document()))]
    send.send_uploads(conversation, "", uploads, choices=None, actor=SYSTEM, now=timezone.now())
    send_all()
    arrived = [each for each in phone.phone_messages(account, ANA) if each.file]
    assert sorted(each.file.is_picture for each in arrived) == [False, True]
    http = signed_in(staff("mona", shop="manager"))
    got = set()
    for each in arrived:
        assert each.file.is_there
        there = http.get(reverse("admin:simulator_file", args=[account.pk, each.file.exchange]))
        got.add(b"".join(HttpClient().get(there["Location"]).streaming_content))
    assert got == {picture(80, 60, form="PNG"), document()}
    page = http.get(reverse("admin:simulator_play", args=[account.pk])).content.decode()
    assert page.count('class="sim-picture"') == 1
    uploaded = SimulatedExchange.objects.filter(account=account, kind="question", address__endswith="/media")
    assert [each.details for each in uploaded] == [{}] * uploaded.count(), "the file is the message's"
    assert [each.body for each in uploaded if "PNG" in each.body] == [], "the log has no bytes of a file"


# --- they go ----------------------------------------------------------------------------------------------------------
def gone(shop: Client) -> bool:
    """Delete what is queued, and say whether the storage has nothing left of the client."""
    removals.remove_due(timezone.now() + timedelta(seconds=1), float("inf"))
    return stored(shop.pk) == [] and not MediaRemoval.objects.filter(client_id=shop.pk).exists()


def test_they_go_with_the_last_exchange_that_names_them(shop, monkeypatch):
    account = account_of(shop, "whatsapp")
    first = sends(account, "house.jpg", picture(80, 60))
    simulator.deliver(account, first.pk)
    SimulatedExchange.objects.filter(pk=first.pk).delete()
    assert not gone(shop), "the second delivery has it"
    monkeypatch.setattr(exchanges, "MOST_KEPT", 1)
    simulator.write_message(account, ANA, "Hello", now=timezone.now())
    assert gone(shop)


def test_they_go_with_the_client(shop):
    sends(account_of(shop, "messenger"), "house.jpg", picture(80, 60))
    assert stored(shop.pk) != []
    Client.objects.filter(pk=shop.pk).delete()
    assert not SimulatedExchange.objects.exists()
    assert gone(shop)


@pytest.mark.parametrize("provider", ["whatsapp", "messenger"])
def test_they_go_with_the_erasure_of_the_person_before_its_certificate(shop, provider):
    account = account_of(shop, provider)
    sends(account, "house.jpg", picture(80, 60))
    conversation = phone.newest_conversation(account, ANA)
    uploads = [("map.png", io.BytesIO(picture(80, 60, form="PNG")))]
    send.send_uploads(conversation, "", uploads, choices=None, actor=SYSTEM, now=timezone.now())
    send_all()
    fetch_all()
    assert len(stored(shop.pk)) >= 3
    begun = erasure.begin(Contact.objects.get(client=shop).pk, actor=SYSTEM, now=timezone.now())
    erasure.continue_erasures(timezone.now() + timedelta(seconds=1))
    begun.refresh_from_db()
    assert begun.certificate
    assert stored(shop.pk) == []


def test_what_is_a_day_old_goes_with_the_daily_clean_up(shop):
    sends(account_of(shop, "whatsapp"), "house.jpg", picture(80, 60))
    removals.delete_orphans(timezone.now() + phone_files.LIFETIME / 2, float("inf"))
    assert len(stored(shop.pk)) == 1
    removals.delete_orphans(timezone.now() + phone_files.LIFETIME + timedelta(minutes=1), float("inf"))
    assert stored(shop.pk) == []
