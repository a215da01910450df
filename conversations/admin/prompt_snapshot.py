"""The page "What the model was given": a reply's prompt part by part, its cost, and a way to run it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

from django import forms
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.translation import gettext
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from conversations.admin import access
from conversations.admin.base import Breadcrumb
from conversations.admin.channel_names import name_of
from conversations.admin.long_list import LongListAdmin
from conversations.admin.transcript_view import plain_text, title_of
from conversations.engines.contract import MOST_CALLS
from conversations.models import Conversation, Turn
from conversations.services.core.errors import DomainError
from conversations.services.replies import prompt_records
from conversations.services.tenants.pricing import cost_of
from conversations.words import lazy as _


class RunAgainForm(forms.Form):
    """With which system prompt and model to run the prompt again."""

    prompt = forms.ChoiceField(
        choices=[("then", _("as it was then")), ("now", _("the assistant's system prompt as it is now"))],
        widget=UnfoldAdminSelectWidget,
    )
    model = forms.CharField(
        required=False,
        max_length=100,
        widget=UnfoldAdminTextInputWidget(attrs={"spellcheck": "false"}),
        help_text=_("Empty: the model of that time, or OPENAI_MODEL."),
    )


class PromptSnapshotPages(LongListAdmin):
    """A page for each turn, for users who may see prompts (see access.can_see_prompts)."""

    def get_urls(self) -> list[URLPattern]:
        """Return the page's addresses before Django's, whose last pattern matches everything."""
        wrap = self.admin_site.admin_view
        own = [
            path(
                "<uuid:pk>/receipt/<int:position>/",
                wrap(self.snapshot_of_message),
                name="conversations_conversation_receipt",
            ),
            path("<uuid:pk>/turn/<uuid:turn_pk>/", wrap(self.snapshot_of_turn), name="conversations_conversation_turn"),
        ]
        return [*own, *super().get_urls()]

    def snapshot_of_message(self, request: HttpRequest, pk: UUID, position: int) -> HttpResponse:
        """Return the page of the turn that wrote the message at the position."""
        return self._snapshot(request, pk, Q(chunk__position=position, chunk__conversation=pk))

    def snapshot_of_turn(self, request: HttpRequest, pk: UUID, turn_pk: UUID) -> HttpResponse:
        """Return the page of a turn, also if it wrote no message."""
        return self._snapshot(request, pk, Q(pk=turn_pk))

    def _snapshot(self, request: HttpRequest, pk: UUID, which: Q) -> HttpResponse:
        """Return the page. On POST it also shows what the model says now. Nothing is sent or stored."""
        if request.method not in ("GET", "POST"):
            return HttpResponseNotAllowed(["GET", "POST"])
        related = ("contact", "assistant", "client")
        conversation = self.to_look_up(request).select_related(*related).filter(pk=pk).first()
        if conversation is None or not access.can_see_prompts(request.user, conversation.client_id):
            raise Http404
        turns = Turn.objects.select_related("chunk").filter(which, conversation=conversation, prompt__isnull=False)
        turn = turns.first()
        if turn is None:
            raise Http404
        turn.conversation = conversation
        form = RunAgainForm(request.POST if request.method == "POST" else None)
        again = self._run_again(request, conversation, turn, form) if form.is_valid() else {}
        context = {
            "title": gettext("What the model was given"),
            "object": Breadcrumb(conversation, title_of(conversation)),
            "opts": self.opts,
            "conversation": conversation,
            "channel": name_of(conversation.channel),
            "form": form if prompt_records.can_run_again(turn) else None,
            "again": again,
            **_facts(turn),
            **self.admin_site.each_context(request),
        }
        response = TemplateResponse(request, "admin/prompt_snapshot/prompt_snapshot.html", context)
        response["Cache-Control"] = "no-store"
        return response

    def _run_again(
        self, request: HttpRequest, conversation: Conversation, turn: Turn, form: RunAgainForm
    ) -> dict[str, Any]:
        wanted = form.cleaned_data
        self.record(request, f"ran again ({wanted['prompt']}, {wanted['model'] or 'same model'})", conversation)
        try:
            reply = prompt_records.run_again(turn, current_prompt=wanted["prompt"] == "now", model=wanted["model"])
        except DomainError as error:
            return {"failed": str(error)}
        return {
            "text": plain_text(reply.text),
            "reply": reply,
            "calls": _tool_calls([asdict(call) for call in reply.tool_calls]),
            "cost": cost_of(reply.usage),
            "prompt": dict(form.fields["prompt"].choices)[wanted["prompt"]],  # type: ignore[attr-defined]
        }


def _facts(turn: Turn) -> dict[str, Any]:
    """Return what the page shows of the turn and its prompt."""
    parts = prompt_records.parts_shown(turn)
    tries = prompt_records.attempts_of_reply(turn)
    prompt = turn.prompt or {}
    return {
        "turn": turn,
        "chunk": turn.chunk,
        "said": plain_text(turn.chunk.content if turn.chunk else turn.draft),
        "tries": tries,
        "model_calls": sum(each.calls for each in tries),
        "most_calls": MOST_CALLS,
        "times_tried": max(len(tries), turn.attempt if turn.streamed else 0),
        "parts": [part for part in parts if part.text],
        "left_out": [part for part in parts if part.note],
        "estimate": sum(part.tokens for part in parts if part.text),
        "summary_version": prompt.get("summary", {}).get("version", 0),
        "asked": prompt.get("request", {}),
        "calls": _tool_calls(turn.tool_calls or []),
    }


def _tool_calls(calls: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """Return name, arguments and answer of each tool call, as they can be shown."""
    return [{name: plain_text(str(call.get(name, ""))) for name in ("name", "arguments", "answer")} for call in calls]
