"""Tests of embeddings, over real HTTP."""

from __future__ import annotations

import time
from typing import Any

import pytest

from memory.language_models.contract import Kind, LLMError, ModelAccess
from memory.language_models.embeddings import embed
from tests.fakes.embeddings import embed as expected
from tests.fakes.openai import FakeOpenAI
from tests.memory.conftest import OPENAI_KEY, access_to


def failure(access: ModelAccess, *texts: str, **options: Any) -> LLMError:
    with pytest.raises(LLMError) as caught:
        embed(access, texts, **options)
    return caught.value


def test_each_text_has_its_vector_in_one_call(model: FakeOpenAI) -> None:
    assert embed(access_to(model), ["broken kettle", "lost parcel"]) == [
        expected("broken kettle"),
        expected("lost parcel"),
    ]
    [request] = model.requests
    assert request.path == "/v1/embeddings"
    assert request.headers["authorization"] == f"Bearer {OPENAI_KEY}"
    assert request.body == {
        "model": "text-embedding-3-small",
        "input": ["broken kettle", "lost parcel"],
        "encoding_format": "float",
    }


def test_model_and_dimensions_are_settings(model: FakeOpenAI, settings: Any) -> None:
    settings.OPENAI_EMBEDDING_MODEL, settings.OPENAI_EMBEDDING_DIMENSIONS = "nomic", 64
    assert [len(vector) for vector in embed(access_to(model), ["kettle"])] == [64]
    assert (model.requests[0].body["model"], model.requests[0].body["dimensions"]) == ("nomic", 64)


def test_vectors_are_put_in_the_order_of_the_texts(model: FakeOpenAI) -> None:
    body = '{"data": [{"index": 1, "embedding": [2]}, {"index": 0, "embedding": [1]}]}'
    model.then("raw", body=body)
    assert embed(access_to(model), ["a", "b"]) == [[1.0], [2.0]]


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "null",
        '{"data": null}',
        '{"data": []}',
        '{"data": [{"index": 0}]}',
        '{"data": [{"index": 0, "embedding": null}]}',
        '{"data": [{"index": 0, "embedding": []}]}',
        '{"data": [{"index": 0, "embedding": [Infinity]}]}',
        '{"data": [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": [1]}]}',
        '{"data": [{"index": "0", "embedding": [1]}, {"index": 1, "embedding": [1]}]}',
    ],
)
def test_nonsense_is_a_bad_answer(model: FakeOpenAI, body: str) -> None:
    model.then("raw", body=body)
    error = failure(access_to(model), "a")
    assert (error.code, error.retryable) == ("bad_answer", True)


@pytest.mark.parametrize(
    ("order", "code"),
    [
        ({"kind": "status", "status": 401}, "unauthorized"),
        ({"kind": "status", "status": 429}, "rate_limited"),
        ({"kind": "status", "status": 500}, "http_500"),
        ({"kind": "cut"}, "cut_off"),
        ({"kind": "reset"}, "cut_off"),
    ],
)
def test_failures_have_the_codes_of_completions(model: FakeOpenAI, order: dict[str, Any], code: str) -> None:
    model.then(**order)
    assert failure(access_to(model), "a").code == code


def test_a_blank_text_is_refused_by_the_server(model: FakeOpenAI) -> None:
    error = failure(access_to(model), " ")
    assert (error.code, error.retryable) == ("bad_request", False)


@pytest.mark.parametrize("order", [{"kind": "hang"}, {"kind": "drip"}])
def test_the_deadline_can_be_shorter_than_a_completion_s(model: FakeOpenAI, order: dict[str, Any]) -> None:
    model.then(**order)
    begun = time.monotonic()
    assert failure(access_to(model), "a", seconds=0.4).code == "timeout"
    assert time.monotonic() - begun < 15


def test_a_provider_without_embeddings_says_so_and_is_not_asked() -> None:
    error = failure(ModelAccess(Kind.ANTHROPIC, "claude", "http://127.0.0.1:1"), "a")
    assert (error.code, error.retryable) == ("no_embeddings", False)
    assert "Name another provider" in str(error)


def test_query_and_headers_of_the_provider_go_with_the_request(model: FakeOpenAI) -> None:
    embed(access_to(model, headers={"X-Team": "shop"}, query={"v": "2"}, body={"service_tier": "flex"}), ["a"])
    [request] = model.requests
    assert (request.path, request.query, request.headers["x-team"]) == ("/v1/embeddings", {"v": "2"}, "shop")
    assert "service_tier" not in request.body, "the body's parameters are those of answers"
