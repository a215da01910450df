"""What the model was given for one reply: part by part, what was left out, what it cost, and a way to run it again."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django import forms
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.views.decorators.http import require_http_methods
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from conversations.admin import access
from conversations.admin.entries import plainly
from conversations.admin.long_list import LongList
from conversations.models import Chunk, Conversation, Turn
from conversations.services.answering import prompts
from conversations.services.errors import DomainError


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
    """A page for each reply that a model wrote, for those who may see receipts."""

    def get_urls(self) -> list[URLPattern]:
        """The page's own, before Django's, whose last one takes everything."""
        view = self.admin_site.admin_view(require_http_methods(["GET", "POST"])(self.receipt))
        name = "conversations_conversation_receipt"
        return [path("<uuid:pk>/receipt/<int:position>/", view, name=name), *super().get_urls()]

    def receipt(self, request: HttpRequest, pk: UUID, position: int) -> HttpResponse:
        """The page; on POST, with what the model says now beside what it said then. Nothing is sent, nothing kept."""
        conversation = self.get_queryset(request).select_related("contact", "assistant").filter(pk=pk).first()
        if conversation is None or not access.sees_receipts(request.user, conversation.client_id):
            raise Http404
        chunk = Chunk.objects.filter(conversation=conversation, position=position).first()
        turn = Turn.objects.filter(chunk=chunk, prompt__isnull=False).first() if chunk else None
        if chunk is None or turn is None:
            raise Http404
        form = AgainForm(request.POST if request.method == "POST" else None)
        again = self._again(request, conversation, turn, form) if form.is_valid() else {}
        context = {
            "title": "What the model was given",
            "opts": self.opts,
            "conversation": conversation,
            "chunk": chunk,
            "said": plainly(chunk.content),
            "turn": turn,
            "tries": prompts.tries_of(turn),
            "parts": [part for part in prompts.parts_of(turn) if part.text],
            "left_out": [part for part in prompts.parts_of(turn) if part.note],
            "summary_version": (turn.prompt or {}).get("summary", {}).get("version", 0),
            "asked": (turn.prompt or {}).get("request", {}),
            "form": form,
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
            reply = prompts.run_again(turn, current_prompt=wanted["prompt"] == "now", model=wanted["model"])
        except DomainError as error:
            return {"failed": str(error)}
        return {
            "text": plainly(reply.text),
            "reply": reply,
            "cost": prompts.cost(reply.model, reply.tokens_in, reply.tokens_out),
            "prompt": dict(form.fields["prompt"].choices)[wanted["prompt"]],  # type: ignore[attr-defined]
        }
