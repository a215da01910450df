"""Erasing a person: afterwards nothing of them is found anywhere, and the certificate says what was removed."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse
from django.utils import timezone

from channels_out import retell as retell_api
from conversations.models import (
    Chunk,
    Contact,
    Conversation,
    EngineChat,
    EngineChatRemoval,
    Erasure,
    InboundEvent,
    Membership,
    MessageTombstone,
)
from conversations.services.core.errors import ConflictError, InvalidError, NotFoundError
from conversations.services.core.ledger import SYSTEM
from conversations.services.jobs import sweep
from conversations.services.replies import chat_endings
from conversations.services.retention import erasure as erasing
from conversations.services.retention import retention
from memory.models import Memory, MemoryVector
from tests.conftest import reply_to_all
from tests.conversations.back_office import sign_in
from tests.conversations.retell_shop import answers_by_retell
from tests.conversations.whole_life import PHONE, a_life, traces
from tests.fakes.openai import FakeOpenAI
from tests.fakes.pinecone import FakePinecone
from tests.fakes.retell import FakeRetell
from tests.fakes.server import Fault, Reply


@pytest.fixture
def index(settings: Any) -> Iterator[FakePinecone]:
    """Pinecone, and the model it needs."""
    with FakeOpenAI(api_key="sk") as model, FakePinecone(api_key="pc") as fake:
        model.reply = lambda _messages: "Zebulon asked about the Quagmire."
        settings.OPENAI_API_KEY, settings.OPENAI_BASE_URL = "sk", model.base_url
        settings.PINECONE_API_KEY, settings.PINECONE_HOST = "pc", fake.url
        yield fake


def test_nothing_of_the_person_is_left_anywhere_and_the_certificate_says_how_much_it_was(door, neighbour, index):
    contact = a_life(door)
    bob = door.says("I am Bob", user_id="bob", phone="+51999000078")["conversation_id"]
    InboundEvent.objects.create(client=contact.client, provider="whatsapp", kind="x", reason="y", raw={"from": "51"})
    assert len(traces()) >= 8
    assert MemoryVector.objects.exists()

    counted = erasing.preview(contact)
    erasure = erasing.begin(contact.pk, actor=SYSTEM, now=timezone.now(), client=contact.client)
    assert erasing.continue_erasures(timezone.now()) == 1

    assert traces() == {}
    assert not Memory.objects.exists()
    assert index.vectors(str(contact.client_id)) == {}
    assert Conversation.objects.get().pk.hex == bob.replace("-", "")
    assert InboundEvent.objects.count() == 1
    facts = erasing.verify(Erasure.objects.get().certificate)
    assert facts["removed"] == counted == erasure.removed
    assert (counted["sessions"], counted["remembered"], counted["inbound_events"]) == (2, 1, 1)
    assert facts["contact"] == erasing.hash_id(contact.pk)
    assert str(contact.pk) not in json.dumps(facts)


def test_pinecone_is_asked_for_proof_and_finds_what_the_ledger_does_not_know(door, index):
    contact = a_life(door)
    namespace = str(contact.client_id)
    known = next(iter(index.vectors(namespace).values()))
    index.namespaces[namespace]["stray"] = known  # of the contact's, and nobody wrote it down
    erasing.begin(contact.pk, actor=SYSTEM, now=timezone.now())
    assert erasing.continue_erasures(timezone.now()) == 0
    assert Erasure.objects.get().problem.startswith("still_there")
    assert erasing.continue_erasures(timezone.now()) == 1
    assert index.vectors(namespace) == {}
    asked = [call.json()["filter"] for call in index.calls("/query")]
    assert asked
    assert asked == [{"contact_id": {"$eq": str(contact.pk)}}] * len(asked)
    assert index.calls("/vectors/fetch")
    facts = erasing.verify(Erasure.objects.get().certificate)
    assert facts["proof"]["vectors"] == {"asked_for": 2, "found": 0, "asked_by": "id, and by contact"}


def test_a_delete_that_pinecone_only_claims_to_have_done_is_found_out(door, index, monkeypatch):
    contact = a_life(door)
    erasing.begin(contact.pk, actor=SYSTEM, now=timezone.now())
    with monkeypatch.context() as lying:
        lying.setattr(FakePinecone, "_delete", lambda *_: Reply())
        assert erasing.continue_erasures(timezone.now()) == 0
        assert not MemoryVector.objects.exists(), "the ledger believed it"
        assert Erasure.objects.get().problem.startswith("still_there")
    assert erasing.continue_erasures(timezone.now()) == 0, "found, and deleted"
    assert erasing.continue_erasures(timezone.now()) == 1
    assert index.vectors(str(contact.client_id)) == {}


def test_memory_of_a_session_that_is_gone_already_is_erased_too(door, index):
    contact = a_life(door)
    Conversation.objects.exclude(ended_at=None).delete()
    assert Memory.objects.filter(contact_id=contact.pk).exists()
    erasing.begin(contact.pk, actor=SYSTEM, now=timezone.now())
    assert erasing.continue_erasures(timezone.now()) == 1
    assert not Memory.objects.exists()
    assert index.vectors(str(contact.client_id)) == {}


@pytest.fixture
def retell(shop, settings):
    with FakeRetell() as fake:
        answers_by_retell(shop, settings, fake)
        yield fake


def test_chats_at_retell_are_deleted_there_and_the_certificate_says_so(door, shop, retell):
    contact = a_life(door)
    bob = door.says("I am Bob", user_id="bob", phone="+51999000078")["conversation_id"]
    reply_to_all()
    assert len(retell.chats) == 2
    theirs = list(EngineChat.objects.filter(conversation__contact=contact).values_list("chat_id", flat=True))
    assert erasing.preview(contact)["chats"] == 1

    retell.fail_next(Fault(status=503))
    erasing.begin(contact.pk, actor=SYSTEM, now=timezone.now())
    assert erasing.continue_erasures(timezone.now()) == 0
    assert "retell http_503" in Erasure.objects.get().problem
    assert erasing.continue_erasures(timezone.now()) == 1
    assert list(retell.chats) == list(EngineChat.objects.filter(conversation=bob).values_list("chat_id", flat=True))
    facts = erasing.verify(Erasure.objects.get().certificate)
    assert facts["chats"] == [erasing.hash_id(chat_id) for chat_id in theirs]
    assert facts["proof"]["chats"] == {"asked_for": 1, "found": 0, "asked_by": "id"}
    erasing.continue_erasures(timezone.now() + timedelta(hours=2))
    assert not EngineChatRemoval.objects.exists()


def test_chats_of_deleted_guests_go_at_retell_as_well(door, retell):
    door.says("Hello")
    reply_to_all()
    sweep.sweep(timezone.now() + timedelta(days=2))
    assert not Conversation.objects.exists()
    EngineChatRemoval.objects.update(due_at=timezone.now())  # the sweep was that of a later day
    assert chat_endings.is_pending()
    assert chat_endings.settle_due() == 1
    assert (retell.chats, EngineChatRemoval.objects.count()) == ({}, 0)


def test_a_chat_that_is_opened_while_its_person_is_erased_is_deleted_too(door, retell, monkeypatch):
    door.says("Hello", user_id="zeb-77")
    contact = Contact.objects.get(user_id="zeb-77")
    create = retell_api.create_chat

    def meanwhile(*given, **more):
        made = create(*given, **more)
        erasing.begin(contact.pk, actor=SYSTEM, now=timezone.now())
        return made

    monkeypatch.setattr(retell_api, "create_chat", meanwhile)
    reply_to_all()
    assert len(retell.chats) == 1
    chat_endings.settle_due()
    assert retell.chats == {}


LATE = Fault(hang=60, cut="after")  # what was asked for is done, and nobody hears of it


@pytest.mark.parametrize(
    "fault",
    [Fault(cut="before"), Fault(cut="after"), Fault(status=503), LATE],
    ids=["cut before", "cut after", "503", "late"],
)
def test_it_may_break_off_at_every_request_and_the_end_is_the_same(door, index, retell, settings, fault):
    """One request after the other fails, at Pinecone and at Retell: each go gets a little further."""
    contact = a_life(door)
    settings.PINECONE_TIMEOUT_SECONDS = settings.RETELL_TIMEOUT_SECONDS = 0.3 if fault is LATE else 20
    client = str(contact.client_id)
    erasing.begin(contact.pk, actor=SYSTEM, now=timezone.now())
    assert traces().keys() == set(), "what needs no network is gone at once"
    index.fail_next(fault, times=4)
    retell.fail_next(fault, times=4)
    goes = 1
    while not erasing.continue_erasures(timezone.now()):
        goes += 1
        assert goes < 20
    assert goes > 1
    assert (index.vectors(client), retell.chats, traces()) == ({}, {}, {})
    facts = erasing.verify(Erasure.objects.get().certificate)
    assert (facts["removed"]["vectors"], facts["removed"]["chats"]) == (2, 1)


def test_an_old_message_that_comes_again_opens_nothing_either(door):
    door.says("Hello", message_id="m1")
    Chunk.objects.update(created_at=timezone.now() - timedelta(days=9))
    erasing.begin(Contact.objects.get().pk, actor=SYSTEM, now=timezone.now())
    again = door.says("Hello", message_id="m1")
    assert (again["status"], again["duplicate"]) == ("deleted", True)
    assert not Conversation.objects.exists()


def test_what_is_delivered_again_opens_nothing_and_who_writes_again_is_somebody_new(door):
    contact = a_life(door)
    erasing.begin(contact.pk, actor=SYSTEM, now=timezone.now())
    assert MessageTombstone.objects.count() == 2
    again = door.says("My Quagmire leaks", message_id="m1", user_id="zeb-77")
    assert (again["duplicate"], again["status"], again["conversation_id"]) == (True, "deleted", None)
    new = door.says("It is me", message_id="m3", user_id="zeb-77")
    assert (new["created"], new["is_guest"]) == (True, True)


def test_it_goes_on_when_the_provider_is_there_again(door, index, settings):
    contact = a_life(door)
    settings.PINECONE_API_KEY = "wrong"
    erasing.begin(contact.pk, actor=SYSTEM, now=timezone.now())
    assert erasing.continue_erasures(timezone.now()) == 0
    unfinished = Erasure.objects.get()
    assert unfinished.problem.startswith("unauthorized")
    assert not Memory.objects.exists(), "the text is gone at once"
    assert erasing.pending()

    settings.PINECONE_API_KEY = "pc"
    assert erasing.continue_erasures(timezone.now()) == 1
    assert index.vectors(str(contact.client_id)) == {}
    erasure = Erasure.objects.get()
    assert erasure.problem == ""
    assert erasing.verify(erasure.certificate)["sessions"] == sorted(map(erasing.hash_id, unfinished.sessions))


def test_what_a_process_remembers_late_is_forgotten_too_and_then_the_ids_go(door):
    contact = a_life(door)
    session = Conversation.objects.exclude(ended_at=None).get()
    late = Memory.objects.get()
    erasing.begin(contact.pk, actor=SYSTEM, now=timezone.now())
    erasing.continue_erasures(timezone.now())
    late.save(force_insert=True)
    assert erasing.continue_erasures(timezone.now() + timedelta(minutes=30)) == 0
    assert not Memory.objects.filter(pk=session.pk).exists()
    erasing.continue_erasures(timezone.now() + timedelta(hours=2))
    erasure = Erasure.objects.get()
    assert (erasure.contact, erasure.sessions) == (None, [])
    assert not erasing.pending()
    assert erasing.verify(erasure.certificate)["sessions"]


def test_who_must_be_kept_is_neither_erased_nor_purged(door):
    door.says("Hello", user_id="guest")
    guest = Contact.objects.get()
    Contact.objects.update(hold_reason="Case 4711")
    with pytest.raises(ConflictError, match="Case 4711"):
        erasing.begin(guest.pk, actor=SYSTEM, now=timezone.now())
    late = timezone.now() + timedelta(days=60)
    sweep.sweep(late)
    assert retention.count_guests_due(late) == (0, [])
    assert Conversation.objects.count() == Contact.objects.count() == 1
    Contact.objects.update(hold_reason="")
    assert retention.purge_guests(late) == 1


def test_another_clients_contact_is_not_there(door, neighbour):
    contact = a_life(door)
    with pytest.raises(NotFoundError):
        erasing.begin(contact.pk, actor=SYSTEM, now=timezone.now(), client=neighbour)
    with pytest.raises(CommandError, match="no such contact"):
        call_command("erase_contact", client=neighbour.sub_domain, user_id="zeb-77")
    assert Contact.objects.filter(pk=contact.pk).exists()


def test_a_certificate_that_was_changed_is_not_ours(door):
    erasing.begin(a_life(door).pk, actor=SYSTEM, now=timezone.now())
    erasing.continue_erasures(timezone.now())
    certificate = Erasure.objects.get().certificate
    for changed in (certificate[:-1] + ("A" if certificate[-1] != "A" else "B"), "", "nonsense", certificate[4:]):
        with pytest.raises(InvalidError):
            erasing.verify(changed)


def test_a_certificate_names_whom_it_is_about_to_who_knows_the_id(door, settings, monkeypatch, capsys):
    contact = a_life(door)
    session = contact.conversations.first().pk
    out = io.StringIO()
    call_command("erase_contact", client="shop", contact=str(contact.pk), stdout=out)

    def verify(about):
        monkeypatch.setattr("sys.stdin", io.StringIO(out.getvalue()))
        call_command("verify_certificate", about=about)
        return capsys.readouterr().err.splitlines()[-1]

    old, settings.SECRET_KEY = settings.SECRET_KEY, "another key " * 5
    with pytest.raises(CommandError, match="SECRET_KEY_FALLBACKS"):
        verify(str(contact.pk))
    settings.SECRET_KEY_FALLBACKS = [old]
    assert verify(str(contact.pk)) == "It names the contact of this id."
    assert verify(str(session)) == "It names the session of this id."
    for nobody in (str(uuid4()), "", "None"):
        with pytest.raises(CommandError, match="names nothing of this id"):
            verify(nobody)


def test_the_commands_count_erase_and_verify(door, shop, monkeypatch, capsys):
    a_life(door)
    call_command("erase_contact", client=shop.sub_domain, user_id="zeb-77", dry_run=True)
    assert "sessions: 2" in capsys.readouterr().err
    assert Contact.objects.exists()
    out = io.StringIO()
    call_command("erase_contact", client=shop.sub_domain, user_id="zeb-77", stdout=out)
    assert traces() == {}
    monkeypatch.setattr("sys.stdin", io.StringIO(out.getvalue()))
    said = io.StringIO()
    call_command("verify_certificate", stdout=said)
    assert json.loads(said.getvalue())["removed"]["sessions"] == 2


@pytest.mark.parametrize(("role", "may"), [(Membership.Role.AGENT, False), (Membership.Role.MANAGER, True)])
def test_managers_erase_in_the_back_office(door, shop, role, may):
    contact = a_life(door)
    http = sign_in("mona", shop, role)
    page = reverse("admin:conversations_contact_change", args=[contact.pk])
    assert "2 conversations" in http.get(page).content.decode()
    erase = reverse("admin:conversations_contact_erase", args=[contact.pk])
    assert ("2 conversations" in http.get(erase).content.decode()) is may, "what it would remove, where it is asked"
    answer = http.post(erase)
    assert Contact.objects.filter(pk=contact.pk).exists() is not may
    if may:
        erasing.continue_erasures(timezone.now())
        shown = http.get(answer["Location"]).content.decode()
        assert "finished" in shown
        assert Erasure.objects.get().certificate in shown
        assert "The signature is valid." in shown
        assert "&quot;asked_by&quot;: &quot;mona&quot;" in shown
        assert traces() == {}
    else:
        assert answer.status_code == 403


def test_a_manager_puts_somebody_on_hold(door, shop):
    contact = a_life(door)
    http = sign_in("mona", shop, Membership.Role.MANAGER)
    page = reverse("admin:conversations_contact_change", args=[contact.pk])
    assert http.post(page, {"hold_reason": "Case 4711"}).status_code == 302
    contact.refresh_from_db()
    assert (contact.hold_reason, contact.name, contact.phone) == ("Case 4711", "Zebulon", PHONE)
    erase = reverse("admin:conversations_contact_erase", args=[contact.pk])
    assert "Case 4711" in http.post(erase, follow=True).content.decode()
    assert Contact.objects.filter(pk=contact.pk).exists()
