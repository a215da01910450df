"""The back office opens, shows what there is, and shows no secret."""

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.test import Client as HttpClient
from django.urls import reverse

from conversations.models import ApiKey, ChannelAccount, Conversation
from conversations.services.tenants import setup
from tests.conftest import reply_to_all, send_all

pytestmark = pytest.mark.django_db


@pytest.fixture
def staff():
    user = get_user_model().objects.create_superuser("boss", "", "secret-enough")
    http = HttpClient()
    http.force_login(user)
    return http


@pytest.mark.parametrize("model", [m for m in admin.site._registry if m._meta.app_label == "conversations"])
def test_every_list_opens(staff, door, model):
    door.says("<script>alert(1)</script>")
    reply_to_all()
    send_all()
    page = staff.get(reverse(f"admin:conversations_{model._meta.model_name}_changelist"))
    assert page.status_code == 200
    assert b"<script>alert(1)" not in page.content


def test_a_session_opens_and_cannot_be_changed_by_hand(staff, door):
    pk = door.says("Hello")["conversation_id"]
    path = reverse("admin:conversations_conversation_change", args=[pk])
    assert staff.get(path).status_code == 200
    assert staff.post(path, {"status": "closed"}).status_code == 403
    assert Conversation.objects.get().status == "active"


def test_credentials_and_keys_are_not_shown(staff, shop, key):
    setup.create_channel_account(
        shop,
        channel="whatsapp",
        provider="whatsapp",
        address="1",
        credentials={"access_token": "TOPSECRET", "app_secret": "TOPSECRET", "verify_token": "TOPSECRET"},
    )
    account = ChannelAccount.objects.get(provider="whatsapp")
    page = staff.get(reverse("admin:conversations_channelaccount_change", args=[account.pk]))
    assert page.status_code == 200
    assert b"TOPSECRET" not in page.content
    page = staff.get(reverse("admin:conversations_apikey_change", args=[ApiKey.objects.get().pk]))
    assert key.encode() not in page.content
