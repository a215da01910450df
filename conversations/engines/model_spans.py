"""The spans of calls to models, with the names of OpenTelemetry's conventions for generative AI.

https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from urllib.parse import urlsplit

import orjson

from conversations import traces
from conversations.engines.contract import Reply, ReplyRequest
from conversations.traces import Doing, Kind, Value
from memory.language_models.contract import Completion, CompletionRequest, ModelAccess
from memory.language_models.contract import Kind as Protocol

CHAT = "chat"
PROVIDERS = {Protocol.OPENAI: "openai", Protocol.COMPATIBLE: "openai", Protocol.ANTHROPIC: "anthropic"}
FINISHES = {"refused": "content_filter"}


def model_call(
    request: ReplyRequest, access: ModelAccess, asked: CompletionRequest, *, streamed: bool = False
) -> AbstractContextManager[Doing]:
    """Return the block in which the model is asked, recorded as a span of the turn."""
    about: dict[str, Value] = {}
    if request.trace:
        about = {
            **_of(request, PROVIDERS[access.kind]),
            "gen_ai.request.model": access.model,
            "gen_ai.request.temperature": asked.temperature,
            "gen_ai.request.max_tokens": asked.max_tokens,
            "gen_ai.request.stream": streamed,
            "server.address": urlsplit(access.base_url).hostname or "",
        }
        if traces.tells_texts():
            about["gen_ai.input.messages"] = _as_json([(each["role"], each["content"]) for each in asked.messages])
    return traces.part(f"{CHAT} {access.model}", Kind.CLIENT, request.trace, about)


def note_completion(doing: Doing, request: ReplyRequest, completion: Completion) -> None:
    """Add what the model answered to its span."""
    if not request.trace:
        return
    finish = "tool_call" if completion.tool_calls else FINISHES.get(completion.finish_reason, completion.finish_reason)
    doing.note(
        {
            "gen_ai.response.model": completion.model,
            "gen_ai.response.finish_reasons": [finish],
            "gen_ai.usage.input_tokens": completion.tokens_in,
            "gen_ai.usage.output_tokens": completion.tokens_out,
            "gen_ai.usage.cache_read.input_tokens": completion.tokens_cached,
        }
    )
    if traces.tells_texts():
        doing.note({"gen_ai.output.messages": _as_json([("assistant", completion.text)])})


def engine_call(request: ReplyRequest, engine: str) -> AbstractContextManager[Doing]:
    """Return the block in which an engine other than a language model writes, recorded as a span of the turn."""
    about = _of(request, engine) if request.trace else {}
    return traces.part(f"{CHAT} {engine}", Kind.CLIENT, request.trace, about)


def note_reply(doing: Doing, request: ReplyRequest, reply: Reply) -> None:
    """Add what such an engine answered to its span."""
    if request.trace and reply.model:
        doing.note({"gen_ai.response.model": reply.model})


def _of(request: ReplyRequest, provider: str) -> Mapping[str, Value]:
    return {
        "gen_ai.operation.name": CHAT,
        "gen_ai.provider.name": provider,
        "gen_ai.conversation.id": request.conversation_id,
    }


def _as_json(messages: Sequence[tuple[str, str]]) -> str:
    return orjson.dumps(
        [{"role": role, "parts": [{"type": "text", "content": content}]} for role, content in messages]
    ).decode()
