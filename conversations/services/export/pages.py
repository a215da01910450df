"""The HTML page of an export: one file with its own style, which loads nothing and runs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.template.loader import render_to_string

from conversations.models import Conversation
from conversations.services.export.reading import ExportedMessage

# The Content-Security-Policy for responses with the page; the page's own <meta> says the same.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"

# These characters reverse the direction of the text that follows, which can disguise it.
_OVERRIDES = {code: f"⟨U+{code:04X}⟩" for code in (0x202D, 0x202E)}


def begin_page(title: str, **context: Any) -> bytes:
    """Return the beginning of the page, up to its first conversation."""
    return _part("begin", title=title, **context)


def person_section(facts: Mapping[str, Any], addresses: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the section about the person. `facts`: texts by their labels."""
    return _part("person", facts=facts, addresses=addresses)


def begin_conversation(conversation: Conversation) -> bytes:
    """Return the beginning of a conversation's section."""
    return _part("session", session=conversation, steps=list(conversation.steps.all()))


def message_list(batch: Sequence[ExportedMessage]) -> bytes:
    """Return messages of the conversation."""
    return _part("entries", entries=batch)


def end_conversation() -> bytes:
    """Return the end of a conversation's section."""
    return b"</section>\n"


def end_page() -> bytes:
    """Return the end of the page."""
    return b"</main>\n</body>\n</html>\n"


def _part(name: str, **context: Any) -> bytes:
    return render_to_string(f"exports/{name}.html", context).translate(_OVERRIDES).encode()
