"""A Plivo number is connected by command and in the back office."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.urls import reverse

from conversations.models import Assistant, ChannelAccount
from tests.conversations.back_office import sign_in
from tests.fakes.plivo import FakePlivo

pytestmark = pytest.mark.django_db
SECRETS = {"auth_id": "MANDE3ZJJKNJM5OGY5ZJ", "auth_token": "TOPSECRET"}


def make(*arguments: str, **credentials: str) -> None:
    pairs = [f"--credential={name}={value}" for name, value in credentials.items()]
    number = ["--client=shop", "--provider=plivo", "--address=+1 415-555-0000"]
    call_command("create_channel_account", *number, *arguments, *pairs)


@pytest.mark.parametrize("channel", ["sms", "voice"])
def test_the_command_takes_a_number_in_any_writing(shop, capsys, channel):
    make(f"--channel={channel}", **SECRETS)
    made = json.loads(capsys.readouterr().out)
    assert (made["address"], made["webhook"]) == ("14155550000", f"/webhooks/{channel}/inbound")
    assert ChannelAccount.objects.get(provider="plivo").credentials == SECRETS


def test_the_command_names_the_credentials_that_are_missing(shop):
    with pytest.raises(CommandError, match="plivo needs the credentials auth_token"):
        make("--channel=sms", auth_id="MA")
    with pytest.raises(CommandError, match="auth_id, auth_token"):
        make("--channel=voice")


def test_an_assistant_is_told_how_to_sound(shop, capsys):
    call_command(
        *("create_assistant", "--client=shop", "--key=mia", "--greeting=¡Hola!"),
        *("--spoken-language=es-MX", "--voice=Polly.Mia"),
    )
    mia = Assistant.objects.get(key="mia")
    assert (mia.greeting, mia.spoken_language, mia.voice) == ("¡Hola!", "es-MX", "Polly.Mia")
    for wrong in ("--spoken-language=Spanish (Mexico)", "--voice=<Hangup/>", "--greeting="):
        with pytest.raises(CommandError):
            call_command("create_assistant", "--client=shop", "--key=other", wrong)


@pytest.fixture
def manager(shop: Any) -> Any:
    return sign_in("ann", shop, "manager")


def test_the_back_office_takes_one_number_for_sms_and_for_voice(manager, shop):
    add = reverse("admin:conversations_channelaccount_add")
    chooser = manager.get(add).content.decode()
    form = {"client": str(shop.pk), "name": "Line", "address": "+1 (415) 555-0000", "is_active": "on"}
    secrets = {f"credential_{name}": value for name, value in SECRETS.items()}
    for channel in ("sms", "voice"):
        assert f"?kind=plivo:{channel}" in chooser
        page = manager.get(f"{add}?kind=plivo:{channel}").content.decode()
        assert "Auth id" in page
        assert "Auth token" in page
        assert manager.post(f"{add}?kind=plivo:{channel}", {**form, **secrets}).status_code == 302
        again = manager.post(f"{add}?kind=plivo:{channel}", {**form, **secrets, "address": "14155550000"})
        assert "This address is connected already." in again.content.decode()
    found = ChannelAccount.objects.filter(provider="plivo").values_list("channel", "address")
    assert sorted(found) == [("sms", "14155550000"), ("voice", "14155550000")]


def test_the_back_office_asks_plivo_about_the_credentials(manager, shop):
    with FakePlivo() as plivo:
        account = ChannelAccount.objects.create(
            client=shop,
            channel="voice",
            provider="plivo",
            address=plivo.number,
            credentials=plivo.credentials,
            base_url=plivo.base_url,
        )
        path = reverse("admin:conversations_channelaccount_check_credentials", args=[account.pk])
        assert "accepts the credentials: The shop" in manager.post(path, follow=True).content.decode()
        plivo.auth_token = "another"
        assert "refuses the auth id or the auth token" in manager.post(path, follow=True).content.decode()
    account.refresh_from_db()
    assert account.health == "broken"


def test_the_back_office_shows_how_an_assistant_sounds(manager, shop):
    page = manager.get(reverse("admin:conversations_assistant_change", args=[Assistant.objects.get().pk]))
    assert "Hello, how can I help you?" in page.content.decode()
