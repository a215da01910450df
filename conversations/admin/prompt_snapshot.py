"""What the model was given for one reply: part by part, what was left out, what it cost, and a way to run it again."""

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
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from conversations.admin import access
from conversations.admin.base import Crumb
from conversations.admin.entries import plainly, title_of
from conversations.admin.long_list import LongList
from conversations.models import Conversation, Turn
from conversations.services.core.errors import DomainError
from conversations.services.replies import prompt_records
from conversations.services.replies.pricing import cost


class AgainForm(forms.Form):
    """How to run it again."""

    prompt = forms.ChoiceField(
        choices=[("then", "as it was then"), ("now", "the assistant's system prompt as it is now")],
        widget=UnfoldAdminSelectWidget,
    )
    model = forms.CharField(
        required=False,
        max_length=100,
        widget=UnfoldAdminTextInputWidget(attrs={"spellcheck": "false"}),
        help_text="Empty: the model that was asked then, or OPENAI_MODEL.",
    )


class ReceiptPages(LongList):
    """A page for each attempt at a reply, for those who may see receipts."""

    def get_urls(self) -> list[URLPattern]:
        """The page's own, before Django's, whose last one takes everything."""
        wrap = self.admin_site.admin_view
        own = [
            path("<uuid:pk>/receipt/<int:position>/", wrap(self.receipt), name="conversations_conversation_receipt"),
            path("<uuid:pk>/turn/<uuid:turn_pk>/", wrap(self.attempt), name="conversations_conversation_turn"),
        ]
        return [*own, *super().get_urls()]

    def receipt(self, request: HttpRequest, pk: UUID, position: int) -> HttpResponse:
        """The page of what was said at the position."""
        return self._receipt(request, pk, Q(chunk__position=position, chunk__conversation=pk))

    def attempt(self, request: HttpRequest, pk: UUID, turn_pk: UUID) -> HttpResponse:
        """The page of an attempt, also of one of which nothing was said."""
        return self._receipt(request, pk, Q(pk=turn_pk))

    def _receipt(self, request: HttpRequest, pk: UUID, which: Q) -> HttpResponse:
        """On POST with what the model says now beside what it said then. Nothing is sent, nothing kept."""
        if request.method not in ("GET", "POST"):
            return HttpResponseNotAllowed(["GET", "POST"])
        related = ("contact", "assistant", "client")
        conversation = self.get_queryset(request).select_related(*related).filter(pk=pk).first()
        if conversation is None or not access.sees_receipts(request.user, conversation.client_id):
            raise Http404
        turns = Turn.objects.select_related("chunk").filter(which, conversation=pk, prompt__isnull=False)
        turn = turns.first()
        if turn is None:
            raise Http404
        turn.conversation = conversation
        form = AgainForm(request.POST if request.method == "POST" else None)
        again = self._again(request, conversation, turn, form) if form.is_valid() else {}
        parts = prompt_records.parts_of(turn)
        tries = prompt_records.tries_of(turn)
        context = {
            "title": "What the model was given",
            "object": Crumb(conversation, title_of(conversation)),
            "opts": self.opts,
            "conversation": conversation,
            "chunk": turn.chunk,
            "said": plainly(turn.chunk.content if turn.chunk else turn.draft),
            "turn": turn,
            "tries": tries,
            "times_tried": max(len(tries), turn.attempt if turn.streamed else 0),
            "parts": [part for part in parts if part.text],
            "left_out": [part for part in parts if part.note],
            "estimate": sum(part.tokens for part in parts if part.text),
            "summary_version": (turn.prompt or {}).get("summary", {}).get("version", 0),
            "asked": (turn.prompt or {}).get("request", {}),
            "calls": _calls(turn.tool_calls or []),
            "form": form if prompt_records.can_run_again(turn) else None,
            "again": again,
            **self.admin_site.each_context(request),
        }
        response = TemplateResponse(request, "admin/conversations/conversation/receipt.html", context)
        response["Cache-Control"] = "no-store"
        return response

    def _again(self, request: HttpRequest, conversation: Conversation, turn: Turn, form: AgainForm) -> dict[str, Any]:
        wanted = form.cleaned_data
        self.note(request, f"ran again ({wanted['prompt']}, {wanted['model'] or 'same model'})", conversation)
        try:
            reply = prompt_records.run_again(turn, current_prompt=wanted["prompt"] == "now", model=wanted["model"])
        except DomainError as error:
            return {"failed": str(error)}
        return {
            "text": plainly(reply.text),
            "reply": reply,
            "calls": _calls([asdict(call) for call in reply.tool_calls]),
            "cost": cost(reply.model, reply.tokens_in, reply.tokens_out),
            "prompt": dict(form.fields["prompt"].choices)[wanted["prompt"]],  # type: ignore[attr-defined]
        }


def _calls(calls: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """What the model called, with what, and what it was answered, as it may be shown."""
    return [{name: plainly(str(call.get(name, ""))) for name in ("name", "arguments", "answer")} for call in calls]
