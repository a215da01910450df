"""Managers set up their client in the back office, and the audit trail says who did what."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client as HttpClient
from django.urls import reverse

from conversations.admin.access import Role
from conversations.admin.durations import from_words, in_words
from conversations.models import ApiKey, Assistant, ChannelAccount, Client, Membership, StaffAction
from conversations.services.tenants import api_keys, setup
from tests.conftest import Door
from tests.conversations.staff import PASSWORD, signed_in, staff, superuser
from tests.fakes.meta import FakeMeta
from tests.fakes.server import Fault

pytestmark = pytest.mark.django_db

SECRETS = {"access_token": "TOPSECRET-1", "app_secret": "TOPSECRET-2", "verify_token": "TOPSECRET-3"}


@pytest.fixture
def ann(shop: Client) -> HttpClient:
    """The shop's manager, signed in."""
    return signed_in(staff("ann", shop=Role.MANAGER))


def address(model: str, name: str, *args: Any) -> str:
    return reverse(f"admin:conversations_{model}_{name}", args=args)


def saved(answer: Any) -> None:
    """The form was taken, or the test says what was wrong with it."""
    errors = answer.context["errors"] if answer.context and "errors" in answer.context else ""
    assert answer.status_code == 302, errors


def secret_in(answer: Any) -> str:
    found = re.search(r'id="secret"[^>]*>([^<]+)<', answer.content.decode())
    assert found, "no secret is shown"
    return found[1]


def trail() -> list[tuple[str, str, str]]:
    return list(StaffAction.objects.order_by("id").values_list("user_name", "verb", "object_type"))


# --- clients


def policies(**changes: str) -> dict[str, str]:
    usual = {"stale_after": "10 minutes", "expire_after": "24 hours", "archive_after": "30 days"}
    usual |= {"longest_wait": "6 seconds", "hand_back_after": "2 hours", "when_away": "ask"}
    return {"auto_reply": "on", "default_goal": "Sell", **usual, **changes}


def test_a_manager_changes_the_policies_but_not_what_the_client_is(ann, shop):
    changes = policies(stale_after="1 hour 30 minutes", name="Bank", sub_domain="bank", is_active="", weight="9")
    saved(ann.post(address("client", "change", shop.pk), changes))
    shop.refresh_from_db()
    assert (shop.stale_after, shop.default_goal) == (timedelta(hours=1, minutes=30), "Sell")
    assert (shop.name, shop.sub_domain, shop.is_active, shop.weight) == ("Shop", "shop", True, 1)
    done = StaffAction.objects.get()
    assert (done.user_name, done.verb, done.client) == ("ann", "changed", shop)
    assert done.changes["stale_after"] == ["0:10:00", "1:30:00"]


def test_a_manager_reads_and_writes_durations_in_portuguese(ann, shop):
    ann.defaults["HTTP_ACCEPT_LANGUAGE"] = "pt-BR"
    path = address("client", "change", shop.pk)
    assert 'value="10 minutos"' in ann.get(path).content.decode()
    saved(ann.post(path, policies(stale_after="1 hora 30 minutos", archive_after="30 dias")))
    shop.refresh_from_db()
    assert (shop.stale_after, shop.archive_after) == (timedelta(hours=1, minutes=30), timedelta(days=30))
    refused = ann.post(path, policies(stale_after="2 dias"))
    assert "Uma conversa deve ficar inativa após algum tempo" in refused.content.decode()


def test_a_manager_sets_the_time_zone_that_assistants_are_told(ann, shop):
    saved(ann.post(address("client", "change", shop.pk), policies(time_zone="America/Lima")))
    shop.refresh_from_db()
    assert shop.time_zone == "America/Lima"
    for kept in ({"time_zone": ""}, {}):
        saved(ann.post(address("client", "change", shop.pk), policies(**kept)))
        shop.refresh_from_db()
        assert shop.time_zone == "America/Lima"
    answer = ann.post(address("client", "change", shop.pk), policies(time_zone="Lima"))
    assert answer.status_code == 200
    assert "such as Europe/Madrid" in answer.content.decode()


@pytest.mark.parametrize(
    "changes", [{"stale_after": "soon"}, {"stale_after": "2 days"}, {"expire_after": ""}, {"archive_after": "-1 days"}]
)
def test_policies_that_make_no_sense_are_refused_with_a_sentence(ann, shop, changes):
    answer = ann.post(address("client", "change", shop.pk), policies(**changes))
    assert answer.status_code == 200
    assert answer.context["errors"]
    assert not StaffAction.objects.exists()


def test_only_superusers_make_clients_and_these_have_an_assistant(ann, shop):
    form = {**policies(), "name": "Bank", "sub_domain": "bank", "is_active": "on"}
    assert ann.post(address("client", "add"), form).status_code == 403
    saved(signed_in(superuser()).post(address("client", "add"), form))
    assert Assistant.objects.get(client__sub_domain="bank").is_default


def test_superusers_set_the_share_of_a_client(shop):
    boss, form = signed_in(superuser()), {**policies(), "name": "Shop", "sub_domain": "shop", "is_active": "on"}
    for weight in ("0", "101", "many"):
        assert boss.post(address("client", "change", shop.pk), {**form, "weight": weight}).status_code == 200
    for name in ("messages_per_minute", "replies_at_once"):
        assert boss.post(address("client", "change", shop.pk), {**form, name: "0"}).status_code == 200
        saved(boss.post(address("client", "change", shop.pk), {**form, name: "12"}))
        shop.refresh_from_db()
        assert getattr(shop, name) == 12
    for weight, kept in (("4", 4), ("", 4), ("1", 1)):
        saved(boss.post(address("client", "change", shop.pk), {**form, "weight": weight}))
        shop.refresh_from_db()
        assert shop.weight == kept


def test_times_are_written_as_people_write_them():
    for span in (timedelta(minutes=10), timedelta(days=30), timedelta(days=1, hours=2, seconds=5), timedelta()):
        assert from_words(in_words(span)) == span
    assert from_words("1 day, 12 hours") == timedelta(hours=36)
    assert from_words("soon") is None
    assert in_words(timedelta(days=1, minutes=1)) == "1 day 1 minute"


# --- assistants


PEOPLE = {"human_after_failures": "3", "takeover_sentence": "A colleague comes."}
PHONE = {"greeting": "Hello.", "spoken_language": "en-US", "template_language": "en"}


def assistant_form(**changes: str) -> dict[str, str]:
    usual = {"name": "Bob", "key": "bob", "system_prompt": "You are Bob.", "fallback": "Sorry."}
    usual |= {"opener": "Hola", **PHONE, **PEOPLE}
    usual |= {"agent_timeout_seconds": "30", "agent_deadline_seconds": "600"}
    return {**usual, "engine": "offline", "history_length": "10", "context_budget": "8000", **changes}


def test_a_manager_adds_an_assistant_and_makes_it_the_default(ann, shop):
    saved(ann.post(address("assistant", "add"), {**assistant_form(), "client": str(shop.pk)}))
    bob = Assistant.objects.get(key="bob")
    question = ann.get(address("assistant", "answer_by_default", bob.pk))
    assert "Make it the default?" in question.content.decode()
    assert not Assistant.objects.get(key="bob").is_default
    ann.post(address("assistant", "answer_by_default", bob.pk))
    assert list(Assistant.objects.filter(client=shop, is_default=True)) == [bob]
    assert trail() == [("ann", "added", "assistant"), ("ann", "made default", "assistant")]


def test_an_assistant_stays_with_its_client(shop, neighbour):
    http = signed_in(staff("ann", shop=Role.MANAGER, neighbour=Role.MANAGER))
    ada = Assistant.objects.get(client=shop)
    saved(http.post(address("assistant", "change", ada.pk), {**assistant_form(), "client": str(neighbour.pk)}))
    ada.refresh_from_db()
    assert (ada.client, ada.name) == (shop, "Bob")


# --- channel accounts


def whatsapp(shop: Client, meta: FakeMeta | None = None, **credentials: str) -> ChannelAccount:
    return setup.create_channel_account(
        shop,
        channel="whatsapp",
        provider="whatsapp",
        address="1234567890",
        credentials={**SECRETS, **credentials},
        base_url=meta.base_url if meta else "",
    )


def test_an_account_is_added_with_its_credentials(ann, shop):
    chooser = ann.get(address("channelaccount", "add")).content.decode()
    assert "?kind=whatsapp:whatsapp" in chooser
    form = {"client": str(shop.pk), "name": "Line", "address": "555", "is_active": "on"}
    path = address("channelaccount", "add") + "?kind=whatsapp:whatsapp"
    answer = ann.post(path, form)
    assert "This field is required" in answer.content.decode()
    saved(ann.post(path, {**form, **{f"credential_{name}": value for name, value in SECRETS.items()}}))
    account = ChannelAccount.objects.get(provider="whatsapp")
    assert (account.client, account.channel, account.address) == (shop, "whatsapp", "555")
    assert account.credentials == SECRETS


def test_credentials_go_in_and_never_come_out(ann, shop):
    account = whatsapp(shop)
    path = address("channelaccount", "change", account.pk)
    form = {"name": "Line", "address": account.address, "is_active": "on"}
    assert "TOPSECRET" not in ann.get(path).content.decode()
    saved(ann.post(path, {**form, "credential_access_token": "", "credential_app_secret": "NEWSECRET"}))
    account.refresh_from_db()
    assert account.credentials == {**SECRETS, "app_secret": "NEWSECRET"}
    refused = ann.post(path, {**form, "address": "", "credential_app_secret": "NEWERSECRET"})
    assert refused.status_code == 200
    for page in (refused, ann.get(path), ann.get(path.replace("change", "history"), follow=True)):
        assert "SECRET" not in page.content.decode()
    done = StaffAction.objects.get()
    assert done.changes["credential_app_secret"] == ["…", "…"]
    assert "SECRET" not in str(StaffAction.objects.values())


def test_new_credentials_are_tried_again_where_the_old_were_refused(ann, shop):
    account = whatsapp(shop)
    ChannelAccount.objects.filter(pk=account.pk).update(health="broken", health_reason="Refused.")
    form = {"name": "Line", "address": account.address, "is_active": "on"}
    path = address("channelaccount", "change", account.pk)
    saved(ann.post(path, form))
    assert ChannelAccount.objects.get(pk=account.pk).health == "broken"
    saved(ann.post(path, {**form, "credential_access_token": "new"}))
    assert ChannelAccount.objects.get(pk=account.pk).health == "ok"


def test_an_address_is_connected_once(ann, shop, neighbour):
    whatsapp(neighbour)
    form = {"client": str(shop.pk), "name": "Line", "address": "1234567890", "is_active": "on"}
    form |= {f"credential_{name}": value for name, value in SECRETS.items()}
    answer = ann.post(address("channelaccount", "add") + "?kind=whatsapp:whatsapp", form)
    assert "This address is connected already." in answer.content.decode()
    assert "Neighbour" not in answer.content.decode()


def test_where_the_provider_is_only_superusers_say(ann, shop):
    account = whatsapp(shop)
    form = {"name": "Line", "address": account.address, "is_active": "on", "base_url": "http://169.254.169.254"}
    saved(ann.post(address("channelaccount", "change", account.pk), form))
    assert ChannelAccount.objects.get(pk=account.pk).base_url == ""


def test_checking_credentials_asks_the_provider(ann, shop):
    with FakeMeta() as meta:
        account = whatsapp(shop, meta, access_token="token")
        path = address("channelaccount", "check_credentials", account.pk)
        ann.get(path)
        assert meta.requests == []
        good = ann.post(path, follow=True)
        assert "accepts the credentials: The shop" in good.content.decode()
        meta.access_token = "another"
        bad = ann.post(path, follow=True)
        assert "refuses the access token" in bad.content.decode()
        assert ChannelAccount.objects.get(pk=account.pk).health == "broken"
        meta.access_token = "token"
        ann.post(path, follow=True)
        assert ChannelAccount.objects.get(pk=account.pk).health == "ok"
        meta.fail_next(Fault(cut="before"))
        silent = ann.post(path, follow=True)
    assert "The connection broke" in silent.content.decode()
    assert ChannelAccount.objects.get(pk=account.pk).health == "ok"
    verbs = [verb for _, verb, _ in trail()]
    assert verbs == ["checked (ok)", "checked (credentials_refused)", "checked (ok)", "checked (no_answer)"]


def test_an_account_whose_provider_is_gone_can_still_be_looked_at(ann, shop):
    account = whatsapp(shop)
    ChannelAccount.objects.filter(pk=account.pk).update(provider="pigeon")
    path = address("channelaccount", "change", account.pk)
    assert ann.get(path).status_code == 200
    answer = ann.post(path, {"name": "x", "address": "1", "is_active": "on"})
    assert "No adapter" in answer.content.decode()
    assert ChannelAccount.objects.get(pk=account.pk).provider == "pigeon"


# --- keys


def test_a_key_is_shown_once_and_works_until_it_is_revoked(ann, shop):
    answer = ann.post(address("apikey", "add"), {"client": str(shop.pk), "name": "website"})
    assert answer.status_code == 200
    assert "no-store" in answer.headers["Cache-Control"]
    key = secret_in(answer)
    row = ApiKey.objects.get()
    door = Door(shop, key)
    assert door.call("GET", "/conversations")[0] == 200
    for path in (address("apikey", "change", row.pk), address("apikey", "changelist")):
        assert key not in ann.get(path, follow=True).content.decode()
    assert ann.get(address("apikey", "revoke", row.pk)).status_code == 200
    assert door.call("GET", "/conversations")[0] == 200
    ann.post(address("apikey", "revoke", row.pk))
    assert door.call("GET", "/conversations")[0] == 401
    assert trail() == [("ann", "added", "apikey"), ("ann", "revoked", "apikey")]
    assert key not in str(list(StaffAction.objects.values()))


def test_revoking_twice_changes_nothing(ann, shop, key):
    row = ApiKey.objects.get()
    assert api_keys.revoke(row.pk)
    revoked_at = ApiKey.objects.get().revoked_at
    ann.post(address("apikey", "revoke", row.pk))
    assert ApiKey.objects.get().revoked_at == revoked_at
    assert trail() == []


def test_a_form_without_its_token_does_nothing(shop):
    user = staff("ann", shop=Role.MANAGER)
    strict = HttpClient(enforce_csrf_checks=True)
    strict.force_login(user)
    row, _ = api_keys.create_api_key(shop)
    assert strict.post(address("apikey", "revoke", row.pk)).status_code == 403
    assert ApiKey.objects.get().revoked_at is None


# --- people


def test_a_manager_adds_a_person_who_can_sign_in_and_sees_this_client_only(ann, shop, neighbour):
    answer = ann.post(address("membership", "add"), {"client": str(shop.pk), "user_name": "bob", "role": "agent"})
    password = secret_in(answer)
    bob = get_user_model().objects.get(username="bob")
    assert (bob.is_staff, bob.is_superuser) == (True, False)
    http = HttpClient()
    assert http.login(username="bob", password=password)
    page = http.get(address("client", "changelist"))
    assert list(page.context["cl"].queryset) == [shop]
    assert password not in str(list(StaffAction.objects.values()))


def test_a_manager_makes_no_superuser_and_takes_nobody_over(ann, shop, neighbour):
    boss, other = superuser(), staff("other", neighbour=Role.MANAGER)
    form = {"client": str(shop.pk), "role": "agent"}
    taken = ann.post(address("membership", "add"), {**form, "user_name": "boss"})
    assert "This user name is taken." in taken.content.decode()
    for user in (boss, other):
        ann.post(address("membership", "add"), {**form, "user": user.pk, "user_name": "", "is_superuser": "on"})
        ann.post(address("membership", "add"), {**form, "user": user.pk, "user_name": f"new-{user.pk}"})
        assert not Membership.objects.filter(user=user, client=shop).exists()
        membership = Membership.objects.create(user=user, client=shop, role=Role.VIEWER)
        page = ann.post(address("membership", "new_password", membership.pk), follow=True)
        assert "Only an administrator" in page.content.decode()
        assert get_user_model().objects.get(pk=user.pk).check_password(PASSWORD)
        membership.delete()
    assert list(get_user_model().objects.filter(is_superuser=True)) == [boss]


def test_roles_are_changed_and_taken_away(ann, shop):
    staff("bob", shop=Role.VIEWER)
    membership = Membership.objects.get(user__username="bob")
    saved(ann.post(address("membership", "change", membership.pk), {"role": "agent"}))
    assert Membership.objects.get(pk=membership.pk).role == "agent"
    password = secret_in(ann.post(address("membership", "new_password", membership.pk)))
    assert HttpClient().login(username="bob", password=password)
    saved(ann.post(address("membership", "delete", membership.pk), {"post": "yes"}))
    assert not Membership.objects.filter(pk=membership.pk).exists()
    assert [verb for _, verb, _ in trail()] == ["changed", "renewed the password of", "deleted"]


def test_a_superuser_may_choose_somebody_who_is_there(shop):
    boss, bob = signed_in(superuser()), staff("bob")
    form = {"client": str(shop.pk), "role": "viewer"}
    assert "Choose a user" in boss.post(address("membership", "add"), form).content.decode()
    saved(boss.post(address("membership", "add"), {**form, "user": bob.pk}))
    assert Membership.objects.get(user=bob).role == "viewer"


# --- the trail


def test_the_trail_is_each_clients_own_and_nobody_writes_it(ann, shop, neighbour):
    saved(ann.post(address("client", "change", shop.pk), policies()))
    boss = signed_in(superuser())
    saved(boss.post(address("client", "change", neighbour.pk), {**policies(), "name": "Neighbour", "sub_domain": "n"}))
    page = ann.get(address("staffaction", "changelist"))
    assert [done.client for done in page.context["cl"].result_list] == [shop]
    history = ann.get(address("client", "history", shop.pk), follow=True)
    assert [done.object_id for done in history.context["cl"].result_list] == [str(shop.pk)]
    row = StaffAction.objects.filter(client=shop).get()
    for name in ("change", "delete"):
        assert boss.post(address("staffaction", name, row.pk), {"post": "yes", "verb": "x"}).status_code == 403
    assert boss.get(address("staffaction", "add")).status_code == 403


def test_users_are_superusers_own_and_their_changes_are_in_the_trail(ann, shop):
    boss = signed_in(superuser())
    user = get_user_model().objects.get(username="ann")
    answer = boss.post(
        reverse("admin:auth_user_change", args=[user.pk]), {"username": "anna", "is_active": "on", "is_staff": "on"}
    )
    saved(answer)
    assert trail() == [("boss", "changed", "user")]
    assert not ann.get(address("staffaction", "changelist")).context["cl"].result_list
