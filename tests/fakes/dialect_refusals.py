"""The checks of each dialect. A check is given the fake and the request, and returns the refusal or None."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tests.fakes.model_server import Refusal
from tests.fakes.openai_models import Model, chat_refusal

if TYPE_CHECKING:
    from tests.fakes.dialects import FakeDialects

Body = Mapping[str, Any]


def tools_need_no_effort(fake: FakeDialects, body: Body) -> Refusal | None:
    kept = {"tools": body.get("tools"), "reasoning_effort": body.get("reasoning_effort")}
    return chat_refusal(body["model"], Model(reasons=True, chat_tools=False), kept)


def reasoning_parameters(fake: FakeDialects, body: Body) -> Refusal | None:
    return chat_refusal(body["model"], Model(reasons=True), body)


def logprobs_forbidden(fake: FakeDialects, body: Body) -> Refusal | None:
    return Refusal("You are not allowed to request logprobs from this model", 403) if body.get("logprobs") else None


def strict_template(fake: FakeDialects, body: Body) -> Refusal | None:
    """Refuse what a template of Gemma or Mistral raises at. A call of tools and their answers are between two roles."""
    roles = [message["role"] for message in body["messages"] if not message.get("tool_calls")]
    roles = [role for role in roles if role != "tool"]
    if roles and roles[0] == "system":
        roles = roles[1:]
    expected = ["user" if number % 2 == 0 else "assistant" for number in range(len(roles))]
    if roles == expected and roles[-1:] == ["user"]:
        return None
    sentence = "Conversation roles must alternate user/assistant/user/assistant/..."
    return Refusal(sentence, body=error_of_vllm(f"{sentence} {sentence}"))


def no_system_role(fake: FakeDialects, body: Body) -> Refusal | None:
    if all(message["role"] not in {"system", "developer"} for message in body["messages"]):
        return None
    error = {"message": "System role not supported", "type": "BadRequestError", "param": None, "code": 400}
    return Refusal("System role not supported", body={"object": "error", **error})


def reasoning_back(fake: FakeDialects, body: Body) -> Refusal | None:
    if all(message.get("reasoning_content") for message in body["messages"] if message.get("tool_calls")):
        return None
    sentence = "The `reasoning_content` in the thinking mode must be passed back to the API."
    return Refusal(sentence, code="invalid_request_error")


def signature_back(fake: FakeDialects, body: Body) -> Refusal | None:
    for message in body["messages"]:
        for position, call in enumerate(message.get("tool_calls") or (), start=1):
            google = (call.get("extra_content") or {}).get("google") or {}
            if google.get("thought_signature") != signature_of(call):
                sentence = "Function call is missing a thought_signature in functionCall parts. This is required for "
                sentence += "tools to work correctly. Additional data, function call "
                sentence += f"`default_api:{call['function']['name']}`, position {position}."
                error = {"code": 400, "message": sentence, "status": "INVALID_ARGUMENT"}
                return Refusal(sentence, body=[{"error": error}])
    return None


def signature_of(call: Mapping[str, Any]) -> str:
    """Return the signature that the fake gives a call."""
    return f"signature of {call['function']['name']}"


def long_retry_after(fake: FakeDialects, body: Body) -> Refusal | None:
    headers = {"Retry-After": str(fake.retry_after)}
    return Refusal("Rate limit reached for requests", 429, "rate_limit_exceeded", None, "requests", headers)


def small_window(fake: FakeDialects, body: Body) -> Refusal | None:
    asked = fake.prompt_tokens(body)
    sentence = f"This model's maximum context length is {fake.window} tokens. However, your messages resulted in "
    sentence += f"{asked} tokens. Please reduce the length of the messages."
    return Refusal(sentence, 400, "context_length_exceeded", "messages") if asked > fake.window else None


def llama_cpp_window(fake: FakeDialects, body: Body) -> Refusal | None:
    asked = fake.prompt_tokens(body)
    if asked <= fake.window:
        return None
    sentence = "the request exceeds the available context size. try increasing the context size"
    error = {"code": 400, "message": sentence, "type": "exceed_context_size_error"}
    return Refusal(sentence, body={"error": {**error, "n_prompt_tokens": asked, "n_ctx": fake.window}})


def vllm_window(fake: FakeDialects, body: Body) -> Refusal | None:
    """Refuse a prompt that does not fit together with the cap of the answer, as vLLM does."""
    asked, cap = fake.prompt_tokens(body), body.get("max_tokens") or body.get("max_completion_tokens") or 0
    if asked + cap <= fake.window:
        return None
    sentence = f"This model's maximum context length is {fake.window} tokens. However, you requested {asked + cap} "
    sentence += f"tokens ({asked} in the messages, {cap} in the completion). "
    sentence += "Please reduce the length of the messages or completion."
    error = {"message": sentence, "type": "BadRequestError", "param": None, "code": 400}
    return Refusal(sentence, body={"object": "error", **error})


def no_stream_options(fake: FakeDialects, body: Body) -> Refusal | None:
    sentence = "Unknown parameter: 'stream_options'."
    return Refusal(sentence, 400, "unknown_parameter", "stream_options") if "stream_options" in body else None


def stream_options_422(fake: FakeDialects, body: Body) -> Refusal | None:
    if "stream_options" not in body:
        return None
    place = ["body", "stream_options", "include_usage"]
    wrong = {"type": "extra_forbidden", "loc": place, "msg": "Extra inputs are not permitted", "input": True}
    error = {"message": {"detail": [wrong]}, "type": "invalid_request_error", "param": None, "code": None}
    return Refusal("Extra inputs are not permitted", 422, body={"object": "error", **error})


def no_tools(fake: FakeDialects, body: Body) -> Refusal | None:
    sentence = f"registry.ollama.ai/library/{body['model']} does not support tools"
    return Refusal(sentence, type="api_error") if body.get("tools") else None


def error_of_vllm(sentence: str) -> dict[str, Any]:
    """Return an error's body as vLLM gives it: the code is the status."""
    return {"error": {"message": sentence, "type": "BadRequestError", "param": None, "code": 400}}


CHECKS: dict[str, Callable[[FakeDialects, Body], Refusal | None]] = {
    "tools_need_no_effort": tools_need_no_effort,
    "reasoning_parameters": reasoning_parameters,
    "logprobs_forbidden": logprobs_forbidden,
    "strict_template": strict_template,
    "no_system_role": no_system_role,
    "reasoning_back": reasoning_back,
    "signature_back": signature_back,
    "long_retry_after": long_retry_after,
    "small_window": small_window,
    "llama_cpp_window": llama_cpp_window,
    "vllm_window": vllm_window,
    "no_stream_options": no_stream_options,
    "stream_options_422": stream_options_422,
    "no_tools": no_tools,
    "ollama": no_tools,
}
