"""Numbers beyond 64 bits, which the fast JSON writer refuses, change nothing else of an answer."""

from __future__ import annotations

from datetime import datetime
from typing import Any


def test_times_are_iso_8601_beside_a_far_number(door: Any) -> None:
    wanted = {"channel": "sms", "phone": "+51999999997", "metadata": {"far": 10**30}}
    status, envelope = door.call("POST", "/conversations", wanted)
    assert status == 201, envelope
    opened = envelope["data"]
    assert float(opened["metadata"]["far"]) == 1e30
    assert opened["started_at"] == datetime.fromisoformat(opened["started_at"]).isoformat()
