"""Replies written by a Retell agent, which keeps the conversation itself: one chat a session, told what is new.

no chat yet ─► create-chat ─► written down ─► create-chat-completion ─► the agent's words
an answer was lost ─► get-chat ─► it has arrived: those are the words ─► only what came since is told
the chat is over, or unknown ─► once: a new one, with what was said before
"""

from __future__ import annotations

from collections.abc import Sequence

from django.conf import settings

from channels_out import retell
from channels_out.errors import SendError
from channels_out.retell import Access, ChatMessage
from conversations.engines.contract import ChatSoFar, EngineError, Reply, ReplyRequest, Told
from memory.context import Entry, Part, Prompt
from memory.tokens import estimate_tokens, shorten

LONGEST_CONTENT = 6_000  # tokens, by estimate, of what a chat is told at once
CARRIED = "[What was said before, in an earlier chat with the same person. Go on from there:\n{}]"
IN_YOUR_PLACE = "[Said to the person in your place: {}]"
GAP = "\n\n"
REFUSED = {"http_400", "http_404", "http_422"}
STILL_WRITING_SECONDS = 3.0


class Retell:
    """One completion a reply, never asked for a second time without looking first."""

    name = "retell"

    def reply(self, request: ReplyRequest) -> Reply:
        """What the agent said, in one text; blank where it said nothing. Raises EngineError."""
        if request.chat is None or not request.chat.agent_id:
            raise EngineError("The assistant names no Retell agent.", code="no_agent", retryable=False)
        access = access_to_retell()
        if access is None:
            raise EngineError("RETELL_API_KEY is not set.", code="unauthorized", retryable=False)
        try:
            words, told = _Talk(access, request.chat).go_on()
        except SendError as error:
            raise EngineError(
                str(error),
                code=error.code,
                retryable=error.retryable or error.ambiguous,
                retry_after=error.retry_after,
            ) from None
        return Reply(text="\n\n".join(words), engine=self.name, model=request.chat.agent_id[:100], told=told)


def access_to_retell() -> Access | None:
    """The way in, None where no key is set."""
    keys = settings.RETELL_API_KEYS
    timeout = (5.0, settings.RETELL_TIMEOUT_SECONDS)
    return Access(keys[0], settings.RETELL_BASE_URL, timeout) if keys else None


class _Talk:
    """One reply's way through Retell's API."""

    def __init__(self, access: Access, chat: ChatSoFar) -> None:
        self.access, self.chat, self.book = access, chat, chat.book
        self.chat_id, self.turns, self.upto = chat.chat_id, chat.turns, chat.told
        self.unheard: Sequence[Entry] = chat.unheard
        self.greeting: list[str] = []  # a new chat's own first words
        self.prompt = Prompt((), ())  # what was told, in the end
        self.may_replace = True
        self.is_new = False

    def go_on(self) -> tuple[list[str], Told]:
        """The agent's words, and what the chat has heard."""
        before = self._find_lost_answer() if self.chat_id and self.chat.asked is not None else None
        if before is not None and not self.unheard:
            return retell.words_of(before), self._told(before)
        if not self.chat_id:
            self._open()
        elif self.chat.begins and self.chat.asked is None:  # opened, and its first words were lost
            found = retell.get_chat(self.access, self.chat_id)
            self.greeting = retell.words_of(found.messages) if found else []
        if self.chat.begins and self.greeting and before is None:
            return self.greeting, self._told(())
        after = self._tell()
        said = (*(before or ()), *after)
        return retell.words_of(said), self._told(after)

    def _told(self, messages: Sequence[ChatMessage]) -> Told:
        ended = any(message.ends for message in messages)
        return Told(self.chat_id, self.upto, self.turns, self.prompt, ended)

    def _find_lost_answer(self) -> tuple[ChatMessage, ...] | None:
        """What the agent answered to what it was told when we lost sight of it; None where it never heard it."""
        found = retell.get_chat(self.access, self.chat_id)
        if found is None:
            self.chat_id = ""
            return None
        if found.turns <= self.turns:
            return None
        messages = found.after_turn(self.turns + 1)
        if found.is_ongoing and not messages:
            raise _still_writing()
        self.upto, self.turns = max(self.chat.asked or 0, self.upto), found.turns
        self.unheard = [entry for entry in self.unheard if entry.position > self.upto]
        return messages

    def _open(self) -> None:
        """There is a new chat, and it is written down before it hears anything."""
        variables = {**self.chat.variables, "conversation_so_far": self.chat.carried}
        made = retell.create_chat(self.access, self.chat.agent_id, metadata=self.chat.metadata, variables=variables)
        self.book.opened(made.chat_id)
        self.chat_id, self.turns, self.is_new = made.chat_id, made.turns, True
        self.greeting = retell.words_of(made.messages)

    def _tell(self) -> tuple[ChatMessage, ...]:
        """Tell the chat what it has not heard. Raises SendError, or EngineError where the agent is still writing."""
        upto = max([self.upto, *(entry.position for entry in self.unheard)])
        self.book.asking(self.chat_id, upto)
        try:
            self.prompt = compose(self.unheard, self.chat.opener, self.chat.carried if self.is_new else "")
            messages = retell.complete(self.access, self.chat_id, self.prompt.messages[0]["content"])
        except SendError as error:
            if error.code in REFUSED:
                return self._in_another_chat(error)
            if not error.ambiguous:
                raise
            messages = self._arrived_after_all(error)
        if not retell.words_of(messages):  # what it says may be in the chat alone
            found = retell.get_chat(self.access, self.chat_id)
            messages = found.after_turn(self.turns + 1) if found and found.turns > self.turns else messages
        self.upto, self.turns = upto, self.turns + 1
        return messages

    def _in_another_chat(self, error: SendError) -> tuple[ChatMessage, ...]:
        """The chat refuses: if it is over or unknown, the conversation goes on in a new one; once."""
        found = retell.get_chat(self.access, self.chat_id)
        if not self.may_replace or (found and found.is_ongoing):
            raise error
        self.may_replace = False
        self._open()
        return self._tell()

    def _arrived_after_all(self, error: SendError) -> tuple[ChatMessage, ...]:
        """What the agent answered though we did not hear it. Raises the error where it does not seem to have arrived:
        the next try looks once more before it says anything."""
        found = retell.get_chat(self.access, self.chat_id)
        if found is None or found.turns <= self.turns:
            raise error
        messages = found.after_turn(self.turns + 1)
        if not retell.words_of(messages) and found.is_ongoing:
            raise _still_writing()
        return messages


def compose(unheard: Sequence[Entry], opener: str, carried: str = "") -> Prompt:
    """What a chat is told at once, as one message of the person, and an account of its parts.

    What others said in the agent's place is marked as such. None of the entries takes more than an even share where all
    of them are too long; with none at all, it is `opener`.
    """
    pieces = [("summary", CARRIED.format(carried), 0)] if carried else []
    limit = LONGEST_CONTENT // max(len(unheard), 1)
    for entry in unheard:
        text = shorten(entry.content, limit)
        pieces.append(("entry", text if entry.role != "ai" else IN_YOUR_PLACE.format(text), entry.position))
    if not unheard:
        pieces.append(("opening", opener, 0))
    content, parts = "", []
    for name, text, position in pieces:
        start = len(content) + (len(GAP) if content else 0)
        content = GAP.join([content, text]) if content else text
        parts.append(Part(name, estimate_tokens(text), message=0, start=start, end=len(content), position=position))
    return Prompt(({"role": "user", "content": content},), tuple(parts))


def _still_writing() -> EngineError:
    return EngineError(
        "Retell has the message and is still writing.",
        code="still_writing",
        retryable=True,
        retry_after=STILL_WRITING_SECONDS,
    )
