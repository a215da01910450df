"""Writes replies by a language model, whichever provider it is at (memory/language_models).

for each model of the assistant, until one replies:
    ask ─► tool calls ─► their answers ─► ask … ─► text         a tool round ends where the model writes text
     └── the prompt is too long: once more with a smaller one
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextvars import copy_context
from dataclasses import replace

from conversations.engines.contract import (
    CALLED_ALREADY,
    EngineError,
    ModelOutcome,
    Reply,
    ReplyRequest,
    ToolCall,
    Usage,
)
from conversations.engines.model_spans import model_call, note_completion
from conversations.engines.tools import Toolbox, tokens_of, tool_threads, toolbox_of
from memory.context import TOOL_CALLS, ConversationView, build_prompt, with_part
from memory.language_models import capabilities
from memory.language_models.asking import complete, stream
from memory.language_models.contract import (
    Completion,
    CompletionRequest,
    Fact,
    LLMError,
    ModelAccess,
    Picture,
    ToolRound,
)
from memory.marks import may_become_mark, without_marks
from memory.text import estimate_tokens, shorten, to_last_sentence

log = logging.getLogger(__name__)

MAX_ROUNDS = 6  # calls of one model for one reply, in which it may call tools in all but the last
PARAGRAPH = "\n\n"  # between the texts of two rounds
MOST_OF_ANSWERS = 12_000  # tokens of the answers of tools in one round
LEAST_ANSWER = 100  # tokens
LONGEST_SHOWN = 500  # characters of a call's arguments
SMALLER = 0.5  # of the budget, where a prompt is too long
LARGEST_SHARE = 0.9  # of the context window; what a server adds to a prompt is not known
REFUSED = "refused"
TOO_MANY_CALLS = "too_many_calls"


class LanguageModel:
    """The engine of all language models. Its name is that of the first one that Convo knew."""

    name = "openai"

    def reply(self, request: ReplyRequest) -> Reply:
        """Return the first of the assistant's models' answers, after its tool calls. Raises EngineError."""
        writing = _Writing(request)
        for access in writing.models():
            try:
                return writing.reply_of(_run_rounds(writing, access))
            except LLMError as error:
                writing.failed(access, error)
            except EngineError:
                raise
            except Exception as error:
                raise writing.crashed(error) from error
        return writing.refusal_or_failure()

    async def stream(self, request: ReplyRequest) -> AsyncIterator[str | Reply]:
        """Yield the model's answer piece by piece, then the Reply with its tool calls.

        The second model is asked only while nothing was yielded. Text that came before an invalid tool call stays in
        the reply. Raises EngineError.
        """
        writing = _Writing(request, streamed=True)
        for access in writing.models():
            try:
                async for piece in _stream_rounds(writing, access):
                    yield piece
                reply = writing.reply_of(writing.said)
            except LLMError as error:
                writing.failed(access, error)
                if writing.said:
                    break
            except EngineError:
                raise
            except Exception as error:
                raise writing.crashed(error) from error
            else:
                yield reply
                return
        yield writing.refusal_or_failure()


class _Writing:
    """A reply that is being written: its prompt, its tool rounds, and how the models did."""

    def __init__(self, request: ReplyRequest, *, streamed: bool = False) -> None:
        self.request, self.streamed = request, streamed
        self.prompt = request.prompt
        self._view: ConversationView | None = None  # of a smaller prompt
        self._asked: ModelAccess | None = None
        self.box: Toolbox = toolbox_of(request, streamed=streamed)
        self.rounds: list[ToolRound] = []
        self.said = ""  # what was yielded
        self._seen: Sequence[Picture] | None = None  # once they were read
        self._blind: set[str] = set()  # models that refused them
        self.last: Completion | None = None
        self._refusal: Reply | None = None
        self._made: list[ToolCall] = []  # calls of the client's own tools for a model or prompt that was given up
        self._usage: list[Usage] = []
        self._calls = 0
        self._outcomes: list[ModelOutcome] = []
        self._failures: list[LLMError] = []

    def models(self) -> Iterator[ModelAccess]:
        """Yield the models to ask. Raises EngineError if there are none."""
        if not self.request.models:
            sentence = "No model provider is configured for this assistant."
            raise EngineError(sentence, code="not_configured", retryable=False)
        for access in self.request.models:
            self._asked = access
            self._begin()
            yield access

    def failed(self, access: ModelAccess, error: LLMError) -> None:
        """Note the model's failure; the next one may be asked."""
        self._failures.append(error)
        self._outcomes.append(ModelOutcome(access, error.learned, error.code))

    def _all_failures(self) -> str:
        """Return how each model failed, by the models' names and the codes."""
        failed = [outcome for outcome in self._outcomes if outcome.code]
        return "; ".join(f"{outcome.access.model}: {outcome.code}" for outcome in failed)

    def crashed(self, error: Exception) -> EngineError:
        """Return the error for a fault of our own, with the calls that were made before it."""
        log.error("engine crashed: conversation=%s", self.request.conversation_id, exc_info=error)
        sentence = f"The engine crashed: {type(error).__name__}."
        outcomes, usage = tuple(self._outcomes), tuple(self._usage)
        return EngineError(
            sentence, code="engine_crashed", retryable=True, outcomes=outcomes, calls=self._calls, usage=usage
        )

    def completed(self, access: ModelAccess, completion: Completion) -> None:
        """Note one answer of the model."""
        self.last = completion
        self._usage.append(
            Usage(completion.model, completion.tokens_in, completion.tokens_out, completion.tokens_cached)
        )
        self._outcomes.append(ModelOutcome(access, completion.learned))

    def count_call(self) -> None:
        """Count a call of a model. Raises LLMError if there are too many for the messages that are answered."""
        if self._calls >= self.request.calls_left:
            sentence = "The models were called too often for one message."
            raise LLMError(sentence, code=TOO_MANY_CALLS, retryable=False)
        self._calls += 1

    def may_call_tools(self) -> bool:
        """Return whether the model may call tools in the call that was just counted: not in the last one."""
        return len(self.rounds) + 1 < MAX_ROUNDS and self._calls < self.request.calls_left

    def _pictures(self) -> Sequence[Picture]:
        """Return what the model is to see: nothing, if it is known to take no pictures or has refused them."""
        asked = self._asked
        if self.request.pictures is None or asked is None or asked.model in self._blind:
            return ()
        if asked.known.get(capabilities.PICTURES) is False:
            return ()
        if self._seen is None:
            self._seen = self.request.pictures()
        return self._seen

    def hide_pictures(self, access: ModelAccess, error: LLMError) -> bool:
        """Note that the model refused what it was to see; return whether to ask once more without it."""
        shown = self._pictures()
        if not shown or self.said or error.code not in ("bad_request", "parameter_refused", "context_too_long"):
            return False
        self._blind.add(access.model)
        is_learned = error.code == "parameter_refused" and not any(each.is_document for each in shown)
        fact = (Fact(capabilities.PICTURES, False, error.detail or error.code),) if is_learned else ()
        self._outcomes.append(ModelOutcome(access, (*error.learned, *fact), error.code))
        return True

    def ask_for(self) -> CompletionRequest:
        """Return the request for the next round."""
        request = self.request
        return CompletionRequest(
            messages=self.prompt.messages,
            rounds=tuple(self.rounds),
            tools=tuple(self.box.tools),
            may_call=self.may_call_tools(),
            temperature=request.temperature,
            max_tokens=request.max_tokens,
            reasoning_effort=request.reasoning_effort,
            confidence=request.confidence,
            pictures=self._pictures(),
        )

    def shrink(self, access: ModelAccess, error: LLMError) -> bool:
        """Build a smaller prompt after the error that says that this one is too long; return whether there is one."""
        view = self.request.view
        if error.code != "context_too_long" or view is None or self._view is not None or self.said:
            return False
        window = next((fact.value for fact in error.learned if fact.name == capabilities.CONTEXT_WINDOW), view.window)
        reserve = (self.request.max_tokens or 0) + tokens_of(self.box.tools) + estimate_tokens(self.request.background)
        smaller = replace(view, budget=int(view.budget * SMALLER), window=int(window * LARGEST_SHARE), reserve=reserve)
        self._outcomes.append(ModelOutcome(access, error.learned, error.code))
        self._view = smaller
        self._begin()
        return True

    def _begin(self) -> None:
        """Begin anew, for another model or with a smaller prompt, which is told of the calls that were made already."""
        own = {tool.name for tool in self.request.offered_tools}
        self._made += [call for call in self.box.calls if call.name in own]
        self.rounds, self.last = [], None
        self.box = toolbox_of(self.request, streamed=self.streamed)
        prompt = self.request.prompt if self._view is None else build_prompt(self._view)
        background = self.request.background if self._view is not None else ""
        made = "".join(f"\n- {call.name} {call.arguments[:LONGEST_SHOWN]}: {call.answer}" for call in self._made)
        if made and not self.request.background:
            made = f"{CALLED_ALREADY}{made}"
        if background or made:
            text = f"{background}{made}".strip()
            prompt = with_part(prompt, TOOL_CALLS, shorten(text, self._room_for_answers()))
        self.prompt = prompt

    def answer_calls(self, completion: Completion) -> bool:
        """Answer the tool calls of the completion; return whether the reply may end after them."""
        may_end = [self.box.call(call.name, call.arguments) for call in completion.tool_calls]
        room = self._room_for_answers() // max(len(may_end), 1)
        answers = tuple(
            shorten(call.answer, max(room, LEAST_ANSWER))
            for call in self.box.calls[len(self.box.calls) - len(may_end) :]
        )
        self.rounds.append(ToolRound(completion, answers))
        return all(may_end)

    def _room_for_answers(self) -> int:
        """Return the tokens that answers of tools may have beside the prompt and what was answered before."""
        window = capabilities.window(self._asked) if self._asked else 0
        if not window:
            return MOST_OF_ANSWERS
        answered = sum(estimate_tokens(answer) for each in self.rounds for answer in each.answers)
        given = sum(estimate_tokens(message["content"]) for message in self.prompt.messages)
        beside = (self.request.max_tokens or 0) + tokens_of(self.box.tools)
        return min(max(int(window * LARGEST_SHARE) - given - answered - beside, LEAST_ANSWER), MOST_OF_ANSWERS)

    def reply_of(self, text: str) -> Reply:
        """Return the reply with this text.

        Raises LLMError if the text is empty, or is a refusal and another model is left.
        """
        last = self.last
        if last is None or not text:
            raise LLMError("The model's answer is empty.", code="bad_answer", retryable=True)
        reply = Reply(
            text=text,
            engine=LanguageModel.name,
            model=last.model,
            usage=tuple(self._usage),
            finish_reason=last.finish_reason,
            tool_actions=tuple(self.box.tool_actions),
            tool_calls=(*self._made, *self.box.calls),
            confidence=last.confidence,
            outcomes=tuple(self._outcomes),
            calls=self._calls,
            prompt=self.prompt if self.prompt is not self.request.prompt else None,
        )
        if last.finish_reason == REFUSED and not self.said and len(self._failures) + 1 < len(self.request.models):
            self._refusal = reply
            raise LLMError("The model refused.", code=REFUSED, retryable=False)
        return reply

    def refusal_or_failure(self) -> Reply:
        """Return the refusal of a model where no other one replied.

        Raises EngineError: the first model's, or that of the model whose beginning was read. It can be retried where
        one of the models can, and as soon as the first of them can.
        """
        if self._refusal is not None and not self.said:
            return replace(self._refusal, outcomes=tuple(self._outcomes), calls=self._calls, usage=tuple(self._usage))
        told = self._failures[-1 if self.said else 0]
        waits = [error.retry_after or 0.0 for error in self._failures if error.retryable]
        raise EngineError(
            str(told),
            code=told.code,
            retryable=bool(waits),
            retry_after=min(waits, default=0.0) or None,
            detail=told.detail if len(self._failures) == 1 else self._all_failures(),
            outcomes=tuple(self._outcomes),
            calls=self._calls,
            usage=tuple(self._usage),
        ) from None


def _run_rounds(writing: _Writing, access: ModelAccess) -> str:
    """Return the model's text, after rounds in which it called tools, within the provider's time. Raises LLMError."""
    until = time.monotonic() + access.seconds
    while True:
        completion = _complete(writing, access, until)
        access = access.learning(completion.learned)
        writing.completed(access, completion)
        if not completion.tool_calls:
            break
        began = time.monotonic()
        may_end = writing.answer_calls(completion)
        until += time.monotonic() - began  # the tools' time is not the model's
        if may_end and completion.text:
            break
    # The model may copy a mark of our own: its reply must not look like a colleague's.
    text = without_marks(completion.text).lstrip()
    return to_last_sentence(text) if completion.finish_reason == "length" else text


def _complete(writing: _Writing, access: ModelAccess, until: float) -> Completion:
    while True:
        writing.count_call()
        asked = writing.ask_for()
        try:
            with model_call(writing.request, access, asked) as doing:
                completion = complete(access, asked, seconds=max(until - time.monotonic(), 0.001))
                note_completion(doing, writing.request, completion)
                return completion
        except LLMError as error:
            if not (writing.hide_pictures(access, error) or writing.shrink(access, error)):
                raise


async def _stream_rounds(writing: _Writing, access: ModelAccess) -> AsyncIterator[str]:
    """Yield the pieces of the model's text, round after round. Raises LLMError."""
    while True:
        between = PARAGRAPH if writing.said else ""
        try:
            writing.count_call()
            asked = writing.ask_for()
            with model_call(writing.request, access, asked, streamed=True) as doing:
                async for piece in _without_marks(stream(access, asked)):
                    if isinstance(piece, Completion):
                        access = access.learning(piece.learned)
                        writing.completed(access, piece)
                        note_completion(doing, writing.request, piece)
                        continue
                    piece, between = between + piece, ""
                    writing.said += piece
                    yield piece
        except LLMError as error:
            if writing.hide_pictures(access, error) or writing.shrink(access, error):
                continue
            raise
        completion = writing.last
        if completion is None or not completion.tool_calls:
            break
        if writing.box.blocks:
            loop = asyncio.get_running_loop()
            within = copy_context()  # what a tool logs has the ids of the turn
            may_end = await loop.run_in_executor(tool_threads(), within.run, writing.answer_calls, completion)
        else:
            may_end = writing.answer_calls(completion)
        if may_end and writing.said:
            break


async def _without_marks(pieces: AsyncIterator[str | Completion]) -> AsyncIterator[str | Completion]:
    """Yield the pieces without our own marks at the beginning, held back while the text may be one."""
    held: str | None = ""
    async for piece in pieces:
        if isinstance(piece, Completion):
            if held and (rest := without_marks(held)):
                yield rest
            yield piece
            continue
        if held is not None:
            held += piece
            if may_become_mark(held):
                continue
            piece, held = without_marks(held).lstrip(), None
        if piece:
            yield piece
