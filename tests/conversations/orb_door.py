"""The gateway of an orb posts to its webhook."""

from __future__ import annotations

import json
from typing import Any

from django.test import Client as HttpClient

from channels_out.simulators import orb
from tests.fakes.orb import FakeGateway

INBOUND = "/webhooks/orb/inbound"


def post(gateway: FakeGateway, event: Any, **signing: Any) -> tuple[int, Any]:
    """Post an event as the gateway signs it. Returns the status and the envelope."""
    body, headers = orb.signed(event, signing.pop("secret", gateway.secret), **signing)
    answer = HttpClient(raise_request_exception=False).post(INBOUND, body, "application/json", headers=headers)
    return answer.status_code, json.loads(answer.content)


def hears(gateway: FakeGateway, words: str = "Hello", **more: Any) -> tuple[int, Any]:
    """Post what the device with the id `orb-7` hears."""
    return post(gateway, orb.said(gateway.name, "orb-7", words, **more))
