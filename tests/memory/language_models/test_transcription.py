"""Recordings are written down by the provider that the client names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from conversations.models import Client, ModelProvider
from memory.language_models.contract import Kind, LLMError, ModelAccess
from memory.language_models.transcription import MOST_BYTES, transcribe
from tests.fakes.server import FakeServer, Fault, Received, Reply


class FakeEar(FakeServer):
    """A server that writes down every recording as `heard`."""

    heard = "Where is my kettle?"

    def handle(self, request: Received) -> Reply:
        """Answer as OpenAI does; a request that is no form with a file is refused."""
        form = request.headers.get("content-type", "").startswith("multipart/form-data; boundary=")
        if request.path != "/audio/transcriptions" or not form or b'filename="note.ogg"' not in request.body:
            return Reply(400, {"error": {"message": "Invalid file format.", "code": None, "param": "file"}})
        return Reply(200, {"text": self.heard})


@pytest.fixture
def ear() -> Iterator[FakeEar]:
    """The server."""
    with FakeEar() as server:
        yield server


def access_to(server: FakeEar, kind: Kind = Kind.COMPATIBLE) -> ModelAccess:
    """The access to it."""
    return ModelAccess(kind, "gpt-transcribe", base_url=server.url, key="sk-1", seconds=5)


def test_it_writes_down_what_is_said(ear: FakeEar) -> None:
    assert transcribe(access_to(ear), b"OggS" * 50, "note.ogg") == "Where is my kettle?"
    [request] = ear.requests
    assert b"gpt-transcribe" in request.body
    assert b"OggS" * 50 in request.body
    assert request.headers["authorization"] == "Bearer sk-1"


def test_silence_is_no_error_and_nonsense_is(ear: FakeEar) -> None:
    ear.heard = " \n"
    assert transcribe(access_to(ear), b"x", "note.ogg") == ""
    ear.fail_next(Fault(status=200, content=b"<html>"))
    with pytest.raises(LLMError) as caught:
        transcribe(access_to(ear), b"x", "note.ogg")
    assert (caught.value.code, caught.value.retryable) == ("bad_answer", True)


def test_what_cannot_be_written_down_is_not_sent(ear: FakeEar) -> None:
    for access, audio, code in [
        (access_to(ear, Kind.ANTHROPIC), b"x", "no_transcription"),
        (access_to(ear), bytes(MOST_BYTES + 1), "too_large"),
    ]:
        with pytest.raises(LLMError) as caught:
            transcribe(access, audio, "note.ogg")
        assert (caught.value.code, caught.value.retryable) == (code, False)
    assert ear.requests == []


@pytest.mark.django_db(transaction=True)
def test_the_client_s_provider_is_tried_by_command(shop: Client, ear: FakeEar, tmp_path: Path, capsys: Any) -> None:
    house = ModelProvider.objects.create(client=shop, name="House", kind="openai_compatible", base_url=ear.url)
    Client.objects.filter(pk=shop.pk).update(transcription_provider=house, transcription_model="whisper-large-v3")
    note = tmp_path / "note.ogg"
    note.write_bytes(b"OggS")
    with pytest.raises(CommandError, match="1 of the checks failed"):  # the shop's assistant is offline
        call_command("try_assistant", client="shop", assistant="ada", voice=note)
    said = capsys.readouterr().out
    assert "A recording, whisper-large-v3" in said
    assert "It wrote: “Where is my kettle?”" in said
    with pytest.raises(CommandError, match="cannot be read: No such file"):
        call_command("try_assistant", client="shop", assistant="ada", voice=tmp_path / "none.ogg")
