"""Events out in the back office: endpoints are made, paused and removed, and deliveries are seen and posted again."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client as HttpClient
from django.urls import reverse
from django.utils import timezone

from conversations.models import Client, EventDelivery, EventEndpoint, StaffAction
from conversations.services.events import deliveries, endpoints
from conversations.services.events.numbering import number_all
from tests.conftest import Door

pytestmark = pytest.mark.django_db
URL = "https://example.com/events"


def address(name: str, pk: Any = None, model: str = "eventendpoint") -> str:
    return reverse(f"admin:conversations_{model}_{name}", args=[pk] if pk else [])


def secret_in(answer: Any) -> str:
    found = re.search(r'id="secret"[^>]*>([^<]+)<', answer.content.decode())
    assert found, answer.content.decode()[-2000:]
    return found[1]


def test_an_endpoint_is_made_with_a_secret_that_is_shown_once(shop: Client, manager: HttpClient) -> None:
    told = {"client": str(shop.pk), "url": URL, "kinds": ["message.in"]}
    secret = secret_in(manager.post(address("add"), told))
    endpoint = EventEndpoint.objects.get()
    assert endpoints.signing_secrets(endpoint, timezone.now()) == [secret]
    assert (endpoint.kinds, endpoint.private) == (["message.in"], False)
    assert secret not in manager.get(address("change", endpoint.pk)).content.decode()
    assert "already" in manager.post(address("add"), told).content.decode()
    rejected = manager.post(address("add"), {**told, "url": "https://user:word@example.com"})
    assert "no password" in rejected.content.decode()
    new = secret_in(manager.post(address("rotate", endpoint.pk)))
    endpoint.refresh_from_db()
    assert endpoints.signing_secrets(endpoint, timezone.now()) == [new, secret]


def test_a_failing_endpoint_is_shown_and_resumed(door: Door, manager: HttpClient) -> None:
    endpoint, _ = endpoints.create_endpoint(door.shop, URL)
    assert "Endpoints" not in manager.get(reverse("admin:index")).content.decode()
    door.says("Hello")
    number_all()
    [post] = deliveries.claim(timezone.now(), {}, 9)
    deliveries.record([deliveries.Outcome(post.delivery_id, endpoint.pk, 410, "gone")], timezone.now())
    dashboard = manager.get(reverse("admin:index")).content.decode()
    assert "that take no events, or are paused" in dashboard
    listed = manager.get(address("changelist") + "?trouble=1").content.decode()
    assert "the server says that it is gone (410)" in listed
    manager.post(address("resume", endpoint.pk))
    assert "gone (410)" not in manager.get(address("changelist")).content.decode()
    manager.post(address("pause", endpoint.pk))
    assert "paused by staff" in manager.get(address("changelist")).content.decode()
    manager.post(address("remove", endpoint.pk))
    assert not EventEndpoint.objects.exists()
    assert not EventDelivery.objects.exists()
    assert list(StaffAction.objects.values_list("verb", flat=True).order_by("pk")) == ["resumed", "paused", "deleted"]


def test_a_delivery_shows_its_body_and_is_posted_again(door: Door, manager: HttpClient, viewer: HttpClient) -> None:
    endpoint, _ = endpoints.create_endpoint(door.shop, URL, kinds=["message.in"])
    door.says("Where is my <parcel>?")
    number_all()
    [post] = deliveries.claim(timezone.now(), {}, 9)
    deliveries.record([deliveries.Outcome(post.delivery_id, endpoint.pk, 200, "")], timezone.now())
    page = viewer.get(address("change", post.delivery_id, "eventdelivery")).content.decode()
    assert "Where is my &lt;parcel&gt;?" in page
    assert post.event_id in page
    assert viewer.post(address("replay", post.delivery_id, "eventdelivery")).status_code == 403
    assert EventDelivery.objects.get().status == "delivered"
    manager.post(address("replay", post.delivery_id, "eventdelivery"))
    assert EventDelivery.objects.get().status == "pending"
