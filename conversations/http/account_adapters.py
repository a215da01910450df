"""Convo's rules for allauth: who is let in, by what, and to where (https://docs.allauth.org, "Adapters")."""

from __future__ import annotations

import logging
import time
from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.core import context
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.models import Authenticator
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from cryptography.fernet import InvalidToken
from django.conf import settings
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme

from conversations.http.oidc.tokens import SignInRefusedError
from conversations.http.sign_in import address_of
from conversations.http.signed_in import SIGNED_IN
from conversations.models.fields import vault
from conversations.services.tenants import provider_roles, second_factor

log = logging.getLogger(__name__)

# RFC 6749, section 4.1.2.1, and OpenID Connect Core 1.0, section 3.1.2.6
PROVIDERS_CODES = {
    *("access_denied", "invalid_request", "invalid_scope", "server_error", "temporarily_unavailable"),
    *("unauthorized_client", "unsupported_response_type", "account_selection_required", "consent_required"),
    *("interaction_required", "login_required"),
}
FRESH_SECONDS = 300  # after signing in, nobody is asked once more who they are
CONNECT = "connect"  # allauth's word for linking an account to the signed-in user


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    """Users and sessions."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        """Return False: nobody signs up by themselves."""
        return False

    def is_safe_url(self, url: str) -> bool:
        """Return whether the address is on the host of the request. Other hosts are none of ours."""
        request = context.request
        return bool(url_has_allowed_host_and_scheme(url, {request.get_host()}, require_https=request.is_secure()))

    def get_login_redirect_url(self, request: HttpRequest) -> str:
        """Return the page of somebody who signed in and wanted none in particular."""
        return reverse("admin:index") if request.user.is_staff else settings.COPILOT_PAGE

    def get_signup_redirect_url(self, request: HttpRequest) -> str:
        """Return the same for somebody who signed in for the first time."""
        return self.get_login_redirect_url(request)

    def login(self, request: HttpRequest, user: Any) -> None:
        """Sign the user in, and note when."""
        super().login(request, user)
        request.session[SIGNED_IN] = time.time()

    def respond_user_inactive(self, request: HttpRequest, user: Any) -> HttpResponse:
        """Return the page of a user who is switched off."""
        return no_access(request)

    def get_client_ip(self, request: HttpRequest) -> str:
        """Return the address of the request."""
        return address_of(request)

    def get_reauthentication_methods(self, user: Any) -> list[dict[str, Any]]:
        """Return the ways to confirm who one is. With a second factor, the password is none of them."""
        methods: list[dict[str, Any]] = super().get_reauthentication_methods(user)
        factors = [each for each in methods if each["id"].startswith("mfa_")]
        return factors or methods

    def is_reauthentication_required(self, *, app: str, **_: Any) -> bool:
        """Return whether the user must confirm who they are before they change how they sign in. Not needed right after
        signing in, and impossible without a password or a second factor."""
        request = context.request
        if time.time() - request.session.get(SIGNED_IN, 0) < FRESH_SECONDS:
            return False
        return bool(self.get_reauthentication_methods(request.user))


class SocialAccountAdapter(DefaultSocialAccountAdapter):  # type: ignore[misc]
    """Accounts at identity providers."""

    def is_open_for_signup(self, request: HttpRequest, sociallogin: Any) -> bool:
        """Return True: `pre_social_login` has found that the account's groups give a role."""
        return True

    def can_authenticate_by_email(self, login: Any, email: str) -> bool:
        """Return False: an account is found by issuer and subject alone."""
        return False

    def on_authentication_error(
        self, request: HttpRequest, provider: Any, error: Any = None, exception: Any = None, extra_context: Any = None
    ) -> None:
        """Log why a sign-in failed, by code."""
        log.warning("sign-in by %s refused: %s", provider.sub_id, _code(request, exception))

    def pre_social_login(self, request: HttpRequest, sociallogin: Any) -> None:
        """Give and take roles as the account's groups say. Raises ImmediateHttpResponse with a page for an account
        without any role."""
        if sociallogin.state.get("process") == CONNECT:
            return
        roles = _roles(sociallogin)
        if sociallogin.is_existing:
            provider_roles.apply_roles(sociallogin.user, sociallogin.account.provider, roles)
        if not (provider_roles.has_access(sociallogin.user) if sociallogin.is_existing else roles):
            log.warning("sign-in by %s refused: no_role", sociallogin.account.provider)
            raise ImmediateHttpResponse(no_access(request))

    def save_user(self, request: HttpRequest, sociallogin: Any, form: Any = None) -> Any:
        """Store the new user, with the roles that the account's groups give. Raises SignInRefusedError if another
        browser has just done so."""
        try:
            with transaction.atomic():
                user = super().save_user(request, sociallogin, form)
                provider_roles.apply_roles(user, sociallogin.account.provider, _roles(sociallogin))
        except IntegrityError:
            raise SignInRefusedError("signed_in_twice") from None
        return user

    def get_connect_redirect_url(self, request: HttpRequest, socialaccount: Any) -> str:
        """Return the page on which the user linked the account."""
        return reverse("mfa_index")


class MFAAdapter(DefaultMFAAdapter):  # type: ignore[misc]
    """Second factors. What they are computed from is encrypted with CREDENTIALS_KEYS."""

    def encrypt(self, text: str) -> str:
        """Return the text as an encrypted token."""
        return vault().encrypt(text.encode()).decode()

    def decrypt(self, encrypted_text: str) -> str:
        """Return the text of the token. Raises ValidationError if no key decrypts it, so that no code fits."""
        try:
            return vault().decrypt(encrypted_text.encode()).decode()
        except InvalidToken:
            log.warning("second factor refused: no key of CREDENTIALS_KEYS decrypts it")
            raise self.validation_error("incorrect_code") from None

    def can_delete_authenticator(self, authenticator: Authenticator) -> bool:
        """Return whether the factor may go: the last one stays where a client requires one."""
        others = Authenticator.objects.filter(user=authenticator.user_id).exclude(pk=authenticator.pk)
        if others.exclude(type=Authenticator.Type.RECOVERY_CODES).exists():
            return True
        return not second_factor.is_required_of(authenticator.user)

    def generate_authenticator_name(self, user: Any, type: str) -> str:
        """Return the name that a new passkey has until the user gives it another."""
        number = Authenticator.objects.filter(user=user, type=type).count() + 1
        return "Passkey" if number == 1 else f"Passkey {number}"


def _code(request: HttpRequest, exception: Exception | None) -> str:
    """Return why the sign-in failed: our own code, the provider's if it is one of the protocol's, or a general one."""
    if exception is not None:
        return str(getattr(exception, "code", "") or "code_refused")
    given = request.GET.get("error", "")
    return given if given in PROVIDERS_CODES else "unexpected_answer"


def no_access(request: HttpRequest) -> HttpResponse:
    """Return the page of somebody whom we know and who may do nothing here: a 403."""
    return render(request, "sign_in/no_access.html", status=403)


def _roles(sociallogin: Any) -> dict[str, str]:
    groups = sociallogin.account.extra_data["id_token"]["groups"]
    mapping = sociallogin.provider.app.settings["roles"]
    return provider_roles.roles_of(groups, [tuple(each) for each in mapping])
