"""An OpenTelemetry collector: takes spans over OTLP/HTTP and keeps them."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.fakes.server import FakeServer, Received, Reply


@dataclass(frozen=True)
class Collected:
    """A span as it came, and which process sent it."""

    name: str
    process: str
    trace_id: str
    span_id: str
    parent_id: str
    began: int
    ended: int
    attributes: dict[str, Any] = field(default_factory=dict)
    links: tuple[str, ...] = ()


class FakeCollector(FakeServer):
    """Keeps the spans of every export in `spans`."""

    def __init__(self) -> None:
        self.spans: list[Collected] = []
        super().__init__()

    def handle(self, request: Received) -> Reply:
        if request.path != "/v1/traces":
            return Reply(404)
        body = gzip.decompress(request.body) if request.headers.get("content-encoding") == "gzip" else request.body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            process = _values(resource.resource.attributes)["service.instance.id"]
            for scope in resource.scope_spans:
                with self.lock:
                    self.spans += [_collected(span, process) for span in scope.spans]
        return Reply(200, b"")

    def of(self, trace_id: str) -> dict[str, Collected]:
        """The spans of a trace, by name."""
        with self.lock:
            return {span.name: span for span in self.spans if span.trace_id == trace_id}

    def named(self, name: str) -> list[Collected]:
        with self.lock:
            return [span for span in self.spans if span.name == name]


def _collected(span: Any, process: str) -> Collected:
    return Collected(
        name=span.name,
        process=process,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        began=span.start_time_unix_nano,
        ended=span.end_time_unix_nano,
        attributes=_values(span.attributes),
        links=tuple(link.trace_id.hex() for link in span.links),
    )


def _values(attributes: Any) -> dict[str, Any]:
    found = {each.key: each.value for each in attributes}
    return {key: _value(value) for key, value in found.items()}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return [_value(each) for each in value.array_value.values] if kind == "array_value" else getattr(value, kind)
