"""The commands: what they make, what they print for scripts, and what they say when they cannot."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command, get_commands
from django.db import connection
from django.utils import timezone
from django_q.models import Schedule

from channels_out.kinds import Channel
from conversations.models import ApiKey, Assistant, ChannelAccount, Client, Contact, Conversation, Membership, Team
from conversations.queue import SCHEDULES
from conversations.services.core.ledger import Actor
from conversations.services.desk import round_robin
from conversations.services.simulator import demo
from conversations.services.tenants import api_keys
from conversations.services.transitions import takeover
from tests.conftest import Door
from tests.conversations.conftest import close
from tests.conversations.staff import signed_in
from tests.routes import written

pytestmark = pytest.mark.django_db

OURS = sorted(name for name, app in get_commands().items() if app == "conversations")
WHATSAPP = ["--channel", "whatsapp", "--provider", "whatsapp", "--address", "1234567890"]
SECRETS = {"access_token": "EAAG-very-secret", "app_secret": "0123456789abcdef", "verify_token": "verify-me-please"}


def run(name: str, *arguments: Any) -> str:
    """What it prints. Its standard error must not be mixed in."""
    out = io.StringIO()
    call_command(name, *map(str, arguments), stdout=out, stderr=io.StringIO())
    return out.getvalue()


def made(name: str, *arguments: Any) -> dict[str, Any]:
    """The one object that it prints."""
    [line] = run(name, *arguments).splitlines()
    printed: dict[str, Any] = json.loads(line)
    return printed


def refused(name: str, *arguments: Any) -> str:
    """The sentence with which it fails; nothing is written."""
    before = written()
    out = io.StringIO()
    with pytest.raises(CommandError) as caught:
        call_command(name, *map(str, arguments), stdout=out, stderr=out)
    assert written() == before
    assert out.getvalue() == ""
    return str(caught.value)


def credentials(**values: str) -> list[str]:
    return [word for name, value in values.items() for word in ("--credential", f"{name}={value}")]


@pytest.mark.parametrize("name", OURS)
def test_help_says_what_each_command_and_option_does(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        call_command(name, "--help")
    text = capsys.readouterr().out
    assert left.value.code == 0
    assert re.search(r"\n\n[A-Z][^\n]{15,}", text), "it begins with what it does"
    own = text.partition("--version")[0]
    for option in re.findall(r"^  (--[a-z-]+)", own, re.MULTILINE):
        assert re.search(rf"^  {option}\b[^\n]*(\n\s+|\s{{2,}})\S", own, re.MULTILINE), option


# --- clients, keys, assistants ----------------------------------------------------------------------------------------
def test_a_client_has_a_default_assistant(db: Any) -> None:
    printed = made("create_client", "--name", "Hat Shop", "--sub-domain", "hats")
    client = Client.objects.get()
    assert printed == {"client_id": str(client.pk), "name": "Hat Shop", "sub_domain": "hats"}
    assert Assistant.objects.get(client=client).is_default is True


def test_a_client_has_the_time_zone_it_is_told(db: Any) -> None:
    made("create_client", "--name", "Hat Shop", "--sub-domain", "hats")
    made("create_client", "--name", "Lima Hats", "--sub-domain", "lima", "--time-zone", "America/Lima")
    zones = dict(Client.objects.values_list("sub_domain", "time_zone"))
    assert zones == {"hats": "UTC", "lima": "America/Lima"}
    for zone in ("Lima", "America/Nowhere", "../etc/passwd", "", "UTC+5"):
        sentence = refused("create_client", "--name", "Other", "--sub-domain", "other", f"--time-zone={zone}")
        assert sentence.startswith("time_zone: ")


def test_a_client_has_the_weight_it_is_told(db: Any) -> None:
    made("create_client", "--name", "Hat Shop", "--sub-domain", "hats")
    made("create_client", "--name", "Lima Hats", "--sub-domain", "lima", "--weight", "5")
    assert dict(Client.objects.values_list("sub_domain", "weight")) == {"hats": 1, "lima": 5}
    made(
        *("create_client", "--name", "Quito Hats", "--sub-domain", "quito"),
        *("--messages-per-minute", "100", "--replies-at-once", "7"),
    )
    quito = Client.objects.get(sub_domain="quito")
    assert (quito.messages_per_minute, quito.replies_at_once) == (100, 7)
    made(
        *("create_client", "--name", "Cusco Hats", "--sub-domain", "cusco", "--tokens-per-day", "5000000"),
        *("--cost-per-day", "12.50", "--quota-sentence", "Back tomorrow."),
    )
    cusco = Client.objects.get(sub_domain="cusco")
    assert (cusco.tokens_per_day, str(cusco.cost_per_day), cusco.quota_sentence) == (
        5_000_000,
        "12.50",
        "Back tomorrow.",
    )
    assert (quito.tokens_per_day, quito.cost_per_day, quito.quota_sentence) == (None, None, ""), "none by default"
    for quota in ("--tokens-per-day=0", "--cost-per-day=0", "--cost-per-day=much", "--cost-per-day=NaN"):
        refused("create_client", "--name", "Other", "--sub-domain", "other", quota)
    for weight in ("0", "101", "-1", "40000"):
        sentence = refused("create_client", "--name", "Other", "--sub-domain", "other", f"--weight={weight}")
        assert "weight" in sentence


def test_a_client_needs_a_sub_domain_of_its_own(shop: Client) -> None:
    assert "already exists" in refused("create_client", "--name", "Other", "--sub-domain", "shop")
    for sub_domain in ("", "Hats", "hats.example", "-hats", "hats-", "x" * 64, "hüte", "hats\n"):
        assert refused("create_client", "--name", "Other", f"--sub-domain={sub_domain}").startswith("sub_domain: ")
    assert refused("create_client", "--name", "", "--sub-domain", "hats").startswith("name: ")
    assert refused("create_client", "--name", "x" * 201, "--sub-domain", "hats").startswith("name: ")


def test_a_key_is_shown_once_and_opens_the_door(shop: Client) -> None:
    printed = made("create_api_key", "--client", "shop", "--name", "tests")
    row = ApiKey.objects.get()
    usual = ["messages:write", "conversations:read", "conversations:write", "memory:read"]
    made_of = {"client_id": str(shop.pk), "name": "tests", "prefix": row.prefix, "api_key": printed["api_key"]}
    assert printed == {**made_of, "scopes": usual, "expires_at": None}
    assert printed["api_key"].startswith(row.prefix)
    assert printed["api_key"] not in str(ApiKey.objects.values())
    assert Door(shop, printed["api_key"]).says("Hello")["created"] is True


def test_a_key_needs_a_client(db: Any) -> None:
    assert "create_client" in refused("create_api_key", "--client", "nobody")


def test_a_key_s_name_has_a_length(shop: Client) -> None:
    assert refused("create_api_key", "--client", "shop", "--name", "x" * 101) == "name: Use at most 100 characters."
    made("create_api_key", "--client", "shop", "--name", "x" * 100)


def test_an_assistant_is_what_it_is_told_to_be(shop: Client) -> None:
    printed = made(
        *("create_assistant", "--client", "shop", "--key", "bea", "--name", "Bea", "--system-prompt", "You are Bea."),
        *("--engine", "openai", "--model", "m", "--temperature", "0.5", "--max-tokens", "99", "--history-length", "5"),
        *("--fallback", "One moment.", "--default"),
    )
    bea = Assistant.objects.get(key="bea")
    assert printed == {
        "client_id": str(shop.pk),
        "assistant_id": str(bea.pk),
        "key": "bea",
        "engine": "openai",
        "is_default": True,
    }
    assert (bea.name, bea.system_prompt, bea.engine, bea.model) == ("Bea", "You are Bea.", "openai", "m")
    assert (bea.temperature, bea.max_tokens, bea.history_length, bea.fallback) == (0.5, 99, 5, "One moment.")
    assert list(Assistant.objects.filter(is_default=True)) == [bea], "there is one default at a time"


def test_an_assistant_needs_little(shop: Client) -> None:
    printed = made("create_assistant", "--client", "shop", "--key", "bea")
    bea = Assistant.objects.get(key="bea")
    assert (printed["engine"], printed["is_default"], bea.name, bea.history_length) == ("auto", False, "bea", 10)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--key", "ada"], "has an assistant 'ada' already"),
        (["--key", "Be a"], "key: "),
        (["--key", ""], "key: "),
        (["--key", "bea", "--temperature", "2.1"], "temperature: "),
        (["--key", "bea", "--temperature", "nan"], "temperature"),
        (["--key", "bea", "--temperature", "hot"], "--temperature"),
        (["--key", "bea", "--max-tokens", "-1"], "max_tokens: "),
        (["--key", "bea", "--max-tokens", "9" * 30], "max_tokens: "),
        (["--key", "bea", "--history-length", "99999"], "history_length: "),
        (["--key", "bea", "--engine", "magic"], "--engine"),
        (["--key", "bea", "--system-prompt", ""], "system_prompt: "),
    ],
)
def test_an_assistant_that_makes_no_sense_is_refused(options: list[str], sentence: str, shop: Client) -> None:
    assert sentence in refused("create_assistant", "--client", "shop", *options)


# --- accounts ---------------------------------------------------------------------------------------------------------
def stored(account: ChannelAccount) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT t::text FROM channel_accounts t WHERE id = %s", [account.pk])
        return str(cursor.fetchone()[0])


def test_an_account_keeps_its_credentials_encrypted_and_prints_none(shop: Client) -> None:
    text = run("create_channel_account", "--client", "shop", *WHATSAPP, *credentials(**SECRETS))
    account = ChannelAccount.objects.get(provider="whatsapp")
    assert json.loads(text) == {
        "channel_account_id": str(account.pk),
        "channel": "whatsapp",
        "provider": "whatsapp",
        "address": "1234567890",
        "webhook": "/webhooks/whatsapp/inbound",
    }
    assert account.credentials == SECRETS
    for secret in SECRETS.values():
        assert secret not in text + stored(account)


def test_an_account_made_again_gets_the_new_credentials_and_keeps_the_rest(shop: Client) -> None:
    more = ["--name", "Shop's number", "--assistant", "ada", "--base-url", "http://127.0.0.1:9/v25.0/"]
    first = made("create_channel_account", "--client", "shop", *WHATSAPP, *credentials(**SECRETS), *more)
    ChannelAccount.objects.filter(pk=first["channel_account_id"]).update(health="broken", health_reason="190")
    new = {**SECRETS, "access_token": "EAAG-rotated"}

    again = made("create_channel_account", "--client", "shop", *WHATSAPP, *credentials(**new))

    account = ChannelAccount.objects.get(provider="whatsapp")
    assert again == first
    assert account.credentials == new
    assert (account.health, account.health_reason) == ("ok", "")
    assert account.assistant is not None
    assert (account.name, account.assistant.key, account.base_url) == (
        "Shop's number",
        "ada",
        "http://127.0.0.1:9/v25.0",
    )


def test_an_address_is_one_client_s(shop: Client, neighbour: Client) -> None:
    made("create_channel_account", "--client", "shop", *WHATSAPP, *credentials(**SECRETS))
    sentence = refused("create_channel_account", "--client", "neighbour", *WHATSAPP, *credentials(**SECRETS))
    assert "another client" in sentence


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (credentials(access_token="x"), "needs the credentials app_secret, verify_token"),
        (credentials(**{**SECRETS, "app_secret": ""}), "needs the credentials app_secret"),
        (credentials(**SECRETS, acess_token="x"), "no credentials acess_token"),
        (["--credential", "EAAG-very-secret"], "NAME=VALUE"),
        (["--credential", "=EAAG-very-secret"], "NAME=VALUE"),
        ([*credentials(**SECRETS), "--base-url", "graph.example"], "base_url: "),
        ([*credentials(**SECRETS), "--base-url", "file:///etc/passwd"], "base_url: "),
        ([*credentials(**SECRETS), "--assistant", "nobody"], "create_assistant"),
        ([*credentials(**SECRETS), "--channel", "sms"], "whatsapp"),
        ([*credentials(**SECRETS), "--channel", "fax"], "--channel"),
        ([*credentials(**SECRETS), "--provider", "pigeon"], "--provider"),
        ([*credentials(**SECRETS), "--address", ""], "address: "),
        ([*credentials(**SECRETS), "--address", "1" * 201], "address: "),
    ],
)
def test_an_account_that_makes_no_sense_is_refused(options: list[str], sentence: str, shop: Client) -> None:
    said = refused("create_channel_account", "--client", "shop", *WHATSAPP, *options)
    assert sentence in said
    assert not [secret for secret in SECRETS.values() if secret in said], "it may be a secret in the wrong place"


def test_a_secret_need_not_stand_in_the_command(shop: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("EAAG-very-secret\n0123456789abcdef\n"))
    hidden = {"access_token": "-", "app_secret": "-", "verify_token": "a=b"}
    made("create_channel_account", "--client", "shop", *WHATSAPP, *credentials(**hidden))
    kept = ChannelAccount.objects.get(provider="whatsapp").credentials
    assert kept == {"access_token": "EAAG-very-secret", "app_secret": "0123456789abcdef", "verify_token": "a=b"}
    assert "standard input" in refused("create_channel_account", "--client", "shop", *WHATSAPP, *credentials(**hidden))


# --- ageing -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def ageing(door: Door) -> datetime:
    """A guest and a known person have just written, another guest is gone. Returns the time."""
    door.says("Hello", user_id="guest")
    door.says("Hello", user_id="ann", phone="+51999999999")
    close(door.says("Hello", user_id="gone")["conversation_id"])
    now = timezone.now()
    Conversation.objects.filter(contact__user_id="gone").update(status="expired", ended_by="timeout", ended_at=now)
    return now


def test_a_sweep_ages_what_is_due(ageing: datetime) -> None:
    assert "1 guest conversations deleted" in run("sweep")
    assert run("sweep") == (
        "Swept: 0 stale, 0 expired, 0 guest conversations deleted, 0 handed back, 0 freed, 0 old tombstones dropped, "
        "0 events replayed.\n"
    )
    assert run("sweep", "--now", (ageing + timedelta(minutes=11)).isoformat()).startswith("Swept: 2 stale, 0 expired")
    swept = run("sweep", "--now", (ageing + timedelta(hours=25)).isoformat())
    assert swept.startswith("Swept: 0 stale, 2 expired, 1 guest conversations deleted")
    assert list(Contact.objects.values_list("user_id", flat=True)) == ["ann"]


def test_a_dry_run_says_what_would_be_and_does_nothing(ageing: datetime) -> None:
    before = written()
    by_user = dict(Conversation.objects.values_list("contact__user_id", "id"))
    soon, later = ((ageing + timedelta(**age)).isoformat() for age in ({"minutes": 11}, {"hours": 25}))

    stale, expired, purged, _, archived, last = run("sweep", "--dry-run", "--now", soon).splitlines()
    assert archived.startswith("would be archived by archive: 0")
    assert stale.startswith("would be stale: 2 (such as: ")
    assert str(by_user["ann"]) in stale
    assert (expired, last) == ("would be expired: 0 (such as: none)", "Dry run: nothing was changed.")
    assert purged == f"would be purged: 1 (such as: {by_user['gone']})"
    _, expired, purged, *_ = run("sweep", "--dry-run", "--now", later).splitlines()
    assert expired.startswith("would be expired: 2")
    assert purged.startswith("would be purged: 2")
    due, last = run("purge_guests", "--dry-run", "--now", later).splitlines()
    assert due == f"would be deleted: 1 (such as: {by_user['gone']})"
    assert last == "Dry run: nothing was changed."
    assert written() == before


def test_a_purge_deletes_expired_guests_and_nobody_else(ageing: datetime) -> None:
    assert run("purge_guests", "--now", (ageing - timedelta(hours=1)).isoformat()).startswith(
        "Purged guest conversations: 0"
    )
    assert run("purge_guests") == "Purged guest conversations: 1.\n"
    assert run("purge_guests") == "Purged guest conversations: 0.\n"
    assert set(Contact.objects.values_list("user_id", flat=True)) == {"ann", "guest"}


@pytest.mark.parametrize("command", ["sweep", "purge_guests"])
@pytest.mark.parametrize("now", ["yesterday", "2026-01-31", "2026-01-31T12:00:00", "2026-02-31T12:00:00Z", "0"])
def test_a_time_that_is_none_is_refused(command: str, now: str, ageing: datetime) -> None:
    assert "2026-01-31T12:00:00+00:00" in refused(command, "--now", now)


@pytest.mark.parametrize("command", ["sweep", "purge_guests"])
def test_any_time_will_do(command: str, ageing: datetime) -> None:
    for now in (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)):
        run(command, "--dry-run", "--now", now.isoformat())
        run(command, "--now", now.isoformat())


# --- set-up -----------------------------------------------------------------------------------------------------------
def test_schedules_exist_once(db: Any) -> None:
    scheduled = f"Scheduled: {', '.join(SCHEDULES)}.\n"
    assert run("setup_schedules") == scheduled
    Schedule.objects.create(name="sweep", func="conversations.tasks.sweep", schedule_type=Schedule.ONCE)
    Schedule.objects.update(minutes=7)
    following = Schedule.objects.filter(name="sweep").order_by("id")[0].next_run
    assert run("setup_schedules") == scheduled
    assert sorted(Schedule.objects.values_list("name", flat=True)) == sorted(SCHEDULES)
    schedule = Schedule.objects.get(name="sweep")
    assert (schedule.func, schedule.schedule_type, schedule.minutes) == ("conversations.tasks.sweep", "I", 5)
    assert schedule.next_run == following, "when it runs next is left alone"


def test_a_demo_is_set_up_once(db: Any, tmp_path: Path) -> None:
    quickstart = tmp_path / "quickstart.json"
    first = made("setup_demo", "--quickstart", quickstart)
    quickstart.write_text(json.dumps({**first, "base_url": "http://127.0.0.1:8000", "port": 8000}))
    before = written()
    assert made("setup_demo", "--quickstart", quickstart) == first
    assert written() == before
    client = Client.objects.get()
    assert Door(client, first["api_key"]).says("Hello", channel="voice")["created"] is True
    admin = get_user_model().objects.get(username=demo.STAFF)
    assert (admin.username, admin.is_superuser) == (first["admin_username"], True)
    assert admin.check_password(first["admin_password"])
    assert Membership.objects.get(user=admin).role == "manager"


def test_a_demo_has_a_team_with_round_robin_and_a_view_and_accounts_with_real_names(db: Any, tmp_path: Path) -> None:
    first = made("setup_demo", "--quickstart", tmp_path / "quickstart.json")
    client = Client.objects.get()
    assert "Sandbox WhatsApp" in [str(each) for each in ChannelAccount.objects.filter(provider="sandbox")]
    Door(client, first["api_key"]).says("Hello", channel="sms", user_id="ann", name="Ann")
    conversation = Conversation.objects.get()
    takeover.take_over(conversation.pk, actor=Actor("system"), now=timezone.now())
    assert round_robin.hand_out() == 1
    http = signed_in(get_user_model().objects.get(username=demo.STAFF))
    page = http.get("/admin/inbox/?tab=mine").content.decode()
    assert 'role="switch" aria-checked="true"' in page
    assert demo.VIEW in page
    assert [str(each.row.id) for each in http.get("/admin/inbox/?tab=mine").context["rows"]] == [str(conversation.pk)]
    for name in demo.COLLEAGUES:
        assert not get_user_model().objects.get(username=name).has_usable_password()
    ChannelAccount.objects.filter(name="Sandbox SMS").update(name="Sandbox sms")
    Team.objects.all().update(name="Ours")
    made("setup_demo", "--quickstart", tmp_path / "quickstart.json")
    assert ChannelAccount.objects.filter(name="Sandbox SMS").count() == 1, "one of an earlier version has the name too"
    assert list(Team.objects.values_list("name", flat=True)) == ["Ours"]


@pytest.mark.parametrize("kept", ["", "{", "[]", '{"api_key": 5, "admin_password": null}', '{"api_key": "convo_old"}'])
def test_what_a_demo_cannot_know_any_more_is_made_anew(kept: str, db: Any, tmp_path: Path) -> None:
    quickstart = tmp_path / "quickstart.json"
    first = made("setup_demo", "--quickstart", quickstart)
    quickstart.write_text(kept)
    again = made("setup_demo", "--quickstart", quickstart)
    assert again["api_key"] != first["api_key"]
    assert again["client_id"] == first["client_id"]
    assert get_user_model().objects.get(username=demo.STAFF).check_password(again["admin_password"])
    assert api_keys.find_api_key(again["api_key"])
    assert ChannelAccount.objects.filter(address="sandbox").count() == len(Channel)
    assert Client.objects.get().sub_domain == demo.SUB_DOMAIN


def test_a_revoked_key_is_no_quickstart(db: Any, tmp_path: Path) -> None:
    quickstart = tmp_path / "quickstart.json"
    first = made("setup_demo")
    quickstart.write_text(json.dumps(first))
    ApiKey.objects.update(revoked_at=timezone.now())
    again = made("setup_demo", "--quickstart", quickstart)
    assert again == {**first, "api_key": again["api_key"]} != first
