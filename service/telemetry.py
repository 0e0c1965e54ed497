"""Metrics. Names and labels in one place; no label ever holds a user, an address or a free text."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from service.feed import Page

BUCKETS_S: Final = (0.002, 0.005, 0.01, 0.025, 0.1, 0.25, 0.6)
"""With the edges of the objectives: p95 < 0.25 s, p99 < 0.6 s."""

REQUESTS = Counter("feed_http_requests_total", "Requests answered", ["route", "status"])
DURATION = Histogram("feed_http_request_seconds", "Time to answer", ["route"], buckets=BUCKETS_S)
PAGES = Counter("feed_pages_total", "Feed pages by mode", ["mode"])
DEGRADED = Counter("feed_degraded_total", "Feed pages that were less than they should be", ["cause"])
STAGE = Histogram("feed_stage_seconds", "Time in each stage of a page", ["stage"], buckets=BUCKETS_S)
ALIVE = Gauge(
    "feed_worker_refreshed_timestamp_seconds",
    "When the worker last looked for new snapshots; 0 before it can serve",
    multiprocess_mode="liveall",
)


def observe_feed(page: Page) -> None:
    """Count a page, its shortcomings and its stages."""
    PAGES.labels(page.mode).inc()
    for cause in page.degraded:
        DEGRADED.labels(cause).inc()
    for stage, ms in page.timings_ms.items():
        STAGE.labels(stage).observe(ms / 1000)
