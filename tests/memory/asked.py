"""Asks a model whole or streamed, for tests that show that both give the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memory import event_loop
from memory.language_models import asking
from memory.language_models.contract import Completion, CompletionRequest, LLMError, ModelAccess, ToolRound

HOW = ("whole", "streamed")
ASKED = ({"role": "system", "content": "You sell kettles."}, {"role": "user", "content": "Hello, who are you?"})


def tool(name: str, *arguments: str) -> dict[str, Any]:
    """Return a tool whose arguments are texts."""
    properties = {each: {"type": "string"} for each in arguments}
    parameters = {"type": "object", "properties": properties, "required": list(arguments)}
    return {"type": "function", "function": {"name": name, "description": name, "parameters": parameters}}


TOOLS = (tool("find_article", "name"), tool("price_of", "number"))


def ask(how: str, access: ModelAccess, **request: Any) -> Completion:
    """Return the completion; of a stream, after checking that its pieces are its text. Raises LLMError."""
    wanted = CompletionRequest(**{"messages": ASKED, **request})
    if how == "whole":
        return asking.complete(access, wanted)

    async def read() -> Completion:
        pieces: list[str] = []
        async for piece in asking.stream(access, wanted):
            if isinstance(piece, Completion):
                assert "".join(pieces) == piece.text
                return piece
            pieces.append(piece)
        raise AssertionError("The stream had no end.")

    return event_loop.run(read(), 60)


def ask_rounds(how: str, access: ModelAccess, answers: Sequence[str], **request: Any) -> Completion:
    """Return the last completion of tool rounds; each call is answered with the next of `answers`."""
    rounds: list[ToolRound] = []
    left = list(answers)
    while True:
        completion = ask(how, access, tools=TOOLS, rounds=tuple(rounds), **request)
        access = access.learning(completion.learned)
        if not completion.tool_calls:
            return completion
        rounds.append(ToolRound(completion, tuple(left.pop(0) for _ in completion.tool_calls)))


def failure(how: str, access: ModelAccess, **request: Any) -> LLMError:
    """Return the error with which the model fails."""
    try:
        answer = ask(how, access, **request)
    except LLMError as error:
        return error
    raise AssertionError(f"It answered {answer.text!r}.")
