"""Sign-in by user name and password, after which allauth asks for the second factor of a user who has one."""

from __future__ import annotations

from typing import Any

from allauth.account.utils import perform_login
from allauth.socialaccount.adapter import get_adapter
from django.contrib.auth.views import LoginView
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.http import urlencode

from conversations.http.signed_in import to_second_factor


class StagedLoginView(LoginView):
    """Django's sign-in page. Somebody whose session lacks nothing but the second factor is sent to show it."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        """Return the page, or a redirect of somebody who is signed in already."""
        if request.method != "POST" and (needed := to_second_factor(request, self.get_success_url())):
            return needed
        return super().dispatch(request, *args, **kwargs)

    def form_valid(self, form: Any) -> Any:
        """Return a redirect: to the second factor, or to the page that the user, now signed in, wanted."""
        page: HttpResponseBase = perform_login(self.request, form.get_user(), redirect_url=self.get_success_url())
        return page

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        """Return the context, with the identity providers."""
        return {**super().get_context_data(**kwargs), "identity_providers": links(self.request, self.get_success_url())}


def links(request: HttpRequest, back: str) -> list[dict[str, str]]:
    """Return the title of each identity provider, and where one begins to sign in by it."""
    return [
        {
            "title": provider.name,
            "id": provider.sub_id,
            "link": f"{provider.get_login_url(request)}?{urlencode({'next': back})}",
        }
        for provider in get_adapter(request).list_providers(request)
    ]
