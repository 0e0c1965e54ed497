"""Spans of requests for OpenTelemetry: one per request, and one per stage of a feed page.

They are made after the answer, from times that are measured anyway; with FEED_TRACE_SHARE at 0 nothing here is even
imported. Where they go is said by OpenTelemetry's own variables, OTEL_EXPORTER_OTLP_ENDPOINT first of all. A span holds
the route's pattern, never a path, a query or a header.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope

from service.page import Page
from service.scopes import request_id, route_of
from service.telemetry import PAGE, PAGED_S

SERVICE: Final = "verticalfeed"
_PARENTS: Final = TraceContextTextMapPropagator()


class Traces:
    """Where a worker's spans go. `share` of the requests, 0 to 1, are traced: a caller may give a trace to be part of,
    but not make us trace more."""

    def __init__(self, share: float) -> None:
        sampled = TraceIdRatioBased(share)
        name = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": SERVICE}
        self._provider = TracerProvider(
            sampler=ParentBased(root=sampled, remote_parent_sampled=sampled), resource=Resource.create(name)
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer: Tracer = self._provider.get_tracer(SERVICE)

    def record(self, scope: Scope, status: int, *, began_s: float, sent_s: float) -> None:
        """The spans of one answered request; both times are of `time.perf_counter`."""
        now_ns, now_s = time.time_ns(), time.perf_counter()

        def at_ns(moment_s: float) -> int:
            return now_ns - int(1e9 * (now_s - moment_s))

        route = route_of(scope)
        name = f"{scope['method']} {route}"
        parent = _PARENTS.extract(_headers(scope, b"traceparent"))
        span = self._tracer.start_span(name, parent, SpanKind.SERVER, start_time=at_ns(began_s))
        if span.is_recording():
            span.set_attributes({"http.route": route, "http.response.status_code": status})
            span.set_attribute("feed.request_id", request_id(scope))
            if PAGE in scope:
                self._stages(set_span_in_context(span), scope, at_ns, sent_s)
                _describe(span, scope[PAGE])
        span.end(at_ns(sent_s))

    def close(self) -> None:
        """Send what waits."""
        self._provider.shutdown()

    def _stages(self, parent: Context, scope: Scope, at_ns: Any, sent_s: float) -> None:
        """A span for each stage. They follow each other, and the last one ended when the page was complete."""
        page: Page = scope[PAGE]
        paged_s: float = scope[PAGED_S]
        begins_s = paged_s - sum(page.timings_ms.values()) / 1000
        for stage, ms in page.timings_ms.items():
            ends_s = begins_s + ms / 1000
            self._tracer.start_span(stage, parent, start_time=at_ns(begins_s)).end(at_ns(ends_s))
            begins_s = ends_s
        self._tracer.start_span("answer", parent, start_time=at_ns(paged_s)).end(at_ns(sent_s))


def _describe(span: Span, page: Page) -> None:
    span.set_attributes({"feed.mode": page.mode, "feed.items": len(page.items), "feed.degraded": tuple(page.degraded)})


def _headers(scope: Scope, *names: bytes) -> Mapping[str, str]:
    return {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in names}
