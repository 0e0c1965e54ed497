"""Metrics of an indexer process, read from what it knows when Prometheus asks. Names and labels in the tables below;
docs/observability.md has them for people, and a test compares the two.

What only one process does at a time (signals) is told by that process alone: ask for the maximum over all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import structlog
from prometheus_client import REGISTRY, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from indexer.settings import IndexerSettings
from indexer.signal_loop import SignalLoop
from indexer.status import TenantStatus, status
from retrieval.catalogue import Catalogue
from retrieval.errors import StoreUnavailable
from retrieval.loops import uncancelled
from retrieval.recent import Recent
from retrieval.store import Store

log = structlog.get_logger("indexer")

LOOK_EVERY_S: Final = 15.0

OF_TENANTS: Final[Mapping[str, tuple[str, Callable[[TenantStatus], float | None]]]] = MappingProxyType(
    {
        "indexer_videos": ("Published videos in the catalogue", lambda one: one.items),
        "indexer_quarantined_videos": ("Videos whose text cannot be embedded", lambda one: one.quarantined),
        "indexer_generation": ("Newest published index generation", lambda one: one.generation),
        "indexer_published_timestamp_seconds": ("When the newest index was made", lambda one: one.published_s),
        "indexer_index_bytes": ("What a tenant's snapshots take on disk", lambda one: one.index_bytes),
        "indexer_lag_seconds": ("Age of the oldest change that is not published", lambda one: one.lag_s),
        "indexer_failing": ("Whether the last attempt on a tenant failed", lambda one: bool(one.last_error)),
    }
)
"""One gauge per tenant each: (what it is, how it is read)."""

OF_SIGNALS: Final[Mapping[str, tuple[str, Callable[[SignalLoop], float | None]]]] = MappingProxyType(
    {
        "indexer_stream_entries": (
            "Accepted events and serves that are not archived", lambda loop: loop.backlog and loop.backlog.entries),
        "indexer_archive_lag_seconds": (
            "Age of the oldest of them", lambda loop: loop.backlog and loop.backlog.oldest_entry_s),
        "indexer_erasures_waiting": (
            "Erasures that are not done", lambda loop: loop.backlog and loop.backlog.erasures),
        "indexer_erasure_age_seconds": (
            "Age of the oldest of them", lambda loop: loop.backlog and loop.backlog.oldest_erasure_s),
        "indexer_counters_published_timestamp_seconds": (
            "When popularity was last worked out", lambda loop: loop.signals.published_s),
        "indexer_retained_timestamp_seconds": (
            "When the retention job last ended", lambda loop: loop.report and loop.reported_s),
        "indexer_oldest_event_timestamp_seconds": (
            "When the oldest archived event happened; absent in an empty archive",
            lambda loop: loop.reported_s - loop.report.oldest_event_age_seconds
            if loop.report and loop.report.oldest_event_age_seconds else None),
        "indexer_keys_without_expiry": (
            "Keys about users that would stay for ever", lambda loop: loop.report and loop.report.keys_without_expiry),
        "indexer_joined_share": (
            "Share of the last hour's events that find their page in the serve log",
            lambda loop: loop.report and loop.report.joined_share),
        "indexer_archived_rows_total": ("Events and serves archived", lambda loop: loop.signals.archived),
        "indexer_damaged_entries_total": (
            "Entries of the stream that could not be read", lambda loop: loop.signals.tail.damaged),
        "indexer_counted_events_total": ("Events looked at for popularity", lambda loop: loop.signals.counting.events),
        "indexer_unserved_events_total": (
            "Those about an item nobody had served to that user", lambda loop: loop.signals.counting.unserved),
        "indexer_excess_events_total": (
            "Those that were more than counts per user and hour", lambda loop: loop.signals.counting.over),
    }
)  # fmt: skip
"""Of the process that works on signals. A name with `_total` is a counter, None is nothing to tell."""

OF_MODES: Final[Mapping[str, tuple[str, Callable[[Recent], float]]]] = MappingProxyType(
    {
        "indexer_recent_events": ("Events of the last 15 minutes, by the mode of their page", lambda one: one.events),
        "indexer_recent_shown": ("Videos on pages that those events are about", lambda one: one.shown),
        "indexer_recent_taken": ("Those of them that were engaged with", lambda one: one.taken),
    }
)


@dataclass(eq=False)
class Telemetry(Collector):
    """What is told: `tenants` as they were last seen, and the loop of the signals if this process has opened it."""

    tenants: Sequence[TenantStatus] = ()
    loop: SignalLoop | None = None
    _failed: int = 0

    def collect(self) -> Iterator[Metric]:
        """prometheus_client's own protocol; called in the thread of its server."""
        for name, (words, of_tenant) in OF_TENANTS.items():
            yield _gauge(name, words, "tenant", {one.tenant: of_tenant(one) for one in self.tenants})
        loop = self.loop if self.loop is not None and self.loop.working else None
        yield GaugeMetricFamily(
            "indexer_signals_working", "Whether this process works on the signals", loop is not None
        )
        yield CounterMetricFamily("indexer_looks_failed_total", "Looks at the catalogue that failed", self._failed)
        if loop is None:
            return
        for name, (words, of_loop) in OF_SIGNALS.items():
            value = of_loop(loop)
            family = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            if value is not None:
                yield family(name, words, float(value))
        for name, (words, of_mode) in OF_MODES.items():
            yield _gauge(name, words, "mode", {one.mode: of_mode(one) for one in loop.recent})

    def of(self, loop: SignalLoop) -> None:
        """Tell of this loop from now on."""
        self.loop = loop

    @asynccontextmanager
    async def looking(self, catalogue: Catalogue, store: Store, *, stale_s: float) -> AsyncIterator[None]:
        """While inside, look at every tenant's index now and then."""
        looking = asyncio.create_task(self._keep_looking(catalogue, store, stale_s))
        yield
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)

    async def _keep_looking(self, catalogue: Catalogue, store: Store, stale_s: float) -> None:
        while uncancelled():
            try:
                self.tenants = await status(catalogue, store, stale_s=stale_s)
            except StoreUnavailable:
                self._failed += 1
            await asyncio.sleep(LOOK_EVERY_S)


def serve(settings: IndexerSettings) -> Telemetry:
    """Answer Prometheus on a thread of this process until it ends. A port that is taken stops no work: it is logged."""
    telemetry = Telemetry()
    REGISTRY.register(telemetry)
    if settings.metrics_port:
        try:
            start_http_server(settings.metrics_port, settings.metrics_host)
        except OSError as error:
            log.error("no_metrics", port=settings.metrics_port, error=str(error))
    return telemetry


def _gauge(name: str, words: str, label: str, values: Mapping[str, float | None]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, words, labels=[label])
    for value_of, value in values.items():
        if value is not None:
            family.add_metric([value_of], float(value))
    return family
