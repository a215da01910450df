"""Writes replies by a Retell agent, which keeps the chat itself: one chat for a conversation, sent only new entries.

no chat yet               ─► create-chat ─► recorded ─► create-chat-completion ─► the agent's words
an answer was lost        ─► get-chat ─► the message had arrived: the agent's words ─► only later entries are sent
the chat ended or unknown ─► once: a new chat, with the conversation so far
"""

from __future__ import annotations

from collections.abc import Sequence

from django.conf import settings

from channels_out import retell
from channels_out.errors import SendError
from channels_out.retell import Access, ChatMessage
from conversations.engines.contract import ChatProgress, EngineChatState, EngineError, Reply, ReplyRequest
from memory.context import Prompt, PromptEntry, PromptPart
from memory.text import estimate_tokens, shorten

LONGEST_CONTENT = 6_000  # estimated tokens of one message to a chat
CARRIED = "[What was said before, in an earlier chat with the same person. Go on from there:\n{}]"
IN_YOUR_PLACE = "[Said to the person in your place: {}]"
GAP = "\n\n"
REFUSED = {"http_400", "http_404", "http_422"}
STILL_WRITING_SECONDS = 3.0


class Retell:
    """Requests one completion for a reply; after a lost answer it reads the chat before it asks again."""

    name = "retell"

    def reply(self, request: ReplyRequest) -> Reply:
        """Return the agent's words in one text; blank if it said nothing. Raises EngineError."""
        if request.chat is None or not request.chat.agent_id:
            raise EngineError("The assistant has no Retell agent.", code="no_agent", retryable=False)
        access = access_to_retell()
        if access is None:
            raise EngineError("RETELL_API_KEY is not set.", code="unauthorized", retryable=False)
        try:
            words, progress = _ChatRun(access, request.chat).run()
        except SendError as error:
            raise EngineError(
                str(error),
                code=error.code,
                retryable=error.retryable or error.ambiguous,
                retry_after=error.retry_after,
            ) from None
        return Reply(text="\n\n".join(words), engine=self.name, model=request.chat.agent_id[:100], progress=progress)


def access_to_retell() -> Access | None:
    """Return the access to Retell's API; None if no key is set."""
    keys = settings.RETELL_API_KEYS
    timeout = (5.0, settings.RETELL_TIMEOUT_SECONDS)
    return Access(keys[0], settings.RETELL_BASE_URL, timeout) if keys else None


class _ChatRun:
    """The requests to Retell's API for one reply."""

    def __init__(self, access: Access, chat: EngineChatState) -> None:
        self.access, self.chat, self.recorder = access, chat, chat.recorder
        self.chat_id, self.turns, self.upto = chat.chat_id, chat.turns, chat.told
        self.unheard: Sequence[PromptEntry] = chat.unheard
        self.greeting: list[str] = []  # a new chat's own first words
        self.prompt = Prompt((), ())  # the message that was sent
        self.may_replace = True
        self.is_new = False

    def run(self) -> tuple[list[str], ChatProgress]:
        """Return the agent's words and the chat's progress."""
        before = self._find_lost_answer() if self.chat_id and self.chat.asked is not None else None
        if before is not None and not self.unheard:
            return retell.words_of(before), self._progress(before)
        if not self.chat_id:
            self._open()
        elif self.chat.begins and self.chat.asked is None:  # opened, and its first words were lost
            found = retell.get_chat(self.access, self.chat_id)
            self.greeting = retell.words_of(found.messages) if found else []
        if self.chat.begins and self.greeting and before is None:
            return self.greeting, self._progress(())
        after = self._send_unheard()
        said = (*(before or ()), *after)
        return retell.words_of(said), self._progress(after)

    def _progress(self, messages: Sequence[ChatMessage]) -> ChatProgress:
        ended = any(message.ends for message in messages)
        return ChatProgress(self.chat_id, self.upto, self.turns, self.prompt, ended)

    def _find_lost_answer(self) -> tuple[ChatMessage, ...] | None:
        """Return the agent's answer to the message whose answer was lost; None if the message never arrived."""
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
        """Open a new chat, and record it before anything is sent to it."""
        variables = {**self.chat.variables, "conversation_so_far": self.chat.carried}
        made = retell.create_chat(self.access, self.chat.agent_id, metadata=self.chat.metadata, variables=variables)
        self.recorder.record_opened(made.chat_id)
        self.chat_id, self.turns, self.is_new = made.chat_id, made.turns, True
        self.greeting = retell.words_of(made.messages)

    def _send_unheard(self) -> tuple[ChatMessage, ...]:
        """Send the unheard entries. Raises SendError, or EngineError if the agent is still writing."""
        upto = max([self.upto, *(entry.position for entry in self.unheard)])
        self.recorder.record_asking(self.chat_id, upto)
        try:
            self.prompt = compose_message(self.unheard, self.chat.opener, self.chat.carried if self.is_new else "")
            messages = retell.complete(self.access, self.chat_id, self.prompt.messages[0]["content"])
        except SendError as error:
            if error.code in REFUSED:
                return self._in_another_chat(error)
            if not error.ambiguous:
                raise
            messages = self._arrived_after_all(error)
        if not retell.words_of(messages):  # its words may be in the chat only
            found = retell.get_chat(self.access, self.chat_id)
            messages = found.after_turn(self.turns + 1) if found and found.turns > self.turns else messages
        self.upto, self.turns = upto, self.turns + 1
        return messages

    def _in_another_chat(self, error: SendError) -> tuple[ChatMessage, ...]:
        """Go on in a new chat, once, if the refusing chat has ended or is unknown. Raises the error otherwise."""
        found = retell.get_chat(self.access, self.chat_id)
        if not self.may_replace or (found and found.is_ongoing):
            raise error
        self.may_replace = False
        self._open()
        return self._send_unheard()

    def _arrived_after_all(self, error: SendError) -> tuple[ChatMessage, ...]:
        """Return the agent's answer to a message whose request failed.

        Raises the error if the message does not seem to have arrived: the next attempt looks again before it sends.
        """
        found = retell.get_chat(self.access, self.chat_id)
        if found is None or found.turns <= self.turns:
            raise error
        messages = found.after_turn(self.turns + 1)
        if not retell.words_of(messages) and found.is_ongoing:
            raise _still_writing()
        return messages


def compose_message(unheard: Sequence[PromptEntry], opener: str, carried: str = "") -> Prompt:
    """Return the prompt for a chat: one message of the person with all unheard entries, and its parts.

    The words of others in the agent's place are marked. If the entries are too long, each gets at most an even share;
    without entries the message is `opener`.
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
        parts.append(
            PromptPart(name, estimate_tokens(text), message=0, start=start, end=len(content), position=position)
        )
    return Prompt(({"role": "user", "content": content},), tuple(parts))


def _still_writing() -> EngineError:
    return EngineError(
        "Retell has the message and is still writing.",
        code="still_writing",
        retryable=True,
        retry_after=STILL_WRITING_SECONDS,
    )
