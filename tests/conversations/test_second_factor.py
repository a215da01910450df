"""The second factor: set up, asked for by every way in, required by a client, lost, and guessed."""

from __future__ import annotations

import re
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from django.core.management import CommandError, call_command
from django.http import HttpResponse
from django.test import Client as HttpClient
from django.test import RequestFactory
from django.urls import reverse
from django.utils import timezone

from conversations.http.signed_in import SHOWN, SignedInMiddleware, missing
from conversations.models import SignInTries, StaffAction
from conversations.services.tenants import second_factor
from tests.conversations.sign_in_doors import LOGIN, by_password, code_of, is_signed_in, send_code, set_up_app
from tests.conversations.staff import PASSWORD, signed_in, staff, superuser

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("shop", "neighbour")]
PAGES = [LOGIN, "/copilot/login"]
SIGN_IN, CONFIRM = "/admin/account/2fa/sign-in/", "/admin/account/2fa/confirm/"


@pytest.fixture
def ann() -> Any:
    return staff("ann", shop="agent")


@pytest.fixture
def app(ann: Any) -> tuple[str, list[str]]:
    """The secret of Ann's authenticator app, and her recovery codes."""
    return set_up_app(by_password(ann))


@pytest.fixture
def required(shop: Any) -> None:
    second_factor.require(shop, required=True)


# --- by each way in ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("page", PAGES)
def test_a_password_alone_signs_nobody_in_who_has_a_second_factor(ann, app, page):
    http = HttpClient()
    answer = http.post(page, {"username": "ann", "password": PASSWORD})
    assert (answer.status_code, answer["Location"]) == (302, SIGN_IN)
    assert not is_signed_in(http)
    for path in ("mfa_index", "mfa_activate_totp", "mfa_deactivate_totp", "mfa_generate_recovery_codes"):
        assert http.get(reverse(path))["Location"].startswith(reverse("account_login")), path


@pytest.mark.parametrize("page", PAGES)
def test_the_app_s_code_signs_in_and_leads_to_what_was_wanted(ann, app, page):
    http = HttpClient()
    http.post(f"{page}?next=/copilot/app", {"username": "ann", "password": PASSWORD, "next": "/copilot/app"})
    asked = http.get(SIGN_IN)
    assert asked.status_code == 200
    assert "no-store" in asked["Cache-Control"]
    assert b"not accepted" not in asked.content
    assert send_code(http, code_of(app[0]))["Location"] == "/copilot/app"
    assert is_signed_in(http)


def test_a_wrong_code_is_refused_and_the_right_one_goes_on(ann, app):
    http = by_password(ann)
    answer = send_code(http, "000000")
    assert (answer.status_code, b"Incorrect code" in answer.content) == (200, True)
    assert not is_signed_in(http)
    send_code(http, code_of(app[0]))
    assert is_signed_in(http)


def test_a_code_of_the_app_is_taken_once(ann, app):
    first, second = by_password(ann), by_password(ann)
    code = code_of(app[0])
    assert send_code(first, code).status_code == 302
    for again in (code, f"{code[:3]} {code[3:]}", f"{code[:3]}-{code[3:]}"):
        assert send_code(second, again).status_code == 200
    assert not is_signed_in(second)
    assert send_code(second, code_of(app[0], 1)).status_code == 302


def test_the_code_of_the_set_up_signs_nobody_in(ann):
    http = by_password(ann)
    page = http.get(reverse("mfa_activate_totp")).content.decode()
    [secret] = re.findall(r'<code class="si-key">([A-Z2-7]+)</code>', page)
    code = code_of(secret)
    http.post(reverse("mfa_activate_totp"), {"code": code})
    assert send_code(by_password(ann), code).status_code == 200


def test_a_code_that_was_used_is_known_in_every_process(ann, app, settings):
    """The caches of processes differ."""
    code = code_of(app[0])
    send_code(by_password(ann), code)
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "other"}}
    other = by_password(ann)
    assert send_code(other, code).status_code == 200
    assert not is_signed_in(other)


def test_a_recovery_code_signs_in_once(ann, app):
    _, codes = app
    assert len(set(codes)) == 10
    first, second = by_password(ann), by_password(ann)
    assert send_code(first, codes[0]).status_code == 302
    assert is_signed_in(first)
    assert send_code(second, codes[0]).status_code == 200
    assert not is_signed_in(second)
    assert b"9 left" in first.get(reverse("mfa_index")).content
    assert send_code(second, codes[1]).status_code == 302


def test_recovery_codes_are_shown_once_and_new_ones_replace_them(ann, app):
    http = by_password(ann)
    send_code(http, code_of(app[0]))
    again = http.get(reverse("mfa_view_recovery_codes")).content.decode()
    assert not any(code in again for code in app[1])
    assert http.get("/admin/account/2fa/codes/download/").status_code == 404
    http.post(reverse("mfa_generate_recovery_codes"))
    new = re.findall(r"<code>(\d{8})</code>", http.get(reverse("mfa_view_recovery_codes")).content.decode())
    assert (len(new), set(new) & set(app[1])) == (10, set())
    other = by_password(ann)
    assert send_code(other, app[1][0]).status_code == 200
    assert send_code(other, new[0]).status_code == 302


def test_secrets_are_encrypted_where_they_are_kept(app):
    secret, codes = app
    kept = str(list(Authenticator.objects.values("data")))
    assert secret not in kept
    assert not any(code in kept for code in codes)


def test_without_its_key_no_code_is_right(ann, app, settings):
    settings.CREDENTIALS_KEYS = ["MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="]
    http = by_password(ann)
    for code in (code_of(app[0]), code_of("A" * 8), app[1][0]):
        assert send_code(http, code).status_code == 200
    assert not is_signed_in(http)


@pytest.mark.parametrize("page", ["https://evil.example/", "//evil.example/", "javascript:alert(1)"])
def test_nobody_is_sent_to_another_host(ann, app, page):
    http = HttpClient()
    answer = http.post(f"{LOGIN}?next={page}", {"username": "ann", "password": PASSWORD, "next": page})
    assert answer["Location"] == SIGN_IN
    answer = http.post(f"{SIGN_IN}?next={page}", {"code": code_of(app[0]), "next": page})
    assert answer["Location"] == "/admin/"
    for name in ("account_login", "account_logout"):
        answer = http.post(f"{reverse(name)}?next={page}", {"next": page})
        assert "evil" not in answer["Location"]
        assert "javascript" not in answer["Location"]


def test_signing_in_as_somebody_else_forgets_the_first(ann, app):
    other = staff("bob", shop="viewer")
    http = by_password(ann)
    assert http.post(reverse("account_logout"))["Location"] == "/admin/login/"
    assert http.get(SIGN_IN)["Location"] == reverse("account_login")
    assert http.get(reverse("account_logout")).status_code == 405
    http.post(LOGIN, {"username": "bob", "password": PASSWORD})
    assert http.get("/admin/").context["user"] == other


# --- required by a client ---------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("required")
@pytest.mark.parametrize("page", PAGES)
def test_who_has_none_sets_one_up_before_anything_else(ann, page):
    http = HttpClient()
    http.post(page, {"username": "ann", "password": PASSWORD})
    assert not is_signed_in(http)
    assert http.get(f"{page}?next=/admin/inbox/")["Location"].startswith(reverse("mfa_index"))
    assert b"You need a second factor" in http.get(reverse("mfa_index")).content
    for name in ("mfa_view_recovery_codes", "mfa_generate_recovery_codes", "mfa_list_webauthn"):
        assert http.get(reverse(name))["Location"] == reverse("mfa_index"), name
    set_up_app(http)
    assert is_signed_in(http)


@pytest.mark.usefixtures("required")
def test_every_page_and_route_of_a_login_obeys(ann):
    http = signed_in(ann)
    for path in (
        *("/admin/", "/admin/inbox/", "/admin/inbox/live/", "/admin/inbox/list/", "/admin/password_change/"),
        *(reverse("admin:conversations_conversation_changelist"), reverse("admin:simulator"), "/copilot/app"),
        *("/admin/jsi18n/", "/admin/autocomplete/"),
    ):
        answer = http.get(path)
        assert (answer.status_code, "login" in answer.get("Location", "")) == (302, True), path
    for path in ("/copilot", "/copilot/panel", "/copilot/stream/5f0c7a52-0000-4000-8000-000000000000"):
        assert http.get(path).status_code == 401, path
    assert http.post("/copilot", {"message": "Hello"}, content_type="application/json").status_code == 401
    assert http.post("/admin/password_change/", {"old_password": PASSWORD}).status_code == 302
    ann.refresh_from_db()
    assert ann.check_password(PASSWORD)


def test_it_holds_for_whoever_is_signed_in_when_it_is_switched_on(ann, shop):
    http = by_password(ann)
    assert is_signed_in(http)
    manager = by_password(staff("boss", shop="manager"))
    page = reverse("admin:conversations_client_change", args=[shop.pk])
    form = manager.get(page).context["adminform"].form
    fields = {name: form[name].value() for name in form.fields if form[name].value() not in (None, False)}
    assert manager.post(page, {**fields, "requires_second_factor": "on"}).status_code == 302
    assert not is_signed_in(http)
    assert not is_signed_in(manager)
    assert http.get("/admin/inbox/", follow=True).redirect_chain[-1][0].startswith(reverse("mfa_index"))
    set_up_app(http)
    assert is_signed_in(http)
    assert StaffAction.objects.filter(changes__has_key="requires_second_factor").exists()


def test_the_command_switches_it_on_and_off(ann, capsys):
    http = by_password(ann)
    for options, expected in ((["--client", "shop"], False), (["--client", "shop", "--off"], True)):
        call_command("require_second_factor", *options)
        assert is_signed_in(http) is expected
    assert '"requires_second_factor": true' in capsys.readouterr().out
    with pytest.raises(CommandError, match="no client"):
        call_command("require_second_factor", "--client", "nobody")


def test_it_concerns_members_and_superusers_alone(ann, neighbour):
    second_factor.require(neighbour, required=True)
    member = staff("bob", neighbour="viewer")
    assert is_signed_in(by_password(ann))
    assert not is_signed_in(by_password(member))
    boss = by_password(superuser())
    assert not is_signed_in(boss)
    set_up_app(boss)
    assert is_signed_in(boss)
    neighbour.is_active = False
    neighbour.save()
    assert is_signed_in(by_password(superuser("other")))


@pytest.mark.usefixtures("required")
def test_api_keys_are_not_affected(door):
    assert door.http.get("/conversations", headers={"X-Service-API-Key": door.key}).status_code == 200
    assert door.says("Hello")["conversation_id"]


@pytest.mark.usefixtures("required")
def test_the_last_second_factor_cannot_be_removed(ann):
    http = by_password(ann)
    set_up_app(http)
    page = http.post(reverse("mfa_deactivate_totp"))
    assert b"Set up a passkey first" in page.content
    assert is_signed_in(http)
    assert Authenticator.objects.filter(user=ann, type="totp").exists()


def test_without_the_requirement_it_can(ann, app):
    http = by_password(ann)
    send_code(http, code_of(app[0]))
    assert http.post(reverse("mfa_deactivate_totp")).status_code == 302
    assert not Authenticator.objects.exists()
    assert is_signed_in(http)
    assert is_signed_in(by_password(ann))


# --- other sessions, and what is lost ---------------------------------------------------------------------------------
def test_sessions_from_before_the_set_up_show_it_before_they_go_on(ann):
    before, here = by_password(ann), by_password(ann)
    secret, _ = set_up_app(here)
    assert not is_signed_in(before)
    for name in ("mfa_index", "mfa_deactivate_totp", "mfa_activate_totp", "mfa_generate_recovery_codes"):
        assert before.get(reverse(name))["Location"] == CONFIRM, name
    assert before.get(LOGIN)["Location"].startswith(CONFIRM)
    answer = before.post(f"{CONFIRM}?next=/admin/inbox/", {"code": code_of(secret), "next": "/admin/inbox/"})
    assert answer["Location"] == "/admin/inbox/"
    assert is_signed_in(before)


def test_another_factor_that_is_set_up_later_asks_no_session_again_that_showed_the_first(ann, app):
    http = by_password(ann)
    send_code(http, code_of(app[0]))
    Authenticator.objects.create(user=ann, type="webauthn", data={}, created_at=timezone.now())
    assert is_signed_in(http)


def test_what_somebody_else_showed_in_a_session_is_no_factor_of_its_user(ann, app):
    http = signed_in(ann)
    for whose, shown in ((staff("bob", shop="agent").pk, False), (ann.pk, True)):
        session = http.session
        session[SHOWN] = [whose, timezone.now().timestamp()]
        session.save()
        assert is_signed_in(http) is shown


@pytest.mark.usefixtures("required")
def test_what_a_session_lacks_is_known_though_nobody_asked_for_its_user_yet(ann):
    request = RequestFactory().get(reverse("mfa_view_recovery_codes"))
    request.session = signed_in(ann).session
    SignedInMiddleware(lambda _: HttpResponse())(request)
    assert missing(request) is second_factor.Standing.TO_SET_UP


def test_the_password_confirms_nobody_who_has_a_second_factor(ann, app):
    before = signed_in(ann)
    answer = before.post(reverse("account_reauthenticate"), {"password": PASSWORD})
    assert answer["Location"] == CONFIRM
    assert before.post(reverse("mfa_deactivate_totp"))["Location"] == CONFIRM
    assert Authenticator.objects.filter(user=ann, type="totp").exists()


def test_some_time_after_signing_in_the_user_confirms_who_they_are_first(ann):
    http = signed_in(ann)  # no fresh sign-in is noted
    answer = http.get(reverse("mfa_activate_totp"))
    confirm = reverse("account_reauthenticate")
    assert answer["Location"].startswith(confirm)
    assert http.post(confirm, {"password": "wrong"}).status_code == 200
    assert http.get(reverse("mfa_activate_totp")).status_code == 302
    answer = http.post(answer["Location"], {"password": PASSWORD, "next": reverse("mfa_activate_totp")})
    assert answer["Location"] == reverse("mfa_activate_totp")
    set_up_app(http)


def test_a_superuser_removes_a_lost_second_factor(ann, app):
    session = by_password(ann)
    send_code(session, code_of(app[0]))
    boss = by_password(superuser())
    page = reverse("admin:auth_user_change", args=[ann.pk])
    assert b"Remove the second factor" in boss.get(page).content
    removal = f"{page.removesuffix('change/')}second-factor"
    [removal] = re.findall(r'href="([^"]*second-factor[^"]*)"', boss.get(page).content.decode())
    assert b"who has lost it" in boss.get(removal).content
    answer = boss.post(removal, follow=True)
    assert b"The second factor of ann is removed" in answer.content
    assert not Authenticator.objects.exists()
    entry = StaffAction.objects.get(verb="removed the second factor of")
    assert (entry.user_name, entry.object_type, entry.object_id) == ("boss", "user", str(ann.pk))
    http = by_password(ann)
    assert is_signed_in(http)
    set_up_app(http)
    assert not is_signed_in(session), "what was shown is a factor that somebody else may have found"


def test_a_command_removes_one_too(ann, app, capsys):
    call_command("remove_second_factor", "--user", "ann")
    assert '"removed": 2' in capsys.readouterr().out
    assert is_signed_in(by_password(ann))
    assert StaffAction.objects.filter(object_id=str(ann.pk), verb__startswith="removed by command").exists()
    with pytest.raises(CommandError, match="no user"):
        call_command("remove_second_factor", "--user", "nobody")


def test_a_colleague_s_stays_when_one_is_removed(ann, app):
    bob = staff("bob", shop="agent")
    set_up_app(by_password(bob))
    call_command("remove_second_factor", "--user", "ann")
    assert is_signed_in(by_password(ann))
    assert not is_signed_in(by_password(bob))


def test_nobody_else_removes_one(ann, app):
    manager = by_password(staff("manager", shop="manager"))
    page = reverse("admin:auth_user_change", args=[ann.pk])
    for path in (page, page.replace("change/", "second-factor"), page.replace("change/", "second-factor/")):
        assert manager.post(path).status_code in (302, 403, 404)
    assert Authenticator.objects.filter(user=ann, type="totp").exists()


# --- guesses ----------------------------------------------------------------------------------------------------------
def test_guesses_are_limited_from_wherever_and_a_password_between_them_changes_nothing(ann, app, settings):
    settings.SIGN_IN_TRIES = 3
    answers = []
    for number in range(4):
        http = by_password(ann, REMOTE_ADDR=f"203.0.113.{number}")
        answers.append(send_code(http, "000000").status_code)
    assert answers == [200, 200, 200, 429]
    refused = send_code(http, code_of(app[0]))
    assert refused.status_code == 429
    assert 0 < int(refused["Retry-After"]) <= 900
    assert not is_signed_in(http)


def test_a_sign_in_with_both_is_not_counted(ann, app, settings):
    settings.SIGN_IN_TRIES = 2
    for code in app[1][:5]:
        http = by_password(ann)
        send_code(http, code)
        assert is_signed_in(http)
    assert max(SignInTries.objects.values_list("count", flat=True)) <= 1


def test_guesses_of_the_password_are_limited_where_a_user_confirms_who_they_are(ann, settings):
    settings.SIGN_IN_TRIES = 3
    http = signed_in(ann)
    page = reverse("account_reauthenticate")
    assert [http.post(page, {"password": "wrong"}).status_code for _ in range(3)] == [200] * 3
    assert http.post(page, {"password": PASSWORD}).status_code == 429


def test_guesses_of_the_first_code_of_an_app_are_limited(ann, settings):
    settings.SIGN_IN_TRIES = 3
    http = by_password(ann)
    http.get(reverse("mfa_activate_totp"))
    answers = [http.post(reverse("mfa_activate_totp"), {"code": "000000"}).status_code for _ in range(4)]
    assert answers == [200, 200, 200, 429]


@pytest.mark.parametrize("credential", ["", "null", "{}", "[]", "1", '{"id": "x"}', "no json", '{"response": {}}'])
def test_a_passkey_that_makes_no_sense_is_refused(ann, app, credential):
    http = by_password(ann)
    assert http.get(SIGN_IN).status_code == 200
    answer = http.post(SIGN_IN, {"credential": credential})
    assert answer.status_code == 200
    assert not is_signed_in(http)


@pytest.mark.parametrize("credential", ["", "null", "{}", "[]", '{"id": "x"}', '{"response": {}}'])
def test_a_new_passkey_that_makes_no_sense_is_refused(ann, credential):
    http = by_password(ann)
    page = reverse("mfa_add_webauthn")
    assert http.get(page).status_code == 200
    assert http.post(page, {"name": "Phone", "credential": credential}).status_code == 200
    assert not Authenticator.objects.exists()
