"""The composer of the inbox: a proposal that waits for a colleague, and how the channel will show what is written."""

from __future__ import annotations

import re
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

from channels_out.formatting import Formatting
from conversations.admin import access
from conversations.admin.channel_names import name_of
from conversations.admin.form_fields import ChoiceLines
from conversations.admin.transcript import no_store
from conversations.admin.transcript_view import plain_text
from conversations.models import Attachment, Conversation
from conversations.services.core import proposals
from conversations.services.core.errors import InvalidError
from conversations.services.delivery import disclosure, outbox
from conversations.services.delivery.preview import preview as preview_of

LONGEST = 20_000  # characters that are previewed
# WhatsApp's marks, around whole words on one line. Text within code has no others.
_CODE = re.compile(r"```\n?(.+?)\n?```|`([^`\n]+)`", re.DOTALL)
_MARKS = (
    (re.compile(r"(?<![\w*])\*(?=[^\s*])([^*\n]*?[^\s*])\*(?![\w*])"), "strong"),
    (re.compile(r"(?<![\w_])_(?=[^\s_])([^_\n]*?[^\s_])_(?![\w_])"), "em"),
    (re.compile(r"(?<![\w~])~(?=[^\s~])([^~\n]*?[^\s~])~(?![\w~])"), "s"),
)
_QUOTE = re.compile(r"^&gt; (.*)$", re.MULTILINE)


def preview(request: HttpRequest, conversation: Conversation) -> HttpResponse:
    """Return how the channel will show the posted `text` with its `choices`, as HTML; of a `proposal`, an assistant's.

    Raises PermissionDenied for those who may not reply.
    """
    if not access.can(request.user, access.Role.AGENT, conversation.client_id):
        raise PermissionDenied
    text = request.POST.get("text", "").replace("\r\n", "\n").replace("\x00", "")[:LONGEST]
    problem, choices = "", None
    try:
        choices = ChoiceLines("choices").value(request.POST.dict())
    except InvalidError as error:
        problem = str(error)
    found = preview_of(conversation, text, choices, by_assistant=request.POST.get("proposal") == "yes")
    context = {
        "parts": [shown_marks(part, found.formatting) for part in found.parts if part.strip()],
        "choices": [plain_text(each) for each in found.choices],
        "channel": name_of(conversation.channel),
        "problem": problem,
    }
    html = render_to_string("admin/inbox/_preview.html", context, request=request)
    return no_store(HttpResponse(html))


def shown_marks(text: str, formatting: Formatting) -> SafeString:
    """Return the text as HTML, with the marks that the channel shows as what they mean."""
    safe = str(escape(plain_text(text)))
    if formatting is not Formatting.WHATSAPP:
        return mark_safe(safe)  # noqa: S308 - escaped above
    shown, upto = "", 0
    for code in _CODE.finditer(safe):
        shown += f"{_marked(safe[upto : code.start()])}<code>{code[1] or code[2]}</code>"
        upto = code.end()
    return mark_safe(shown + _marked(safe[upto:]))  # noqa: S308 - escaped above, and our own tags


def _marked(safe: str) -> str:
    for pattern, tag in _MARKS:
        safe = pattern.sub(rf"<{tag}>\1</{tag}>", safe)
    return _QUOTE.sub(r"<q>\1</q>", safe)


def proposal_of(conversation: Conversation) -> dict[str, Any] | None:
    """Return what the inbox shows of the proposal that waits in the conversation; None if there is none."""
    found = proposals.open_proposal(conversation) if conversation.is_open else None
    if found is None:
        return None
    choices = found.metadata.get(outbox.CHOICES)
    options = choices.get("options") if isinstance(choices, dict) else None
    titles = [each.get("title") if isinstance(each, dict) else each for each in options or ()]
    rows = Attachment.objects.filter(conversation=conversation, pk__in=found.files) if found.files else ()
    return {
        "row": found,
        "text": plain_text(found.text),
        "is_current": proposals.is_current(conversation, found),
        "choices": [plain_text(each) for each in titles if isinstance(each, str)],
        "files": [*(each.name for each in rows), *(str(name) for _, name in found.links)],
        "before": disclosure.due(conversation),
    }
