"""Files through WhatsApp's adapters: the forms that Meta takes, uploads, links, and the same at 360dialog."""

from __future__ import annotations

import json
from typing import Any

import pytest

from channels_out.adapters.dialog360 import Dialog360Adapter
from channels_out.adapters.whatsapp import WhatsAppAdapter
from channels_out.contract import Account, InboundRequest, OutboundFile, OutboundMessage
from channels_out.errors import SendError
from channels_out.kinds import AddressKind, MediaKind
from channels_out.simulators.whatsapp_simulator import Dialog360Simulator, WhatsAppSimulator
from tests.fakes.meta import FakeMeta
from tests.fakes.server import FakeServer, Fault, Received, Reply

PDF = b"%PDF-1.7 invoice"


def invoice(name: str = "May.pdf") -> OutboundMessage:
    """A PDF to somebody."""
    file = OutboundFile(MediaKind.DOCUMENT, "application/pdf", name, len(PDF), "https://x.example/f", lambda: PDF)
    return OutboundMessage("msg-1", "51999999999", AddressKind.PHONE, name, file=file)


def account_at(meta: FakeMeta) -> Account:
    return Account(meta.phone_number_id, {"access_token": meta.access_token}, base_url=meta.base_url)


@pytest.mark.parametrize(
    ("content_type", "size", "form"),
    [
        ("image/png", 5_000_000, "image"),
        ("image/png", 5_000_001, "document"),
        ("image/webp", 1_000, "document"),
        ("audio/ogg", 16_000_000, "audio"),
        ("video/quicktime", 1_000, "document"),
        ("application/octet-stream", 100_000_000, "document"),
        ("application/octet-stream", 100_000_001, None),
    ],
)
def test_each_file_has_the_best_form_that_meta_takes(content_type: str, size: int, form: str | None) -> None:
    assert WhatsAppAdapter().form_of_file(content_type, size) == form


def test_a_name_cannot_leave_its_place_in_the_form() -> None:
    with FakeMeta() as meta:
        WhatsAppAdapter().send(account_at(meta), invoice('a"\r\nX-Evil: 1\r\n\r\n.pdf'))
        assert b"\r\nX-Evil" not in meta.uploads[0]
        assert PDF in meta.uploads[0]


@pytest.mark.parametrize("fault", [Fault(cut="after"), Fault(cut="before"), Fault(status=503), Fault(cut="body")])
def test_an_upload_that_fails_was_never_sent_and_may_be_repeated(fault: Fault) -> None:
    with FakeMeta() as meta:
        meta.fail_next(fault)
        with pytest.raises(SendError) as raised:
            WhatsAppAdapter().send(account_at(meta), invoice())
        assert raised.value.retryable
        assert not raised.value.ambiguous
        assert meta.sent == []


def test_a_refused_token_breaks_the_account_at_the_upload_too() -> None:
    with FakeMeta() as meta:
        account = Account(meta.phone_number_id, {"access_token": "other"}, base_url=meta.base_url)
        with pytest.raises(SendError) as raised:
            WhatsAppAdapter().send(account, invoice())
        assert raised.value.account_broken


def test_a_file_that_meta_no_longer_has_is_gone() -> None:
    with FakeMeta() as meta, pytest.raises(SendError) as raised:
        WhatsAppAdapter().media_link(account_at(meta), "404404")
    assert (raised.value.code, raised.value.retryable) == ("gone", False)


class Relay(FakeServer):
    """360dialog, which names Meta's host in its links, and gives the file at its own."""

    def handle(self, request: Received) -> Reply:
        """Answer with a link, or with the file."""
        if request.headers.get("d360-api-key") != "key":
            return Reply(401)
        return Reply(200, {"url": "https://lookaside.fbsbx.example/whatsapp/?mid=7&ext=1", "file_size": "12"})


def test_360dialog_s_link_leads_to_its_own_host_with_its_key() -> None:
    with Relay() as relay:
        account = Account("1", {"api_key": "key"}, base_url=relay.url)
        link = Dialog360Adapter().media_link(account, "77")
    assert link.url == f"{relay.url}/whatsapp/?mid=7&ext=1"
    assert (link.headers, link.size) == ({"D360-API-KEY": "key"}, 12)


@pytest.mark.parametrize(
    ("simulator", "upload"), [(WhatsAppSimulator(), "/1234567890/media"), (Dialog360Simulator(), "/media")]
)
def test_the_simulator_takes_uploads_and_files(simulator: Any, upload: str) -> None:
    account = Account("1234567890")
    uploaded = simulator.accept(account, InboundRequest("POST", upload, {}, {}, b"a form"))
    media_id = json.loads(uploaded.body)["id"]
    body = {
        "messaging_product": "whatsapp",
        "to": "51999999999",
        "type": "document",
        "document": {"id": media_id, "filename": "May.pdf"},
    }
    messages = upload.replace("media", "messages")
    taken = simulator.accept(account, InboundRequest("POST", messages, {}, {}, json.dumps(body).encode()))
    assert taken.taken.text == "[document] May.pdf"
    assert not simulator.sends(account, InboundRequest("POST", upload, {}, {}, b"a form"))
