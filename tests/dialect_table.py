"""The table of what a customer gets from servers that differ from OpenAI's, whole and streamed.

A row has the dialect, the customer's text (None: the fallback sentence, and staff are called), the code of the failure,
what is learned of the model, and options: `tools` (the model calls two tools first), `streamed` (the text, where the
reader of a stream gets another one), `confidence` (probabilities are asked for).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.fakes.dialects import Dialect, FakeDialects

D = Dialect
ECHO = "You said: Hello, who are you?"
DONE = "Done, thank you."
CALLS = [("set_current_goal", {"description": "Buy a kettle"}), ("add_step", {"description": "Ask the colour"})]


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    dialect: Dialect
    text: str | None
    code: str = ""
    learned: dict[str, Any] = field(default_factory=dict)
    tools: bool = False
    confidence: bool = False
    streamed: str | None = ""

    def __str__(self) -> str:
        return self.dialect.value

    def text_of(self, how: str) -> str | None:
        """Return the customer's text, whole or streamed."""
        return self.text if how == "whole" or self.streamed == "" else self.streamed

    def begin(self, fake: FakeDialects) -> None:
        """Let the server speak the dialect."""
        fake.dialect = self.dialect
        fake.window = 2_000
        if self.tools:
            fake.then("reply", tool_calls=CALLS)
            fake.then("reply", text=DONE)
        if self.dialect == D.CUT_AT_LIMIT:
            fake.then("reply", text="I sell kettles. They are red. And they are cheap, too, as far as one can tell.")


TABLE = [
    Row(D.TOOLS_NEED_NO_EFFORT, ECHO, learned={"effort_with_tools": "none"}),
    Row(
        D.REASONING_PARAMETERS,
        ECHO,
        learned={"max_tokens_name": "max_completion_tokens", "omits.temperature": True, "omits.logprobs": True},
        confidence=True,
    ),
    Row(D.LOGPROBS_FORBIDDEN, ECHO, learned={"omits.logprobs": True}, confidence=True),
    Row(D.STRICT_TEMPLATE, ECHO),
    Row(D.THINK_TAGS, ECHO),
    Row(D.THOUGHT_TAGS, ECHO),
    Row(D.STRAY_THINK_END, ECHO, learned={"reasons_unmarked": 3}),
    Row(D.THINK_ONLY, None, "no_room", learned={"output_factor": 4}),
    Row(D.HARMONY, ECHO),
    Row(D.REASONING_BACK, DONE, tools=True),
    Row(D.SIGNATURE_BACK, DONE, tools=True),
    Row(D.FINISH_ERROR, None, "provider_error"),
    Row(D.ERROR_IN_CHOICE, None, "provider_error"),
    Row(D.ERROR_IN_BODY, None, "provider_error"),
    Row(D.REFUSAL, "I can't help with that."),
    Row(D.CONTENT_PARTS, ECHO),
    Row(D.NO_CALL_IDS, DONE, tools=True),
    Row(D.EMPTY_CALL_IDS, DONE, tools=True),
    Row(D.ONE_INDEX, DONE, tools=True),
    Row(D.ARGUMENTS_OBJECT, DONE, tools=True),
    Row(D.LONG_RETRY_AFTER, None, "rate_limited"),
    Row(D.SMALL_WINDOW, ECHO, learned={"context_window": 2_000}),
    Row(D.LLAMA_CPP_WINDOW, ECHO, learned={"context_window": 2_000}),
    Row(D.VLLM_WINDOW, ECHO, learned={"context_window": 2_000}),
    Row(D.CAP_SPENT, ECHO, learned={"output_factor": 4}),
    Row(D.NO_STREAM_OPTIONS, ECHO),
    Row(D.STREAM_OPTIONS_422, ECHO),
    Row(D.NO_TOOLS, ECHO, learned={"tools": False}),
    Row(D.OLLAMA, ECHO, learned={"tools": False}),
    Row(D.CUT_AT_LIMIT, "I sell kettles. They are red.", streamed="I sell kettles. They are red. And they "),
    Row(D.CALL_IN_TAGS, DONE, tools=True),
    Row(D.CALL_IN_JSON, DONE, tools=True),
    Row(D.CALL_IN_FUNCTION, DONE, tools=True),
    Row(D.CALL_IN_XML, DONE, tools=True),
    Row(D.CALL_IN_BRACKETS, DONE, tools=True),
    Row(D.CALL_IN_PYTHON_TAG, DONE, tools=True),
    Row(D.API_VERSION, ECHO),
    Row(D.IGNORES_TOOL_CHOICE, None, "too_many_calls"),
    Row(D.NO_SYSTEM_ROLE, ECHO, learned={"system_role": False}),
    Row(D.TOOL_USE_FAILED, ECHO),
]
