"""The group, summary and example of each route in `/docs/`, in the order in which people meet them.

A new route needs a line in `ROUTES`. `tests/conversations/test_examples.py` fails without one, and for an example that
does not fit the route's schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conversations.api.example_values import (
    AT,
    BACKLOG,
    CLIENT,
    CONVERSATION,
    COUNTS,
    DECIDED,
    DETAIL,
    EVENT,
    FOUND,
    LATER,
    LISTED,
    LISTED_TEMPLATE,
    MESSAGE,
    ORDERED,
    RATED,
    RECORDED,
    REPLY,
    REPORT,
    ROLE,
    SESSION,
    SHOWN,
    STATE,
    STEP,
    STREAM,
    TOOL_CALL,
    TRANSCRIPT,
    TURN,
    WEBHOOK_ANSWER,
)
from conversations.http.envelope import JSON

TAGS = {
    "webhooks": "Messages and receipts arrive here: from your own program with an API key, or from a provider, signed.",
    "conversations": "Read conversations, send in the assistant's place, open, close, take over and hand back.",
    "steps": "The steps of a conversation's goal.",
    "tools": "Calls of the client's own tools, and the decisions on those that wait for approval.",
    "memory": "Search what ended conversations left.",
    "copilot": "Conversations of a signed-in user, with replies that stream.",
    "sync": "The state-sync protocol for agents that run elsewhere. It uses camelCase and says session.",
    "events": "What happened, in order: as pages, and as a stream. The same events are posted to endpoints.",
    "reports": "Figures: volume, times, satisfaction and cost.",
    "health": "Is the process alive, can it serve, and what waits?",
}


@dataclass(frozen=True, slots=True)
class Example:
    """A route as it is shown. `request` is a body; `response` the `data` of a success, or text where it is no JSON."""

    tag: str
    summary: str
    request: Mapping[str, Any] | None = None
    response: Any = None


def _page(*items: Any) -> dict[str, Any]:
    return {"items": list(items), "next": None}


ROUTES = {
    "webhooks_inbound": Example(
        "webhooks",
        "Deliver a person's message",
        {
            "client_id": CLIENT,
            "user_id": "ann",
            "message": "Is my order on its way?",
            "phone": "+51999999999",
            "name": "Ann",
            "message_id": "order-question-1",
        },
        WEBHOOK_ANSWER,
    ),
    "webhooks_handshake": Example("webhooks", "Prove to a provider that the address is ours", None, "1158201444"),
    "webhooks_status": Example("webhooks", "Deliver a provider's receipts", None, COUNTS),
    "webhooks_status_by_get": Example("webhooks", "Deliver a provider's receipts by GET", None, COUNTS),
    "webhooks_retell": Example(
        "webhooks",
        "Deliver Retell's events about a chat",
        {"event": "chat_ended", "chat": {"chat_id": "chat_98c1a2"}},
        {"known": True},
    ),
    "conversations_list": Example("conversations", "List conversations", None, _page(LISTED)),
    "conversations_retrieve": Example("conversations", "Read a conversation", None, DETAIL),
    "conversations_chunks": Example(
        "conversations",
        "Page through the chunks",
        None,
        _page(*SHOWN),
    ),
    "conversations_transcript": Example("conversations", "Download the transcript", None, TRANSCRIPT),
    "conversations_send": Example(
        "conversations",
        "Send a message in the assistant's place",
        {"role": "ai", "content": "It arrives tomorrow between 9 and 12."},
        {
            "chunk": {**REPLY, "attachments": []},
            "messages": [
                {
                    "id": MESSAGE,
                    "part": 1,
                    "parts": 1,
                    "status": "queued",
                    "code": "",
                    "reason": "",
                    "created_at": LATER,
                }
            ],
        },
    ),
    "conversations_replies": Example(
        "conversations",
        "Give a reply that was announced as later",
        {
            "turn_token": "kx2mVYyqJ0m3c7yQbE5oXH0bqk1vQn4T8wz6uRr9sDg",
            "messages": ["It arrives tomorrow between 9 and 12."],
            "steps": {"complete": [12]},
        },
        {"turn_id": TURN, "status": "committed", "chunk": REPLY},
    ),
    "conversations_create": Example(
        "conversations",
        "Open a conversation from our side",
        {
            "channel": "whatsapp",
            "phone": "+51999999999",
            "name": "Ann",
            "goal": "Agree on a new delivery date",
            "variables": {"order": "4711"},
        },
        {**LISTED, "variables": {"order": "4711"}, "reply_owed": True, "reply_due_at": AT},
    ),
    "conversations_takeover": Example(
        "conversations",
        "Take over for a person",
        {"name": "Maria", "tell": True},
        {**LISTED, "taken_over_at": AT, "taken_over_by": "Maria", "taken_over_until": "2026-11-29T10:30:00+00:00"},
    ),
    "conversations_handback": Example(
        "conversations", "Hand back to the assistant", {"reason": "Question settled"}, LISTED
    ),
    "conversations_close": Example(
        "conversations",
        "Close a conversation",
        {"ended_by": "user", "reason": "goodbye"},
        {**LISTED, "status": "closed", "ended_at": LATER, "ended_by": "user", "end_reason": "goodbye"},
    ),
    "conversations_rating": Example(
        "conversations",
        "Read the question about satisfaction",
        None,
        {**RATED, "score": None, "rated_at": None, "comment": "", "takes_answer": True},
    ),
    "conversations_rate": Example(
        "conversations",
        "Answer the question about satisfaction",
        {"score": 2, "comment": "It came a day late."},
        RATED,
    ),
    "conversations_templates": Example("conversations", "List templates", None, _page(LISTED_TEMPLATE)),
    "conversations_add_step": Example("steps", "Add a step", {"description": "Ask for the order number"}, STEP),
    "conversations_update_step": Example(
        "steps", "Complete or cancel a step", {"status": "complete"}, {**STEP, "status": "complete"}
    ),
    "conversations_tool_calls": Example("tools", "List tool calls", None, _page(TOOL_CALL)),
    "conversations_approve_tool_call": Example("tools", "Approve a tool call", {}, {**DECIDED, "status": "approved"}),
    "conversations_refuse_tool_call": Example(
        "tools",
        "Refuse a tool call",
        {"reason": "The order is older than a year"},
        {**DECIDED, "status": "refused", "reason": "The order is older than a year", "ended_at": LATER},
    ),
    "conversations_search": Example("memory", "Search ended conversations", None, {**_page(FOUND), "problem": None}),
    "copilot_roles": Example("copilot", "List the assistants one may talk to", None, _page(ROLE)),
    "copilot_ask": Example(
        "copilot", "Ask, and stream the reply", {"message": "Which primer for wet walls?", "role": "field"}, STREAM
    ),
    "copilot_stream": Example("copilot", "Stream a reply again", None, STREAM),
    "copilot_read": Example("copilot", "List one's sessions, or read one", None, _page(SESSION)),
    "copilot_new_session": Example("copilot", "Begin an empty session", {"role": "field"}, {**SESSION, "title": ""}),
    "copilot_rename": Example("copilot", "Rename a session", {"title": "Wet walls"}, {**SESSION, "title": "Wet walls"}),
    "copilot_delete": Example("copilot", "Delete a session", None, {"id": CONVERSATION, "deleted": True}),
    "copilot_stop": Example("copilot", "Stop the reply that is being written", None, {"stopping": True}),
    "copilot_retry": Example("copilot", "Stream another reply to the last message", None, STREAM),
    "copilot_rate": Example("copilot", "Rate an ended session", {"score": 2, "comment": "It came a day late."}, RATED),
    "copilot_feedback": Example(
        "copilot",
        "Rate a reply",
        {"rating": "up", "note": "Exactly right"},
        {"id": 4184, "rating": "up", "note": "Exactly right"},
    ),
    "sync_start": Example(
        "sync",
        "Open a session, or get the open one",
        {"userId": "+51999999999", "subDomain": "shop", "botId": "waiter", "metadata": {"platform": "whatsapp"}},
        STATE,
    ),
    "sync_message": Example("sync", "Record a message", RECORDED, STATE),
    "sync_intent": Example("sync", "Set intent and step", {"intent": "order", "step": "cart"}, STATE),
    "sync_context": Example(
        "sync", "Merge into the context, or replace it", {"context": {"orderTotal": 20.5}, "merge": True}, STATE
    ),
    "sync_link_order": Example("sync", "Link an order", {"orderId": "order-1"}, ORDERED),
    "sync_orders": Example(
        "sync", "List the linked orders", None, {"currentOrderId": "order-1", "orderHistory": ["order-1"]}
    ),
    "sync_retrieve": Example("sync", "Read a session's state", None, STATE),
    "sync_of_user": Example("sync", "Find a person's open session", None, STATE),
    "sync_open_sessions": Example("sync", "List open sessions", None, {"conversations": [STATE], "count": 1}),
    "sync_extend": Example("sync", "Extend a session", {"hours": 48}, STATE),
    "sync_reset": Example("sync", "Reset a session", {"keepHistory": True}, STATE),
    "sync_end": Example("sync", "End a session", {}, {**STATE, "isActive": False}),
    "sync_sync": Example(
        "sync", "Hand over an agent's whole state", {"intent": "order", "context": {"orderTotal": 20.5}}, STATE
    ),
    "sync_agent_message": Example("sync", "Record a message (agent's route)", RECORDED, STATE),
    "sync_tenant_of": Example(
        "sync",
        "Find the tenant a person talks to",
        None,
        {"subDomain": "shop", "botId": "waiter", "sessionId": CONVERSATION, "isActive": True},
    ),
    "sync_conversation_of": Example("sync", "Find a person's open session (agent's route)", None, STATE),
    "events_feed": Example("events", "Read events", None, {"items": [EVENT], "next": None, "position": 42}),
    "reports_report": Example("reports", "Read figures of some days", None, REPORT),
    "healthz": Example("health", "Check that the process is alive", None, {"status": "ok"}),
    "readyz": Example("health", "Check that the process can serve", None, {"status": "ready"}),
    "health_backlog": Example("health", "See what waits", None, BACKLOG),
}
_ORDER = {name: number for number, name in enumerate(ROUTES)}


def add_examples(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Give every route its group, summary and example, and the description the order of `ROUTES` (a hook)."""
    for operations in result["paths"].values():
        for operation in operations.values():
            if found := ROUTES.get(operation["operationId"]):
                _show(operation, found)
    shown = {path: dict(sorted(methods.items(), key=_place)) for path, methods in result["paths"].items()}
    result["paths"] = dict(sorted(shown.items(), key=lambda path: min(map(_place, path[1].items()))))
    result["tags"] = [{"name": name, "description": description} for name, description in TAGS.items()]
    return result


def _place(operation: tuple[str, dict[str, Any]]) -> int:
    return _ORDER.get(operation[1]["operationId"], len(_ORDER))


def _show(operation: dict[str, Any], example: Example) -> None:
    operation["summary"], operation["tags"] = example.summary, [example.tag]
    if example.request is not None:
        operation["requestBody"]["content"][JSON]["example"] = example.request
    status = min(status for status in operation["responses"] if status < "300")
    kind, content = next(iter(operation["responses"][status]["content"].items()))
    content["example"] = {"success": True, "data": example.response} if kind == JSON else example.response
