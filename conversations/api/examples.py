"""The group, summary and example of each route in `/docs/`, in the order in which people meet them.

A new route needs a line in `ROUTES`. `tests/conversations/test_examples.py` fails without one, and for an example that
does not fit the route's schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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


CLIENT = "0197a1c2-5d0e-7c43-9a6b-2f1d8e4b7a10"
CONVERSATION = "0197a1c4-11f2-7b0d-8c55-6a3e90d1f2b4"
CONTACT = "0197a1c4-11ef-7a21-b0f3-94c7d2e8a651"
MESSAGE = "0197a1c4-3b77-7d19-a2c8-51f0e6b9d387"
TURN = "0197a1c4-2f10-7e6a-9d44-8b2c7a1f5e03"
AT = "2026-11-29T10:00:00+00:00"
LATER = "2026-11-29T10:00:03+00:00"

WEBHOOK_ANSWER = {
    "conversation_id": CONVERSATION,
    "chunk_id": 4183,
    "position": 3,
    "created": True,
    "duplicate": False,
    "is_guest": False,
    "status": "active",
}
COUNTS = {"messages": 0, "receipts": 1, "recorded": 0}

LISTED_TEMPLATE = {
    "id": "0197a1c2-6a01-7d55-8f30-1c9e2b7a4d60",
    "channel_account_id": "0197a1c2-5f11-7a02-9c1d-8e4b7a102f1d",
    "account": "106540352242922",
    "name": "order_update",
    "language": "en_US",
    "status": "APPROVED",
    "category": "UTILITY",
    "quality": "GREEN",
    "reason": "",
    "components": [{"type": "BODY", "text": "Hello {{1}}, your order {{2}} is on its way."}],
    "variables": ["1", "2"],
    "header": "",
    "buttons": [],
    "seen_at": AT,
}
STEP = {"id": 12, "description": "Ask for the order number", "status": "pending", "created_at": AT, "updated_at": AT}
QUESTION = {
    "id": 4183,
    "position": 3,
    "role": "user",
    "content": "Is my order on its way?",
    "by_staff": False,
    "message_id": "order-question-1",
    "metadata": {},
    "created_at": AT,
    "activities": [],
}
REPLY = {
    **QUESTION,
    "id": 4184,
    "position": 4,
    "role": "ai",
    "content": "It arrives tomorrow between 9 and 12.",
    "message_id": "",
    "created_at": LATER,
}
EVENT = {
    "id": f"evt_{CLIENT.replace('-', '')}_42",
    "type": "message.in",
    "timestamp": AT,
    "client_id": CLIENT,
    "position": 42,
    "data": {
        "conversation_id": CONVERSATION,
        "channel": "whatsapp",
        "thread": "",
        "status": "active",
        "contact_id": CONTACT,
        "user_id": "ann",
        "message": {name: value for name, value in QUESTION.items() if name != "activities"},
    },
}
LISTED = {
    "id": CONVERSATION,
    "client_id": CLIENT,
    "contact_id": CONTACT,
    "user_id": "ann",
    "channel": "whatsapp",
    "thread": "",
    "status": "active",
    "is_guest": False,
    "goal": "Answer questions about orders",
    "summary": "",
    "topic": "Delivery of an order",
    "current_goal": None,
    "metadata": {},
    "variables": {},
    "chat_id": "",
    "started_at": AT,
    "last_message_at": LATER,
    "ended_at": None,
    "ended_by": "",
    "end_reason": "",
    "reply_owed": False,
    "reply_due_at": None,
    "taken_over_at": None,
    "taken_over_by": "",
    "taken_over_until": None,
    "needs_staff_since": None,
    "needs_staff_reason": "",
}
PICTURE = {
    "id": "0b0f3c1e-6f59-4f0c-8a52-9f1c1c1f7a10",
    "type": "image",
    "state": "ready",
    "content_type": "image/jpeg",
    "name": "image.jpg",
    "size": 184_320,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "link": "https://convo.example/media/WyI3YjQ4Ii",
    "thumbnail": "https://convo.example/media/WyI3YjQ5Ii",
    "problem": "",
}
SHOWN = [{**QUESTION, "attachments": [PICTURE]}, {**REPLY, "attachments": []}]
DETAIL = {
    **LISTED,
    "device": "51999999999",
    "assistant": "ada",
    "assigned_to": "maria",
    "team": "Support",
    "rating": None,
    "steps": [STEP],
    "chunks": SHOWN,
}
TOOL_CALL = {
    "id": "0197a1c4-4c21-7f08-9b36-7d5e2a81c4f0",
    "tool": "refund",
    "arguments": {"order": "4711", "amount": 20},
    "status": "waiting",
    "answer": "",
    "code": "",
    "idempotency_key": "5d41402abc4b2a76b9719d911017c592ae2f3b8d0c7f4e61a8d23c9b7e05f164",
    "tries": 0,
    "created_at": AT,
    "ended_at": None,
    "decided_at": None,
    "decided_by_name": "",
    "reason": "",
}
DECIDED = {**TOOL_CALL, "decided_at": LATER, "decided_by_name": "back office (convo_3f9a1c)"}
RATED = {
    "score": 2,
    "scale": "five",
    "asked_at": AT,
    "rated_at": LATER,
    "comment": "It came a day late.",
    "question": "How satisfied are you, from 1 (not at all) to 5 (very)?",
    "choices": [{"score": score, "title": f"{score} {'★' * score}"} for score in range(1, 6)],
    "why": "",
    "takes_answer": False,
    "takes_comment": False,
}
TRANSCRIPT = {
    "id": CONVERSATION,
    "client": "shop",
    "channel": "whatsapp",
    "status": "closed",
    "contact": {"user_id": "ann", "name": "Ann", "phone": "+51999999999"},
    "assistant": "ada",
    "goal": "Answer questions about orders",
    "topic": "Delivery of an order",
    "summary": "Ann asked when her order arrives; it arrives tomorrow.",
    "started_at": AT,
    "last_message_at": LATER,
    "ended_at": LATER,
    "ended_by": "user",
    "end_reason": "goodbye",
    "disclosed": [{"at": LATER, "position": 4, "sentence": "You are writing with an AI assistant of the shop."}],
    "rating": {"score": 5, "scale": "five", "asked_at": LATER, "rated_at": LATER, "comment": ""},
    "steps": [{"description": "Ask for the order number", "status": "complete"}],
    "chunks": [
        {
            "position": 3,
            "role": "user",
            "content": "Is my order on its way?",
            "by_staff": False,
            "created_at": AT,
        }
    ],
}
FOUND = {
    "conversation_id": CONVERSATION,
    "contact_id": CONTACT,
    "channel": "whatsapp",
    "started_at": AT,
    "ended_at": LATER,
    "summary": "Ann asked when her order arrives; it arrives tomorrow.",
    "score": 0.42,
    "position": 3,
    "snippet": "Is my order on its way?",
    "highlights": [[6, 11]],
    "by": "text",
}

ROLE = {"role": "field", "name": "Field assistant", "client": "shop", "client_name": "Shop"}
SESSION = {
    "id": CONVERSATION,
    "title": "Which primer for wet walls?",
    "role": "field",
    "role_name": "Field assistant",
    "client": "shop",
    "status": "active",
    "taken_over": False,
    "rating": None,
    "turn_id": None,
    "started_at": AT,
    "last_message_at": LATER,
}
STREAM = f"""event: session
data: {{"session_id": "{CONVERSATION}", "turn_id": "{TURN}", "message_id": 4183, "title": "Which primer for wet walls?"}}

id: 1.0
event: delta
data: {{"start": 0, "text": "Use a penetrating primer."}}

event: done
data: {{"session_id": "{CONVERSATION}", "turn_id": "{TURN}", "chunk_id": 4184, "finish_reason": "stop", "message": null, "usage": {{"tokens_in": 812, "tokens_out": 9}}}}

"""  # noqa: E501

STATE: dict[str, Any] = {
    "sessionId": CONVERSATION,
    "userId": "+51999999999",
    "botId": "waiter",
    "subDomain": "shop",
    "localId": None,
    "currentIntent": "order",
    "currentStep": "cart",
    "previousIntent": None,
    "previousStep": None,
    "context": {
        "selectedItems": [{"id": "p1", "name": "Pizza", "quantity": 1}],
        "orderTotal": 20.5,
        "previousMessages": [{"role": "user", "content": "A pizza, please", "timestamp": AT}],
        "lastUserMessage": "A pizza, please",
        "orderHistory": [],
    },
    "metadata": {"platform": "whatsapp"},
    "isActive": True,
    "lastActivity": AT,
    "createdAt": AT,
    "updatedAt": AT,
    "expiresAt": "2026-11-30T10:00:00+00:00",
    "currentOrderId": None,
    "orderHistory": [],
    "version": 3,
}
ORDERED = {**STATE, "currentOrderId": "order-1", "orderHistory": ["order-1"]}
RECORDED = {"role": "user", "content": "A pizza, please", "messageId": "wamid.1"}


def _page(*items: Any) -> dict[str, Any]:
    return {"items": list(items), "next": None}


_NOTHING: dict[str, Any] = {"count": 0, "more": False, "oldest_seconds": 0.0}
_WAITING = {
    "replies": {"count": 2, "more": False, "oldest_seconds": 1.2},
    **dict.fromkeys(("sends", "summaries", "remembering", "archiving", "events"), _NOTHING),
}
BACKLOG = {
    "complete": True,
    "total": _WAITING,
    "clients": [{"client_id": CLIENT, "sub_domain": "shop", "waiting": _WAITING}],
}

_FIGURES = {
    "opened": 40,
    "ended": 38,
    "answered_alone": 30,
    "handed_over": 8,
    "late": 3,
    "messages_in": 160,
    "messages_out": 190,
    "asked": 20,
    "ratings": 12,
    "satisfied": 11,
    "rating_sum": 55,
    "tokens": 81_000,
    "cost": "0.41000000",
    "first_response": {"median": 2.4, "p90": 6.1},
    "resolution": {"median": 940.0, "p90": 4200.0},
}
REPORT = {
    "first": "2026-11-30",
    "last": "2026-11-30",
    "time_zone": "America/Lima",
    "step": "day",
    "total": _FIGURES,
    "before": _FIGURES,
    "steps": [{**_FIGURES, "begins": "2026-11-30T00:00:00"}],
    "channels": [{**_FIGURES, "name": "whatsapp"}],
    "assistants": [{**_FIGURES, "name": "ada"}],
    "colleagues": [{**_FIGURES, "name": None}],
    "teams": [{**_FIGURES, "name": "Sales"}],
    "labels": [],
}

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
