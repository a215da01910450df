"""The conditions of an API key in SQL, for statements that look the key up themselves."""

from __future__ import annotations

from conversations.models import Scope

IS_VALID = "k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())"
SEES_PRIVATE = f"k.scopes ? '{Scope.PRIVATE_READ}'"


def may(scope: Scope) -> str:
    """Return the condition that the key `k` is valid and has the scope. `ApiKey.allows` says the same in Python."""
    return f"{IS_VALID} AND k.scopes ?| ARRAY['{scope}', '{Scope.ADMIN}']"


def is_visible(conversation: str, private: str) -> str:
    """Return the condition that the conversation, an alias, is no copilot user's own, or that `private` is true."""
    return f"({private} OR {conversation}.channel <> 'web' OR {conversation}.thread = '')"
