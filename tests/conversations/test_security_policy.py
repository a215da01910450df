"""Every page has a Content-Security-Policy, and nothing looser than its library needs."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib import admin
from django.test import Client as HttpClient
from django.urls import reverse

from conversations.http import envelope
from conversations.http.security_policy import BY_PATH, STRICT, policy_of
from tests.conftest import Door
from tests.conversations.staff import signed_in, superuser

pytestmark = pytest.mark.django_db


def policy(page: Any) -> dict[str, str]:
    given = page.headers.get("Content-Security-Policy", "")
    return dict(each.strip().split(" ", 1) for each in given.split(";")) if given else {}


def test_every_page_of_the_back_office_has_one(door: Door) -> None:
    door.says("Hello")
    http = signed_in(superuser())
    paths = [reverse("admin:index"), reverse("admin:login"), "/admin/nothing-here/"]
    models = [each._meta for each in admin.site._registry]
    paths += [reverse(f"admin:{each.app_label}_{each.model_name}_changelist") for each in models]
    for path in paths:
        page = http.get(path)
        if page.headers["Content-Type"].startswith("text/html"):
            assert policy(page) == BY_PATH["/admin/"], path
            inline = re.findall(r"<script(?![^>]*\bsrc=)(?![^>]*application/json)[^>]*>", page.content.decode())
            assert inline == [], path
            assert not re.search(r"\son[a-z]+=\"", page.content.decode()), path


def test_scripts_may_be_evaluated_in_the_back_office_alone() -> None:
    assert "'unsafe-eval'" in policy_of("/admin/")
    for path in ("/docs/", "/", "/copilot/app", "/anything"):
        assert "unsafe-eval" not in policy_of(path)
    assert all("script-src 'self'" in policy_of(path) for path in ("/", "/docs/", "/admin/"))
    assert "unsafe-inline" not in policy_of("/")
    for each in (STRICT, *BY_PATH.values()):
        assert "unsafe-inline" not in each["script-src"]
        assert each["frame-ancestors"] == each["object-src"] == each["base-uri"] == "'none'"


@pytest.mark.parametrize("path", ["/", "/docs/", "/copilot/login", "/copilot/app"])
def test_every_other_page_has_one(path: str) -> None:
    page = HttpClient().get(path, headers={"Accept": "text/html"})
    if page.status_code == 302:
        page = HttpClient().get(page["Location"], headers={"Accept": "text/html"})
    assert page.headers["Content-Type"].startswith("text/html")
    assert policy(page)["object-src"] == "'none'"
    assert "unsafe" not in policy(page)["script-src"]


def test_an_export_keeps_its_own(door: Door) -> None:
    pk = door.says("Hello")["conversation_id"]
    page = door.http.get(f"/conversations/{pk}/transcript?format=html", headers={"X-Service-API-Key": door.key})
    assert policy(page)["default-src"] == "'none'"


def test_answers_for_programs_have_none(door: Door) -> None:
    answer = door.http.get("/conversations", headers={"X-Service-API-Key": door.key})
    assert answer.headers["Content-Type"] == envelope.JSON
    assert "Content-Security-Policy" not in answer.headers
