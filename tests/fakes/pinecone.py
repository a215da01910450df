"""A fake of one index at Pinecone over real HTTP: its data plane, which is all we speak.

In a test:

    with FakePinecone() as fake:
        settings.PINECONE_HOST, settings.PINECONE_API_KEY = fake.url, "key"
        fake.fail_next(Fault(status=503))       # see tests/fakes/server.py for what can go wrong
        fake.hold_next()                        # the next request is held, and not done
        fake.vectors("namespace")               # what is there: {id: Vector}

From the command line, for anything that speaks HTTP:

    python -m tests.fakes.pinecone --port 9010
    curl -d '{"status": 503, "times": 4}' http://127.0.0.1:9010/_then
    curl http://127.0.0.1:9010/_vectors
    curl http://127.0.0.1:9010/_requests

It refuses what Pinecone refuses: another key, vectors of another length or of zeros only, too many or too large in one
request, ids that are too long, metadata that is no plain value, and a delete by filter. A namespace is there from its
first vector on; deleting from one that is not there is a 404 with gRPC's code 5, as Pinecone has it.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.fakes.server import FakeServer, Fault, Received, Reply

MOST_VECTORS = 1_000
MOST_BYTES = 2 * 1024 * 1024
MOST_IDS = 1_000
MOST_TOP_K = 10_000
MOST_METADATA = 40_960
INVALID, NOT_FOUND, UNAUTHENTICATED = 3, 5, 16  # gRPC's codes, which Pinecone puts into its errors

FOREVER = 3_600.0


@dataclass(frozen=True)
class Vector:
    """A vector as it was sent."""

    values: list[float]
    metadata: dict[str, Any] = field(default_factory=dict)


class RefusedError(Exception):
    """Pinecone would say no."""

    def __init__(self, message: str, code: int = INVALID, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.status = code, status


class FakePinecone(FakeServer):
    """The index. `api_key` set: every other key is refused. `dimension` 0: that of the first vector."""

    def __init__(self, port: int = 0, *, api_key: str = "", dimension: int = 0) -> None:
        self.api_key = api_key
        self.dimension = dimension
        self.namespaces: dict[str, dict[str, Vector]] = {}
        super().__init__(port)

    # --- for tests ---
    def vectors(self, namespace: str) -> dict[str, Vector]:
        """What is in the namespace."""
        with self.lock:
            return dict(self.namespaces.get(namespace, {}))

    def calls(self, path: str) -> list[Received]:
        """The requests to that path."""
        with self.lock:
            return [request for request in self.requests if urlsplit(request.path).path == path]

    def hold_next(self, *, applied: bool = False) -> None:
        """The next request is never answered; it is done before that (`applied`), or not at all."""
        self.fail_next(Fault(hang=FOREVER, cut="after" if applied else "before"))

    # --- HTTP ---
    def answer(self, request: Received) -> tuple[Reply | None, Fault]:
        """Orders to the fake itself use up no fault and are not logged."""
        if request.path.startswith("/_"):
            return self._order(request), Fault()
        return super().answer(request)

    def handle(self, request: Received) -> Reply:
        """What Pinecone would do and answer."""
        path, query = urlsplit(request.path).path, parse_qs(urlsplit(request.path).query)
        verbs = {
            "/vectors/upsert": self._upsert,
            "/vectors/delete": self._delete,
            "/query": self._query,
            "/describe_index_stats": self._describe,
        }
        try:
            if self.api_key and request.headers.get("api-key") != self.api_key:
                raise RefusedError("Malformed API Key", UNAUTHENTICATED, 401)
            if path == "/vectors/list" and request.method == "GET":
                return self._list({name: values[-1] for name, values in query.items()})
            if path == "/vectors/fetch" and request.method == "GET":
                return self._fetch(query.get("ids", []), query.get("namespace", [""])[-1])
            if path not in verbs or request.method != "POST":
                raise RefusedError("Not Found", NOT_FOUND, 404)
            if len(request.body) > MOST_BYTES:
                raise RefusedError("Error, message length too large: the limit is 2097152 bytes")
            body = request.json()
            if not isinstance(body, dict):
                raise RefusedError("Invalid JSON")
            with self.lock:
                return verbs[path](body)
        except RefusedError as refused:
            return Reply(refused.status, {"code": refused.code, "message": str(refused), "details": []})

    def _order(self, request: Received) -> Reply:
        if request.path == "/_requests":
            return Reply(200, [{"path": one.path, "body": one.json()} for one in self.requests])
        if request.path == "/_vectors":
            with self.lock:
                return Reply(
                    200, {name: {key: asdict(v) for key, v in kept.items()} for name, kept in self.namespaces.items()}
                )
        try:
            order = dict(request.json())
            self.fail_next(Fault(**{name: order[name] for name in order if name != "times"}), order.get("times", 1))
        except (TypeError, ValueError) as error:
            return Reply(400, {"message": str(error)})
        return Reply()

    # --- the data plane ---
    def _upsert(self, body: Mapping[str, Any]) -> Reply:
        vectors = body.get("vectors")
        if not isinstance(vectors, list) or not 1 <= len(vectors) <= MOST_VECTORS:
            raise RefusedError(f"vectors must be 1 to {MOST_VECTORS}")
        read = [self._read(vector) for vector in vectors]  # all or nothing
        self.namespaces.setdefault(body.get("namespace", ""), {}).update(read)
        return Reply(200, {"upsertedCount": len(read)})

    def _read(self, vector: Any) -> tuple[str, Vector]:
        key, values, metadata = vector.get("id"), vector.get("values"), vector.get("metadata", {})
        if not isinstance(key, str) or not 1 <= len(key) <= 512 or not key.isascii():
            raise RefusedError("Vector ID must be ASCII of at most 512 characters")
        self._check(values)
        for name, value in metadata.items():
            plain = isinstance(value, str | bool | int | float)
            if not plain and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
                raise RefusedError(f"Metadata value must be a string, number, boolean or list of strings, got {name}")
        if len(str(metadata)) > MOST_METADATA:
            raise RefusedError("Metadata size exceeds the limit of 40960 bytes per vector")
        return key, Vector(values, metadata)

    def _check(self, values: Any) -> None:
        if not isinstance(values, list) or not all(isinstance(value, int | float) for value in values):
            raise RefusedError("Invalid vector")
        self.dimension = self.dimension or len(values)
        if len(values) != self.dimension:
            raise RefusedError(
                f"Vector dimension {len(values)} does not match the dimension of the index {self.dimension}"
            )
        if not any(values):
            raise RefusedError("Dense vectors must contain at least one non-zero value")

    def _delete(self, body: Mapping[str, Any]) -> Reply:
        ids, namespace = body.get("ids"), body.get("namespace", "")
        if body.get("filter"):
            raise RefusedError("Serverless and Starter indexes do not support deleting with metadata filtering")
        if namespace not in self.namespaces:
            raise RefusedError("Namespace not found", NOT_FOUND, 404)
        if body.get("deleteAll"):
            self.namespaces[namespace].clear()
            return Reply()
        if not isinstance(ids, list) or not 1 <= len(ids) <= MOST_IDS:
            raise RefusedError(f"ids must be 1 to {MOST_IDS}")
        for key in ids:
            self.namespaces[namespace].pop(key, None)
        return Reply()

    def _query(self, body: Mapping[str, Any]) -> Reply:
        top_k, asked = body.get("topK"), body.get("vector")
        if not isinstance(top_k, int) or not 1 <= top_k <= MOST_TOP_K:
            raise RefusedError(f"topK must be 1 to {MOST_TOP_K}")
        self._check(asked)
        kept = self.namespaces.get(body.get("namespace", ""), {})
        found = [
            {"id": key, "score": cosine(asked or [], vector.values), "values": []}
            for key, vector in kept.items()
            if fits(vector.metadata, body.get("filter") or {})
        ]
        found.sort(key=lambda match: (-match["score"], match["id"]))
        if body.get("includeMetadata"):
            found = [{**match, "metadata": kept[match["id"]].metadata} for match in found]
        usage = {"readUnits": 1}
        return Reply(200, {"matches": found[:top_k], "namespace": body.get("namespace", ""), "usage": usage})

    def _describe(self, body: Mapping[str, Any]) -> Reply:
        counts = {name: {"vectorCount": len(kept)} for name, kept in self.namespaces.items()}
        total = sum(len(kept) for kept in self.namespaces.values())
        return Reply(
            200,
            {"namespaces": counts, "dimension": self.dimension, "indexFullness": 0, "totalVectorCount": total},
        )

    def _fetch(self, ids: list[str], namespace: str) -> Reply:
        with self.lock:
            kept = self.namespaces.get(namespace, {})
            found = {key: {"id": key, **asdict(kept[key])} for key in ids if key in kept}
        return Reply(200, {"vectors": found, "namespace": namespace, "usage": {"readUnits": 1}})

    def _list(self, query: Mapping[str, str]) -> Reply:
        with self.lock:
            kept = self.namespaces.get(query.get("namespace", ""), {})
            ids = sorted(key for key in kept if key.startswith(query.get("prefix", "")))
        ids = [key for key in ids if key > query.get("paginationToken", "")]
        page = ids[: int(query.get("limit", 100))]
        more = {"pagination": {"next": page[-1]}} if len(ids) > len(page) else {}
        return Reply(200, {"vectors": [{"id": key} for key in page], "namespace": query.get("namespace", ""), **more})


def cosine(one: list[float], other: list[float]) -> float:
    """How near two vectors are: 1 for the same direction."""
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / (math.hypot(*one) * math.hypot(*other))


def fits(metadata: Mapping[str, Any], conditions: Mapping[str, Any]) -> bool:
    """Whether the metadata fulfil Pinecone's filter, of which this knows what we use."""
    tests = {
        "$eq": lambda there, wanted: there == wanted,
        "$gte": lambda there, wanted: there >= wanted,
        "$lt": lambda there, wanted: there < wanted,
    }
    for name, condition in conditions.items():
        for operator, wanted in condition.items():
            if operator not in tests:
                raise RefusedError(f"Unknown operator {operator}")
            if name not in metadata or not tests[operator](metadata[name], wanted):
                return False
    return True


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description="A fake of an index at Pinecone.")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--api-key", default="", help="refuse every other key")
    options = parser.parse_args()
    with FakePinecone(options.port, api_key=options.api_key) as fake:
        print(fake.url, flush=True)  # noqa: T201
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
