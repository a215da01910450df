"""A client library of WhatsApp's reads every payload that the simulator composes, as if Meta had posted it."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest
import pywa
from pywa.types.base_update import RawUpdate
from pywa.utils import webhook_updates_validator

from channels_out.contract import Account
from channels_out.kinds import ReceiptStatus
from channels_out.simulators import whatsapp
from channels_out.simulators.contract import AcceptedMessage, SimulatedMessage
from channels_out.simulators.meta import meta_json, signed_by_meta
from channels_out.simulators.people import PEOPLE
from channels_out.simulators.phone_files import PhoneFile, kind_and_type
from channels_out.simulators.whatsapp_simulator import WhatsAppSimulator, contact_of, user_id_of

ACCOUNT = Account("1234567890", {"access_token": "token", "app_secret": "secret", "verify_token": "verify"})
AT = datetime(2026, 11, 30, 12, tzinfo=UTC)
ANA, FINN = PEOPLE[0], PEOPLE[-1]
SIMULATOR = WhatsAppSimulator()


@pytest.fixture(scope="module")
def library() -> pywa.WhatsApp:
    """The library, without a server."""
    return pywa.WhatsApp(phone_id=ACCOUNT.address, token="token")


def read(library: pywa.WhatsApp, body: bytes) -> Any:
    """The update that the library reads in the body."""
    update = RawUpdate(body, hmac_header=None, update_hash="")
    handler = library._get_handler_type(update)
    assert handler is not None, "the library has no handler for it"
    return library._handlers_to_updates[handler].from_update(client=library, update=update)


def of_ana(message: dict[str, Any]) -> bytes:
    """The payload around a message of Ana's."""
    return meta_json(whatsapp.payload(ACCOUNT.address, messages=[message], contacts=[contact_of(ANA)]))


def who() -> dict[str, str]:
    return {"sender": ANA.phone, "user_id": user_id_of(ANA), "message_id": "wamid.M"}


@pytest.mark.parametrize("person", [ANA, FINN], ids=["with a phone", "by a user id alone"])
def test_the_library_reads_what_a_person_writes_in_the_simulator(library, person):
    webhook = SIMULATOR.message(ACCOUNT, person, SimulatedMessage("Hello", "wamid.M", AT))
    message = read(library, webhook.body)
    assert (message.text, message.id, message.timestamp) == ("Hello", "wamid.M", AT)
    user = message.from_user
    assert (user.name, user.bsuid) == (person.name, user_id_of(person))
    assert user.wa_id == (person.phone if person.shows_phone else None)


@pytest.mark.parametrize("status", list(SIMULATOR.receipts), ids=str)
def test_the_library_reads_each_status(library, status):
    taken = AcceptedMessage("wamid.S", ANA.phone, "Hello", our_message_id="7")
    update = read(library, SIMULATOR.receipt(ACCOUNT, taken, status, AT).body)
    assert (update.id, update.status.value, update.tracker) == ("wamid.S", status.value, "7")
    assert (update.from_user.wa_id, update.from_user.bsuid) == (ANA.phone, user_id_of(ANA))
    assert (update.error is not None) == (status is ReceiptStatus.FAILED)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (whatsapp.text("Hi", reply_to="wamid.Q", **who()), lambda m: m.reply_to_message.message_id == "wamid.Q"),
        (whatsapp.media("image", caption="A cat", **who()), lambda m: m.image and m.caption == "A cat"),
        (whatsapp.media("document", filename="a.pdf", **who()), lambda m: m.document.filename == "a.pdf"),
        (whatsapp.media("audio", voice=True, **who()), lambda m: m.audio.voice),
        (whatsapp.location(-12.0, -77.0, name="Lima", **who()), lambda m: m.location.name == "Lima"),
        (whatsapp.reaction("wamid.Q", "👍", **who()), lambda m: m.reaction.emoji == "👍"),
        (whatsapp.button_reply("Small", "s", **who()), lambda m: (m.title, m.data) == ("Small", "s")),
        (whatsapp.list_reply("Large", "l", "for two", **who()), lambda m: (m.title, m.data) == ("Large", "l")),
        (whatsapp.edited("wamid.Q", "Hello", **who()), lambda m: m.original_message_id == "wamid.Q"),
        (whatsapp.revoked("wamid.Q", **who()), lambda m: m.original_message_id == "wamid.Q"),
    ],
    ids=["quote", "image", "document", "voice", "location", "reaction", "button", "list", "edit", "deletion"],
)
def test_the_library_reads_each_kind_of_message(library, message, says):
    if message["type"] == "interactive":
        message = {**message, "context": {"from": whatsapp.DISPLAY_PHONE_NUMBER, "id": "wamid.Q"}}
    assert says(read(library, of_ana(message)))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("house.jpg", lambda m: m.image.mime_type == "image/jpeg" and m.caption == "Here"),
        ("note.ogg", lambda m: m.audio.voice and m.audio.mime_type == "audio/ogg; codecs=opus"),
        ("song.mp3", lambda m: not m.audio.voice and m.audio.mime_type == "audio/mpeg"),
        ("clip.mp4", lambda m: m.video.mime_type == "video/mp4" and m.caption == "Here"),
        ("plan.pdf", lambda m: m.document.filename == "plan.pdf" and m.caption == "Here"),
    ],
)
def test_the_library_reads_each_file_that_a_person_sends_from_the_phone(library, name, says):
    kind, content_type = kind_and_type(name)
    file = PhoneFile(kind, content_type, name, "123456789012345", "", hashlib.sha256(b"").hexdigest(), 1)
    caption = "Here" if kind in SIMULATOR.captions else ""
    message = read(library, SIMULATOR.message(ACCOUNT, ANA, SimulatedMessage(caption, "wamid.M", AT, file=file)).body)
    assert says(message)
    media = message.media
    assert (media.id, base64.b64decode(media.sha256)) == ("123456789012345", hashlib.sha256(b"").digest())


def test_the_library_accepts_the_signature():
    webhook = signed_by_meta(whatsapp.payload(ACCOUNT.address, messages=[whatsapp.text("Hello, mañana")]), "secret")
    given = webhook.headers["X-Hub-Signature-256"]
    assert webhook_updates_validator(app_secret="secret", request_body=webhook.body, x_hub_signature=given)
    assert not webhook_updates_validator(app_secret="other", request_body=webhook.body, x_hub_signature=given)
