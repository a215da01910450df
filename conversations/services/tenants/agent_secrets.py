"""The secrets that sign requests to an assistant's own agent: the current one, and the one before while it is replaced.

Requests are signed with both, so that the agent may change to the new one at any time.
"""

from __future__ import annotations

import base64
import secrets

from django.utils.translation import gettext

from channels_out import standard_webhooks
from conversations.models import Assistant
from conversations.services.core.errors import InvalidError

CURRENT, BEFORE = "current", "before"


def replace_secret(assistant: Assistant, secret: str = "") -> str:
    """Set the assistant's secret, keep the current one as the one before, and return the new one. Does not save.

    secret: "whsec_" and base64; '' makes one. Raises InvalidError for anything else.
    """
    secret = secret or f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
    if not standard_webhooks.is_secret(secret):
        raise InvalidError(
            gettext('A secret is "whsec_" and base64. Leave it out to have one made.'), code="invalid_secret"
        )
    before = assistant.agent_secrets.get(CURRENT, "")
    if before != secret:
        assistant.agent_secrets = {CURRENT: secret, **({BEFORE: before} if before else {})}
    return secret


def ensure_secret(assistant: Assistant) -> str:
    """Make a secret if the engine needs one and there is none. Returns the new secret, or ''. Does not save."""
    if assistant.engine != Assistant.EngineName.AGENT or assistant.agent_secrets.get(CURRENT):
        return ""
    return replace_secret(assistant)


def first_secrets(engine: str | None, given: str | None) -> tuple[dict[str, str], str]:
    """Return the secrets of a new assistant with this engine, and the secret if one was made. Raises InvalidError."""
    assistant = Assistant(engine=engine or Assistant.EngineName.AUTO)
    if given:
        replace_secret(assistant, given)
    made = ensure_secret(assistant)
    return assistant.agent_secrets, made


def make_secret(assistant: Assistant) -> str:
    """Give the stored assistant a new secret and return it; it cannot be read again."""
    made = replace_secret(assistant)
    assistant.save(update_fields=["agent_secrets"])
    return made
