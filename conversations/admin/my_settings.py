"""A person's own settings: /admin/me/. Each section is a form with a prefix of its own and a heading.

The first section is the language and the time zone.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils import translation
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from unfold.widgets import UnfoldAdminSelectWidget

from conversations.admin import access
from conversations.http import languages
from conversations.services.tenants import preferences


class LanguageForm(forms.Form):
    """The language and the time zone of the pages."""

    prefix = "language"
    heading = _("Language and time zone")

    language = forms.ChoiceField(label=_("Language"), required=False, widget=UnfoldAdminSelectWidget)
    time_zone = forms.ChoiceField(
        label=_("Time zone"),
        required=False,
        widget=UnfoldAdminSelectWidget,
        help_text=_("Times on pages are shown in it. The API and exports use UTC."),
    )

    def __init__(self, request: HttpRequest) -> None:
        now = preferences.preferences_of(_user_id(request))
        initial = {"language": now.language, "time_zone": now.time_zone}
        super().__init__(request.POST if request.method == "POST" else None, initial=initial)
        fields: Any = self.fields
        zone = languages.zone_of_browser(request)
        fields["language"].choices = [("", _("As the browser says")), *settings.LANGUAGES]
        fields["time_zone"].choices = [
            ("", _("As the browser says (%(zone)s)") % {"zone": zone}),
            *((name, name.replace("_", " ")) for name in preferences.zones()),
        ]

    def save(self, request: HttpRequest) -> None:
        """Store what was chosen."""
        preferences.choose(_user_id(request), **self.cleaned_data)


SECTIONS = (LanguageForm,)


def page(request: HttpRequest) -> HttpResponse:
    """Return the page. On POST, store all sections or none, and redirect to the page in its new language."""
    forms_ = [section(request) for section in SECTIONS]
    are_valid = [form.is_valid() for form in forms_]  # of all, so that each shows its errors
    if request.method == "POST" and all(are_valid):
        for form in forms_:
            form.save(request)
        with translation.override(languages.chosen(request)[0]):
            messages.success(request, gettext("Your settings are saved."))
        return redirect("me:settings")
    context = {**admin.site.each_context(request), "title": _("My settings"), "sections": forms_}
    context["has_mails"] = access.can_somewhere(request.user, access.Role.AGENT)
    return TemplateResponse(request, "admin/my_settings/my_settings.html", context)


def urls() -> list[URLPattern]:
    """Return the addresses below `/admin/me/`, for staff alone."""
    return [path("", never_cache(admin.site.admin_view(page)), name="settings")]


def _user_id(request: HttpRequest) -> int:
    return int(request.user.pk or 0)
