"""Erasing a person, table by table: what is theirs goes and is counted; what is somebody else's stays."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.urls import reverse
from django.utils import timezone

from conversations.admin.contacts import ContactAdmin
from conversations.models import (
    Activity,
    Attachment,
    ChannelAccount,
    Chunk,
    Contact,
    ContactIdentity,
    Conversation,
    ConversationEvent,
    Correction,
    EngineChat,
    IdempotencyKey,
    InboundEvent,
    Message,
    Proposal,
    Rating,
    SavedView,
    SendPause,
    SimulatedExchange,
    StaffAction,
    StaffNote,
    Step,
    ToolCall,
    Turn,
)
from conversations.services.core.errors import ConflictError, NotFoundError
from conversations.services.core.ledger import SYSTEM
from conversations.services.delivery import opt_outs
from conversations.services.retention import erasure, holds, retention
from memory.models import Memory
from tests import factories
from tests.conversations.test_retention import keep, payload
from tests.conversations.whole_life import WORDS, a_life, everything_else, tables_of_a_person, traces
from tests.races.threads import eventually, together, waits_for_a_lock

pytestmark = pytest.mark.django_db

NUMBER = "51999000077"
COUNTED = {
    "sessions": Conversation,
    "chunks": Chunk,
    "steps": Step,
    "events": ConversationEvent,
    "messages": Message,
    "turns": Turn,
    "tool_calls": ToolCall,
    "activities": Activity,
    "attachments": Attachment,
    "staff_notes": StaffNote,
    "ratings": Rating,
    "proposals": Proposal,
    "corrections": Correction,
    "remembered": Memory,
    "chats": EngineChat,
    "addresses": ContactIdentity,
    "inbound_events": InboundEvent,
    "simulated_exchanges": SimulatedExchange,
    "send_pauses": SendPause,
    "idempotency_keys": IdempotencyKey,
    "saved_views": SavedView,
}


@pytest.fixture
def zeb(shop: Any) -> Contact:
    """Somebody with a phone."""
    return factories.ContactFactory(client=shop, user_id="zeb-77", phone=f"+{NUMBER}", is_guest=False, name="Zebulon")


def erase(contact: Contact) -> dict[str, int]:
    """Erase the contact and return what the certificate will count."""
    return erasure.begin(contact.pk, actor=SYSTEM, now=timezone.now()).removed


def sms_of(client: Any) -> ChannelAccount:
    return ChannelAccount.objects.get(client=client, channel="sms")


def left(model: Any) -> set[Any]:
    return set(model.objects.values_list("pk", flat=True))


# --- all tables -------------------------------------------------------------------------------------------------------
def test_no_table_that_can_name_a_person_does_so_afterwards_and_each_count_is_what_went(door):
    contact = a_life(door)
    everything_else(contact)
    door.says("I am Bob", user_id="bob")
    sessions = Conversation.objects.filter(contact=contact).values_list("pk", flat=True)
    turns = Turn.objects.filter(conversation__in=sessions).values_list("pk", flat=True)
    ids = tuple(map(str, (contact.pk, *sessions, *turns)))
    before = {name: model.objects.count() for name, model in COUNTED.items()}
    reached = {*traces(), *traces(ids), "memory_vectors"}  # of vectors in test_erasing.py, where there is a Pinecone
    assert set(tables_of_a_person()) <= reached, "a table that nothing is written to here"

    removed = erase(contact)

    assert traces() == {}
    # The audit logs keep on whom something was done; the rest is what is still to be deleted at providers.
    # Who reads the events is told which contact to forget, by its id.
    left = {"erasures", "engine_chat_removals", "media_removals"}
    kept = {"staff_actions", "django_admin_log", "event_notes", "audit_entries"} | left
    assert traces(ids).keys() <= kept
    assert removed.pop("vectors") == 0
    assert removed == {name: before[name] - model.objects.count() for name, model in COUNTED.items()}
    assert min(removed.values()) > 0, "a count that is zero shows nothing"


def test_the_answers_that_went_with_their_conversation_are_counted(door, shop):
    said = door.says("Hello", user_id="zeb-77")
    for number in range(3):
        path = f"/conversations/{said['conversation_id']}/steps"
        door.call("POST", path, {"description": "Ask"}, **{"Idempotency-Key": f"step {number}"})
    assert erase(Contact.objects.get())["idempotency_keys"] == 3
    assert not IdempotencyKey.objects.exists()


# --- rows of no conversation ------------------------------------------------------------------------------------------
def test_raw_payloads_that_name_the_person_go(shop, neighbour, zeb):
    named = {"from": NUMBER}
    payload(shop, 0, **named)
    payload(None, 0, **named)
    InboundEvent.objects.create(client=shop, provider="p", kind="k", reason="r", message_id=f"of {NUMBER}")
    stay = {payload(shop, 0, sender="51999000078").pk, payload(neighbour, 0, **named).pk}
    assert erase(zeb)["inbound_events"] == 3
    assert left(InboundEvent) == stay


def test_simulated_exchanges_that_name_the_person_go(shop, neighbour, zeb):
    def exchange(client: Any, **where: str) -> Any:
        given = {"kind": "message", "method": "POST", "address": "/", **where}
        return SimulatedExchange.objects.create(account=sms_of(client), **given).pk

    for field in ("text", "body", "answer", "address"):
        exchange(shop, **{field: f"/to/{NUMBER}"})
    stay = {exchange(shop, text="51999000078"), exchange(neighbour, text=NUMBER)}
    assert erase(zeb)["simulated_exchanges"] == 4
    assert left(SimulatedExchange) == stay


def test_pauses_for_the_person_s_address_go_and_no_others(shop, neighbour, zeb):
    def pause(client: Any, to: str) -> Any:
        return SendPause.objects.create(channel_account=sms_of(client), to_address=to, until=timezone.now()).pk

    pause(shop, NUMBER)
    stay = {pause(shop, ""), pause(shop, "51999000078"), pause(neighbour, NUMBER)}
    assert erase(zeb)["send_pauses"] == 1
    assert left(SendPause) == stay


def test_kept_answers_that_name_the_person_go_and_a_stranger_s_stay(shop, neighbour, zeb):
    expires_at = timezone.now() + timedelta(hours=1)
    theirs = factories.ConversationFactory(client=shop, contact=zeb)
    stranger_s = factories.ConversationFactory(client=shop)

    def kept(client: Any, key: str, **more: Any) -> Any:
        return IdempotencyKey.objects.create(client=client, key=key, fingerprint=b"", expires_at=expires_at, **more).pk

    kept(shop, "order of zeb-77")
    kept(shop, "1", answer=f'{{"phone": "+{NUMBER}"}}')
    kept(shop, "2", conversation=theirs)
    stay = {
        kept(shop, "3", answer='{"phone": "+51999000078"}'),
        kept(shop, "4", conversation=stranger_s, answer="zeb-77"),
        kept(neighbour, "order of zeb-77"),
    }
    assert erase(zeb)["idempotency_keys"] == 3
    assert left(IdempotencyKey) == stay


@pytest.mark.parametrize("known_as", ["user id", "phone", "address", "alias"])
def test_a_person_is_found_by_each_of_their_names(shop, known_as):
    contact = factories.ContactFactory(client=shop, user_id="somebody")
    if known_as == "user id":
        Contact.objects.filter(pk=contact.pk).update(user_id="the-name")
    elif known_as == "phone":
        Contact.objects.filter(pk=contact.pk).update(phone=f"+{NUMBER}", is_guest=False)
    elif known_as == "address":
        ContactIdentity.objects.create(contact=contact, client=shop, channel="orb", kind="device", address="the-name")
    else:
        factories.ContactFactory(client=shop, user_id="the-name", is_guest=False, merged_into=contact)
    payload(shop, 0, sender=NUMBER if known_as == "phone" else "the-name")
    assert erase(contact)["inbound_events"] == 1


def test_a_name_of_unusual_letters_is_found_and_is_no_pattern(shop):
    name = 'z%b_c"d\\é'
    contact = factories.ContactFactory(client=shop, user_id=name)
    payload(shop, 0, sender=name)
    SendPause.objects.create(channel_account=sms_of(shop), to_address=name, until=timezone.now())
    stay = {payload(shop, 0, sender=name.replace("%", "--")).pk, payload(shop, 0, sender=name.replace("_", "-")).pk}
    removed = erase(contact)
    assert (removed["inbound_events"], removed["send_pauses"]) == (1, 1)
    assert left(InboundEvent) == stay


def test_a_name_in_another_script_is_found_as_it_is_and_as_its_sender_escaped_it(shop):
    contact = factories.ContactFactory(client=shop, user_id="Зебулон")
    payload(shop, 0, sender="Зебулон")
    payload(shop, 0, body='{"sender": "\\u0417\\u0435\\u0431\\u0443\\u043b\\u043e\\u043d"}')
    assert erase(contact)["inbound_events"] == 2


def test_a_name_that_is_so_short_that_it_stands_everywhere_takes_nothing_along(shop):
    contact = factories.ContactFactory(client=shop, user_id="on")
    stays = payload(shop, 0, sender="someone")
    erase(contact)
    assert left(InboundEvent) == {stays.pk}


def test_audit_logs_lose_the_person_s_name_and_keep_what_was_done_to_others(door, shop):
    contact = a_life(door)
    everything_else(contact)
    other = factories.ContactFactory(client=shop, user_id="somebody")
    told = {"user_name": "mona", "verb": "changed", "object_name": "Somebody", "changes": {"name": ["", "B"]}}
    of_other = StaffAction.objects.create(client=shop, object_type="contact", object_id=str(other.pk), **told)
    of_account = StaffAction.objects.create(client=shop, object_type="api key", object_id=str(contact.pk), **told)
    erase(contact)
    assert StaffAction.objects.filter(object_name=erasure.ERASED, changes={}).count() == 2
    assert LogEntry.objects.filter(object_repr=erasure.ERASED, change_message="").count() == 2
    for kept in (of_other, of_account):
        kept.refresh_from_db()
        assert (kept.object_name, kept.changes) == ("Somebody", {"name": ["", "B"]})


# --- what comes meanwhile ---------------------------------------------------------------------------------------------
@pytest.mark.django_db(transaction=True)
def test_a_hold_that_is_set_while_its_person_is_erased_keeps_the_conversation_or_is_refused(door, monkeypatch):
    conversation_id = door.says("Hello", user_id="zeb-77")["conversation_id"]
    contact = Contact.objects.get()
    counts, counted, answers = erasure.preview, [], []

    def slowly(person: Contact) -> dict[str, int]:
        counted.append(person)
        eventually(lambda: answers or waits_for_a_lock(), "the hold is set, or waits for the erasure")
        return counts(person)

    def hold() -> None:
        eventually(lambda: counted, "the erasure counts")
        try:
            holds.hold(conversation_id, reason="Case 4711", actor=SYSTEM)
            answers.append("held")
        except NotFoundError:
            answers.append("not found")

    def erase_meanwhile() -> str:
        try:
            erase(contact)
        except ConflictError:
            return "refused"
        return "erased"

    monkeypatch.setattr(erasure, "preview", slowly)
    erased, _ = together(erase_meanwhile, hold)
    ended = (erased, answers, Conversation.objects.exists())
    assert ended in [("erased", ["not found"], False), ("refused", ["held"], True)], "held, and deleted all the same"


def test_a_hold_that_is_set_during_a_run_keeps_the_payloads_that_are_left(shop, monkeypatch):
    contact = factories.ContactFactory(client=shop, user_id="zebulon")
    keep(shop, "events", 5)
    monkeypatch.setattr("conversations.services.retention.deletions.BATCH", 1)
    oldest, newer = payload(shop, 9, sender="zebulon"), payload(shop, 8, sender="zebulon")

    def after_a_batch(_rule: str, _count: int) -> None:
        holds.set_contact_hold(contact.client_id, contact.pk, "Case 4711")

    retention.run(timezone.now(), by="test", rules=["events"], progress=after_a_batch)
    assert left(InboundEvent) == {newer.pk}
    assert oldest.pk != newer.pk


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("meanwhile", ["opted out", "erased"])
def test_a_manager_s_hold_writes_nothing_but_the_hold(shop, manager, zeb, monkeypatch, meanwhile):
    """The page was read before something happened to the person, and is saved after it."""
    read = ContactAdmin.save_form

    def opt_out(person: Contact) -> None:
        opt_outs.opt_out(person.pk, "sms", reason="told us", actor=SYSTEM, now=timezone.now())

    def happens(*given: Any, **more: Any) -> Any:
        form = read(*given, **more)
        together(partial(erase if meanwhile == "erased" else opt_out, zeb))
        return form

    monkeypatch.setattr(ContactAdmin, "save_form", happens)
    page = reverse("admin:conversations_contact_change", args=[zeb.pk])
    assert manager.post(page, {"hold_reason": "Case 4711"}).status_code == 302
    if meanwhile == "erased":
        assert not Contact.objects.exists(), "nobody comes back"
        assert not traces(WORDS)
    else:
        zeb.refresh_from_db()
        assert (zeb.hold_reason, list(zeb.opted_out)) == ("Case 4711", ["sms"])
