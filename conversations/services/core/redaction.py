"""What is removed from a client's texts before they are kept: its rules, at hand wherever a text enters.

Whoever has the client's row takes the rules from it. The fast way of a message has no row: it cleans by the rules that
this process last saw, and its statement (services/arriving/append.py) does nothing unless the client's are still these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from conversations.engines.contract import Reply
from conversations.models import Client
from memory.redaction import CARDS_ALONE, Rules

MOST_KNOWN = 10_000  # clients whose rules are not the usual ones

_unusual: dict[UUID, Rules] = {}


def rules_of(client: Client | None) -> Rules:
    """The client's rules; of nobody's texts, card numbers are removed."""
    return Rules(client.redact_cards, tuple(client.redaction_patterns)) if client else CARDS_ALONE


def last_seen(client_id: UUID) -> Rules:
    """The rules that this client had when its row was last read here, if they were not the usual ones."""
    return _unusual.get(client_id, CARDS_ALONE)


def note(client: Client) -> Rules:
    """The client's rules, to be known from now on."""
    rules = rules_of(client)
    if rules == CARDS_ALONE:
        _unusual.pop(client.pk, None)
    elif _unusual.get(client.pk) != rules:
        if len(_unusual) >= MOST_KNOWN:
            _unusual.clear()
        _unusual[client.pk] = rules
    return rules


def clean_reply(rules: Rules, reply: Reply) -> Reply:
    """What the model said and did, cleaned."""
    return replace(
        reply,
        text=rules.clean(reply.text),
        deeds=tuple(replace(deed, arguments=_arguments(rules, deed.arguments)) for deed in reply.deeds),
        tool_calls=tuple(
            replace(call, arguments=rules.clean(call.arguments), answer=rules.clean(call.answer))
            for call in reply.tool_calls
        ),
    )


def _arguments(rules: Rules, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: rules.clean(value) if isinstance(value, str) else value for name, value in arguments.items()}
