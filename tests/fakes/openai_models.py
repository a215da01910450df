"""The models that the fakes of OpenAI know, and what each of them refuses on chat completions.

The errors are those of public reports: function tools on chat completions (BerriAI/litellm#34569, GEMISIS/leviath#333),
efforts (livekit/agents#7169), models that only Responses has (n8n-io/n8n#18352).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.fakes.model_server import Refusal

EFFORTS = ("none", "low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True)
class Model:
    """A model of OpenAI's.

    reasons         a reasoning model: refuses temperature, top_p, logprobs and (on chat completions) max_tokens
    chat            served by chat completions, else by Responses only
    chat_tools      takes tools on chat completions whatever the effort
    window          the most tokens that a prompt may have
    shutdown_date   as `GET /v1/models` says it; None if none is set
    """

    reasons: bool = False
    chat: bool = True
    chat_tools: bool = True
    efforts: tuple[str, ...] = EFFORTS
    window: int = 400_000
    shutdown_date: str | None = None
    created: int = 1_790_000_000

    def listed(self, name: str) -> dict[str, Any]:
        """Return the model as the list of models has it."""
        return {
            "id": name,
            "object": "model",
            "created": self.created,
            "owned_by": "system",
            "shutdown_date": self.shutdown_date,
        }


MODELS = {
    "gpt-6-luna": Model(reasons=True, chat_tools=False),
    "gpt-6-astra": Model(reasons=True, chat=False),
    "gpt-4.1-like": Model(shutdown_date="2027-01-14"),
    "text-embedding-3-small": Model(chat=False),
}


def chat_refusal(name: str, model: Model, body: Mapping[str, Any]) -> Refusal | None:
    """Return what the model refuses on chat completions; None if nothing."""
    if not model.chat:
        sentence = "This model is only supported in v1/responses and not in v1/chat/completions."
        return Refusal(sentence, 404, param="model")
    if not model.reasons:
        if "reasoning_effort" in body:
            return Refusal("Unrecognized request argument supplied: reasoning_effort")
        return None
    return _reasoning_refusal(name, model, body)


def _reasoning_refusal(name: str, model: Model, body: Mapping[str, Any]) -> Refusal | None:
    effort = body.get("reasoning_effort")
    if effort is not None and effort not in model.efforts:
        return effort_refusal("reasoning_effort", effort, model)
    if body.get("tools") and not model.chat_tools and effort != "none":
        return Refusal(
            f"Function tools with reasoning_effort are not supported for {name} in /v1/chat/completions. "
            "To use function tools, use /v1/responses or set reasoning_effort to 'none'.",
            param="reasoning_effort",
        )
    if "max_tokens" in body:
        sentence = "Unsupported parameter: 'max_tokens' is not supported with this model. "
        return unsupported("max_tokens", sentence + "Use 'max_completion_tokens' instead.")
    if body.get("temperature", 1) != 1:
        given = body["temperature"]
        sentence = f"Unsupported value: 'temperature' does not support {given} with this model."
        return Refusal(f"{sentence} Only the default (1) value is supported.", 400, "unsupported_value", "temperature")
    if body.get("top_p", 1) != 1:
        return unsupported("top_p")
    if body.get("logprobs"):
        sentence = "You are not allowed to request logprobs from this model"
        return Refusal(sentence, 403, "unsupported_parameter", "logprobs")
    return None


def unsupported(name: str, sentence: str = "") -> Refusal:
    """Return the refusal of a parameter that the model does not have."""
    sentence = sentence or f"Unsupported parameter: '{name}' is not supported with this model."
    return Refusal(sentence, 400, "unsupported_parameter", name)


def effort_refusal(param: str, effort: Any, model: Model) -> Refusal:
    """Return the refusal of an effort that the model does not have."""
    values = ", ".join(f"'{value}'" for value in model.efforts)
    sentence = f"Unsupported value: '{param}' does not support '{effort}' with this model."
    return Refusal(f"{sentence} Supported values are: {values}.", 400, "unsupported_value", param)
