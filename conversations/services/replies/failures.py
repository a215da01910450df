"""Explains to staff why an assistant did not reply, and what to do about it."""

from __future__ import annotations

# By the code of a failure: what is wrong, and what to do. Both together are shown in 200 characters.
_EXPLANATIONS = {
    "model_not_found": "The provider does not know the model. Check its name against the list on the provider's page.",
    "unauthorized": "The provider refuses the key. Enter a valid key at the model provider.",
    "insufficient_quota": "The budget at the provider is spent. Pay there or raise its limit; then reply again.",
    "context_too_long": "The prompt is too long for the model. Shorten the instructions or the history.",
    "parameter_refused": "The model refuses a parameter. Check the provider's body parameters and the effort.",
    "bad_request": "The provider refuses the request as malformed. Try this assistant to see which part.",
    "no_tools": "The model has no tools. Turn the assistant's tools off, or choose another model.",
    "no_room": "The model spends its whole answer on reasoning. Raise the most tokens or lower the effort.",
    "refused": "The provider's content filter refused. Reply yourself, or change the instructions.",
    "no_transcription": "Providers of this kind transcribe nothing. Name another one on the client's page.",
    "too_large": "The recording is larger than the provider takes. Send a shorter one.",
    "not_configured": "No model provider is configured. Add one, or set OPENAI_API_KEY.",
    "too_many_calls": "The model called tools again and again and wrote nothing. Reply yourself.",
    "rate_limited": "The provider asks us to wait. Raise the account's limit there, or add a second model.",
    "overloaded": "The provider is overloaded. Add a second model for such times.",
    "timeout": "The model gave no answer in time. Raise the provider's time-out or add a second model.",
    "connect": "The provider cannot be reached. Check its address, and that the server there runs.",
    "cut_off": "The connection to the model broke off. Reply yourself; add a second model if it recurs.",
    "provider_error": "The provider reported an error of its own. Reply yourself; add a second model if it recurs.",
    "bad_answer": "The model's answers were empty or malformed. Try this assistant to see why.",
    "reasoning_shown": "The model wrote its reasoning instead of an answer. Try again: from now on it is held back.",
    "agent_unreachable": "Your agent cannot be reached. Check its URL, and that it runs.",
    "agent_timeout": "Your agent gave no answer in time. Raise the agent's time-out, or let it answer later.",
    "agent_late": "Your agent did not call back by its deadline. Check the agent, or raise the deadline.",
    "agent_cut_off": "The connection to your agent broke off before the end of its answer. Check its log.",
    "agent_bad_answer": "Your agent's answer is not valid. Correct the agent: docs/own-agent.md lists the fields.",
    "agent_too_long": "Your agent's answer is too long. It may have 1 MB, and 100,000 characters of text.",
    "agent_busy": "Your agent asks us to wait. Give it more capacity.",
    "agent_error": "Your agent answered with an error. Check its log.",
    "agent_unauthorized": "Your agent refuses the signature. Enter the assistant's signing secret there.",
    "agent_not_found": "There is nothing at your agent's URL. Correct the URL.",
    "agent_redirects": "Your agent's URL redirects, which Convo does not follow. Enter the URL that it leads to.",
    "agent_private_address": "Your agent's URL leads to an address that is not public. See ORB_PRIVATE_NETWORKS.",
    "agent_invalid_url": "Your agent's URL is not valid. Correct it.",
    "agent_no_secret": "The assistant has no signing secret. Make one on its page, and enter it at your agent.",
    "engine_crashed": "Convo failed while asking the model. The log has the error.",
    "crashed": "The process died each time the reply was tried. The log has the error.",
    "exhausted": "The reply was tried too often. Reply yourself.",
    "quota_used_up": "The client's quota of today is used up. Reply yourself; the assistant goes on tomorrow.",
    "unknown_engine": "The assistant names an engine that does not exist. Choose another.",
}


def explain(code: str) -> str:
    """Return what is wrong and what to do, in a sentence or two; for an unknown code, one that names it."""
    if code in _EXPLANATIONS:
        return _EXPLANATIONS[code]
    if code.startswith("http_"):
        return f"The provider answered with status {code.removeprefix('http_')}. Reply yourself; add a second model."
    return f"The reply failed with the code {code}."


def explain_with_detail(code: str, detail: str) -> str:
    """Return the explanation, with the provider's own code or the parameter that it named."""
    return f"{explain(code)} ({detail})" if detail and detail != code else explain(code)
