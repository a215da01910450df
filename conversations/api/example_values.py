"""The people, conversations and figures that the examples of `/docs/` are made of."""

from __future__ import annotations

from typing import Any

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
