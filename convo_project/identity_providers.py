"""The identity providers (OpenID Connect) that the environment names, in the form that allauth reads.

`OIDC_PROVIDERS=corp` names them; each has variables of its own: `OIDC_CORP_ISSUER` and so on.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

from convo_project import env

ROLES = ("viewer", "agent", "manager")
# What each provider has, as OIDC_<NAME>_<PART>.
PARTS = ("TITLE", "ISSUER", "CLIENT_ID", "CLIENT_SECRET", "SCOPES", "GROUPS_CLAIM", "ROLES")
DISCOVERY = "/.well-known/openid-configuration"


def providers() -> list[dict[str, Any]]:
    """Return the providers as allauth's APPS. Raises ImproperlyConfigured with a sentence that names the variable."""
    return [_provider(name) for name in env.words("OIDC_PROVIDERS")]


def _provider(name: str) -> dict[str, Any]:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,30}", name):
        raise ImproperlyConfigured(
            f"OIDC_PROVIDERS must list names of lower-case letters, digits and underscores, not {name!r}."
        )
    prefix = f"OIDC_{name.upper()}"
    issuer = _issuer(f"{prefix}_ISSUER")
    needed = f"The identity provider {name} gives it."
    return {
        "provider_id": name,
        "name": env.text(f"{prefix}_TITLE", name.replace("_", " ").title())[:40],
        "client_id": env.required(f"{prefix}_CLIENT_ID", needed),
        "secret": env.text(f"{prefix}_CLIENT_SECRET"),
        "settings": {
            "server_url": issuer + DISCOVERY,
            "issuer": issuer,
            "scope": ["openid", *env.words(f"{prefix}_SCOPES", "profile")],
            "groups_claim": env.text(f"{prefix}_GROUPS_CLAIM", "groups"),
            "roles": _roles(f"{prefix}_ROLES"),
            "oauth_pkce_enabled": True,
        },
    }


def _issuer(variable: str) -> str:
    """Return the issuer. It must be https, unless it is on this machine: the keys of its tokens come from there."""
    if not env.url(variable):
        raise ImproperlyConfigured(f"{variable} is not set. It is the address of the identity provider.")
    issuer = env.url(variable)
    parts = urlsplit(issuer)
    if parts.scheme != "https" and not _is_here(parts.hostname or ""):
        raise ImproperlyConfigured(f"{variable} must be an https:// address, not {issuer!r}.")
    return issuer


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _roles(variable: str) -> list[tuple[str, str, str]]:
    """Return the roles that groups give: group, sub-domain of the client, role."""
    found = []
    for word in env.words(variable):
        group, _, given = word.rpartition("=")
        sub_domain, _, role = given.partition(":")
        if not (group.strip() and sub_domain.strip() and role.strip() in ROLES):
            raise ImproperlyConfigured(
                f"{variable} must be like support=shop:agent, leads=shop:manager, with the roles {', '.join(ROLES)};"
                f" not {word!r}."
            )
        found.append((group.strip(), sub_domain.strip(), role.strip()))
    return found
