"""The audit chain: what staff and programs did, hash-chained for each client, and verified from an export alone."""

from __future__ import annotations

import json
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client as HttpClient
from django.urls import reverse
from django.utils import timezone

from conversations.models import AuditEntry, Client, Contact, Conversation, ConversationEvent, StaffAction
from conversations.services.core import audit_chain, ledger
from conversations.services.core.errors import InvalidError
from conversations.services.core.ledger import SYSTEM, Actor
from conversations.services.retention import erasure
from conversations.services.transitions import closing, takeover
from convo_project import env
from convo_project.verify_audit import BrokenChainError, verify
from tests import factories
from tests.conftest import Door
from tests.races.threads import together

pytestmark = pytest.mark.django_db


def did(client: Client | None, verb: str, **more: Any) -> AuditEntry:
    usual = {"actor": "staff", "actor_id": 7, "object_type": "apikey", "object_id": 1, **more}
    return audit_chain.append(client.pk if client else None, verb=verb, **usual)


def exported(client: Client) -> list[str]:
    out = StringIO()
    call_command("export_audit", "--client", client.sub_domain, stdout=out)
    return out.getvalue().splitlines()


def test_a_chain_is_verified_and_each_client_has_its_own(shop: Client, neighbour: Client) -> None:
    for number in range(3):
        did(shop, f"added {number}", fields=["name", "Ä"])
        did(neighbour, "added")
    did(None, "installed")
    lines = exported(shop)
    number, head = verify(lines)
    assert number == 3
    assert head == bytes(AuditEntry.objects.get(client=shop, number=3).hash).hex()
    assert verify(lines, head=json.loads(lines[1])["hash"]) == (3, head)
    assert verify(exported(neighbour))[0] == 3
    assert verify([]) == (0, "0" * 64)


@pytest.mark.parametrize(
    "tamper",
    [
        lambda lines: [lines[0], lines[1].replace("added 1", "added 9"), lines[2]],
        lambda lines: [lines[0], lines[2]],
        lambda lines: [lines[1], lines[0], lines[2]],
        lambda lines: [*lines, lines[2]],
        lambda lines: [lines[0], "nonsense", lines[2]],
        lambda lines: [lines[0], lines[1].replace('"number": 2', '"number": 2, "more": 1'), lines[2]],
    ],
)
def test_what_was_tampered_with_is_noticed(shop: Client, tamper: Any) -> None:
    for number in range(3):
        did(shop, f"added {number}")
    lines = exported(shop)
    with pytest.raises(BrokenChainError):
        verify(tamper(lines))


def test_a_chain_that_was_cut_off_is_noticed_by_an_earlier_head(shop: Client) -> None:
    did(shop, "added")
    did(shop, "revoked")
    head = verify(exported(shop))[1]
    AuditEntry.objects.filter(number=2).delete()
    assert verify(exported(shop))[0] == 1
    with pytest.raises(BrokenChainError, match="cut off"):
        verify(exported(shop), head=head)


def test_the_script_verifies_a_file_alone(shop: Client, tmp_path: Path) -> None:
    did(shop, "added")
    file = tmp_path / "audit.jsonl"
    file.write_text("\n".join(exported(shop)))

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-S", "-m", "convo_project.verify_audit", str(file)]
        return subprocess.run(command, cwd=env.PROJECT, capture_output=True, text=True, check=False)

    assert run().returncode == 0
    assert "1 entries, unbroken" in run().stdout
    file.write_text(file.read_text().replace("added", "edited"))
    assert run().returncode == 1
    assert "Entry 1 was changed" in run().stderr


def test_what_staff_and_programs_do_is_in_the_chain(door: Door, manager: HttpClient) -> None:
    manager.post(reverse("admin:conversations_apikey_add"), {"client": str(door.shop.pk), "name": "crm"})
    pk = door.says("Hello")["conversation_id"]
    assert door.call("POST", f"/conversations/{pk}/takeover", {})[0] == 200
    close = {"Idempotency-Key": "once"}
    for _ in range(2):
        assert door.call("POST", f"/conversations/{pk}/close", {}, **close)[0] == 200
    assert door.call("POST", f"/conversations/{pk}/takeover", {})[0] == 409
    entries = [json.loads(line) for line in exported(door.shop)]
    assert [(each["actor"], each["verb"], each["object_type"]) for each in entries] == [
        ("staff", "added", "apikey"),
        ("api", "takeover", "conversation"),
        ("api", "close", "conversation"),
    ]
    assert entries[1]["object_id"] == pk
    assert entries[1]["actor_id"] == door.key[:12]
    assert verify(exported(door.shop))[0] == 3


def meanwhile(monkeypatch: pytest.MonkeyPatch, change: Any, error: Exception | None = None) -> None:
    """Somebody else changes something while a request is about to close a conversation."""
    real = closing.close

    def close(*args: Any, **more: Any) -> Any:
        change()
        if error:
            raise error
        return real(*args, **more)

    monkeypatch.setattr(closing, "close", close)


def test_what_happens_meanwhile_in_another_conversation_is_no_deed_of_a_request_that_changes_nothing(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    pk = door.says("Hello")["conversation_id"]
    assert door.call("POST", f"/conversations/{pk}/close", {})[0] == 200
    before = exported(door.shop)
    meanwhile(monkeypatch, lambda: door.says("Hello", user_id="bob"))
    assert door.call("POST", f"/conversations/{pk}/close", {})[0] == 200
    assert exported(door.shop) == before


@pytest.mark.parametrize("who", ["a colleague", "a colleague of the key's name", "another key", "the key, elsewhere"])
def test_what_others_do_meanwhile_is_no_deed_of_a_request_that_changes_nothing(
    door: Door, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    pk, elsewhere = (door.says("Hello", user_id=name)["conversation_id"] for name in ("ann", "bob"))
    assert door.call("POST", f"/conversations/{pk}/close", {})[0] == 200
    own = ConversationEvent.objects.filter(conversation=pk, actor="api").latest("id").actor_name
    before = exported(door.shop)
    where, actor = {
        "a colleague": (pk, Actor("staff", "boss")),
        "a colleague of the key's name": (pk, Actor("staff", own)),
        "another key": (pk, Actor("api", f"another {own}")),
        "the key, elsewhere": (elsewhere, Actor("api", own)),
    }[who]
    meanwhile(monkeypatch, lambda: ledger.record(Conversation.objects.get(pk=where), "redacted", actor))
    assert door.call("POST", f"/conversations/{pk}/close", {})[0] == 200
    assert exported(door.shop) == before


def test_a_refused_request_is_not_in_the_chain_though_a_colleague_takes_the_conversation_meanwhile(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    pk = door.says("Hello")["conversation_id"]

    def takes() -> None:
        takeover.take_over(pk, actor=Actor("staff", "boss"), now=timezone.now())

    meanwhile(monkeypatch, takes, InvalidError("no"))
    assert door.call("POST", f"/conversations/{pk}/close", {})[0] == 400
    assert exported(door.shop) == []


def test_an_erasure_leaves_the_chain_valid(shop: Client, manager: HttpClient) -> None:
    contact = factories.ContactFactory(client=shop, user_id="zeb", name="Zebulon", phone="+51999000077", is_guest=False)
    opt_out = reverse("admin:conversations_contact_change", args=[contact.pk])
    manager.post(opt_out, {"name": "Zebulon Q"})
    did(shop, "changed", object_type="contact", object_id=contact.pk, fields=["name"])
    before = exported(shop)
    erasure.begin(contact.pk, actor=SYSTEM, now=timezone.now())
    assert not Contact.objects.filter(pk=contact.pk).exists()
    assert exported(shop) == before
    assert verify(before)[0] == len(before) >= 1
    assert "Zebulon" not in "".join(before)
    assert not StaffAction.objects.filter(object_name__contains="Zebulon").exists()


@pytest.mark.django_db(transaction=True)
def test_entries_that_come_at_once_make_one_chain(shop: Client) -> None:
    together(*(lambda number=number: did(shop, f"added {number}") for number in range(40)))
    assert verify(exported(shop))[0] == 40
