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
from memory.redaction import CARDS_ONLY, RedactionRules

MOST_KNOWN = 10_000  # clients whose rules are not the usual ones

_unusual: dict[UUID, RedactionRules] = {}


def rules_of(client: Client | None) -> RedactionRules:
    """The client's rules; of nobody's texts, card numbers are removed."""
    return RedactionRules(client.redact_cards, tuple(client.redaction_patterns)) if client else CARDS_ONLY


def last_seen(client_id: UUID) -> RedactionRules:
    """The rules that this client had when its row was last read here, if they were not the usual ones."""
    return _unusual.get(client_id, CARDS_ONLY)


def note(client: Client) -> RedactionRules:
    """The client's rules, to be known from now on."""
    rules = rules_of(client)
    if rules == CARDS_ONLY:
        _unusual.pop(client.pk, None)
    elif _unusual.get(client.pk) != rules:
        if len(_unusual) >= MOST_KNOWN:
            _unusual.clear()
        _unusual[client.pk] = rules
    return rules


def clean_reply(rules: RedactionRules, reply: Reply) -> Reply:
    """What the model said and did, cleaned."""
    return replace(
        reply,
        text=rules.clean(reply.text),
        tool_actions=tuple(
            replace(action, arguments=_arguments(rules, action.arguments)) for action in reply.tool_actions
        ),
        tool_calls=tuple(
            replace(call, arguments=rules.clean(call.arguments), answer=rules.clean(call.answer))
            for call in reply.tool_calls
        ),
    )


def _arguments(rules: RedactionRules, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: rules.clean(value) if isinstance(value, str) else value for name, value in arguments.items()}
