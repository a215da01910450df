"""An identity provider "corp" that the environment names, for tests of signing in."""

from __future__ import annotations

from typing import Any

from convo_project import identity_providers
from tests.fakes.identity_provider import CLIENT_ID, SECRET

BASE = "http://testserver"
ROLES = "support=shop:agent, leads=shop:manager, partners=neighbour:viewer"


def configure(settings: Any, monkeypatch: Any, **issuers: str) -> None:
    """The environment names these providers."""
    settings.PUBLIC_BASE_URL = BASE
    monkeypatch.setenv("OIDC_PROVIDERS", ",".join(issuers))
    for name, issuer in issuers.items():
        values = {"ISSUER": issuer, "CLIENT_ID": CLIENT_ID, "CLIENT_SECRET": SECRET, "ROLES": ROLES}
        for part, value in values.items():
            monkeypatch.setenv(f"OIDC_{name.upper()}_{part}", value)
    settings.SOCIALACCOUNT_PROVIDERS = {"openid_connect": {"APPS": identity_providers.providers()}}


def callback(name: str) -> str:
    return f"{BASE}/admin/account/oidc/{name}/login/callback/"
