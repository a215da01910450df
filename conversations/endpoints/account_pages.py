"""The pages below /admin/account/: second factors, and sign-in by identity providers.

allauth's views, of which only these have a route: nobody signs up, has addresses of e-mail or resets a password here.
The templates are `templates/mfa/`, `templates/account/`, `templates/socialaccount/` and `templates/sign_in/`.
"""

from __future__ import annotations

from typing import Any

from allauth.account.utils import get_next_redirect_url
from allauth.account.views import reauthenticate
from allauth.mfa.base import views as mfa
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes import views as recovery_codes
from allauth.mfa.totp import views as totp
from allauth.mfa.webauthn import views as passkeys
from allauth.socialaccount.adapter import get_adapter
from allauth.socialaccount.helpers import render_authentication_error
from allauth.socialaccount.models import SocialAccount, SocialApp
from allauth.socialaccount.providers.oauth2.views import OAuth2CallbackView, OAuth2LoginView
from allauth.socialaccount.views import login_cancelled
from django.conf import settings
from django.contrib import admin
from django.contrib.auth import logout
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import URLPattern, path
from django.utils.http import urlencode
from django.utils.translation import gettext
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from conversations.http.account_adapters import CONNECT
from conversations.http.oidc.provider import VerifyingAdapter
from conversations.http.oidc.tokens import SignInRefusedError
from conversations.http.sign_in import limit_password_changes, limit_sign_ins
from conversations.http.signed_in import note_second_factor
from conversations.http.staged_login import StagedLoginView, links


# --- by password ------------------------------------------------------------------------------------------------------
def _admin_login(request: HttpRequest) -> HttpResponseBase:
    """Return the back office's sign-in page, as Django's AdminSite.login does, with the second factor behind it."""
    if request.method == "GET" and admin.site.has_permission(request):
        return redirect("admin:index")
    context = {
        **admin.site.each_context(request),
        "title": gettext("Log in"),
        "app_path": request.get_full_path(),
        "username": request.user.get_username(),
    }
    page = StagedLoginView.as_view(
        extra_context=context,
        authentication_form=admin.site.login_form,
        template_name="sign_in/login.html",
        next_page="admin:index",
    )
    return page(request)


admin_login = limit_sign_ins(_admin_login)


def login(request: HttpRequest) -> HttpResponse:
    """Return a redirect to the sign-in page: the copilot's for who wanted the copilot, else the back office's."""
    back = get_next_redirect_url(request) or ""
    page = settings.COPILOT_LOGIN if back.startswith("/copilot") else "admin:login"
    answer = redirect(page)
    answer["Location"] += f"?{urlencode({'next': back})}" if back else ""
    return answer


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    """End the session, also one that waits for its second factor, and return a redirect to the sign-in page."""
    logout(request)
    return login(request)


# --- second factors ---------------------------------------------------------------------------------------------------
class IndexView(mfa.IndexView):  # type: ignore[misc]
    """The page of the user's authenticators, passkeys, recovery codes and linked accounts."""

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Return the context, with what the template shows of factors and linked accounts."""
        found: dict[str, Any] = super().get_context_data(**kwargs)
        codes = found["authenticators"].get(Authenticator.Type.RECOVERY_CODES)
        linked = {each.provider for each in SocialAccount.objects.filter(user=self.request.user.pk)}
        providers = links(self.request, self.request.path)
        return found | {
            "codes_left": len(codes.get_unused_codes()) if codes else 0,
            "providers": [each | {"is_linked": each["id"] in linked} for each in providers],
        }


class ActivateTOTPView(totp.ActivateTOTPView):  # type: ignore[misc]
    """The set-up of an authenticator app. Its first code is a second factor that the session has shown."""

    def form_valid(self, form: Any) -> HttpResponse:
        """Set the app up, and return a redirect."""
        page: HttpResponse = super().form_valid(form)
        note_second_factor(self.request, self.request.user)
        return page


class AddPasskeyView(passkeys.AddWebAuthnView):  # type: ignore[misc]
    """The set-up of a passkey, which the session has shown with it."""

    def form_valid(self, form: Any) -> HttpResponse:
        """Add the passkey, and return a redirect."""
        page: HttpResponse = super().form_valid(form)
        note_second_factor(self.request, self.request.user)
        return page


# --- by an identity provider ------------------------------------------------------------------------------------------
def provider_login(request: HttpRequest, provider_id: str) -> HttpResponseBase:
    """Return a redirect to the identity provider.

    A link to the signed-in user's account is made by POST only. The answer is a page with a link then, since the
    Content-Security-Policy lets no form lead to another host.
    """
    process = request.POST.get("process") or request.GET.get("process") or "login"
    if process not in ("login", CONNECT) or (process == CONNECT and request.method != "POST"):
        raise Http404
    if process == CONNECT and not request.user.is_authenticated:
        return login(request)
    answer = _exchange(OAuth2LoginView, request, provider_id)
    if process == CONNECT and answer.status_code == 302:
        provider = get_adapter(request).get_provider(request, provider_id)
        return render(request, "sign_in/go_on.html", {"provider": provider, "link": answer["Location"]})
    return answer


def provider_callback(request: HttpRequest, provider_id: str) -> HttpResponseBase:
    """Return what comes of the identity provider's answer: a redirect of the user, or a page that says what failed."""
    return _exchange(OAuth2CallbackView, request, provider_id)


def _exchange(view: Any, request: HttpRequest, provider_id: str) -> HttpResponseBase:
    adapter = VerifyingAdapter(request, provider_id)
    try:
        answer: HttpResponseBase = view.adapter_view(adapter)(request)
    except SocialApp.DoesNotExist:
        raise Http404 from None
    except SignInRefusedError as error:
        page: HttpResponseBase = render_authentication_error(request, adapter.get_provider(), exception=error)
        return page
    return answer


def urls() -> list[URLPattern]:
    """Return the routes. Their names are those by which allauth links them."""
    views = {
        "login/": (login, "account_login"),
        "logout/": (sign_out, "account_logout"),
        "confirm/": (limit_password_changes(reauthenticate), "account_reauthenticate"),
        "2fa/": (IndexView.as_view(), "mfa_index"),
        "2fa/sign-in/": (mfa.authenticate, "mfa_authenticate"),
        "2fa/confirm/": (mfa.reauthenticate, "mfa_reauthenticate"),
        "2fa/app/add/": (ActivateTOTPView.as_view(), "mfa_activate_totp"),
        "2fa/app/remove/": (totp.deactivate_totp, "mfa_deactivate_totp"),
        "2fa/codes/": (recovery_codes.view_recovery_codes, "mfa_view_recovery_codes"),
        "2fa/codes/new/": (recovery_codes.generate_recovery_codes, "mfa_generate_recovery_codes"),
        "2fa/passkeys/": (passkeys.list_webauthn, "mfa_list_webauthn"),
        "2fa/passkeys/add/": (AddPasskeyView.as_view(), "mfa_add_webauthn"),
        "2fa/passkeys/confirm/": (passkeys.reauthenticate_webauthn, "mfa_reauthenticate_webauthn"),
        "2fa/passkeys/<int:pk>/": (passkeys.edit_webauthn, "mfa_edit_webauthn"),
        "2fa/passkeys/<int:pk>/remove/": (passkeys.remove_webauthn, "mfa_remove_webauthn"),
        "cancelled/": (require_safe(login_cancelled), "socialaccount_login_cancelled"),
        "oidc/<slug:provider_id>/login/": (provider_login, "openid_connect_login"),
        "oidc/<slug:provider_id>/login/callback/": (require_safe(provider_callback), "openid_connect_callback"),
    }
    return [path(way, never_cache(view), name=name) for way, (view, name) in views.items()]
