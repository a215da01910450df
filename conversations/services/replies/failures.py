"""Explains to staff why an assistant did not reply, and what to do about it."""

from __future__ import annotations

from django.utils.translation import gettext_noop as _

from conversations.words import with_values

# By the code of a failure: what is wrong, and what to do. Both together are shown in 200 characters.
_EXPLANATIONS = {
    "model_not_found": _(
        "The provider does not know the model. Check its name against the list on the provider's page."
    ),
    "unauthorized": _("The provider refuses the key. Enter a valid key at the model provider."),
    "insufficient_quota": _("The budget at the provider is spent. Pay there or raise its limit; then reply again."),
    "context_too_long": _("The prompt is too long for the model. Shorten the instructions or the history."),
    "parameter_refused": _("The model refuses a parameter. Check the provider's body parameters and the effort."),
    "bad_request": _("The provider refuses the request as malformed. Try this assistant to see which part."),
    "no_tools": _("The model has no tools. Turn the assistant's tools off, or choose another model."),
    "no_room": _("The model spends its whole answer on reasoning. Raise the most tokens or lower the effort."),
    "refused": _("The provider's content filter refused. Reply yourself, or change the instructions."),
    "no_transcription": _("Providers of this kind transcribe nothing. Name another one on the client's page."),
    "too_large": _("The recording is larger than the provider takes. Send a shorter one."),
    "not_configured": _("No model provider is configured. Add one, or set OPENAI_API_KEY."),
    "too_many_calls": _("The model called tools again and again and wrote nothing. Reply yourself."),
    "rate_limited": _("The provider asks us to wait. Raise the account's limit there, or add a second model."),
    "overloaded": _("The provider is overloaded. Add a second model for such times."),
    "timeout": _("The model gave no answer in time. Raise the provider's time-out or add a second model."),
    "connect": _("The provider cannot be reached. Check its address, and that the server there runs."),
    "cut_off": _("The connection to the model broke off. Reply yourself; add a second model if it recurs."),
    "provider_error": _("The provider reported an error of its own. Reply yourself; add a second model if it recurs."),
    "bad_answer": _("The model's answers were empty or malformed. Try this assistant to see why."),
    "reasoning_shown": _("The model wrote its reasoning instead of an answer. Try again: from now on it is held back."),
    "agent_unreachable": _("Your agent cannot be reached. Check its URL, and that it runs."),
    "agent_timeout": _("Your agent gave no answer in time. Raise the agent's time-out, or let it answer later."),
    "agent_late": _("Your agent did not call back by its deadline. Check the agent, or raise the deadline."),
    "agent_cut_off": _("The connection to your agent broke off before the end of its answer. Check its log."),
    "agent_bad_answer": _("Your agent's answer is not valid. Correct the agent: docs/own-agent.md lists the fields."),
    "agent_too_long": _("Your agent's answer is too long. It may have 1 MB, and 100,000 characters of text."),
    "agent_busy": _("Your agent asks us to wait. Give it more capacity."),
    "agent_error": _("Your agent answered with an error. Check its log."),
    "agent_unauthorized": _("Your agent refuses the signature. Enter the assistant's signing secret there."),
    "agent_not_found": _("There is nothing at your agent's URL. Correct the URL."),
    "agent_redirects": _("Your agent's URL redirects, which Convo does not follow. Enter the URL that it leads to."),
    "agent_private_address": _("Your agent's URL leads to an address that is not public. See ORB_PRIVATE_NETWORKS."),
    "agent_invalid_url": _("Your agent's URL is not valid. Correct it."),
    "agent_no_secret": _("The assistant has no signing secret. Make one on its page, and enter it at your agent."),
    "engine_crashed": _("Convo failed while asking the model. The log has the error."),
    "crashed": _("The process died each time the reply was tried. The log has the error."),
    "exhausted": _("The reply was tried too often. Reply yourself."),
    "quota_used_up": _("The client's quota of today is used up. Reply yourself; the assistant goes on tomorrow."),
    "unknown_engine": _("The assistant names an engine that does not exist. Choose another."),
}
_STATUS = with_values("The provider answered with status %(status)s. Reply yourself; add a second model.")
_CODE = with_values("The reply failed with the code %(code)s.")


def explain(code: str) -> str:
    """Return what is wrong and what to do, in a sentence or two; for an unknown code, one that names it."""
    if code in _EXPLANATIONS:
        return _EXPLANATIONS[code]
    if code.startswith("http_"):
        return _STATUS % {"status": code.removeprefix("http_")}
    return _CODE % {"code": code}


def explain_with_detail(code: str, detail: str) -> str:
    """Return the explanation, with the provider's own code or the parameter that it named."""
    return f"{explain(code)} ({detail})" if detail and detail != code else explain(code)
