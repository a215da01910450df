"""Memory at Pinecone, when the index or the model is late, fails, refuses or is half configured."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
import traceback
from typing import Any

import pytest
from django.core.checks import run_checks

from memory.models import MemoryVector
from memory.stores import pinecone
from memory.stores.contract import StoreError
from memory.stores.passages import passages
from memory.stores.pinecone import BATCH, PineconeStore
from tests.fakes.openai import FakeOpenAI
from tests.fakes.pinecone import FakePinecone
from tests.fakes.server import Fault
from tests.memory.at_pinecone import LONG, failure, keep, ledger, there
from tests.memory.conftest import OPENAI_KEY, PINECONE_KEY
from tests.memory.sessions import KETTLE, session

pytestmark = pytest.mark.django_db


# --- what goes wrong -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fault", "times", "code", "retryable"),
    [
        (Fault(status=503), 4, "http_503", True),
        (Fault(status=429, headers={"Retry-After": "0"}), 4, "rate_limited", True),
        (Fault(status=401), 1, "unauthorized", False),
        (Fault(status=403), 1, "unauthorized", False),
        (Fault(status=400), 1, "bad_request", False),
        (Fault(status=404), 1, "not_found", False),
        (Fault(status=409), 1, "http_409", True),
        (Fault(status=200, content=b"<html>"), 1, "bad_answer", True),
        (Fault(status=200, content={}), 1, "bad_answer", True),
        (Fault(status=200, content={"upsertedCount": 0}), 1, "bad_answer", True),
        (Fault(cut="before"), 4, "unreachable", True),
        (Fault(cut="after"), 4, "unreachable", True),
        (Fault(cut="body"), 1, "unreachable", True),
        (Fault(cut="before", reset=True), 4, "unreachable", True),
    ],
)
def test_each_failure_has_its_code_and_is_made_good_by_doing_it_again(
    index: FakePinecone, fault: Fault, times: int, code: str, retryable: bool
) -> None:
    record = session(*KETTLE)
    index.fail_next(fault, times)
    error = failure(record)
    assert (error.code, error.retryable) == (code, retryable)
    [row] = MemoryVector.objects.all()  # known, whether it is there or not
    assert row.upserted_at is None
    keep(record)
    assert there(index, record) == ledger(record) == [f"{record.conversation_id}:1"]


def test_a_short_trouble_is_not_even_noticed(index: FakePinecone) -> None:
    index.fail_next(Fault(status=503))
    record = keep(session(*KETTLE))
    assert there(index, record) == ledger(record)


def test_nobody_listening_is_said_so(index: FakePinecone) -> None:
    index.close()
    error = failure(session(*KETTLE))
    assert (error.code, error.retryable) == ("unreachable", True)


@pytest.mark.parametrize("applied", [False, True])
def test_a_late_answer_is_given_up_at_the_deadline(index: FakePinecone, settings: Any, applied: bool) -> None:
    settings.PINECONE_TIMEOUT_SECONDS = 0.4
    index.hold_next(applied=applied)
    begun = time.monotonic()
    record = session(*KETTLE)
    error = failure(record)
    assert (error.code, error.retryable) == ("timeout", True)
    assert time.monotonic() - begun < 15
    settings.PINECONE_TIMEOUT_SECONDS = 20
    keep(record)
    assert there(index, record) == ledger(record)


def test_a_server_that_asks_for_a_long_wait_is_not_waited_for(index: FakePinecone, settings: Any) -> None:
    settings.PINECONE_TIMEOUT_SECONDS = 0.5
    index.fail_next(Fault(status=503, headers={"Retry-After": "50"}), 4)
    begun = time.monotonic()
    assert failure(session(*KETTLE)).retryable
    assert time.monotonic() - begun < 15


@pytest.mark.parametrize(
    ("order", "code", "retryable"),
    [
        ({"kind": "status", "status": 429, "headers": {"Retry-After": "7"}}, "embedding_rate_limited", True),
        ({"kind": "status", "status": 401}, "embedding_unauthorized", False),
        ({"kind": "status", "status": 400}, "embedding_bad_request", False),
        ({"kind": "nonsense"}, "embedding_bad_answer", True),
        ({"kind": "cut"}, "embedding_cut_off", True),
        ({"kind": "raw", "body": '{"data": []}'}, "embedding_bad_answer", True),
        ({"kind": "raw", "body": '{"data": [{"index": 0, "embedding": ["a"]}]}'}, "embedding_bad_answer", True),
        ({"kind": "raw", "body": '{"data": [{"index": 0, "embedding": [NaN]}]}'}, "embedding_bad_answer", True),
        ({"kind": "raw", "body": '{"data": [{"index": 0, "embedding": []}]}'}, "embedding_bad_answer", True),
    ],
)
def test_without_embeddings_nothing_is_sent(
    index: FakePinecone, model: FakeOpenAI, order: dict[str, Any], code: str, retryable: bool
) -> None:
    model.then(**order)
    error = failure(session(*KETTLE))
    assert (error.code, error.retryable) == (code, retryable)
    assert error.retry_after == (7.0 if code.endswith("rate_limited") else None)
    assert index.requests == []
    assert not MemoryVector.objects.exists()


def test_after_a_failure_only_what_is_missing_is_sent(index: FakePinecone, model: FakeOpenAI) -> None:
    record = session(*LONG)
    model.then("reply")
    model.then("status", status=503)
    assert failure(record).code == "embedding_http_503"
    first = len(there(index, record))
    assert first == BATCH
    model.requests.clear()
    keep(record)
    embedded = [text for request in model.requests for text in request.body["input"]]
    assert len(embedded) == len(passages(record)) - BATCH
    assert len(there(index, record)) == len(passages(record))


def test_a_search_keeps_its_deadline(index: FakePinecone, settings: Any) -> None:
    record = keep(session(*KETTLE))
    settings.MEMORY_SEARCH_SECONDS = 0.4
    index.hold_next()
    begun = time.monotonic()
    with pytest.raises(StoreError) as caught:
        PineconeStore().search(record.client_id, "kettle", 5)
    assert caught.value.code == "timeout"
    assert time.monotonic() - begun < 15


# --- settings, secrets, weight ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("missing", ["PINECONE_API_KEY", "PINECONE_HOST", "OPENAI"])
def test_half_a_configuration_is_none_and_said_so(index: FakePinecone, settings: Any, missing: str) -> None:
    client_id = session(*KETTLE).client_id
    assert pinecone.serves(client_id)
    assert not [check for check in run_checks() if check.id == "memory.W001"]
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL") if missing == "OPENAI" else (missing,):
        setattr(settings, name, "")
    assert not pinecone.serves(client_id)
    [warning] = [check for check in run_checks() if check.id == "memory.W001"]
    assert missing in warning.msg
    assert failure(session(*KETTLE)).code == "not_configured"


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=401, content={"message": f"Key {PINECONE_KEY} is wrong for kettle is broken"}),
        Fault(status=200, content=b"kettle is broken"),
        Fault(cut="before"),
        Fault(),
    ],
)
def test_no_text_or_key_reaches_logs_or_errors(
    index: FakePinecone, caplog: pytest.LogCaptureFixture, fault: Fault
) -> None:
    for name in ("", "pinecone", "httpx", "httpcore", "openai", "httpx2", "httpcore2"):
        caplog.set_level(logging.DEBUG, logger=name)
    index.fail_next(fault, 4)
    shown = ""
    try:
        keep(session(*KETTLE))
    except StoreError as error:
        shown = "".join(traceback.format_exception(error)) + repr([error, error.__cause__, error.__context__])
    caplog.handler.flush()
    shown += caplog.text
    assert PINECONE_KEY not in shown
    assert OPENAI_KEY not in shown
    assert "kettle is broken" not in shown


def test_the_sdks_are_imported_only_by_a_call() -> None:
    script = (
        "import django, sys; django.setup(); import memory.services;"
        " print(sorted({'openai', 'httpx2', 'httpx', 'pinecone', 'anyio'} & set(sys.modules)))"
    )
    environment = {"DJANGO_SETTINGS_MODULE": "convo_project.settings"}
    shown = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    assert json.loads(shown.stdout.replace("'", '"')) == []
