"""A fake of Anthropic's Messages API over real loopback HTTP.

    with FakeAnthropic() as fake:
        client = anthropic.Anthropic(api_key="sk-ant-1", base_url=fake.base_url)
        fake.reply = lambda messages: "Hello!"          # else it repeats the last message of the person
        fake.then("reply", thinking="The roof first.", tool_calls=[("add_step", {"title": "Measure the roof"})])
        fake.then("status", status=529)
        …
        assert fake.requests[-1].body["system"] == …

`reply` is given the messages with `role` and `content` (text), the system part first, as the other fakes' is. The kinds
of `then` are those of tests/fakes/model_server.py; the type of an error follows from its status. Options of `reply`:
text, tool_calls ([(name, arguments)]), thinking (words, where the request asks for thinking; "" for none), redacted
(the thinking is redacted), thinking_tokens (64), stop_reason, usage, model. An error within a stream takes type and
message ("overloaded_error").

Its models are `models` (tests/fakes/anthropic_rules.py says what it refuses). Four characters are a token, unless
`count` says otherwise. What stands before a breakpoint of the cache is written to it at first, and read from then on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

from tests.fakes import anthropic_rules, anthropic_stream
from tests.fakes.anthropic_rules import Model, blocks_of, breakable
from tests.fakes.model_server import Exchange, LoggedRequest, ModelServer, Refusal, serve, text_of

MESSAGES, COUNT, LIST = "/v1/messages", "/v1/messages/count_tokens", "/v1/models"
MODELS = {
    "claude-opus-4-8": Model(adaptive=True, window=1_000_000, most_out=128_000),
    "claude-haiku-4-5": Model(retires_at="2027-02-15T00:00:00Z"),
}
TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
MOST_BYTES = 32 * 1024 * 1024


class FakeAnthropic(ModelServer):
    """The server. `count` gives the tokens of a text."""

    def __init__(
        self,
        *,
        port: int = 0,
        api_key: str = "",
        delay: float = 0.0,
        models: Mapping[str, Model] = MODELS,
    ) -> None:
        super().__init__(port=port, api_key=api_key, delay=delay)
        self.models = dict(models)
        self.count: Callable[[str], int] = lambda text: len(text) // 4
        self.memory = anthropic_rules.Memory()
        self._cached: set[str] = set()

    @property
    def base_url(self) -> str:
        """The address that an Anthropic client is given."""
        return self.url

    def refusal(self, request: LoggedRequest) -> Refusal | None:
        known = {MESSAGES, COUNT} if request.method == "POST" else {LIST}
        if request.path not in known and not request.path.startswith(f"{LIST}/"):
            return Refusal("Not found", 404)
        if wrong := self._headers_refusal(request.headers):
            return wrong
        if request.method == "GET":
            name = request.path.removeprefix(LIST).strip("/")
            return None if not name or name in self.models else Refusal(f"model: {name}", 404)
        return self._body_refusal(request.body, counts=request.path == COUNT)

    def _headers_refusal(self, headers: Mapping[str, str]) -> Refusal | None:
        key, bearer = headers.get("x-api-key"), headers.get("authorization")
        if not key and not bearer:
            return Refusal("x-api-key header is required", 401)
        if self.api_key and key != self.api_key and bearer != f"Bearer {self.api_key}":
            return Refusal("invalid x-api-key" if key else "Invalid bearer token", 401)
        if not headers.get("anthropic-version"):
            return Refusal("anthropic-version: header is required")
        if int(headers.get("content-length") or 0) > MOST_BYTES:
            return Refusal("Request exceeds the maximum size", 413)
        return None

    def _body_refusal(self, body: Mapping[str, Any], *, counts: bool) -> Refusal | None:
        body = {"max_tokens": 1, **body} if counts else body
        if problem := anthropic_rules.problem_with_fields(body):
            return Refusal(problem)
        model = self.models.get(body["model"])
        if model is None:
            return Refusal(f"model: {body['model']}", 404)
        if problem := anthropic_rules.problem_with(body, model, self.memory):
            return Refusal(problem)
        asked = self.count(prompt_of(body))
        if asked > model.window and not counts:
            return Refusal(f"prompt is too long: {asked} tokens > {model.window} maximum")
        return None

    def answer(self, exchange: Exchange, kind: str, options: dict[str, Any]) -> None:
        path, body = exchange.request_read.path, exchange.body
        if exchange.request_read.method == "GET":
            exchange.whole(kind, self.listed(path, exchange.request_read.query), options)
        elif path == COUNT:
            exchange.whole(kind, {"input_tokens": self.count(prompt_of(body))}, options)
        elif body.get("stream"):
            anthropic_stream.stream(exchange, kind, self.message(body, options), options)
        else:
            exchange.whole(kind, self.message(body, options), options)

    def listed(self, path: str, query: Mapping[str, str]) -> dict[str, Any]:
        """Return the model that the path names, or a page of the list of models."""
        if name := path.removeprefix(LIST).strip("/"):
            return listed(name, self.models[name])
        names = sorted(self.models)
        start = names.index(query["after_id"]) + 1 if query.get("after_id") in names else 0
        page = names[start : start + int(query.get("limit", 20))]
        return {
            "data": [listed(name, self.models[name]) for name in page],
            "has_more": names[-1:] != page[-1:],
            "first_id": page[0] if page else None,
            "last_id": page[-1] if page else None,
        }

    def message(self, body: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer, and keep the thinking that a later request must give back."""
        called = [call_block(name, given) for name, given in options.get("tool_calls", ())]
        text = options.get("text")
        if text is None:
            text = "" if called or options.get("stop_reason") == "refusal" else self.reply(messages_of(body))
        thought = thinking_blocks(body, options)
        spent = options.get("thinking_tokens", 64) if thought else 0
        reason, sequence = options.get("stop_reason", "tool_use" if called else "end_turn"), None
        for stop in body.get("stop_sequences") or ():
            if stop in text:
                text, reason, sequence = text[: text.index(stop)], "stop_sequence", stop
        if spent + self.count(text) > body["max_tokens"]:
            text, reason, called = text[: max(body["max_tokens"] - spent, 0) * 4], "max_tokens", []
        content = [*thought, *([{"type": "text", "text": text}] if text else []), *called]
        self._keep(thought, called)
        refused = {"type": "refusal", "category": None, "explanation": None}
        return {
            "id": f"msg_{uuid4().hex[:24]}",
            "type": "message",
            "role": "assistant",
            "model": options.get("model", body["model"]),
            "content": content,
            "stop_reason": reason,
            "stop_sequence": sequence,
            "stop_details": refused if reason == "refusal" else None,
            "usage": options.get("usage") or self.usage(body, text, spent),
        }

    def usage(self, body: Mapping[str, Any], text: str, spent: int) -> dict[str, Any]:
        """Return the tokens: what is read from the cache or written to it does not count as input."""
        parts = list(prefixes(body))
        asked = self.count(parts[-1][0]) if parts else 0
        broken = [prefix for prefix, ends in parts if ends and self.count(prefix) >= self._least(body)]
        read = written = 0
        if broken:
            known = [prefix for prefix, _ in parts if prefix in self._cached and len(prefix) <= len(broken[-1])]
            read = self.count(known[-1]) if known else 0
            written = self.count(broken[-1]) - read
            self._cached.update(broken)
        return {
            "input_tokens": asked - read - written,
            "cache_creation_input_tokens": written,
            "cache_read_input_tokens": read,
            "cache_creation": {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0},
            "output_tokens": self.count(text) + spent,
            "output_tokens_details": {"thinking_tokens": spent},
            "service_tier": "standard",
        }

    def _least(self, body: Mapping[str, Any]) -> int:
        return self.models[body["model"]].cache_from

    def _keep(self, thought: list[dict[str, Any]], called: list[dict[str, Any]]) -> None:
        self.memory.blocks |= {block.get("signature") or block["data"]: block for block in thought}
        self.memory.of_call |= {call["id"]: list(thought) for call in called}

    def headers(self) -> Mapping[str, str]:
        return {"request-id": f"req_{uuid4().hex[:24]}"}

    def error_body(self, refusal: Refusal) -> dict[str, Any]:
        kind = TYPES.get(refusal.status, refusal.type)
        error = {"type": kind, "message": refusal.message}
        return {"type": "error", "error": error, "request_id": f"req_{uuid4().hex[:24]}"}


def listed(name: str, model: Model) -> dict[str, Any]:
    """Return the model as the list of models has it."""
    return {
        "type": "model",
        "id": name,
        "display_name": name.replace("-", " ").title(),
        "created_at": "2026-05-01T00:00:00Z",
        "lifecycle": "deprecated" if model.retires_at else "active",
        "deprecated_at": "2026-08-15T00:00:00Z" if model.retires_at else None,
        "retires_at": model.retires_at,
        "max_input_tokens": model.window,
        "max_tokens": model.most_out,
    }


def messages_of(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the prompt as the messages of chat completions."""
    system = text_of(body.get("system"))
    messages = [{"role": "system", "content": system}] if system else []
    for message in body["messages"]:
        blocks = blocks_of(message["content"])
        results = [block.get("content") for block in blocks if block["type"] == "tool_result"]
        messages += [{"role": "tool", "content": text_of(content)} for content in results]
        if text := text_of(blocks):
            messages.append({"role": message["role"], "content": text})
    return messages


def prefixes(body: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """Return the prompt up to each of its blocks, and whether a breakpoint of the cache is there."""
    parts, text = [], f"{body['model']}\n"
    for role, block in breakable(body):
        plain = {name: value for name, value in block.items() if name != "cache_control"}
        text += f"{role}: {json.dumps(plain, ensure_ascii=False)}\n"
        parts.append((text, bool(block.get("cache_control"))))
    if body.get("cache_control") and parts:
        parts[-1] = (parts[-1][0], True)
    return parts


def prompt_of(body: Mapping[str, Any]) -> str:
    """Return all that the model reads."""
    return prefixes(body)[-1][0]


def thinking_blocks(body: Mapping[str, Any], options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the thinking of the answer, where the request asks for it."""
    words = options.get("thinking", "Thinking about it.")
    if not anthropic_rules.thinks(body) or not words:
        return []
    if options.get("redacted"):
        return [{"type": "redacted_thinking", "data": f"Eq{uuid4().hex}"}]
    shown = "" if body["thinking"].get("display") == "omitted" else words
    return [{"type": "thinking", "thinking": shown, "signature": f"Er{uuid4().hex}"}]


def call_block(name: str, given: Any) -> dict[str, Any]:
    """Return a tool call of the answer."""
    arguments = json.loads(given) if isinstance(given, str) else given
    call = {"type": "tool_use", "id": f"toolu_{uuid4().hex[:24]}", "name": name, "input": arguments}
    return {**call, "caller": {"type": "direct"}}


if __name__ == "__main__":
    serve(FakeAnthropic)
