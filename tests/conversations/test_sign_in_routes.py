"""The routes of signing in: those of allauth's that are closed, and the variables that name identity providers."""

from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import Client as HttpClient
from django.urls import get_resolver

from convo_project import identity_providers
from tests.conversations.sign_in_doors import by_password
from tests.conversations.staff import superuser

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("shop", "neighbour", "corp")]


CLOSED = [
    *("signup/", "email/", "confirm-email/", "confirm-email/x/", "password/change/", "password/set/", "inactive/"),
    *("password/reset/", "password/reset/done/", "password/reset/key/1-x/", "password/reset/key/done/"),
    *("login/code/", "login/code/confirm/", "reauthenticate/code/", "phone/verify/", "signup/passkey/"),
    *("2fa/webauthn/login/", "2fa/webauthn/signup/", "2fa/trust/", "2fa/recovery-codes/download/"),
    *("3rdparty/", "3rdparty/signup/", "social/signup/", "oidc/nobody/login/", "oidc/nobody/login/callback/"),
    *("openid_connect/corp/login/", "sessions/", ""),
]


@pytest.mark.parametrize("prefix", ["/admin/account/", "/accounts/", "/account/"])
def test_every_other_route_of_allauth_s_is_closed(prefix):
    for http in (HttpClient(), by_password(superuser(prefix.strip("/").replace("/", "")))):
        for path in CLOSED:
            answer = http.get(prefix + path)
            # The back office sends strangers to its sign-in page from whatever is not there.
            if answer.status_code == 302:
                assert answer["Location"].startswith("/admin/login/"), path
                answer = http.post(prefix + path)
            assert answer.status_code in (302, 404), path
            assert answer.status_code == 404 or answer["Location"].startswith("/admin/login/"), path


def test_no_name_of_a_closed_route_exists():
    names = {str(name) for name in get_resolver().reverse_dict if isinstance(name, str)}
    assert {"mfa_index", "account_login", "openid_connect_callback"} <= names
    closed = {
        "account_signup",
        "account_email",
        "account_reset_password",
        "account_set_password",
        "socialaccount_signup",
    }
    assert not closed & names


# --- the environment --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("part", "value", "named"),
    [
        ("PROVIDERS", "Corp Inc", "OIDC_PROVIDERS"),
        ("CORP_ISSUER", "", "OIDC_CORP_ISSUER"),
        ("CORP_ISSUER", "http://login.example", "OIDC_CORP_ISSUER"),
        ("CORP_CLIENT_ID", "", "OIDC_CORP_CLIENT_ID"),
        ("CORP_ROLES", "support=shop", "OIDC_CORP_ROLES"),
        ("CORP_ROLES", "support=shop:owner", "OIDC_CORP_ROLES"),
        ("CORP_ROLES", "=shop:agent", "OIDC_CORP_ROLES"),
    ],
)
def test_a_wrong_configuration_is_refused_by_name(monkeypatch, part, value, named):
    monkeypatch.setenv(f"OIDC_{part}", value)
    with pytest.raises(ImproperlyConfigured, match=rf"^{named} "):
        identity_providers.providers()


def test_a_provider_is_configured_by_its_variables(monkeypatch):
    values = {
        "TITLE": "Example Corp",
        "ISSUER": "https://login.example/",
        "CLIENT_ID": "convo",
        "SCOPES": "profile, groups",
        "GROUPS_CLAIM": "roles",
        "ROLES": "cn=a=shop:agent",
    }
    monkeypatch.delenv("OIDC_CORP_CLIENT_SECRET")  # not every provider gives one
    for part, value in values.items():
        monkeypatch.setenv(f"OIDC_CORP_{part}", value)
    [found] = identity_providers.providers()
    assert (found["name"], found["client_id"], found["secret"]) == ("Example Corp", "convo", "")
    assert found["settings"]["server_url"] == "https://login.example/.well-known/openid-configuration"
    assert found["settings"]["scope"] == ["openid", "profile", "groups"]
    assert found["settings"]["roles"] == [("cn=a", "shop", "agent")]
    assert set(values) | {"CLIENT_SECRET"} == set(identity_providers.PARTS)
