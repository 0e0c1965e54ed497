"""Spans: what a collector gets, and that it gets nothing unless asked to."""

from __future__ import annotations

from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from service import app
from tests.support.collector import collecting
from tests.support.running import user_id, video
from tests.support.served import served


def attributes(span: Span) -> dict[str, str]:
    """Attributes in words."""
    return {one.key: str(one.value).strip() for one in span.attributes}


def test_a_page_is_a_span_with_its_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stages lie one after the other within the request, and nothing names the user or repeats a parameter."""
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        with served(tmp_path, {"acme": [video("a", "Bread")]}, trace_share=1.0) as s:
            traced = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
            page = s.feed("acme", "u1", headers=traced, surface="canary-surface")
            s.get("/v1/nothing/canary-path", "acme")
        root = next(one for one in collector.spans if one.name == "GET /v1/feed")
        stages = [one for one in collector.spans if one.parent_span_id == root.span_id]
        assert [one.name for one in stages] == ["state", "wait", "retrieve", "rank", "answer"]
        moments = [moment for one in stages for moment in (one.start_time_unix_nano, one.end_time_unix_nano)]
        assert moments == sorted(moments)
        assert root.start_time_unix_nano <= moments[0] + 1000
        assert moments[-1] <= root.end_time_unix_nano + 1000
        assert root.trace_id.hex() == "4bf92f3577b34da6a3ce929d0e0e4736"
        assert page["request_id"] in attributes(root)["feed.request_id"]
        assert "cold_start" in attributes(root)["feed.mode"]
        assert "GET (none)" in {one.name for one in collector.spans}
        sent = b"".join(collector.bodies)
        for hidden in (user_id("u1"), "canary-surface", "canary-path", s.keys["acme"].publishable):
            assert hidden.encode() not in sent


def test_a_caller_cannot_have_more_traced_than_the_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace from outside that says "sampled" is sampled like any other."""
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        with served(tmp_path, {"acme": [video("a", "Bread")]}, trace_share=1e-9) as s:
            s.feed("acme", headers={"traceparent": "00-4bf92f3577b34da6ffffffffffffffff-00f067aa0ba902b7-01"})
        assert collector.spans == []


def test_nothing_is_traced_unless_asked_for() -> None:
    """A share of 0, which is the default, makes no tracer at all."""
    assert app.opened_traces(0) is None
