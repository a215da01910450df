"""Numbers beyond 64 bits, which the fast JSON writer refuses, change nothing else of an answer."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from conversations.models import Conversation


def test_times_are_iso_8601_beside_a_far_number(door: Any) -> None:
    wanted = {"channel": "sms", "phone": "+51999999997"}
    session = door.call("POST", "/conversations", wanted)[1]["data"]["id"]
    Conversation.objects.filter(pk=session).update(metadata={"far": 10**30})  # as an older version stored it
    found = door.get(f"/conversations/{session}")
    assert float(found["metadata"]["far"]) == 1e30
    assert found["started_at"][10] == "T"
    assert datetime.fromisoformat(found["started_at"]).utcoffset() == timedelta(0)


def test_a_far_number_is_refused_since_it_would_be_rounded(door: Any) -> None:
    wanted = {"channel": "sms", "phone": "+51999999997", "metadata": {"far": 10**30}}
    status, envelope = door.call("POST", "/conversations", wanted)
    assert (status, envelope["code"]) == (400, "invalid")
    assert not Conversation.objects.exists()
