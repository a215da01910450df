"""The fake index keeps what it promises, so that tests which rest on it prove something."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.fakes.embeddings import embed
from tests.fakes.pinecone import FakePinecone, cosine
from tests.fakes.server import Fault


@pytest.fixture
def fake() -> Iterator[FakePinecone]:
    with FakePinecone(api_key="key") as server:
        yield server


def ask(fake: FakePinecone, path: str, body: Any = None, key: str = "key") -> requests.Response:
    method = "POST" if body is not None else "GET"
    return requests.request(method, fake.url + path, json=body, headers={"api-key": key}, timeout=10)


def upsert(fake: FakePinecone, *ids: str, namespace: str = "a", **metadata: Any) -> requests.Response:
    vectors = [{"id": one, "values": [1.0, float(place)], "metadata": metadata} for place, one in enumerate(ids)]
    return ask(fake, "/vectors/upsert", {"vectors": vectors, "namespace": namespace})


def test_vectors_are_kept_found_listed_counted_and_deleted(fake: FakePinecone) -> None:
    assert upsert(fake, "x:1", "x:2", "y:1").json() == {"upsertedCount": 3}
    assert upsert(fake, "x:1", namespace="b").json() == {"upsertedCount": 1}
    found = ask(fake, "/query", {"vector": [0.0, 1.0], "topK": 2, "namespace": "a"}).json()["matches"]
    assert [match["id"] for match in found] == ["y:1", "x:2"]
    assert [row["id"] for row in ask(fake, "/vectors/list?prefix=x:&namespace=a").json()["vectors"]] == ["x:1", "x:2"]
    stats = ask(fake, "/describe_index_stats", {}).json()
    assert (stats["totalVectorCount"], stats["namespaces"]["a"]["vectorCount"], stats["dimension"]) == (4, 3, 2)
    assert ask(fake, "/vectors/delete", {"ids": ["x:1", "unknown"], "namespace": "a"}).json() == {}
    assert sorted(fake.vectors("a")) == ["x:2", "y:1"]
    assert sorted(fake.vectors("b")) == ["x:1"]


def test_a_long_list_comes_in_pages(fake: FakePinecone) -> None:
    upsert(fake, "a", "b", "c")
    page = ask(fake, "/vectors/list?namespace=a&limit=2").json()
    assert page["pagination"] == {"next": "b"}
    rest = ask(fake, "/vectors/list?namespace=a&limit=2&paginationToken=b").json()
    assert [row["id"] for row in rest["vectors"]] == ["c"]
    assert "pagination" not in rest


def test_metadata_narrow_a_query(fake: FakePinecone) -> None:
    upsert(fake, "old", channel="sms", at=1)
    upsert(fake, "new", channel="web", at=5)
    for condition, expected in (
        ({"channel": {"$eq": "sms"}}, ["old"]),
        ({"at": {"$gte": 5}}, ["new"]),
        ({"at": {"$gte": 1, "$lt": 5}}, ["old"]),
        ({"nothing": {"$eq": 1}}, []),
    ):
        body = {"vector": [1.0, 0.0], "topK": 5, "namespace": "a", "filter": condition}
        assert [match["id"] for match in ask(fake, "/query", body).json()["matches"]] == expected


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/vectors/upsert", {"vectors": []}, 400),
        ("/vectors/upsert", {"vectors": [{"id": "", "values": [1.0]}]}, 400),
        ("/vectors/upsert", {"vectors": [{"id": "x", "values": [0.0, 0.0]}]}, 400),
        ("/vectors/upsert", {"vectors": [{"id": "x", "values": [1.0, 2.0, 3.0]}]}, 400),
        ("/vectors/upsert", {"vectors": [{"id": "x", "values": [1.0, 1.0], "metadata": {"a": {"b": 1}}}]}, 400),
        ("/vectors/upsert", {"vectors": [{"id": "x", "values": [1.0, 1.0]}] * 1_001}, 400),
        ("/vectors/upsert", {"vectors": [{"id": "x", "values": [1.0, 1.0], "metadata": {"a": "b" * 3_000_000}}]}, 400),
        ("/vectors/delete", {"filter": {"channel": {"$eq": "sms"}}, "namespace": "a"}, 400),
        ("/vectors/delete", {"ids": [], "namespace": "a"}, 400),
        ("/vectors/delete", {"ids": ["x"], "namespace": "never was"}, 404),
        ("/query", {"vector": [1.0, 0.0], "topK": 0}, 400),
        ("/query", {"vector": [1.0, 0.0], "topK": 5, "filter": {"a": {"$regex": "b"}}, "namespace": "a"}, 400),
        ("/records/namespaces/a/search", {}, 404),
    ],
)
def test_what_pinecone_refuses_is_refused_and_changes_nothing(
    fake: FakePinecone, path: str, body: Any, status: int
) -> None:
    upsert(fake, "there", a="x")
    answer = ask(fake, path, body)
    assert answer.status_code == status
    assert answer.json()["code"] in {3, 5}
    assert sorted(fake.vectors("a")) == ["there"]


def test_another_key_is_refused(fake: FakePinecone) -> None:
    assert ask(fake, "/describe_index_stats", {}, key="other").status_code == 401


@pytest.mark.parametrize(("cut", "applied"), [("before", False), ("after", True), ("body", True)])
def test_a_connection_is_lost_before_or_after(fake: FakePinecone, cut: Any, applied: bool) -> None:
    fake.fail_next(Fault(cut=cut))
    with pytest.raises(requests.RequestException):
        upsert(fake, "x")
    assert ("x" in fake.vectors("a")) is applied


@pytest.mark.parametrize("applied", [False, True])
def test_a_request_is_held(fake: FakePinecone, applied: bool) -> None:
    fake.hold_next(applied=applied)
    with pytest.raises(requests.Timeout):
        requests.post(
            fake.url + "/vectors/upsert",
            json={"vectors": [{"id": "x", "values": [1.0]}], "namespace": "a"},
            headers={"api-key": "key"},
            timeout=0.3,
        )
    assert ("x" in fake.vectors("a")) is applied


def test_it_serves_and_obeys_other_processes() -> None:
    command = [sys.executable, "-m", "tests.fakes.pinecone"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            url = process.stdout.readline().strip()
            body = {"vectors": [{"id": "x", "values": [1.0]}], "namespace": "a"}
            assert requests.post(url + "/_then", json={"status": 503, "times": 2}, timeout=10).status_code == 200
            assert requests.post(url + "/_then", json={"explode": True}, timeout=10).status_code == 400
            answers = [requests.post(url + "/vectors/upsert", json=body, timeout=10) for _ in range(3)]
            assert [answer.status_code for answer in answers] == [503, 503, 200]
            assert list(requests.get(url + "/_vectors", timeout=10).json()["a"]) == ["x"]
            assert len(requests.get(url + "/_requests", timeout=10).json()) == 3
        finally:
            process.terminate()


# --- embeddings ------------------------------------------------------------------------------------------------------
def test_texts_that_mean_the_same_are_near_and_others_are_not() -> None:
    asked = embed("refund for a broken kettle")
    assert cosine(asked, embed("The kettle broke? Broken kettles are refunded.")) > 0.5
    assert cosine(asked, embed("money for the boiler")) > 0.5
    assert cosine(asked, embed("Where is my parcel?")) < 0.2
    assert embed("kettle") == embed("kettle")
    assert len(embed("", 8)) == 8
