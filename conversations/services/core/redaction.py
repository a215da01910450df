"""A client's redaction rules, which say what is removed from its texts before they are stored.

Code that has the client's row takes the rules from it. The fast path of a message has no row: it cleans by the rules
that this process last saw, and its statement (core/appending.py) does nothing unless the client still has these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from conversations.engines.contract import Reply
from conversations.models import Client
from memory.redaction import CARDS_ONLY, RedactionRules

MOST_KNOWN = 10_000  # clients with other than the default rules

_unusual: dict[UUID, RedactionRules] = {}


def rules_of(client: Client | None) -> RedactionRules:
    """Return the client's rules; for None the default rules, which remove card numbers."""
    if client is None or (client.redact_cards and not client.redaction_patterns):
        return CARDS_ONLY
    return RedactionRules(client.redact_cards, tuple(client.redaction_patterns))


def last_known_rules(client_id: UUID) -> RedactionRules:
    """Return the rules that the client had when this process last read its row; the default rules if it never did."""
    return _unusual.get(client_id, CARDS_ONLY)


def remember_rules(client: Client) -> RedactionRules:
    """Remember the client's rules for `last_known_rules` and return them."""
    rules = rules_of(client)
    if rules == CARDS_ONLY:
        _unusual.pop(client.pk, None)
    elif _unusual.get(client.pk) != rules:
        if len(_unusual) >= MOST_KNOWN:
            _unusual.clear()
        _unusual[client.pk] = rules
    return rules


def clean_reply(rules: RedactionRules, reply: Reply) -> Reply:
    """Return the model's reply with its text, tool calls, arguments and names of files cleaned by the rules."""
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
        files=tuple(replace(file, name=rules.clean(file.name)) for file in reply.files),
    )


def _arguments(rules: RedactionRules, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: rules.clean(value) if isinstance(value, str) else rules.clean_json(value)
        for name, value in arguments.items()
    }
