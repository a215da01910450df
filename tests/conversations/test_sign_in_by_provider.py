"""Sign-in by OpenID Connect, against a provider that speaks the protocol over HTTP."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount, SocialToken
from django.contrib.auth import get_user_model
from django.test import Client as HttpClient
from django.urls import reverse

from conversations.models import Membership, StaffAction
from conversations.services.core.errors import ConflictError
from conversations.services.tenants import provider_roles, second_factor
from conversations.services.tenants import staff as staff_service
from tests.conversations.provider_doors import callback, configure
from tests.conversations.sign_in_doors import (
    back_from,
    by_password,
    by_provider,
    code_of,
    is_signed_in,
    send_code,
    set_up_app,
    to_provider,
)
from tests.conversations.staff import signed_in, staff, superuser
from tests.fakes.identity_provider import CLIENT_ID, KEY, SECRET, STRANGERS_KEY, FakeIdentityProvider, public
from tests.fakes.server import Fault, Reply
from tests.races.threads import not_committed

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("shop", "neighbour")]


def roles_of(name: str) -> dict[str, str]:
    return dict(Membership.objects.filter(user__username=name).values_list("client__sub_domain", "role"))


def assert_refused(answer: Any, http: HttpClient, status: int = 401) -> None:
    """The user reads that it did not work, is not signed in, and nobody was created."""
    assert answer.status_code == status
    assert b"Back to the sign-in page" in answer.content
    assert not is_signed_in(http)
    assert not SocialAccount.objects.exists()


# --- roles ------------------------------------------------------------------------------------------------------------
def test_groups_give_roles_and_the_page_that_was_wanted_is_shown(corp):
    corp.groups = ["support", "leads", "partners", "others"]
    http = HttpClient()
    page = http.get("/admin/login/?next=/admin/inbox/")
    assert b"Sign in with Corp" in page.content
    assert b"/admin/account/oidc/corp/login/?next=%2Fadmin%2Finbox%2F" in page.content
    answer = by_provider(http, "/admin/account/oidc/corp/login/?next=%2Fadmin%2Finbox%2F")
    assert (answer.status_code, answer["Location"]) == (302, "/admin/inbox/")
    assert http.get("/admin/inbox/").status_code == 200
    assert roles_of("ann") == {"shop": "manager", "neighbour": "viewer"}
    assert not get_user_model().objects.get(username="ann").has_usable_password()
    given = StaffAction.objects.filter(verb="received at sign-in").values_list("client__sub_domain", flat=True)
    assert sorted(given) == ["neighbour", "shop"]


def test_the_copilot_s_page_offers_the_provider_and_gets_its_user_back(corp):
    http = HttpClient()
    assert b"/admin/account/oidc/corp/login/?next=%2Fcopilot%2Fapp" in http.get("/copilot/login").content
    answer = by_provider(http, "/admin/account/oidc/corp/login/?next=%2Fcopilot%2Fapp")
    assert answer["Location"] == "/copilot/app"
    assert http.get("/copilot/app").status_code == 200


def test_the_second_sign_in_finds_the_same_user_and_the_new_groups(corp):
    by_provider(HttpClient())
    corp.groups = ["partners"]
    corp.person["preferred_username"] = "ann.new"
    http = HttpClient()
    assert by_provider(http).status_code == 302
    assert roles_of("ann") == {"neighbour": "viewer"}
    assert get_user_model().objects.count() == 1
    verbs = StaffAction.objects.order_by("id").values_list("verb", "client__sub_domain")
    assert list(verbs) == [
        ("received at sign-in", "shop"),
        ("received at sign-in", "neighbour"),
        ("lost at sign-in", "shop"),
    ]


def test_a_group_that_was_removed_takes_the_role_away_from_open_sessions_too(corp):
    open_session = HttpClient()
    by_provider(open_session)
    assert open_session.get(reverse("admin:conversations_conversation_changelist")).status_code == 200
    corp.groups = []
    http = HttpClient()
    answer = by_provider(http)
    assert answer.status_code == 403
    assert b"you have no role here" in answer.content
    assert not is_signed_in(http)
    assert roles_of("ann") == {}
    assert open_session.get(reverse("admin:conversations_conversation_changelist")).status_code == 302
    corp.groups = ["support"]
    assert by_provider(http).status_code == 302
    assert is_signed_in(http)


@pytest.mark.parametrize("groups", [[], ["others"], None, "supporters"])
def test_without_a_mapped_group_there_is_no_user(corp, groups):
    corp.groups = groups
    http = HttpClient()
    assert_refused(by_provider(http), http, 403)
    assert not get_user_model().objects.exists()


def test_a_colleague_s_role_lets_nobody_else_in(corp):
    staff("bob", shop="agent")
    by_provider(HttpClient())
    corp.groups = []
    http = HttpClient()
    assert by_provider(http).status_code == 403
    assert not is_signed_in(http)
    assert not get_user_model().objects.get(username="ann").is_staff


@pytest.mark.django_db(transaction=True)
def test_two_sign_ins_at_once_give_a_role_once():
    ann = staff("ann")

    def give() -> None:
        provider_roles.apply_roles(ann, "corp", {"shop": "agent"})

    with not_committed(give):
        give()
    assert roles_of("ann") == {"shop": "agent"}


def test_a_role_that_a_colleague_gave_stays(corp, shop):
    by_provider(HttpClient())
    ann = get_user_model().objects.get(username="ann")
    Membership.objects.filter(user=ann).update(provider="", role="manager")
    corp.groups = ["support"]
    by_provider(HttpClient())
    assert roles_of("ann") == {"shop": "manager"}
    corp.groups = []
    http = HttpClient()
    assert by_provider(http).status_code == 302
    assert is_signed_in(http)
    assert roles_of("ann") == {"shop": "manager"}


def test_groups_are_read_from_userinfo_where_the_token_has_none_and_only_of_the_same_person(corp):
    corp.groups = None
    corp.userinfo = {"groups": "leads"}
    http = HttpClient()
    assert by_provider(http).status_code == 302
    assert roles_of("ann") == {"shop": "manager"}
    corp.person, corp.userinfo = {"sub": "1002", "preferred_username": "eve"}, {"sub": "1001", "groups": ["leads"]}
    assert by_provider(HttpClient()).status_code == 401
    assert not get_user_model().objects.filter(username="eve").exists()


def test_who_is_switched_off_here_stays_out(corp):
    by_provider(HttpClient())
    get_user_model().objects.update(is_active=False)
    http = HttpClient()
    assert by_provider(http).status_code == 403
    assert not is_signed_in(http)


# --- tokens that are not to be trusted --------------------------------------------------------------------------------
WRONG: dict[str, dict[str, Any]] = {
    "another nonce": {"nonce": "5f0c7a52"},
    "no nonce": {"nonce": None},
    "another issuer": {"iss": "https://elsewhere.example"},
    "another audience": {"aud": "somebody-else"},
    "another party": {"aud": [CLIENT_ID, "somebody-else"], "azp": "somebody-else"},
    "expired": {"exp": int(time.time()) - 3600, "iat": int(time.time()) - 7200},
    "no expiry": {"exp": None},
    "nobody": {"sub": None},
    "an empty subject": {"sub": ""},
    "a subject without end": {"sub": "x" * 256},
}


@pytest.mark.parametrize("claims", WRONG.values(), ids=WRONG.keys())
def test_a_token_with_wrong_claims_signs_nobody_in(corp, claims):
    corp.claims = claims
    http = HttpClient()
    assert_refused(by_provider(http), http)


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(STRANGERS_KEY, "RS256"), (None, "none"), (SECRET + "x" * 32, "HS256")],
    ids=["a stranger's key", "no signature", "a shared secret"],
)
def test_a_token_that_the_provider_did_not_sign_signs_nobody_in(corp, key, algorithm):
    corp.signed_by, corp.algorithm = key, algorithm
    http = HttpClient()
    assert_refused(by_provider(http), http)


def test_the_clock_of_the_provider_may_differ_by_some_seconds(corp):
    now = int(time.time())
    for claims in ({"exp": now - 5, "iat": now - 305}, {"iat": now + 20, "exp": now + 320}):
        corp.claims = claims
        assert by_provider(HttpClient()).status_code == 302


def test_of_several_keys_the_one_that_the_token_names_counts(corp):
    corp.keys = [public(STRANGERS_KEY, "new"), public(KEY)]
    for signed_by, named, status in ((KEY, "first", 302), (STRANGERS_KEY, "new", 302), (KEY, "new", 401)):
        corp.signed_by, corp.named = signed_by, named
        assert by_provider(HttpClient()).status_code == status, named


def test_a_token_that_names_no_key_is_of_the_only_one(corp):
    corp.named = None
    assert by_provider(HttpClient()).status_code == 302
    corp.keys = [public(STRANGERS_KEY, "new"), public(KEY)]
    assert by_provider(HttpClient()).status_code == 401


def test_an_answer_is_taken_once(corp):
    http = HttpClient()
    answer = to_provider(http)
    assert http.get(answer).status_code == 302
    assert is_signed_in(http)
    http.post("/admin/logout/")
    assert http.get(answer).status_code == 401
    assert not is_signed_in(http)


def test_a_code_that_was_used_is_not_taken_with_a_new_state(corp):
    first = HttpClient()
    used = parse_qs(urlsplit(to_provider(first)).query)
    first.get(f"/admin/account/oidc/corp/login/callback/?code={used['code'][0]}&state={used['state'][0]}")
    assert is_signed_in(first)
    http = HttpClient()
    fresh = parse_qs(urlsplit(to_provider(http)).query)
    answer = http.get(f"/admin/account/oidc/corp/login/callback/?code={used['code'][0]}&state={fresh['state'][0]}")
    assert answer.status_code == 401
    assert not is_signed_in(http)


def test_a_stolen_code_is_of_no_use_in_another_browser(corp):
    """Neither with its own state, nor with one of the thief's: the code belongs to the browser's PKCE verifier."""
    victim, thief = HttpClient(), HttpClient()
    stolen = to_provider(victim)
    assert_refused(thief.get(stolen), thief)
    code = parse_qs(urlsplit(stolen).query)["code"][0]
    state = parse_qs(urlsplit(to_provider(thief)).query)["state"][0]
    assert_refused(thief.get(f"/admin/account/oidc/corp/login/callback/?code={code}&state={state}"), thief)


def test_a_link_changes_nothing_of_how_one_signs_in(corp):
    begun = HttpClient().get(
        "/admin/account/oidc/corp/login/?auth_params=redirect_uri%3Dhttps%3A%2F%2Fevil.example%26nonce%3D1&scope=all"
    )
    sent = parse_qs(urlsplit(begun["Location"]).query)
    assert sent["redirect_uri"] == [callback("corp")]
    assert set(sent["scope"][0].split()) == {"openid", "profile"}
    assert len(sent["nonce"][0]) == 64
    assert sent["code_challenge_method"] == ["S256"]


@pytest.mark.parametrize("answer", ["error=access_denied", "error=server_error", ""])
def test_a_provider_that_says_no_is_told_of(corp, answer):
    http = HttpClient()
    begun = http.get("/admin/account/oidc/corp/login/")
    state = parse_qs(urlsplit(begun["Location"]).query)["state"][0]
    page = http.get(f"/admin/account/oidc/corp/login/callback/?{answer}&state={state}", follow=True)
    assert b"Not signed in" in page.content
    assert not is_signed_in(http)


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(cut="before"), Fault(status=200, content=["no"])])
def test_a_provider_that_is_down_is_a_page_and_no_fault_of_ours(corp, fault):
    corp.fail_next(fault)
    http = HttpClient()
    assert_refused(http.get("/admin/account/oidc/corp/login/"), http)


def test_a_provider_whose_keys_or_tokens_are_not_to_be_had_is_a_page(corp):
    for failures in (1, 2, 3):  # discovery, tokens, keys
        http = HttpClient()
        answer = to_provider(http)
        seen = len(corp.requests)
        real = corp.handle

        def handle(request, seen=seen, failures=failures, real=real):
            return real(request) if len(corp.requests) - seen != failures else Reply(503, b"later")

        corp.handle = handle
        page = http.get(answer)
        corp.handle = real
        assert_refused(page, http)


def test_a_discovery_document_of_another_issuer_is_refused(corp):
    corp.discovery = {"issuer": "https://elsewhere.example"}
    http = HttpClient()
    assert_refused(http.get("/admin/account/oidc/corp/login/"), http)


def test_why_it_failed_is_logged_by_code_and_without_words(corp, caplog):
    corp.claims = {"nonce": "wrong", "name": "Zanzibar"}
    by_provider(HttpClient())
    assert "sign-in by corp refused: token_wrong_nonce" in caplog.text
    http = HttpClient()
    answer = to_provider(http)
    http.get(answer)
    http.get(answer)
    assert "sign-in by corp refused: unexpected_answer" in caplog.text
    fresh = parse_qs(urlsplit(to_provider(http)).query)["state"][0]
    http.get(f"/admin/account/oidc/corp/login/callback/?code=stale&state={fresh}")
    assert "sign-in by corp refused: code_refused" in caplog.text
    assert "Zanzibar" not in caplog.text


# --- whose account it is ----------------------------------------------------------------------------------------------
def test_a_foreign_account_with_a_known_address_or_name_is_somebody_else(corp):
    local = staff("ann", shop="manager")
    local.email = "ann@shop.example"
    local.save()
    EmailAddress.objects.create(user=local, email="ann@shop.example", verified=True, primary=True)
    corp.person |= {"email": "ann@shop.example", "email_verified": True}
    corp.groups = ["partners"]
    http = HttpClient()
    assert by_provider(http).status_code == 302
    new = SocialAccount.objects.get().user
    assert new != local
    assert new.username != "ann"
    assert new.email == ""
    assert roles_of(new.username) == {"neighbour": "viewer"}
    assert roles_of("ann") == {"shop": "manager"}


def test_the_same_subject_of_another_issuer_is_somebody_else(settings, monkeypatch, corp):
    by_provider(HttpClient())
    with FakeIdentityProvider(callback("corp")) as other:
        configure(settings, monkeypatch, corp=other.url)
        other.person["preferred_username"] = "eve"
        assert by_provider(HttpClient()).status_code == 302
    assert {each.user.username for each in SocialAccount.objects.all()} == {"ann", "eve"}


def test_long_subjects_are_told_apart(corp):
    for end, name in (("a", "ann"), ("b", "bob"), ("a", "ann")):
        corp.person |= {"sub": "x" * 254 + end, "preferred_username": name}
        http = HttpClient()
        assert by_provider(http).status_code == 302
        assert http.get("/admin/").context["user"].username == name


def test_no_token_of_the_provider_s_and_no_address_is_stored(corp):
    corp.person["email"] = "ann@shop.example"
    by_provider(HttpClient())
    account = SocialAccount.objects.get()
    assert account.uid == f"{corp.url} 1001"
    assert "ann@shop.example" not in str(account.extra_data)
    assert not SocialToken.objects.exists()
    assert not EmailAddress.objects.exists()


def test_a_signed_in_user_links_an_account_and_signs_in_by_it_from_then_on(corp):
    bob = staff("bob", shop="viewer")
    http = by_password(bob)
    assert b"Not linked" in http.get(reverse("mfa_index")).content
    page = http.post("/admin/account/oidc/corp/login/", {"process": "connect"})
    assert page.status_code == 200
    answer = http.get(back_from(page.context["link"]))
    assert (answer.status_code, answer["Location"]) == (302, reverse("mfa_index"))
    assert b">Linked<" in http.get(reverse("mfa_index")).content
    again = HttpClient()
    by_provider(again)
    assert again.get("/admin/").context["user"] == bob
    assert roles_of("bob") == {"shop": "viewer"}, "the role that a colleague gave"


def test_nobody_links_an_account_by_a_link_or_without_the_password(corp):
    bob = staff("bob", shop="viewer")
    http = signed_in(bob)
    assert http.get("/admin/account/oidc/corp/login/?process=connect").status_code == 404
    assert http.get("/admin/account/oidc/corp/login/?process=redirect").status_code == 404
    page = http.post("/admin/account/oidc/corp/login/", {"process": "connect"})
    answer = http.get(back_from(page.context["link"]))
    assert answer["Location"].startswith(reverse("account_reauthenticate"))
    assert not SocialAccount.objects.exists()


def test_an_account_is_linked_to_one_user(corp):
    by_provider(HttpClient())
    http = by_password(staff("bob", shop="viewer"))
    page = http.post("/admin/account/oidc/corp/login/", {"process": "connect"})
    http.get(back_from(page.context["link"]))
    assert SocialAccount.objects.get().user.username == "ann"


def test_a_superuser_ends_the_sign_in_of_an_account(corp):
    by_provider(HttpClient())
    boss = signed_in(superuser())
    account = SocialAccount.objects.get()
    page = reverse("admin:socialaccount_socialaccount_delete", args=[account.pk])
    assert boss.post(page, {"post": "yes"}).status_code == 302
    assert get_user_model().objects.filter(username="ann").exists()
    assert StaffAction.objects.filter(verb="deleted", object_type="socialaccount").exists()


def test_a_user_of_a_provider_gets_no_password_from_a_manager(corp):
    by_provider(HttpClient())
    with pytest.raises(ConflictError, match="identity provider"):
        staff_service.renew_password(get_user_model().objects.get(username="ann"))


# --- together with the rest -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "page", ["https://evil.example/", "//evil.example/", "http:evil.example", "javascript:alert(1)"]
)
def test_nobody_is_sent_to_another_host(corp, page):
    http = HttpClient()
    assert by_provider(http, f"/admin/account/oidc/corp/login/?next={page}")["Location"] == "/admin/"


def test_the_second_factor_stands_behind_the_provider_too(corp, shop):
    second_factor.require(shop, required=True)
    http = HttpClient()
    by_provider(http)
    assert not is_signed_in(http)
    assert http.get("/admin/", follow=True).redirect_chain[-1][0].startswith(reverse("mfa_index"))
    secret, _ = set_up_app(http)
    assert is_signed_in(http)
    again = HttpClient()
    assert by_provider(again, "/admin/account/oidc/corp/login/?next=/admin/inbox/")["Location"] == reverse(
        "mfa_authenticate"
    )
    assert not is_signed_in(again)
    assert send_code(again, code_of(secret))["Location"] == "/admin/inbox/"
    assert is_signed_in(again)
