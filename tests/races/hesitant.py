"""An engine that writes what a test tells it, when the test tells it."""

from __future__ import annotations

import queue
from dataclasses import dataclass, field

from conversations.engines.contract import EngineError, Reply, ReplyRequest
from conversations.models import Turn
from tests.prompts import heard, spoken
from tests.races.threads import SECONDS, eventually


@dataclass
class Call:
    """One reply that is being written, until `answer`."""

    request: ReplyRequest
    outcome: queue.Queue[Reply | EngineError] = field(default_factory=queue.Queue)

    @property
    def heard(self):
        """What the prompt says the person said."""
        return heard(self.request.prompt.messages)

    @property
    def said(self):
        """What the prompt says the assistant said."""
        return spoken(self.request.prompt.messages)

    def answer(self, text):
        self.outcome.put(Reply(text, "offline"))

    def fail(self):
        self.outcome.put(EngineError("No.", code="http_500", retryable=False))


class Hesitant:
    """The engine."""

    name = "offline"

    def __init__(self):
        self.calls: queue.Queue[Call] = queue.Queue()
        self.all_calls: list[Call] = []

    def reply(self, request):
        call = Call(request)
        self.all_calls.append(call)
        self.calls.put(call)
        outcome = call.outcome.get(timeout=SECONDS)
        if isinstance(outcome, EngineError):
            raise outcome
        return outcome

    def next(self) -> Call:
        """The next reply that somebody asks for."""
        return self.calls.get(timeout=SECONDS)


def the_turn_ends(call_number=1):
    """Wait until so many turns have ended."""
    eventually(lambda: Turn.objects.exclude(status="running").count() >= call_number, "the turn's end")
