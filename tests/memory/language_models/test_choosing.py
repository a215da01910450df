"""Tests of the installation's provider, as the settings name it."""

from __future__ import annotations

from typing import Any

import pytest

from memory.language_models import choosing, transport
from memory.language_models.contract import Kind
from tests.memory.conftest import access_to


def test_without_key_and_address_there_is_no_provider() -> None:
    assert choosing.from_settings() is None
    assert not choosing.is_configured()


@pytest.mark.parametrize(
    ("key", "base_url", "api", "kind"),
    [
        ("sk-1", "", "", Kind.OPENAI),
        ("sk-1", "", "chat_completions", Kind.COMPATIBLE),
        ("", "http://127.0.0.1:8080/v1", "", Kind.COMPATIBLE),
        ("sk-1", "https://api.openai.com/v1", "", Kind.COMPATIBLE),
        ("sk-1", "https://eu.api.openai.com/v1", "responses", Kind.OPENAI),
    ],
)
def test_the_settings_name_the_protocol_and_no_host_decides(
    settings: Any, key: str, base_url: str, api: str, kind: Kind
) -> None:
    settings.OPENAI_API_KEY, settings.OPENAI_BASE_URL, settings.OPENAI_API = key, base_url, api
    access = choosing.from_settings()
    assert access is not None
    assert (access.kind, access.key, access.base_url) == (kind, key, base_url)


def test_settings_are_read_on_every_call(settings: Any) -> None:
    settings.OPENAI_API_KEY, settings.OPENAI_MODEL, settings.OPENAI_TIMEOUT_SECONDS = "sk-1", "one", 5.0
    first = choosing.from_settings()
    settings.OPENAI_API_KEY, settings.OPENAI_MODEL, settings.OPENAI_TIMEOUT_SECONDS = "sk-2", "two", 6.0
    second, named = choosing.from_settings(), choosing.from_settings("three")
    assert first is not None
    assert second is not None
    assert named is not None
    assert (first.key, first.model, first.seconds) == ("sk-1", "one", 5.0)
    assert (second.key, second.model, second.seconds) == ("sk-2", "two", 6.0)
    assert named.model == "three"


@pytest.mark.parametrize(
    ("base_url", "query", "expected"),
    [
        ("https://a.example/openai/v1/", {}, ("https://a.example/openai/v1", {})),
        ("https://a.example/v1?api-version=1&x=", {}, ("https://a.example/v1", {"api-version": "1", "x": ""})),
        ("https://a.example/v1?api-version=1", {"api-version": "2"}, ("https://a.example/v1", {"api-version": "2"})),
        ("", {}, ("https://api.openai.com/v1", {})),
    ],
)
def test_an_address_may_have_query_parameters(
    model: Any, base_url: str, query: dict[str, str], expected: tuple[str, dict[str, str]]
) -> None:
    assert transport.address_and_query(access_to(model, base_url=base_url, query=query)) == expected
