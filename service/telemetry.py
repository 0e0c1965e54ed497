"""Metrics of the worker processes. Every name and label in one place; no label ever holds a user, an address or a free
text. docs/observability.md has the same table for people, and a test compares the two.

A request costs two counters and one histogram, whose children are looked up once and then found in a dictionary.
The stages are measured always and recorded for every SAMPLED-th page: a distribution needs no more.
"""

from __future__ import annotations

import itertools
import time
from typing import Any, Final, Generic, TypeVar

import structlog
from prometheus_client import Counter, Gauge, Histogram, Summary
from prometheus_client.metrics import MetricWrapperBase
from starlette.types import Scope

from service.events import Outcome
from service.page import CAUSE_OF, Asked, Page
from service.scopes import request_id, route_of

log = structlog.get_logger("service")

BUCKETS_S: Final = (0.002, 0.005, 0.01, 0.025, 0.1, 0.25, 0.6)
"""With the edges of the objectives: p95 < 0.25 s, p99 < 0.6 s."""
SAMPLED: Final = 16
MOST_TENANTS: Final = 200
"""Labels for so many tenants; the others together are OTHERS."""
OTHERS: Final = "(others)"
PAGE: Final = "feed.page"
PAGED_S: Final = "feed.paged_s"
"""Where a request's scope says what page it answers, and when that was complete (`time.perf_counter`)."""
SLOW_S: Final = 0.6
"""An answer that took longer has a line in the log; at most one a second, because what is slow may be everything."""

REQUESTS = Counter("feed_http_requests_total", "Requests answered", ["route", "status"])
DURATION = Histogram("feed_http_request_seconds", "Time to answer", ["route", "mode"], buckets=BUCKETS_S)
PAGES = Counter("feed_pages_total", "Feed pages answered, 304s included", ["tenant", "mode"])
SHORT = Counter("feed_short_pages_total", "Feed pages with fewer items than asked for", ["tenant", "kind"])
DEGRADED = Counter("feed_degraded_total", "Feed pages that were less than they should be", ["cause"])
STAGE = Histogram("feed_stage_seconds", "Time in a stage of a page; one page in 16", ["stage"], buckets=BUCKETS_S)
CANDIDATES = Summary("feed_candidates", "Videos that are left after a stage; one page in 16", ["stage"])
EVENTS = Counter("feed_events_total", "Events by what became of them", ["result"])

STORE = Histogram("feed_store_seconds", "Time of one question to a store, once a second", ["store"], buckets=BUCKETS_S)
STORE_UP = Gauge("feed_store_up", "Whether every worker could ask the store", ["store"], multiprocess_mode="livemin")
ALIVE = Gauge(
    "feed_worker_refreshed_timestamp_seconds",
    "When the worker last looked for new snapshots; 0 before it can serve",
    multiprocess_mode="liveall",
)
COUNTED = Gauge(
    "feed_counters_refreshed_timestamp_seconds",
    "When the worker that is furthest behind last read the popularity counters",
    multiprocess_mode="livemin",
)
LATE = Gauge(
    "feed_loop_late_seconds",
    "How late the busiest worker's event loop woke up for something that was due each second",
    multiprocess_mode="livemax",
)
BACKLOG = Gauge(
    "feed_backlog_seconds",
    "What who comes now waits for at the busiest worker, see service/governor.py",
    multiprocess_mode="livemax",
)
USUAL = Gauge(
    "feed_page_cpu_seconds",
    "What a page of a kind keeps the slowest worker busy",
    ["kind"],
    multiprocess_mode="livemax",
)
CONFIG = Gauge(
    "feed_config_version", "Version of tenants, keys and policies the worker serves", multiprocess_mode="liveall"
)
POLICY_MIN = Gauge("feed_policy_version_min", "Oldest policy a worker serves", ["tenant"], multiprocess_mode="livemin")
POLICY_MAX = Gauge("feed_policy_version_max", "Newest policy a worker serves", ["tenant"], multiprocess_mode="livemax")
REFUSED_POLICIES = Gauge(
    "feed_policies_refused", "Tenants whose published policy cannot be read", multiprocess_mode="livemax"
)
REFUSED_SNAPSHOTS = Gauge(
    "feed_snapshots_refused", "Tenants whose newest index cannot be read", multiprocess_mode="livemax"
)
GENERATION = Gauge(
    "feed_index_generation", "Oldest index generation a worker serves", ["tenant"], multiprocess_mode="livemin"
)
ITEMS = Gauge("feed_index_items", "Videos in the index a worker serves", ["tenant"], multiprocess_mode="livemin")
KILLED = Gauge("feed_killed_tenants", "Tenants the worker serves without personalisation by kill switch",
               multiprocess_mode="liveall")  # fmt: skip
PERSONALISED = Gauge(
    "feed_flag_personalised_ratio",
    "Share of users the flags let have a personalised feed, hold-out not counted",
    ["tenant"],
    multiprocess_mode="livemin",
)

Metric = TypeVar("Metric", bound=MetricWrapperBase)


class Children(dict[Any, Metric], Generic[Metric]):
    """The children of a metric by label value, or by a tuple of them: made when first asked for."""

    def __init__(self, metric: Metric) -> None:
        super().__init__()
        self.metric = metric

    def __missing__(self, labels: Any) -> Metric:
        values = labels if isinstance(labels, tuple) else (labels,)
        child: Metric = self.metric.labels(*values)
        self[labels] = child
        return child


class _Tenants(dict[str, str]):
    """The label of each tenant: its id, for as many as there is room for."""

    def __missing__(self, tenant: str) -> str:
        label = self[tenant] = tenant if len(self) < MOST_TENANTS else OTHERS
        return label


tenant_label = _Tenants()
_requests, _durations = Children(REQUESTS), Children(DURATION)
_pages, _short, _degraded = Children(PAGES), Children(SHORT), Children(DEGRADED)
_stages, _candidates = Children(STAGE), Children(CANDIDATES)
_events = Children(EVENTS)
_numbers = itertools.count()
for _watched in ("accepted", "duplicate", "invalid", "unknown_item"):
    _events[_watched].inc(0)  # there from the start: what rises from nothing has no rate
for _cause in ("user_state_unavailable", *CAUSE_OF.values()):
    _degraded[_cause].inc(0)


_slow_again_s = 0.0


def observe_request(scope: Scope, status: int, seconds: float) -> None:
    """Count one answered request."""
    route, page = route_of(scope), scope.get(PAGE)
    mode = "" if page is None else page.mode
    _requests[route, status].inc()
    _durations[route, mode].observe(seconds)
    if seconds > SLOW_S:
        _log_slow(scope, route, mode, status, seconds)


def _log_slow(scope: Scope, route: str, mode: str, status: int, seconds: float) -> None:
    global _slow_again_s
    now_s = time.monotonic()
    if now_s >= _slow_again_s:
        _slow_again_s = now_s + 1.0
        page: Page | None = scope.get(PAGE)
        stages_ms = {} if page is None else {stage: round(ms, 1) for stage, ms in page.timings_ms.items()}
        log.warning(
            "slow_answer",
            request_id=request_id(scope),
            route=route,
            mode=mode,
            status=status,
            took_ms=round(1000 * seconds),
            stages_ms=stages_ms,
        )


def observe_feed(scope: Scope, asked: Asked, page: Page) -> None:
    """Count a page and its shortcomings, and tell the request's scope about it."""
    scope[PAGE], scope[PAGED_S] = page, time.perf_counter()
    tenant = tenant_label[asked.view.tenant.id]
    _pages[tenant, page.mode].inc()
    for cause in page.degraded:
        _degraded[cause].inc()
    if len(page.items) < asked.limit and not page.unchanged:
        _short[tenant, "short" if len(page.items) else "empty"].inc()
    if next(_numbers) % SAMPLED == 0:
        for stage, ms in page.timings_ms.items():
            _stages[stage].observe(ms / 1000)
        for stage, candidates in page.candidates:
            _candidates[stage].observe(candidates)


def observe_events(outcome: Outcome) -> None:
    """Count a batch of events; rejected ones by their code."""
    _events["accepted"].inc(outcome.accepted)
    _events["duplicate"].inc(outcome.duplicate)
    for one in outcome.rejected:
        _events[one.code].inc()
