"""Writes replies without an LLM, which say so; the engine if no LLM is configured."""

from __future__ import annotations

from collections.abc import Sequence

from conversations.engines.contract import Reply, ReplyRequest

OPENING = (
    "This is an automatic answer: this assistant is offline, not connected to a language model, so it cannot understand"
    " your message. What you wrote has been kept."
)
LONGEST_GOAL = 120  # characters
LONGEST_STEP = 80  # characters
STEPS_NAMED = 3


class Offline:
    """Replies with the same words for the same goal and steps, whatever the person wrote."""

    name = "offline"

    def reply(self, request: ReplyRequest) -> Reply:
        """Return the opening, the goal and the first pending steps, in some 600 characters at most. Never fails."""
        sentences = [OPENING]
        if goal := _one_line(request.goal, LONGEST_GOAL):
            sentences.append(f"Goal of this conversation: {goal}")
        if steps := _steps(request.pending_steps):
            sentences.append(f"Still to do: {steps}")
        text = " ".join(sentence if sentence[-1] in ".!?…" else f"{sentence}." for sentence in sentences)
        return Reply(text=text, engine=self.name)


def _steps(pending: Sequence[str]) -> str:
    """Return the first steps by name and the number of the others; '' if there are none."""
    steps = [step for step in (_one_line(step, LONGEST_STEP) for step in pending) if step]
    named = "; ".join(steps[:STEPS_NAMED])
    more = len(steps) - STEPS_NAMED
    return f"{named}; and {more} more" if more > 0 else named


def _one_line(text: str, longest: int) -> str:
    """Return `text` on one line of at most `longest` characters, without its full stop."""
    line = " ".join(text.split())
    if len(line) > longest:
        line = line[: longest - 1].rstrip() + "…"
    return line.rstrip(".")
