"""What the OpenAPI says of the copilot is what its routes answer."""

from __future__ import annotations

from typing import Any

import pytest

from conversations.models import Chunk
from tests.copilot.reading import Browser
from tests.fakes.openai import FakeOpenAI
from tests.routes import COPILOT, METHODS, SCHEMA, resolved

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("writer")]


def described(method: str, path: str) -> dict[str, Any]:
    return SCHEMA["paths"][path][method.lower()]


def fields(method: str, path: str, status: int = 200) -> list[dict[str, Any]]:
    """The schemas that the data of an answer may have."""
    content = described(method, path)["responses"][str(status)]["content"]["application/json"]
    data = resolved(content["schema"]["properties"]["data"])
    return [resolved(each) for each in data.get("oneOf", [data])]


def fits(data: dict[str, Any], *schemas: dict[str, Any]) -> bool:
    return any(set(data) == set(each["properties"]) == set(each["required"]) for each in schemas)


def test_every_route_and_method_is_there_and_asks_for_a_session(ann: Browser) -> None:
    values = {"pk": "11111111-2222-4333-8444-555555555555", "turn_id": "11111111-2222-4333-8444-555555555555"}
    for route in COPILOT:
        path = route.path({**values, **({"pk": 1} if "feedback" in route.pattern else {})})
        for method in METHODS:
            taken = ann.http.request(method, ann.base_url + path, json={"title": 5}, stream=True).status_code != 405
            assert taken == bool(route.described(method)), f"{method} {route}"
            if taken:
                [needed] = route.described(method)["security"]
                assert set(needed) == ({"Session"} if method == "GET" else {"Session", "CSRFToken"})


def test_answers_have_the_fields_that_are_described(ann: Browser, model: FakeOpenAI) -> None:
    session_id = ann.ask("Hello")[0].data["session_id"]
    one = f"/copilot/sessions/{session_id}"
    [session_or_messages] = [fields("GET", "/copilot")]
    assert fits(ann.get("/copilot"), *session_or_messages)
    page = ann.get(f"/copilot?session_id={session_id}")
    assert fits(page, *session_or_messages)
    messages = SCHEMA["components"]["schemas"]
    assert fits(page["session"], messages["SessionShown"])
    for each in page["items"]:
        assert fits(each, messages["MessageShown"])
    assert fits(ann.get("/copilot/roles")["items"][0], messages["RoleShown"])
    made = ann.call("POST", "/copilot/sessions", {"role": "pm"})
    assert made[0] == 201
    assert fits(made[1]["data"], *fields("POST", "/copilot/sessions", 201))
    assert fits(ann.call("PATCH", one, {"title": "Nails"})[1]["data"], messages["SessionShown"])
    assert fits(ann.call("POST", f"{one}/stop")[1]["data"], messages["Stopping"])
    reply = Chunk.objects.get(role="ai").pk
    for rating in ("down", None):
        rated = ann.call("PUT", f"/copilot/messages/{reply}/feedback", {"rating": rating, "note": "x"})
        assert fits(rated[1]["data"], messages["Rated"])
    assert fits(ann.call("DELETE", one)[1]["data"], messages["Deleted"])


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/copilot"), ("GET", "/copilot/stream/{turn_id}"), ("POST", "/copilot/sessions/{id}/retry")],
)
def test_streams_are_described_with_all_their_events(method: str, path: str) -> None:
    answer = described(method, path)["responses"]["200"]
    assert list(answer["content"]) == ["text/event-stream"]
    for name in ("session", "delta", "done", "error", "Last-Event-ID"):
        assert f"`{name}`" in answer["description"]
