"""Ways to sign in as a browser does: by password, with a code, and by an identity provider."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import struct
import time
from typing import Any
from urllib.parse import urlsplit

import requests
from django.test import Client as HttpClient
from django.urls import reverse

from tests.conversations.staff import PASSWORD

LOGIN = "/admin/login/"
STEP = 30  # seconds for which an authenticator app shows a code
MARGIN = 4  # seconds within which a code arrives, on a busy machine too


def by_password(user: Any, page: str = LOGIN, password: str = PASSWORD, **options: Any) -> HttpClient:
    """A browser that has sent user name and password."""
    http = HttpClient(**options)
    http.post(page, {"username": user.username, "password": password})
    return http


def code_of(secret: str, steps: int = 0) -> str:
    """What an authenticator app shows, so many steps from now (RFC 6238).

    The code of the step before is accepted until this step ends. So the next step is awaited where this one nearly
    is over.
    """
    left = STEP - time.time() % STEP
    if steps < 0 and left < MARGIN:
        time.sleep(left)
    counter = struct.pack(">Q", int(time.time()) // STEP + steps)
    digest = hmac.new(base64.b32decode(secret), counter, hashlib.sha1).digest()
    offset = digest[-1] & 15
    return f"{(int.from_bytes(digest[offset : offset + 4], 'big') & 0x7FFFFFFF) % 1_000_000:06}"


def set_up_app(http: HttpClient) -> tuple[str, list[str]]:
    """Set up an authenticator app by the pages, and return its secret and the recovery codes that are shown."""
    page = http.get(reverse("mfa_activate_totp"))
    assert page.status_code == 200, page
    [secret] = re.findall(r'<code class="si-key">([A-Z2-7]+)</code>', page.content.decode())
    done = http.post(reverse("mfa_activate_totp"), {"code": code_of(secret, -1)})
    assert (done.status_code, done["Location"]) == (302, reverse("mfa_view_recovery_codes")), done.content
    shown = http.get(done["Location"]).content.decode()
    return secret, re.findall(r"<code>(\d{8})</code>", shown)


def send_code(http: HttpClient, code: str) -> Any:
    """What comes of a code on the page that asks for the second factor."""
    return http.post(reverse("mfa_authenticate"), {"code": code})


def is_signed_in(http: HttpClient) -> bool:
    """Whether the back office and the copilot agree that somebody is signed in."""
    back_office = http.get("/admin/").status_code == 200
    copilot = http.get("/copilot").status_code != 401
    assert back_office == copilot
    return back_office


def to_provider(http: HttpClient, path: str = "/admin/account/oidc/corp/login/") -> str:
    """The address at Convo to which the identity provider sends the browser back."""
    begun = http.get(path)
    assert begun.status_code == 302, begun.content
    return back_from(begun["Location"])


def back_from(address: str) -> str:
    """What the provider answers a browser that comes to the address: the way back."""
    answered = requests.get(address, allow_redirects=False, timeout=10)
    assert answered.status_code == 302, answered.text
    parts = urlsplit(answered.headers["Location"])
    return f"{parts.path}?{parts.query}"


def by_provider(http: HttpClient, path: str = "/admin/account/oidc/corp/login/") -> Any:
    """What comes of a whole sign-in by the provider."""
    return http.get(to_provider(http, path))
