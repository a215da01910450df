"""A fake of OpenAI's chat completions and embeddings over real loopback HTTP: for any test, and for any other process.

In a test:

    with FakeOpenAI() as fake:
        settings.OPENAI_BASE_URL = fake.base_url
        fake.reply = lambda messages: "Hello!"              # else it repeats the last message of the person
        fake.then("status", times=2, status=429, headers={"Retry-After": "1"})
        …
        assert fake.requests[-1].body["messages"] == …

`then` says what happens to the next calls; after them it answers again as always. The kinds are in
tests/fakes/model_server.py, with `no_choices` and `no_content` (a 200 with that) and `blank` (only blanks). Options of
`reply`: text (else what `reply` makes of the messages), finish_reason ("stop", or "tool_calls" with any), model,
usage, tool_calls ([(name, arguments)]; without text unless that is given), refusal, confidence (0.9; if asked for),
reasoning_tokens (of a reasoning model, 64).

A request for a stream gets one (tests/fakes/openai_stream.py). Embeddings (tests/fakes/embeddings.py) go the same way,
except that `reply` and `blank` mean vectors. Requests are checked as OpenAI checks them. Any name of a model is taken
for a plain model unless `models` names them (tests/fakes/openai_models.py).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, ClassVar

from tests.fakes import embeddings, openai_stream, tools
from tests.fakes.model_server import BODIES, KINDS, Exchange, LoggedRequest, ModelServer, Refusal, serve, text_of
from tests.fakes.openai_models import Model, chat_refusal

CHAT, EMBEDDINGS, MODELS = "/v1/chat/completions", "/v1/embeddings", "/v1/models"
ROLES = {"system", "developer", "user", "assistant", "tool"}
FIELDS = {"model", "messages", "temperature", "max_tokens", "max_completion_tokens", "stream", "stream_options"}
FIELDS |= {"tools", "tool_choice", "parallel_tool_calls", "logprobs", "top_logprobs", "top_p", "reasoning_effort"}
FIELDS |= {"stop", "seed", "user", "store", "metadata", "response_format", "service_tier", "prompt_cache_key"}
REASONING_TOKENS = 64


class FakeOpenAI(ModelServer):
    """The server. `models`: those that it has, by name; empty: it takes every name for a plain model."""

    kinds: ClassVar[frozenset[str]] = KINDS | {"blank", "no_choices", "no_content"}
    bodies: ClassVar[Mapping[str, tuple[str, str]]] = {
        **BODIES,
        "no_choices": ('{"id": "chatcmpl-1", "object": "chat.completion", "choices": []}', "application/json"),
        "no_content": ('{"choices": [{"message": {"role": "assistant", "content": null}}]}', "application/json"),
    }

    def __init__(
        self,
        *,
        port: int = 0,
        api_key: str = "",
        delay: float = 0.0,
        models: Mapping[str, Model] | None = None,
    ) -> None:
        super().__init__(port=port, api_key=api_key, delay=delay)
        self.models = dict(models or {})
        self.routes = {CHAT: self.chat_refusal, EMBEDDINGS: self.embeddings_refusal}

    def model_named(self, name: str) -> Model | None:
        """Return the model; None if there is none."""
        return self.models.get(name) if self.models else Model()

    def refusal(self, request: LoggedRequest) -> Refusal | None:
        known = request.path in self.routes if request.method == "POST" else request.path.startswith(MODELS)
        if not known:
            return Refusal(f"Invalid URL ({request.method} {request.path})", 404)
        given = request.headers.get("authorization")
        if self.api_key and given != f"Bearer {self.api_key}":
            return Refusal(f"Incorrect API key provided: {given}", 401, "invalid_api_key")
        if request.method == "GET":
            name = request.path.removeprefix(MODELS).strip("/")
            return None if not name or name in self.models else unknown_model(name)
        if not request.headers.get("content-type", "").startswith("application/json") or not request.body:
            return Refusal("We could not parse the JSON body of your request.")
        return self.routes[request.path](request.body)

    def chat_refusal(self, body: Mapping[str, Any]) -> Refusal | None:
        """Return what chat completions refuse."""
        if problem := problem_with(body):
            return Refusal(problem)
        model = self.model_named(body["model"])
        return chat_refusal(body["model"], model, body) if model else unknown_model(body["model"])

    def embeddings_refusal(self, body: Mapping[str, Any]) -> Refusal | None:
        """Return what embeddings refuse."""
        problem = embeddings.problem_with(body)
        return Refusal(problem) if problem else None

    def answer(self, exchange: Exchange, kind: str, options: dict[str, Any]) -> None:
        path, body = exchange.request_read.path, exchange.body
        if exchange.request_read.method == "GET":
            exchange.whole(kind, self.listed(path), options)
        elif path == EMBEDDINGS:
            exchange.whole(kind, embeddings.answer(body), options)
        else:
            self.answer_chat(exchange, kind, options)

    def answer_chat(self, exchange: Exchange, kind: str, options: dict[str, Any]) -> None:
        """Answer with a completion, whole or streamed."""
        answer = self.completion(exchange.body, kind, options)
        if exchange.body.get("stream"):
            openai_stream.stream(exchange, kind, answer, options)
        else:
            exchange.whole(kind, answer, options)

    def listed(self, path: str) -> dict[str, Any]:
        """Return the list of models, or the one that the path names."""
        if name := path.removeprefix(MODELS).strip("/"):
            return self.models[name].listed(name)
        return {"object": "list", "data": [model.listed(name) for name, model in self.models.items()]}

    def text_for(self, kind: str, messages: list[dict[str, Any]], options: Mapping[str, Any]) -> str:
        """Return the text of the answer: the order's, else the reply to the messages."""
        if kind == "blank":
            return " \n"
        if options.get("text") is not None:
            return str(options["text"])
        return "" if options.get("tool_calls") or options.get("refusal") else self.reply(messages)

    def completion(self, body: Mapping[str, Any], kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer as the server gives it whole."""
        text = self.text_for(kind, body["messages"], options)
        called = tools.calls(options.get("tool_calls", ()), len(body["messages"]))
        message = {"role": "assistant", "content": text or None, "refusal": options.get("refusal"), **called}
        choice = {
            "index": 0,
            "message": message,
            "logprobs": tools.probabilities(text, options.get("confidence", 0.9), body),
            "finish_reason": options.get("finish_reason", "tool_calls" if called else "stop"),
        }
        answer = {
            "id": "chatcmpl-fake",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": options.get("model", body["model"]),
            "choices": [choice],
            "usage": options.get("usage", self.usage(body, text)),
        }
        model = self.model_named(body["model"])
        thinks = model and model.reasons and body.get("reasoning_effort") != "none"
        if thinks and "usage" not in options:
            reason(answer, options.get("reasoning_tokens", REASONING_TOKENS), body.get("max_completion_tokens"))
        return answer

    def usage(self, body: Mapping[str, Any], text: str) -> dict[str, Any]:
        """Return the tokens of a request and its answer: four characters each."""
        asked, said = sum(len(text_of(message.get("content"))) for message in body["messages"]) // 4, len(text) // 4
        return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}

    def error_body(self, refusal: Refusal) -> dict[str, Any]:
        kind = refusal.code if refusal.code == "insufficient_quota" else refusal.type
        return {
            "error": {"message": refusal.message, "type": kind, "param": refusal.param, "code": refusal.code},
        }


def reason(answer: dict[str, Any], spent: int, cap: int | None) -> None:
    """Spend tokens on reasoning; where that uses up the cap, nothing is left of the text."""
    usage, choice = answer["usage"], answer["choices"][0]
    if cap is not None and spent >= cap:
        spent = cap
        usage["completion_tokens"] = 0
        choice["message"] = {"role": "assistant", "content": "", "refusal": None}
        choice["finish_reason"], choice["logprobs"] = "length", None
    usage["completion_tokens"] += spent
    usage["completion_tokens_details"] = {"reasoning_tokens": spent}
    usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]


def unknown_model(name: str) -> Refusal:
    """Return the refusal of a model that there is not."""
    sentence = f"The model `{name}` does not exist or you do not have access to it."
    return Refusal(sentence, 404, "model_not_found")


def problem_with(body: Mapping[str, Any]) -> str:
    """Return what OpenAI would refuse in the request's JSON; '' if nothing."""
    unknown = sorted(set(body) - FIELDS)
    if unknown:
        return f"Unrecognized request argument supplied: {unknown[0]}"
    if not isinstance(body.get("model"), str) or not body["model"]:
        return "you must provide a model parameter"
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return "[] is too short - 'messages'"
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            return f"Invalid value for 'messages[{index}].role'"
        if wrong := tools.problem_with_message(messages, index):
            return wrong
    return tools.problem_with(body) or _problem_with_numbers(body)


def _problem_with_numbers(body: Mapping[str, Any]) -> str:
    temperature = body.get("temperature", 1)
    if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 <= temperature <= 2:
        return "Invalid 'temperature'"
    for name in ("max_tokens", "max_completion_tokens"):
        limit = body.get(name, 1)
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            return f"Invalid '{name}'"
    if body.get("stream_options") is not None and not body.get("stream"):
        return "The 'stream_options' parameter is only allowed when 'stream' is enabled."
    return ""


if __name__ == "__main__":
    serve(FakeOpenAI)
