"""The set-up of a client's own agent: on the assistant's page, or by a command. Its secret is shown once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import connection
from django.test import Client as HttpClient

from channels_out import standard_webhooks
from conversations.models import Assistant, Client, StaffAction
from tests.conversations.back_office import sign_in
from tests.conversations.test_admin_set_up import address, saved, secret_in
from tests.conversations.test_commands import made, refused

pytestmark = pytest.mark.django_db

URL = "https://agent.example/convo"
GIVEN = "whsec_Z2l2ZW4gYnkgdGhlIGNsaWVudA=="


def form(assistant: Assistant | None = None, **changes: Any) -> dict[str, Any]:
    """The fields of the page, as a browser posts them."""
    row = assistant or Assistant(key="bot", name="Bot")
    fields = {
        field.name: value
        for field in Assistant._meta.fields
        if field.editable and not field.is_relation and (value := getattr(row, field.name)) not in (None, False)
    }
    return {**fields, "name": "Bot", **changes}


def stored(assistant: Assistant) -> dict[str, str]:
    secrets: dict[str, str] = Assistant.objects.get(pk=assistant.pk).agent_secrets
    return secrets


@pytest.fixture
def ada(shop: Client) -> Assistant:
    return Assistant.objects.get(client=shop)


def test_the_first_secret_is_made_and_shown_once(manager: HttpClient, ada: Assistant) -> None:
    page = address("assistant", "change", ada.pk)
    answer = manager.post(page, form(ada, engine="agent", agent_url=URL))
    secret = secret_in(answer)
    assert "no-store" in answer["Cache-Control"]
    assert standard_webhooks.is_secret(secret)
    assert stored(ada) == {"current": secret}
    ada.refresh_from_db()
    assert (ada.engine, ada.agent_url) == ("agent", URL)
    assert secret not in manager.get(page).content.decode()
    saved(manager.post(page, form(ada, name="Other")))
    assert stored(ada) == {"current": secret}, "a blank field keeps it"
    with connection.cursor() as cursor:
        cursor.execute("SELECT agent_secrets FROM assistants WHERE id = %s", [ada.pk])
        assert secret not in str(cursor.fetchall())
    assert secret not in json.dumps([*StaffAction.objects.values()], default=str)


def test_a_new_assistant_is_an_agent_from_the_start(manager: HttpClient, shop: Client) -> None:
    answer = manager.post(
        address("assistant", "add"), form(client=str(shop.pk), key="bot", engine="agent", agent_url=URL)
    )
    assert Assistant.objects.get(key="bot").agent_secrets == {"current": secret_in(answer)}


def test_a_secret_of_one_s_own_is_taken_and_never_shown(manager: HttpClient, ada: Assistant) -> None:
    page = address("assistant", "change", ada.pk)
    saved(manager.post(page, form(ada, engine="agent", agent_url=URL, agent_secret=GIVEN)))
    assert stored(ada) == {"current": GIVEN}
    wrong = manager.post(page, form(ada, agent_secret="no base64!"))
    assert "base64" in str(wrong.context["errors"])
    for shown in (manager.get(page), wrong):
        assert GIVEN not in shown.content.decode()
        assert "no base64!" not in shown.content.decode()
    assert GIVEN not in json.dumps([*StaffAction.objects.values()], default=str)


def test_a_new_secret_leaves_the_one_before_valid_until_the_next(manager: HttpClient, ada: Assistant) -> None:
    Assistant.objects.filter(pk=ada.pk).update(engine="agent", agent_url=URL, agent_secrets={"current": GIVEN})
    page = address("assistant", "new_agent_secret", ada.pk)
    assert "until you make" in manager.get(page).content.decode()
    assert stored(ada) == {"current": GIVEN}
    first = secret_in(manager.post(page))
    assert stored(ada) == {"current": first, "before": GIVEN}
    second = secret_in(manager.post(page))
    assert stored(ada) == {"current": second, "before": first}
    assert StaffAction.objects.filter(verb="made a signing secret for").count() == 2


def test_an_agent_needs_a_url(manager: HttpClient, ada: Assistant) -> None:
    answer = manager.post(address("assistant", "change", ada.pk), form(ada, engine="agent"))
    assert "URL of the agent" in answer.content.decode()
    for wrong in ("nonsense", "ftp://agent.example/", "javascript:alert(1)"):
        answer = manager.post(address("assistant", "change", ada.pk), form(ada, engine="agent", agent_url=wrong))
        assert answer.context["errors"]
    ada.refresh_from_db()
    assert (ada.engine, ada.agent_secrets) == ("offline", {})


def test_who_may_not_set_up_sees_no_field_and_makes_no_secret(viewer: HttpClient, ada: Assistant) -> None:
    page = viewer.get(address("assistant", "change", ada.pk))
    assert page.status_code == 200
    assert "agent_secret" not in page.content.decode()
    assert viewer.post(address("assistant", "new_agent_secret", ada.pk)).status_code == 403
    assert stored(ada) == {}


def test_another_client_s_manager_reaches_it_not(neighbour: Client, ada: Assistant) -> None:
    nick = sign_in("nick", neighbour, "manager")
    nick.post(address("assistant", "new_agent_secret", ada.pk))
    assert stored(ada) == {}


def test_the_command_makes_a_secret_and_prints_it_once(shop: Client) -> None:
    printed = made(
        "create_assistant", "--client", "shop", "--key", "bot", "--engine", "agent", "--agent-url", URL,
        "--agent-timeout-seconds", "12.5", "--agent-deadline-seconds", "60",
    )  # fmt: skip
    bot = Assistant.objects.get(key="bot")
    assert bot.agent_secrets == {"current": printed["agent_secret"]}
    assert standard_webhooks.is_secret(printed["agent_secret"])
    assert (bot.engine, bot.agent_url) == ("agent", URL)
    assert (bot.agent_timeout_seconds, bot.agent_deadline_seconds) == (12.5, 60)


def test_the_command_takes_a_secret_and_does_not_print_it(shop: Client) -> None:
    ours = ["create_assistant", "--client", "shop", "--key", "bot", "--engine", "agent"]
    printed = made(*ours, "--agent-url", URL, "--agent-secret", GIVEN)
    assert "agent_secret" not in printed
    assert Assistant.objects.get(key="bot").agent_secrets == {"current": GIVEN}
    ours[4] = "other"
    assert "URL of the agent" in refused(*ours)
    assert "whsec_" in refused(*ours, "--agent-url", URL, "--agent-secret", "no base64!")
    assert "agent_url" in refused(*ours, "--agent-url", "nonsense")
    assert "agent_deadline_seconds" in refused(*ours, "--agent-url", URL, "--agent-deadline-seconds", "0")
