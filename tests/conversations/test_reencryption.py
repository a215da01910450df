"""Encrypting all secrets anew with the first key, so that the keys before it can be removed."""

from __future__ import annotations

import pytest
from allauth.mfa.models import Authenticator
from cryptography.fernet import Fernet, MultiFernet
from django.core.management import CommandError, call_command

from conversations.models import ChannelAccount, ModelProvider
from conversations.models.fields import vault
from conversations.services.tenants import reencryption
from tests.conversations.staff import staff
from tests.factories import ClientFactory

pytestmark = pytest.mark.django_db(transaction=True)

OLD, NEW, OTHER = (Fernet.generate_key().decode() for _ in range(3))


def account(client, token):
    return ChannelAccount.objects.create(
        client=client, channel="sms", provider="sandbox", address=token, credentials={"token": token}
    )


@pytest.fixture
def accounts(settings):
    """Two clients' accounts with the old key, and the new key is the first now."""
    settings.CREDENTIALS_KEYS = [OLD]
    made = [account(ClientFactory(), name) for name in ("a", "b")]
    settings.CREDENTIALS_KEYS = [NEW, OLD]
    return made


def secrets_of(accounts):
    return [ChannelAccount.objects.get(pk=each.pk).credentials for each in accounts]


def test_with_the_old_key_gone_every_secret_still_reads(accounts, settings, capsys):
    ModelProvider.objects.create(name="ours", kind="openai", credentials={"api_key": "new"})
    call_command("reencrypt_secrets", "--dry-run")
    assert "channel accounts, credentials: 2 would be encrypted anew, 0 had" in capsys.readouterr().out
    settings.CREDENTIALS_KEYS = [NEW]
    assert secrets_of(accounts) == [{}, {}]

    settings.CREDENTIALS_KEYS = [NEW, OLD]
    call_command("reencrypt_secrets")
    said = capsys.readouterr().out
    assert "channel accounts, credentials: 2 encrypted anew, 0 had the first key already" in said
    assert "model providers, credentials: 0 encrypted anew, 1 had the first key already" in said
    assert "The other keys can go" in said
    settings.CREDENTIALS_KEYS = [NEW]
    assert secrets_of(accounts) == [{"token": "a"}, {"token": "b"}]
    call_command("reencrypt_secrets")
    assert "0 encrypted anew, 2 had the first key already" in capsys.readouterr().out


def test_second_factors_are_encrypted_anew_too(settings):
    settings.CREDENTIALS_KEYS = [OLD]
    user, old = staff("ann"), vault().encrypt(b"JBSWY3DPEHPK3PXP").decode()
    app = Authenticator.objects.create(user=user, type="totp", data={"secret": old})
    codes = Authenticator.objects.create(user=user, type="recovery_codes", data={"seed": old, "used_mask": 5})
    key = Authenticator.objects.create(user=user, type="webauthn", data={"name": "Passkey", "credential": {}})
    settings.CREDENTIALS_KEYS = [NEW, OLD]
    call_command("reencrypt_secrets")
    for each in (app, codes, key):
        each.refresh_from_db()
    settings.CREDENTIALS_KEYS = [NEW]
    assert vault().decrypt(app.data["secret"].encode()) == vault().decrypt(codes.data["seed"].encode())
    assert codes.data["used_mask"] == 5
    assert key.data == {"name": "Passkey", "credential": {}}


def test_what_no_key_decrypts_is_named_and_stays(accounts, settings):
    settings.CREDENTIALS_KEYS = [OTHER]
    lost = account(accounts[0].client, "c")
    settings.CREDENTIALS_KEYS = [NEW, OLD]
    with pytest.raises(CommandError, match=f"decrypts 1 of them: conversations.ChannelAccount {lost.pk}"):
        call_command("reencrypt_secrets")
    settings.CREDENTIALS_KEYS = [NEW, OTHER]
    assert secrets_of([*accounts, lost]) == [{"token": "a"}, {"token": "b"}, {"token": "c"}]


def test_a_secret_that_is_replaced_meanwhile_stays_as_it_was_entered(accounts, monkeypatch):
    entered, rotate = ["entered now"], MultiFernet.rotate

    def rotate_late(keys, token):
        while entered:
            ChannelAccount.objects.filter(pk=accounts[0].pk).update(credentials={"token": entered.pop()})
        return rotate(keys, token)

    monkeypatch.setattr(MultiFernet, "rotate", rotate_late)
    with pytest.raises(CommandError, match="1 of them were changed meanwhile"):
        call_command("reencrypt_secrets")
    assert secrets_of(accounts) == [{"token": "entered now"}, {"token": "b"}]


def test_more_rows_than_are_read_together_are_all_encrypted(accounts, settings, monkeypatch):
    monkeypatch.setattr(reencryption, "AT_ONCE", 1)
    call_command("reencrypt_secrets")
    settings.CREDENTIALS_KEYS = [NEW]
    assert secrets_of(accounts) == [{"token": "a"}, {"token": "b"}]
