"""The API description is valid, and a client that others' tools generate from it does the main job."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from conversations.models import Client, EventKind
from tests.routes import SCHEMA, WebServer, assert_failure

GENERATOR = Path(sys.executable).with_name("openapi-python-client")


def test_the_description_is_valid_and_says_where_the_server_is(settings: Any) -> None:
    assert [str(error) for error in OpenAPIV31SpecValidator(SCHEMA).iter_errors()] == []
    assert SCHEMA["openapi"] == "3.1.0"
    assert [server["url"] for server in SCHEMA["servers"]] == [settings.PUBLIC_BASE_URL]


def test_it_describes_every_event_that_is_posted() -> None:
    assert set(SCHEMA["webhooks"]) == set(EventKind.values)
    for described in SCHEMA["webhooks"].values():
        post = described["post"]
        assert post["summary"]
        assert {each["name"] for each in post["parameters"]} == {
            *("webhook-id", "webhook-timestamp", "webhook-signature"),
        }
        assert "2XX" in post["responses"]


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The generated package."""
    folder = tmp_path_factory.mktemp("generated")
    (folder / "schema.json").write_text(json.dumps(SCHEMA))
    command = [GENERATOR, "generate", "--path", "schema.json", "--output-path", "convo_generated"]
    environment = {**os.environ, "PATH": f"{GENERATOR.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [*command, "--meta", "none", "--fail-on-warning"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(folder))
    yield importlib.import_module("convo_generated")
    sys.path.remove(str(folder))


@pytest.mark.django_db(transaction=True)
def test_a_generated_client_passes_on_a_message_reads_it_and_answers(
    generated: Any, live_server: Any, shop: Client, key: str
) -> None:
    def of(name: str) -> Any:
        return importlib.import_module(f"convo_generated.{name}")

    with generated.AuthenticatedClient(base_url=live_server.url, token=key) as client:
        body = of("models").WebhooksInboundBody(client_id=shop.pk, user_id="ann", message="Hello")
        channel = of("models").WebhooksInboundChannel("sms")
        said = of("api.webhooks.webhooks_inbound").sync(channel, client=client, body=body)
        conversation_id = said.data.conversation_id
        read = of("api.conversations.conversations_retrieve").sync(conversation_id, client=client)
        assert [chunk.content for chunk in read.data.chunks][-1] == "Hello"
        answer = of("models").Send(role=of("models").SendRole("ai"), content="Good day")
        sent = of("api.conversations.conversations_send").sync(conversation_id, client=client, body=answer)
        assert sent.data.chunk.content == "Good day"
        events = of("api.events.events_feed").sync(client=client, after=0)
        assert [str(each.type_) for each in events.data.items][:2] == ["conversation.opened", "message.in"]
        gone = of("api.conversations.conversations_retrieve").sync(shop.pk, client=client)
        assert (gone.success, gone.code) == (False, "not_found")


# --- values that would not come back as they were ---------------------------------------------------------------------
@pytest.mark.django_db
@pytest.mark.parametrize("number", ["18446744073709551616", "-9223372036854775809", "1e300"])
def test_a_number_that_would_be_changed_is_refused(server: WebServer, shop: Client, number: str) -> None:
    bodies: dict[str, tuple[str, dict[str, Any]]] = {
        "/webhooks/sms/inbound": ("metadata", {"client_id": str(shop.pk), "user_id": "ann", "message": "Hello"}),
        "/conversations": ("metadata", {"channel": "sms", "phone": "+51999999997"}),
        "/api/v1/conversations": ("metadata", {"userId": "+51999999997"}),
    }
    for path, (field, body) in bodies.items():
        raw = json.dumps({**body, field: {"a": [{"n": "N"}]}}).replace('"N"', number)
        answer = server.call("POST", path, raw.encode())
        assert_failure(answer, 400, code="invalid")
        assert "64 bits" in answer.json["error"]
        assert list(answer.json["details"]) == [field]


@pytest.mark.django_db
def test_numbers_of_64_bits_and_long_digits_in_texts_come_back_as_they_were(server: WebServer, shop: Client) -> None:
    metadata = {"big": 2**64 - 1, "small": -(2**63), "text": "9" * 40, "float": 0.12345678901234567}
    body = {"client_id": str(shop.pk), "user_id": "ann", "message": "Hello", "metadata": metadata}
    said = server.call("POST", "/webhooks/sms/inbound", body).json["data"]
    read = server.call("GET", f"/conversations/{said['conversation_id']}?chunks=1").json["data"]
    assert read["chunks"][0]["metadata"] == metadata
    assert "T" in read["started_at"]


@pytest.mark.django_db
def test_the_search_takes_no_channel_or_one(server: WebServer) -> None:
    assert server.call("GET", "/memory/search?q=x").status == 200
    assert server.call("GET", "/memory/search?q=x&channel=sms").status == 200
    assert_failure(server.call("GET", "/memory/search?q=x&channel=post"), 400)
    [channel] = [each for each in SCHEMA["paths"]["/memory/search"]["get"]["parameters"] if each["name"] == "channel"]
    assert "default" not in channel["schema"]
