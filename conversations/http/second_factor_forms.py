"""The forms in which users show a second factor. allauth checks the code; attempts are counted here, in rows."""

from __future__ import annotations

from typing import Any

from allauth.core import context
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.mfa.adapter import get_adapter
from allauth.mfa.base import forms as codes
from allauth.mfa.models import Authenticator
from allauth.mfa.totp import forms as totp
from allauth.mfa.webauthn import forms as passkeys
from django.core.validators import MaxLengthValidator
from django.utils import timezone

from conversations.http.sign_in import address_of, refusal
from conversations.http.signed_in import note_second_factor
from conversations.services.core.errors import TooManyError
from conversations.services.tenants import second_factor, sign_in_limits

LONGEST_NAME = 100  # of a passkey
# What fido2 raises for an answer that no authenticator gives.
NONSENSE = (AttributeError, KeyError, TypeError, ValueError)


class CountedForm:
    """A form of a user that counts the attempt before it checks anything."""

    user: Any
    authenticator: Authenticator

    def clean_code(self) -> str:
        """Return the code. A code of an authenticator app is taken once."""
        _count(self.user)
        code: str = super().clean_code()  # type: ignore[misc]
        is_app = getattr(self, "authenticator", None) and self.authenticator.type == Authenticator.Type.TOTP
        if is_app and not second_factor.use_once(self.user.pk, code, timezone.now()):
            raise get_adapter().validation_error("incorrect_code")
        return code

    def clean_credential(self) -> Authenticator:
        """Return the passkey that signed the challenge."""
        _count(self.user)
        try:
            found: Authenticator = super().clean_credential()  # type: ignore[misc]
        except NONSENSE:
            raise get_adapter().validation_error("incorrect_code") from None
        return found

    def save(self) -> None:
        """Note that the session has shown a second factor."""
        super().save()  # type: ignore[misc]
        note_second_factor(context.request, self.user)
        second_factor.forget_attempts(self.user.pk)
        sign_in_limits.record_success(self.user.get_username(), address_of(context.request))


class AuthenticateForm(CountedForm, codes.AuthenticateForm):  # type: ignore[misc]
    """A code, to sign in."""


class ReauthenticateForm(CountedForm, codes.ReauthenticateForm):  # type: ignore[misc]
    """A code, to confirm who one is."""


class AuthenticateWebAuthnForm(CountedForm, passkeys.AuthenticateWebAuthnForm):  # type: ignore[misc]
    """A passkey, to sign in."""


class ReauthenticateWebAuthnForm(CountedForm, passkeys.ReauthenticateWebAuthnForm):  # type: ignore[misc]
    """A passkey, to confirm who one is."""


class ActivateTOTPForm(totp.ActivateTOTPForm):  # type: ignore[misc]
    """The first code of an authenticator app."""

    def clean_code(self) -> str:
        """Return the code, which signs nobody in afterwards."""
        _count(self.user)
        code: str = super().clean_code()
        second_factor.use_once(self.user.pk, code, timezone.now())
        second_factor.forget_attempts(self.user.pk)
        return code


class PasskeyForm(passkeys.AddWebAuthnForm):  # type: ignore[misc]
    """A new passkey."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["name"].validators.append(MaxLengthValidator(LONGEST_NAME))

    def clean(self) -> dict[str, Any]:
        """Return the cleaned values, with what the authenticator answered."""
        try:
            cleaned: dict[str, Any] = super().clean()
        except NONSENSE:
            raise get_adapter().validation_error("incorrect_code") from None
        return cleaned


def _count(user: Any) -> None:
    try:
        second_factor.count_attempt(user.pk, timezone.now())
    except TooManyError as error:
        raise ImmediateHttpResponse(refusal(context.request, error)) from None
