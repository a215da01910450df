"""`/` is a page of links for a browser and an unknown route for a program."""

from __future__ import annotations

import re

import pytest
from django.contrib.staticfiles import finders
from django.test import Client as HttpClient

from tests.routes import WebServer, assert_failure

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
LINKS = ["/admin/", "/admin/conversations/channelaccount/simulator/", "/copilot/app", "/docs/"]


def test_a_browser_gets_links_to_every_part() -> None:
    page = HttpClient().get("/", headers={"accept": BROWSER})
    assert (page.status_code, page["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert re.findall(r'<a href="([^"]*)"', page.content.decode()) == LINKS
    assert "default-src 'self'" in page["Content-Security-Policy"]
    assert "Accept" in page["Vary"]


@pytest.mark.django_db
@pytest.mark.parametrize("link", LINKS)
def test_every_link_leads_somewhere(link: str) -> None:
    answer = HttpClient().get(link, headers={"accept": BROWSER}, follow=True)
    assert (answer.status_code, answer["Content-Type"]) == (200, "text/html; charset=utf-8")


def test_the_page_runs_no_script_and_loads_its_own_styles_only() -> None:
    html = HttpClient().get("/", headers={"accept": BROWSER}).content.decode()
    assert "<script" not in html
    assert "style=" not in html
    sheets = re.findall(r'<link rel="stylesheet" href="/static/([^"]*)"', html)
    assert len(sheets) == 2
    assert all(finders.find(sheet) for sheet in sheets)


@pytest.mark.parametrize("accept", ["application/json", "*/*", "text/plain", "application/json, text/html;q=0.5"])
def test_a_program_gets_the_envelope_of_an_unknown_route(accept: str) -> None:
    answer = WebServer().call("GET", "/", headers={"Accept": accept})
    assert_failure(answer, 404, code="not_found")
    assert answer.json == WebServer().call("GET", "/nowhere", headers={"Accept": accept}).json


def test_a_program_that_names_no_type_gets_the_envelope() -> None:
    assert_failure(WebServer().call("GET", "/"), 404, code="not_found")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_other_methods_meet_an_unknown_route(method: str) -> None:
    assert_failure(WebServer().call(method, "/", {}, headers={"Accept": BROWSER}), 404, code="not_found")
