"""Sends traces to an OpenTelemetry collector: `pip install 'convo[otel]'` and OTEL_EXPORTER_OTLP_ENDPOINT.

The SDK reads OTEL_… itself: endpoint, headers, sampler, batches. Nothing of it is imported without an endpoint.
"""

from __future__ import annotations

import logging
import os
from contextvars import ContextVar
from typing import TYPE_CHECKING

from django.conf import settings

from conversations import traces
from conversations.traces import Point, Span
from convo_project import env

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.id_generator import IdGenerator

FLUSH_MILLISECONDS = 2_000

log = logging.getLogger(__name__)


def start(process: str) -> None:
    """Send the spans of this process to the collector that the environment names, if it names one.

    process: its kind, web or dispatcher. Call it after the process has forked.
    """
    if not env.text("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning("No traces are sent to OTEL_EXPORTER_OTLP_ENDPOINT. Run: pip install 'convo[otel]'")
        return
    named = {"service.name": env.text("OTEL_SERVICE_NAME", "convo"), "service.version": settings.VERSION}
    provider = TracerProvider(
        resource=Resource.create({**named, "service.instance.id": f"{process}-{os.getpid()}"}),
        id_generator=given_ids(),
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    collect(provider)


def collect(provider: TracerProvider) -> None:
    """Record all spans with the provider, whose ids must come from `given_ids`."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace.sampling import Decision
    from opentelemetry.trace.status import Status, StatusCode

    tracer, sampler = provider.get_tracer("convo"), provider.sampler

    def context_of(point: Point) -> trace.SpanContext:
        # Whether a trace is kept follows from its id, in every process alike.
        kept = sampler.should_sample(None, point.trace_id, "").decision is Decision.RECORD_AND_SAMPLE
        flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if kept else trace.TraceFlags.DEFAULT)
        return trace.SpanContext(*point, is_remote=True, trace_flags=flags)

    def record(span: Span) -> None:
        above = trace.NonRecordingSpan(context_of(span.parent)) if span.parent else trace.INVALID_SPAN
        before = _place.set(span.at)
        try:
            made = tracer.start_span(
                span.name,
                context=trace.set_span_in_context(above),
                kind=trace.SpanKind[span.kind.name],
                attributes={name: value for name, value in span.attributes.items() if value not in (None, "")},
                links=[trace.Link(context_of(each)) for each in span.links],
                start_time=int(span.began * 1e9),
            )
        finally:
            _place.reset(before)
        if span.error:
            made.set_attribute("error.type", span.error)
            made.set_status(Status(StatusCode.ERROR, span.error))
        made.end(end_time=int(span.ended * 1e9))

    traces.record_to(record, lambda: provider.force_flush(FLUSH_MILLISECONDS))


_NOWHERE = Point(0, 0)
_place: ContextVar[Point] = ContextVar("convo_span", default=_NOWHERE)


def given_ids() -> IdGenerator:
    """Return a generator of ids that gives those of the span that is being recorded."""
    from opentelemetry.sdk.trace.id_generator import IdGenerator

    class GivenIds(IdGenerator):
        def generate_trace_id(self) -> int:
            return _place.get().trace_id

        def generate_span_id(self) -> int:
            return _place.get().span_id

    return GivenIds()
