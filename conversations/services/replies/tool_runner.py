"""Makes tool calls: on threads that may wait for the network, with their rows written on threads with a connection."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from channels_out import mcp_tools, tools
from channels_out.tools import Outcome, ToolResult
from conversations import traces
from conversations.engines.contract import OfferedTool, ReplyRequest
from conversations.engines.tools import as_specification, tokens_of
from conversations.models import Tool
from conversations.services.core.json import dumps
from conversations.services.replies import reply_files, tool_calls
from conversations.services.replies.leases import ClaimedTurn
from conversations.services.replies.tool_calls import TOTAL_SECONDS, CallToMake, Recorded
from conversations.traces import Kind

RunOnRows = Callable[..., Any]


@dataclass(slots=True)
class TurnToolRunner:
    """Makes the tool calls of one turn. `run_on_rows(work, *values)` runs work where the database may be used."""

    turn: ClaimedTurn
    ids: Mapping[str, UUID]
    run_on_rows: RunOnRows
    began: float = field(default_factory=time.monotonic)

    def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Make the call, unless it was made before, and return the answer for the model.

        Raises EngineError (`lost`) if the turn is no longer ours.
        """
        while True:
            begun: CallToMake | str = self.run_on_rows(
                tool_calls.begin, self.turn, self.ids[name], arguments, _seconds_left(self.began)
            )
            if isinstance(begun, str):
                return begun
            recorded = _make_and_record(begun, self.run_on_rows)
            if not recorded.again:
                return recorded.answer


def make_waiting(turn: ClaimedTurn, run_on_rows: RunOnRows) -> None:
    """Make the calls that are to be made before the model is asked, one after another: see tool_calls.begin_waiting."""
    began = time.monotonic()
    while call := run_on_rows(tool_calls.begin_waiting, turn, _seconds_left(began)):
        _make_and_record(call, run_on_rows)


def _make_and_record(call: CallToMake, run_on_rows: RunOnRows) -> Recorded:
    """Make the call, keep the files of its answer, and record what became of it."""
    result = make(call)
    kept = reply_files.keep(call.client_id, result)
    recorded: Recorded = run_on_rows(tool_calls.record_result, call, result, kept)
    if kept.uploaded:
        run_on_rows(reply_files.forget_unwritten, kept)
    return recorded


def make(call: CallToMake) -> ToolResult:
    """Call the tool within its time-out and return what became of it. Never raises."""
    name, key = call.request.name, str(call.call_id)
    about: dict[str, traces.Value] = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": name,
        "gen_ai.tool.type": "extension" if call.is_mcp else "function",
        "gen_ai.tool.call.id": key,
        "gen_ai.conversation.id": call.request.conversation_id,
        "convo.turn.id": str(call.turn_id),
    }
    with traces.part(f"execute_tool {name}", Kind.CLIENT, call.trace, about) as doing:
        result = mcp_tools.call(call.request) if call.is_mcp else tools.call(call.request)
        doing.note({"convo.tool.outcome": result.outcome.value})
        doing.error = "" if result.outcome == Outcome.ANSWERED else result.code or result.outcome.value
        if call.trace and traces.tells_texts():
            given = dumps(dict(call.request.arguments)).decode()
            doing.note({"gen_ai.tool.call.arguments": given, "gen_ai.tool.call.result": result.text})
    return result


def _seconds_left(began: float) -> float:
    """Return the seconds that are left for the calls of a try at a reply."""
    return began + TOTAL_SECONDS - time.monotonic()


def with_tools(request: ReplyRequest, turn: ClaimedTurn, usable: Sequence[Tool]) -> ReplyRequest:
    """Return the request with the client's tools, whose runner uses the database on the calling thread."""
    if not usable:
        return request
    ids = {tool.name: tool.pk for tool in usable}
    return replace(request, offered_tools=_offered(usable), runner=TurnToolRunner(turn, ids, _run_here))


def tokens_of_tools(usable: Sequence[Tool]) -> int:
    """Return the estimated tokens of the tools' descriptions."""
    return tokens_of([as_specification(tool) for tool in _offered(usable)])


def _offered(usable: Sequence[Tool]) -> tuple[OfferedTool, ...]:
    return tuple(OfferedTool(tool.name, tool.description, tool.parameters) for tool in usable)


def with_rows(request: ReplyRequest, run_on_rows: RunOnRows) -> ReplyRequest:
    """Return the request with a runner that uses the database by `run_on_rows(work, *values)`."""
    if not isinstance(request.runner, TurnToolRunner):
        return request
    return replace(request, runner=replace(request.runner, run_on_rows=run_on_rows, began=time.monotonic()))


def _run_here(work: Callable[..., Any], *values: Any) -> Any:
    return work(*values)
