"""The page on which staff send a template in a conversation: they choose one, fill it in, and it is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django import forms
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.translation import gettext
from django.views.decorators.http import require_http_methods
from unfold.widgets import UnfoldAdminTextInputWidget

from channels_out.templates import LONGEST_LINK, LONGEST_VALUE, TemplateNeeds, TemplateValues, needs_of
from conversations.admin import access, transcript_view
from conversations.admin.access import Role
from conversations.admin.base import Breadcrumb
from conversations.admin.long_list import LongListAdmin
from conversations.models import Conversation, MessageTemplate
from conversations.services.core.errors import DomainError
from conversations.services.delivery.templates import WantedTemplate, refusal_of
from conversations.services.staff_actions import send

MOST_SHOWN = 200
WORDS = {"HEADER": "header", "BODY": "body", "FOOTER": "footer"}


@dataclass(frozen=True, slots=True)
class ShownTemplate:
    """A template as the page shows it: its words with the variables in braces, and why it cannot be sent, if so."""

    template: MessageTemplate

    @property
    def text(self) -> str:
        """Return the header, body and footer."""
        return "\n\n".join(filter(None, (_words(each) for each in self.template.components)))

    @property
    def buttons(self) -> list[str]:
        """Return what stands on the buttons."""
        return [
            each.get("text", "")
            for part in self.template.components
            for each in part.get("buttons", ())
            if each.get("text")
        ]

    @property
    def refusal(self) -> str:
        """Return why it cannot be sent, '' if it can."""
        return refusal_of(self.template)


class TemplateForm(forms.Form):
    """A field for each value that a template needs."""

    def __init__(self, needs: TemplateNeeds, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.needs = needs
        if needs.header:
            self.fields["header"] = _text(*_header(needs.header), longest=LONGEST_LINK)
        for number, name in enumerate(needs.variables):
            self.fields[f"variable_{number}"] = _text(gettext("Variable %(name)s") % {"name": name})
        for number, is_needed in enumerate(needs.buttons):
            if is_needed:
                self.fields[f"button_{number}"] = _text(
                    gettext("Button %(number)s") % {"number": number + 1},
                    gettext("The end of its address, or its code."),
                )

    def values(self) -> TemplateValues:
        """Return the values of the valid form."""
        given = self.cleaned_data
        return TemplateValues(
            {name: _line(given[f"variable_{number}"]) for number, name in enumerate(self.needs.variables)},
            _line(given.get("header", "")),
            "",
            tuple(_line(given.get(f"button_{number}", "")) for number in range(len(self.needs.buttons))),
        )


class SendTemplatePage(LongListAdmin):
    """The page, which the transcript links to where the conversation's account has templates."""

    def get_urls(self) -> list[URLPattern]:
        """Return the page's address before Django's, whose last pattern matches everything."""
        view = self.admin_site.admin_view(require_http_methods(["GET", "POST"])(self.send_template))
        own = [path("<uuid:pk>/template/", view, name="conversations_conversation_template")]
        return [*own, *super().get_urls()]

    def send_template(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Return the account's templates, or with `?template=` the form of one. On POST, send it."""
        related = ("contact", "client", "channel_account")
        conversation = self.get_queryset(request).select_related(*related).filter(pk=pk).first()
        if conversation is None:
            raise Http404
        if not access.can(request.user, Role.AGENT, conversation.client_id):
            raise PermissionDenied
        chosen = _chosen(conversation, request.GET.get("template", ""))
        needs = needs_of(chosen.template.components) if chosen else None
        form = TemplateForm(needs, request.POST if request.method == "POST" else None) if needs else None
        if chosen and form and form.is_valid():
            wanted = WantedTemplate(chosen.template.name, chosen.template.language, form.values())
            try:
                by: Mapping[str, Any] = {"actor": access.actor_of(request), "now": timezone.now()}
                send.send_template(conversation.pk, wanted, client=conversation.client, **by)
                return redirect(reverse("admin:conversations_conversation_change", args=[conversation.pk]))
            except DomainError as error:
                form.add_error(None, str(error))
        title = gettext("Send a template to %(contact)s") % {
            "contact": transcript_view.plain_text(str(conversation.contact))
        }
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": title,
            "object": Breadcrumb(conversation, title),
            "conversation": conversation,
            "account": conversation.channel_account,
            "chosen": chosen,
            "form": form,
            "listed": [] if chosen else _listed(conversation),
        }
        return TemplateResponse(request, "admin/send_template/send_template.html", context)


def _of(conversation: Conversation) -> Any:
    return MessageTemplate.objects.filter(
        client=conversation.client_id, channel_account=conversation.channel_account_id
    )


def _chosen(conversation: Conversation, pk: str) -> ShownTemplate | None:
    if not pk:
        return None
    try:
        return ShownTemplate(_of(conversation).get(pk=UUID(pk)))
    except (ValueError, MessageTemplate.DoesNotExist):
        raise Http404 from None


def _listed(conversation: Conversation) -> Sequence[ShownTemplate]:
    """Return the account's templates, those that can be sent first."""
    shown = [ShownTemplate(each) for each in _of(conversation)[:MOST_SHOWN]]
    return sorted(shown, key=lambda each: bool(each.refusal))


def _words(part: Mapping[str, Any]) -> str:
    if part.get("type") not in WORDS:
        return ""
    kind = str(part.get("format", "TEXT")).lower()
    return str(part.get("text", "")) or (f"[{kind}]" if kind != "text" else "")


def _header(kind: str) -> tuple[str, str]:
    if kind == "text":
        return gettext("Header"), gettext("The text of the header's variable.")
    titles = {"image": gettext("Image of the header"), "video": gettext("Video of the header")}
    about = gettext("Its address, which begins with https:// and can be opened by anybody.")
    return titles.get(kind, gettext("Document of the header")), about


def _text(label: str, about: str = "", *, longest: int = LONGEST_VALUE) -> forms.CharField:
    return forms.CharField(label=label, help_text=about, max_length=longest, widget=UnfoldAdminTextInputWidget)


def _line(text: str) -> str:
    return " ".join(text.split())
