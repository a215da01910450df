"""The sentences that a user of the copilot reads where a reply failed.

The API says them in English. The panel has them in its user's language.
"""

from __future__ import annotations

from django.utils.translation import gettext, gettext_noop

_NOT_SET_UP = gettext_noop("The assistant is not set up properly. Tell whoever looks after it.")
_TOO_LONG = gettext_noop("This conversation is too long for the assistant. Start a new one, or ask for less at once.")
_BUSY = gettext_noop("The assistant has too much to do. Try again in a minute.")
_CUT_OFF = gettext_noop("The answer broke off. What arrived is kept; try again for the whole.")
_SILENT = gettext_noop("The assistant fell silent. Try again.")
_AWAY = gettext_noop("The assistant cannot be reached. Try again in a minute.")
_TOMORROW = gettext_noop("The assistant has used up what it may use today. It goes on tomorrow; your question is kept.")
FAILED = gettext_noop("The assistant could not answer. Try again.")
# None but these say more than that it failed.
SENTENCES = {
    "cut_off": _CUT_OFF,
    "provider_error": gettext_noop("The assistant ran into an error while it wrote. Try again."),
    "reasoning_shown": gettext_noop("The assistant wrote its notes instead of an answer. Try again."),
    "timeout": _SILENT,
    "connect": _AWAY,
    "rate_limited": _BUSY,
    "overloaded": _BUSY,
    "refused": gettext_noop("The assistant may not answer this. Ask in other words."),
    "context_too_long": _TOO_LONG,
    "no_room": gettext_noop("The assistant thought for too long and wrote nothing. Ask a simpler question."),
    "too_many_calls": gettext_noop("The assistant found no answer to this message. Ask in other words."),
    "bad_request": gettext_noop("The assistant cannot answer this. Start a new conversation, or ask for less at once."),
    "quota_used_up": _TOMORROW,
    "unauthorized": _NOT_SET_UP,
    "insufficient_quota": _NOT_SET_UP,
    "model_not_found": _NOT_SET_UP,
    "parameter_refused": _NOT_SET_UP,
    "no_tools": _NOT_SET_UP,
    "not_configured": _NOT_SET_UP,
    "agent_cut_off": _CUT_OFF,
    "agent_timeout": _SILENT,
    "agent_late": _SILENT,
    "agent_unreachable": _AWAY,
    "agent_busy": _BUSY,
    "agent_unauthorized": _NOT_SET_UP,
    "agent_not_found": _NOT_SET_UP,
    "agent_redirects": _NOT_SET_UP,
    "agent_private_address": _NOT_SET_UP,
    "agent_invalid_url": _NOT_SET_UP,
    "agent_no_secret": _NOT_SET_UP,
}
_FINAL = {_NOT_SET_UP, _TOO_LONG, _TOMORROW}  # trying again now gives the same


def sentence_of(code: str) -> str:
    """Return the sentence about the failure of a turn, in English."""
    return SENTENCES.get(code, FAILED)


def may_be_retried(code: str) -> bool:
    """Return whether another attempt may succeed now."""
    return SENTENCES.get(code) not in _FINAL


def words() -> dict[str, str]:
    """Return all the sentences in the reader's language, by the English ones."""
    return {each: gettext(each) for each in {FAILED, *SENTENCES.values()}}
