"""A fake of OpenAI as it is at the end of 2026: the Responses API, chat completions, embeddings and the list of models.

    with FakeResponses() as fake:
        settings.OPENAI_BASE_URL = fake.base_url
        fake.reply = lambda messages: "Hello!"          # else it repeats the last message of the person
        fake.then("reply", tool_calls=[("add_step", {"title": "Measure the roof"})])
        …
        assert fake.requests[-1].body["input"] == …

`reply` is given the input as messages with `role` and `content` (text), the instructions first as `system`, so that one
function serves both APIs. The kinds of `then` are those of tests/fakes/openai.py, and `failed` (a response that failed;
code, message). Options of `reply`: text, tool_calls, refusal (its words), finish_reason ("stop", "length" or
"content_filter"), reasoning (words of its summary, where the request asks for one), reasoning_tokens (64), usage,
model, confidence.

Its models are in tests/fakes/openai_models.py: a reasoning model gives a reasoning item first, and spends
`reasoning_tokens` of the cap. Four characters are a token, unless `count` says otherwise. A prompt that begins like an
earlier one is read from the cache, from 1,024 tokens. What it refuses is in tests/fakes/responses_rules.py.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, ClassVar
from uuid import uuid4

from tests.fakes import responses_rules, responses_stream, tools
from tests.fakes.model_server import Exchange, Refusal, serve, text_of
from tests.fakes.openai import REASONING_TOKENS, FakeOpenAI
from tests.fakes.openai_models import MODELS, Model

RESPONSES = "/v1/responses"
CACHED_FROM, CACHED_STEP = 1_024, 128
TOO_LONG = "Your input exceeds the context window of this model. Please adjust your input and try again."
REASONS = {"length": "max_output_tokens", "content_filter": "content_filter"}


class FakeResponses(FakeOpenAI):
    """The server. `count` gives the tokens of a text."""

    kinds: ClassVar[frozenset[str]] = FakeOpenAI.kinds | {"failed"}

    def __init__(
        self,
        *,
        port: int = 0,
        api_key: str = "",
        delay: float = 0.0,
        models: Mapping[str, Model] = MODELS,
    ) -> None:
        super().__init__(port=port, api_key=api_key, delay=delay, models=models)
        self.count: Callable[[str], int] = lambda text: len(text) // 4
        self.memory = responses_rules.Memory()
        self._prompts: deque[str] = deque(maxlen=20)
        self.routes[RESPONSES] = self.responses_refusal

    def responses_refusal(self, body: Mapping[str, Any]) -> Refusal | None:
        """Return what the Responses API refuses."""
        if wrong := responses_rules.request_refusal(body):
            return wrong
        model = self.model_named(body["model"])
        if model is None:
            sentence = f"The requested model '{body['model']}' does not exist."
            return Refusal(sentence, 400, "model_not_found", "model")
        before = body.get("previous_response_id")
        if before and before not in self.memory.responses:
            sentence = f"Previous response with id '{before}' not found."
            return Refusal(sentence, 400, "previous_response_not_found", "previous_response_id")
        if wrong := responses_rules.model_refusal(body, model):
            return wrong
        if wrong := responses_rules.input_refusal(self.items(body), model, self.memory):
            return wrong
        if self.count(prompt_of(body, self.items(body))) > model.window and not body.get("stream"):
            return Refusal(TOO_LONG, 400, "context_length_exceeded", "input")
        return None

    def items(self, body: Mapping[str, Any]) -> list[Any]:
        """Return the input with what was stored before it."""
        before = self.memory.responses.get(body.get("previous_response_id") or "", [])
        return [*before, *responses_rules.items_of(body)]

    def answer(self, exchange: Exchange, kind: str, options: dict[str, Any]) -> None:
        if exchange.request_read.path != RESPONSES:
            super().answer(exchange, kind, options)
            return
        body = exchange.body
        prompt = prompt_of(body, self.items(body))
        model = self.model_named(body["model"])
        if model and self.count(prompt) > model.window:  # a stream says so in its first event
            too_long = {"code": "context_length_exceeded", "message": TOO_LONG, "param": "input", "nested": True}
            response = self.response(body, "reply", {"text": ""}, prompt)
            responses_stream.stream(exchange, "error", {**response, "output": []}, too_long)
            return
        response = self.response(body, kind, options, prompt)
        kind = "reply" if kind == "failed" else kind
        if body.get("stream"):
            responses_stream.stream(exchange, kind, response, options)
        else:
            exchange.whole(kind, response, options)

    def response(self, body: Mapping[str, Any], kind: str, options: Mapping[str, Any], prompt: str) -> dict[str, Any]:
        """Return the response, and keep what a later request may give back."""
        model = self.model_named(body["model"])
        thinks = bool(model and model.reasons and (body.get("reasoning") or {}).get("effort") != "none")
        spent = options.get("reasoning_tokens", REASONING_TOKENS) if thinks else 0
        cap = body.get("max_output_tokens") or 1_000_000
        text = self.text_for(kind, messages_of(body, self.items(body)), options)
        short = options.get("finish_reason", "stop")
        if spent >= cap or spent + self.count(text) > cap:
            text, short, spent = text[: max(cap - spent, 0) * 4], "length", min(spent, cap)
        output = [reasoning_item(body, options)] if thinks else []
        if spent < cap:
            output += spoken_items(body, text, options, short, thinks=thinks)
            output += call_items(options.get("tool_calls", ()))
        response = {**frame(body), "model": options.get("model", body["model"]), "output": output}
        response["usage"] = options.get("usage") or self.tokens(prompt, text, spent)
        if kind == "failed":
            code, sentence = options.get("code", "server_error"), options.get("message", "The server had an error.")
            response |= {"status": "failed", "error": {"code": code, "message": sentence}, "output": [], "usage": None}
        elif short in REASONS:
            response |= {"status": "incomplete", "incomplete_details": {"reason": REASONS[short]}}
        self._keep(body, response)
        return response

    def tokens(self, prompt: str, text: str, spent: int) -> dict[str, Any]:
        """Return the usage. What the prompt has in common with an earlier one was cached."""
        asked, said = self.count(prompt), self.count(text) + spent
        same = max((self.count(beginning(prompt, each)) for each in self._prompts), default=0)
        cached = same // CACHED_STEP * CACHED_STEP if same >= CACHED_FROM else 0
        self._prompts.append(prompt)
        return {
            "input_tokens": asked,
            "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
            "output_tokens": said,
            "output_tokens_details": {"reasoning_tokens": spent},
            "total_tokens": asked + said,
        }

    def _keep(self, body: Mapping[str, Any], response: Mapping[str, Any]) -> None:
        reasoning = ""
        for item in response["output"]:
            if item["type"] == "reasoning":
                reasoning = item["id"]
                if "encrypted_content" in item:
                    self.memory.encrypted[item["id"]] = item["encrypted_content"]
            if item["type"] == "function_call" and reasoning:
                self.memory.reasoning_of[item["call_id"]] = reasoning
            if body.get("store", True):
                self.memory.stored[item["id"]] = item
        if body.get("store", True):
            self.memory.responses[response["id"]] = [*self.items(body), *map(given_back, response["output"])]


def beginning(one: str, other: str) -> str:
    """Return what both texts begin with."""
    length = next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), None)
    return one[: min(len(one), len(other)) if length is None else length]


def given_back(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return an item of the output without what no input may have."""
    return {name: value for name, value in item.items() if name in responses_rules.ITEMS[item["type"]][0]}


def messages_of(body: Mapping[str, Any], items: list[Any]) -> list[dict[str, Any]]:
    """Return the input as the messages of chat completions."""
    messages = [{"role": "system", "content": body["instructions"]}] if body.get("instructions") else []
    for item in items:
        if item["type"] == "message":
            messages.append({"role": item["role"], "content": text_of(item["content"])})
        elif item["type"] == "function_call_output":
            messages.append({"role": "tool", "content": text_of(item["output"])})
    return messages


def prompt_of(body: Mapping[str, Any], items: list[Any]) -> str:
    """Return all that the model reads: the tools, the instructions and the text of the input."""
    said = [f"{message['role']}: {message['content']}" for message in messages_of(body, items)]
    called = [item["arguments"] for item in items if item["type"] == "function_call"]
    return "\n".join([json.dumps(body.get("tools") or []), *said, *called])


def frame(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a completed response without its output: much of it repeats the request."""
    now = time.time()
    reasoning = {"effort": None, "summary": None, **(body.get("reasoning") or {})}
    given = {name: body.get(name) for name in ("instructions", "max_output_tokens", "previous_response_id")}
    return {
        **given,
        "id": f"resp_{uuid4().hex}",
        "object": "response",
        "created_at": int(now),
        "completed_at": int(now),
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "metadata": body.get("metadata") or {},
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "reasoning": reasoning,
        "service_tier": "default",
        "store": body.get("store", True),
        "temperature": body.get("temperature", 1.0),
        "text": {"format": {"type": "text"}, **(body.get("text") or {})},
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools") or [],
        "top_logprobs": 0,
        "top_p": body.get("top_p", 1.0),
        "truncation": body.get("truncation", "disabled"),
        "user": None,
    }


def reasoning_item(body: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a reasoning item: its summary and its encrypted content where the request asks for them."""
    asked = (body.get("reasoning") or {}).get("summary")
    words = options.get("reasoning", "Thinking about it.")
    item: dict[str, Any] = {"id": f"rs_{uuid4().hex}", "type": "reasoning", "summary": []}
    if asked:
        item["summary"] = [{"type": "summary_text", "text": words}]
    if "reasoning.encrypted_content" in (body.get("include") or ()):
        item["encrypted_content"] = f"gAAAAA{uuid4().hex}"
    return item


def spoken_items(
    body: Mapping[str, Any], text: str, options: Mapping[str, Any], short: str, *, thinks: bool
) -> list[dict[str, Any]]:
    """Return the message of the answer, if it has any words."""
    part: dict[str, Any] = {"type": "refusal", "refusal": options.get("refusal")}
    if not options.get("refusal"):
        asked = {"logprobs": "message.output_text.logprobs" in (body.get("include") or ())}
        sure = tools.probabilities(text, options.get("confidence", 0.9), asked)
        tokens = [{**each, "bytes": list(each["token"].encode())} for each in (sure or {}).get("content", ())]
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": tokens}
        if not text and options.get("tool_calls"):
            return []
    item = {"id": f"msg_{uuid4().hex}", "type": "message", "role": "assistant", "content": [part]}
    item["status"] = "incomplete" if short in REASONS else "completed"
    if thinks:
        item["phase"] = "commentary" if options.get("tool_calls") else "final_answer"
    return [item]


def call_items(wanted: Any) -> list[dict[str, Any]]:
    """Return the function calls of the answer."""
    return [
        {
            "id": f"fc_{uuid4().hex}",
            "type": "function_call",
            "status": "completed",
            "call_id": f"call_{uuid4().hex[:24]}",
            "name": name,
            "arguments": given if isinstance(given, str) else json.dumps(given),
        }
        for name, given in wanted
    ]


if __name__ == "__main__":
    serve(FakeResponses)
