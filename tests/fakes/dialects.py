"""A fake of the servers that speak chat completions in a dialect of their own.

    with FakeDialects() as fake:
        fake.dialect = Dialect.THINK_TAGS               # or its name; `fake.dialects = {…}` for several at once
        fake.then("reply", text="Hello!")               # as with FakeOpenAI
        fake.window = 4_000                             # of the dialects that have a small one

Each dialect refuses, mangles or adds what its server does, whole and streamed; what is not its own is answered as
FakeOpenAI answers it, and the Responses API is there with RESPONSES_ONLY alone. `reasoning` is what a model thinks,
`reasoning_tokens` what that costs, `retry_after` the seconds of LONG_RETRY_AFTER, `window` the most tokens of a prompt,
`count` the tokens of a text, `also_takes` names of parameters that are taken besides OpenAI's.

The last six were found in public issues: NO_SYSTEM_ROLE in huggingface/chat-ui#1386 and vllm-project/vllm#2964,
TOOL_USE_FAILED in groq/groq-typescript#28 and (streamed) anomalyco/opencode#1018, OLLAMA in ollama/ollama#14795 and
yazinsai/OpenOats#716, LLAMA_CPP_WINDOW in oobabooga/textgen#7257, VLLM_WINDOW in ogx-ai/ogx#4534, STREAM_OPTIONS_422 in
openai/openai-agents-python#442. Sources of others: STRICT_TEMPLATE vllm-project/vllm#6862 and
suitenumerique/conversations#197, REASONING_BACK qwersyk/Newelle#404, SIGNATURE_BACK JetBrains/koog#1148 and (the list
around the error) securo-finance/securo#884, ERROR_IN_BODY damianvtran/local-operator#223, ONE_INDEX
su-kaka/gcli2api#406, HARMONY kekzl/imp#768, API_VERSION ThinkInAIXYZ/deepchat#262, LOGPROBS_FORBIDDEN
confident-ai/deepeval#2184.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, Self

from tests.fakes import dialect_answers, dialect_refusals, openai_stream
from tests.fakes.model_server import Exchange, LoggedRequest, Refusal, pieces_of, serve, text_of
from tests.fakes.openai import reason
from tests.fakes.openai_models import Model
from tests.fakes.responses_api import RESPONSES, FakeResponses

# The fields that these servers add to an assistant's message, or to its tool calls, and take back.
OWN_FIELDS = {"reasoning_content", "reasoning"}
OWN_FIELDS_OF_CALLS = {"extra_content", "index"}
# Tokens of one character of a script, as tokenizers that know little of it count; ASCII has a quarter.
SCRIPTS = {"TELUGU": 1.25, "ETHIOPIC": 1.25, "TAMIL": 0.8, "DEVANAGARI": 0.7, "THAI": 0.7, "ARABIC": 0.6}
SCRIPTS |= {"CJK": 1.0, "HANGUL": 0.8, "HIRAGANA": 0.8, "CYRILLIC": 0.4}
UNBROKEN = re.compile(r"[A-Za-z0-9+/=_-]{60,}")  # base64 and the like
TEXT_SIZE = 3  # characters of a piece, so that tags are split


class Dialect(StrEnum):
    """A way in which a server differs from OpenAI's chat completions."""

    description: str

    def __new__(cls, value: str, description: str) -> Self:
        member = str.__new__(cls, value)
        member._value_, member.description = value, description
        return member

    # Row 1 and 2 of the table of dialects.
    TOOLS_NEED_NO_EFFORT = "tools_need_no_effort", "refuses tools unless reasoning_effort is 'none'"
    RESPONSES_ONLY = "responses_only", "has the model on the Responses API only"
    REASONING_PARAMETERS = "reasoning_parameters", "refuses max_tokens, temperature, top_p and logprobs by name"
    LOGPROBS_FORBIDDEN = "logprobs_forbidden", "refuses logprobs with a 403 that has neither code nor param"
    # 3
    STRICT_TEMPLATE = "strict_template", "refuses roles that do not alternate, beginning with the user's"
    # 4
    THINK_TAGS = "think_tags", "puts <think>…</think> before the text"
    THOUGHT_TAGS = "thought_tags", "puts <thought>…</thought> before the text"
    STRAY_THINK_END = "stray_think_end", "puts reasoning and a stray </think> before the text"
    THINK_ONLY = "think_only", "is cut off within <think>, so that there is no text"
    HARMONY = "harmony", "puts the marks of harmony's channels into the text"
    # 5
    REASONING_BACK = "reasoning_back", "wants reasoning_content back with the tool calls (DeepSeek V4)"
    SIGNATURE_BACK = "signature_back", "wants extra_content back in each tool call (Gemini 3)"
    # 6
    FINISH_ERROR = "finish_error", "gives half a text and finish_reason 'error'"
    ERROR_IN_CHOICE = "error_in_choice", "gives half a text and an error within the choice"
    ERROR_IN_BODY = "error_in_body", "gives an error in a 200, streamed after half a text"
    # 7 and 8
    REFUSAL = "refusal", "refuses in `refusal`, with content null"
    CONTENT_PARTS = "content_parts", "gives the content as a list of parts, with a part of thinking"
    # 9
    NO_CALL_IDS = "no_call_ids", "gives tool calls without an id"
    EMPTY_CALL_IDS = "empty_call_ids", "gives tool calls with an empty id"
    ONE_INDEX = "one_index", "streams all tool calls at index 0"
    ARGUMENTS_OBJECT = "arguments_object", "gives the arguments of tool calls as an object"
    # 10 to 13
    LONG_RETRY_AFTER = "long_retry_after", "answers 429 with a Retry-After of hours"
    SMALL_WINDOW = "small_window", "refuses long prompts with context_length_exceeded"
    CAP_SPENT = "cap_spent", "spends the cap on reasoning: no content, finish_reason 'length'"
    # 14
    NO_STREAM_OPTIONS = "no_stream_options", "refuses stream_options by name"
    NO_TOOLS = "no_tools", "has no tools"
    # 15
    CUT_AT_LIMIT = "cut_at_limit", "cuts the text in mid-sentence"
    # 16
    CALL_IN_TAGS = "call_in_tags", "writes tool calls as <tool_call>{json}</tool_call>"
    CALL_IN_JSON = "call_in_json", "writes tool calls as a block of JSON"
    CALL_IN_FUNCTION = "call_in_function", "writes tool calls as <function=name>{json}</function>"
    CALL_IN_XML = "call_in_xml", "writes tool calls as <function=name><parameter=…>"
    CALL_IN_BRACKETS = "call_in_brackets", "writes tool calls as [TOOL_CALLS][{json}]"
    CALL_IN_PYTHON_TAG = "call_in_python_tag", "writes tool calls after <|python_tag|>"
    # 17 and 18
    API_VERSION = "api_version", "wants ?api-version= in every URL (Azure)"
    IGNORES_TOOL_CHOICE = "ignores_tool_choice", "calls a tool each time, whatever tool_choice says"
    # Found in public issues.
    NO_SYSTEM_ROLE = "no_system_role", "refuses the system role (Gemma's template)"
    TOOL_USE_FAILED = "tool_use_failed", "refuses its own malformed tool call with tool_use_failed (Groq)"
    OLLAMA = "ollama", "gives errors as a bare string, has no tools and only the models that it was given"
    LLAMA_CPP_WINDOW = "llama_cpp_window", "refuses long prompts with exceed_context_size_error"
    VLLM_WINDOW = "vllm_window", "refuses long prompts with no more than a sentence"
    STREAM_OPTIONS_422 = "stream_options_422", "refuses include_usage with a 422 that names it in a list (Mistral)"


def tokens_of(text: str) -> int:
    """Return the tokens of a text for a model that knows English well, other scripts badly, and base64 not at all."""
    unbroken = sum(len(run) for run in UNBROKEN.findall(text))
    plain = UNBROKEN.sub("", text)
    return round(unbroken / 1.5 + sum(_tokens_of_character(character) for character in plain))


def _tokens_of_character(character: str) -> float:
    if character.isascii():
        return 0.25
    return SCRIPTS.get(unicodedata.name(character, "").split(" ")[0].split("-")[0], 0.5)


class FakeDialects(FakeResponses):
    """The server. `dialects`: those that it speaks from the beginning."""

    def __init__(
        self,
        *dialects: Dialect | str,
        port: int = 0,
        api_key: str = "",
        delay: float = 0.0,
        models: Mapping[str, Model] | None = None,
    ) -> None:
        super().__init__(port=port, api_key=api_key, delay=delay, models=models or {})
        self._dialects = frozenset(map(Dialect, dialects))
        self.count: Callable[[str], int] = tokens_of
        self.window = 8_000
        self.reasoning = "They want their roof measured."
        self.reasoning_tokens = 1_000
        self.retry_after = 7_200
        self.also_takes: set[str] = set()

    @property
    def dialects(self) -> frozenset[Dialect]:
        """The dialects that it speaks."""
        return self._dialects

    @dialects.setter
    def dialects(self, dialects: Iterable[Dialect | str]) -> None:
        self._dialects = frozenset(map(Dialect, dialects))

    @property
    def dialect(self) -> Dialect | None:
        """The only dialect that it speaks; None for OpenAI's own."""
        return next(iter(self._dialects), None)

    @dialect.setter
    def dialect(self, dialect: Dialect | str | None) -> None:
        self._dialects = frozenset({Dialect(dialect)} if dialect else ())

    def speaks(self, *dialects: Dialect) -> bool:
        """Return whether it speaks one of them."""
        return not self._dialects.isdisjoint(dialects)

    def model_named(self, name: str) -> Model | None:
        return Model(reasons=True, chat=False) if self.speaks(Dialect.RESPONSES_ONLY) else super().model_named(name)

    def refusal(self, request: LoggedRequest) -> Refusal | None:
        if request.path == RESPONSES and not self.speaks(Dialect.RESPONSES_ONLY):
            return Refusal(f"Invalid URL (POST {RESPONSES})", 404)
        if self.speaks(Dialect.API_VERSION):
            if not request.query.get("api-version"):
                return Refusal(
                    "Resource not found", 404, body={"error": {"code": "404", "message": "Resource not found"}}
                )
            key = request.headers.get("api-key")
            if key and "authorization" not in request.headers:
                request = LoggedRequest(**{**vars(request), "headers": with_bearer(request.headers, key)})
        return super().refusal(request)

    def chat_refusal(self, body: Mapping[str, Any]) -> Refusal | None:
        if refusal := super().chat_refusal(self._without_own(body)):
            return refusal
        for dialect in Dialect:
            check = dialect_refusals.CHECKS.get(dialect.value)
            if dialect in self._dialects and check and (refusal := check(self, body)):
                return refusal
        return None

    def _without_own(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the request without what only such servers take."""
        messages = body.get("messages")
        if isinstance(messages, list) and all(isinstance(message, dict) for message in messages):
            messages = [without_own_fields(message) for message in messages]
        kept = {name: value for name, value in body.items() if name not in self.also_takes}
        if self.speaks(Dialect.TOOLS_NEED_NO_EFFORT, Dialect.REASONING_PARAMETERS):
            kept.pop("reasoning_effort", None)
        return {**kept, "messages": messages} if "messages" in kept else kept

    def answer_chat(self, exchange: Exchange, kind: str, options: dict[str, Any]) -> None:
        body = exchange.body
        tools = body.get("tools") or []
        if self.speaks(Dialect.IGNORES_TOOL_CHOICE) and tools:
            options = {**options, "tool_calls": [(tools[0]["function"]["name"], {})]}
        if self.speaks(Dialect.TOOL_USE_FAILED) and options.get("tool_calls"):
            self._fail_tool_use(exchange, options)
            return
        answer = self.completion(body, kind, options)
        if self.speaks(Dialect.ERROR_IN_BODY) and kind == "reply":
            self._fail_in_body(exchange, answer, options)
        elif body.get("stream"):
            openai_stream.stream(exchange, kind, answer, options, self.shape())
        else:
            exchange.whole(kind, answer, options)

    def completion(self, body: Mapping[str, Any], kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
        answer = super().completion(body, kind, options)
        for dialect in Dialect:
            change = dialect_answers.CHANGES.get(dialect.value)
            if dialect in self._dialects and change:
                change(self, body, answer)
        if self.speaks(Dialect.CAP_SPENT):
            cap = body.get("max_completion_tokens") or body.get("max_tokens")
            reason(answer, self.reasoning_tokens, cap)
        return answer

    def usage(self, body: Mapping[str, Any], text: str) -> dict[str, Any]:
        asked, said = self.prompt_tokens(body), self.count(text)
        return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}

    def prompt_tokens(self, body: Mapping[str, Any]) -> int:
        """Return the tokens of a prompt: of its texts, its tool calls and its tools, and four of each message."""
        said = [text_of(message.get("content")) for message in body["messages"]]
        called = [json.dumps(message["tool_calls"]) for message in body["messages"] if message.get("tool_calls")]
        return self.count("\n".join([*said, *called, json.dumps(body.get("tools") or [])])) + 4 * len(said)

    def shape(self) -> openai_stream.Shape:
        """Return how it cuts its answers into pieces: so small that tags are split, where it writes any."""
        plain = not self.speaks(*dialect_answers.WRITTEN)
        whole = self.speaks(Dialect.NO_CALL_IDS, Dialect.EMPTY_CALL_IDS, Dialect.ARGUMENTS_OBJECT)
        return openai_stream.Shape(
            split=openai_stream.words_of if plain else small_pieces,
            one_index=self.speaks(Dialect.ONE_INDEX),
            whole_calls=whole,
        )

    def error_body(self, refusal: Refusal) -> dict[str, Any]:
        if not self.speaks(Dialect.OLLAMA):
            return super().error_body(refusal)
        found = re.match(r"The model `(.*)` does not exist", refusal.message)
        return {"error": f"model '{found[1]}' not found" if found else refusal.message}

    def _fail_tool_use(self, exchange: Exchange, options: Mapping[str, Any]) -> None:
        written = dialect_answers.function_text(
            [{"name": name, "arguments": given} for name, given in options["tool_calls"]]
        )
        sentence = "Failed to call a function. Please adjust your prompt. See 'failed_generation' for more details."
        error = {"message": sentence, "type": "invalid_request_error", "code": "tool_use_failed"}
        error["failed_generation"] = written
        if exchange.body.get("stream"):
            exchange.start_events()
            exchange.event({"error": {**error, "status_code": 400}}, "error")
            exchange.end_events()
        else:
            exchange.json(400, {"error": error})

    def _fail_in_body(self, exchange: Exchange, answer: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        error = dialect_answers.UPSTREAM_ERROR
        if not exchange.body.get("stream"):
            exchange.json(200, {"error": error})
            return
        choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": "error"}
        chunk = {"id": answer["id"], "object": "chat.completion.chunk", "model": answer["model"], "choices": [choice]}
        openai_stream.stream(exchange, "error", answer, {**options, "event": {**chunk, "error": error}}, self.shape())


def without_own_fields(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message as OpenAI would have it."""
    kept = {name: value for name, value in message.items() if name not in OWN_FIELDS}
    if isinstance(kept.get("tool_calls"), list):
        calls = kept["tool_calls"]
        kept["tool_calls"] = [{name: call[name] for name in call if name not in OWN_FIELDS_OF_CALLS} for call in calls]
    return kept


def small_pieces(text: str) -> list[str]:
    """Return the text in pieces of three characters."""
    return pieces_of(text, TEXT_SIZE)


def with_bearer(headers: Mapping[str, str], key: str) -> dict[str, str]:
    """Return the headers with Azure's header of the key as OpenAI's."""
    return {**headers, "authorization": f"Bearer {key}"}


if __name__ == "__main__":
    serve(FakeDialects)
