"""The page on which each member of staff chooses which e-mails they get."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.core.validators import MaxValueValidator, MinValueValidator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget, UnfoldBooleanSwitchWidget

from conversations.admin import access
from conversations.admin.access import Role
from conversations.models.client import available_time_zones
from conversations.models.staff_mail import LONGEST_MINUTES
from conversations.services.desk import mail_choices

TELLS = ("tells_mine", "tells_unassigned", "tells_digest")


class MailChoiceForm(forms.Form):
    """A user's choice of the e-mails they get: about which waiting, at which hour, to which address."""

    tells_mine = forms.BooleanField(
        label=gettext_lazy("Conversations that I have and that wait for me"),
        required=False,
        widget=UnfoldBooleanSwitchWidget,
    )
    tells_unassigned = forms.BooleanField(
        label=gettext_lazy("Conversations of my clients that nobody has"),
        required=False,
        widget=UnfoldBooleanSwitchWidget,
    )
    after_minutes = forms.IntegerField(
        label=gettext_lazy("Once they have waited for so many minutes"),
        validators=[MinValueValidator(1), MaxValueValidator(LONGEST_MINUTES)],
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "numeric"}),
    )
    tells_digest = forms.BooleanField(
        label=gettext_lazy("A summary once a day, if anything waits and I am not in the back office"),
        required=False,
        widget=UnfoldBooleanSwitchWidget,
    )
    digest_hour = forms.TypedChoiceField(
        label=gettext_lazy("At"),
        coerce=int,
        choices=[(hour, f"{hour}:00") for hour in range(24)],
        widget=UnfoldAdminSelectWidget,
    )
    time_zone = forms.ChoiceField(label=gettext_lazy("My time zone"), widget=UnfoldAdminSelectWidget)
    address = forms.EmailField(
        label=gettext_lazy("E-mail address"),
        required=False,
        max_length=254,
        widget=UnfoldAdminTextInputWidget(attrs={"inputmode": "email", "autocomplete": "email"}),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["time_zone"].choices = [(each, each) for each in sorted(available_time_zones())]  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        """Return the cleaned values. Refuse e-mails without an address."""
        given: dict[str, Any] = super().clean() or self.cleaned_data
        if any(given.get(name) for name in TELLS) and not given.get("address") and "address" not in self.errors:
            self.add_error("address", _("Write the address to which the e-mails are sent."))
        return given


@require_http_methods(["GET", "HEAD", "POST"])
def _page(request: HttpRequest) -> HttpResponse:
    """Return the form, or store what was chosen. Raises PermissionDenied for users who answer at no client."""
    if not access.can_somewhere(request.user, Role.AGENT):
        raise PermissionDenied
    choice = mail_choices.choice_of(request.user)
    initial = {name: getattr(choice, name) for name in MailChoiceForm.base_fields}
    if choice._state.adding:  # nothing is stored: their own zone is the likeliest
        initial["time_zone"] = timezone.get_current_timezone_name()
    form = MailChoiceForm(request.POST or None, initial=initial)
    if request.method == "POST" and form.is_valid():
        mail_choices.store(request.user, form.cleaned_data)
        messages.success(request, _("Saved."))
        return redirect("mail_choice")
    context = {
        **admin.site.each_context(request),
        "title": _("E-mails"),
        "form": form,
        "is_configured": mail_choices.is_configured(),
        "has_role": bool(access.client_ids_of(request.user, Role.AGENT)),
    }
    response = TemplateResponse(request, "admin/mail_choice/mail_choice.html", context)
    response["Cache-Control"] = "no-store"
    return response


page = admin.site.admin_view(_page)
