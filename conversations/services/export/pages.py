"""The page of an export: one file with its own style, which asks for nothing and runs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.template.loader import render_to_string

from conversations.models import Conversation
from conversations.services.export.reading import ExportedMessage

# For whoever serves the page; it says the same of itself.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"

# These turn the reading direction of what follows around, which serves nothing but deceit.
_OVERRIDES = {code: f"⟨U+{code:04X}⟩" for code in (0x202D, 0x202E)}


def begin(title: str, **context: Any) -> bytes:
    """The beginning of the page, up to its first session."""
    return _part("begin", title=title, **context)


def person(facts: Mapping[str, Any], addresses: Sequence[Mapping[str, Any]]) -> bytes:
    """Who the page is about. `facts`: what they are called by what it says."""
    return _part("person", facts=facts, addresses=addresses)


def session(conversation: Conversation) -> bytes:
    """The beginning of a session."""
    return _part("session", session=conversation, steps=list(conversation.steps.all()))


def entries(batch: Sequence[ExportedMessage]) -> bytes:
    """Entries of the session."""
    return _part("entries", entries=batch)


def end_of_session() -> bytes:
    """The end of a session."""
    return b"</section>\n"


def end() -> bytes:
    """The end of the page."""
    return b"</main>\n</body>\n</html>\n"


def _part(name: str, **context: Any) -> bytes:
    return render_to_string(f"exports/{name}.html", context).translate(_OVERRIDES).encode()
