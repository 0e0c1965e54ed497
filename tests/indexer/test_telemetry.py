"""What an indexer tells: backlog, ages, what became of pages by mode, and nothing of signals while another works."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from indexer import telemetry
from indexer.settings import IndexerSettings
from indexer.signal_loop import SignalLoop
from indexer.signals import Signals
from indexer.telemetry import Telemetry
from retrieval.archive import Archive
from retrieval.erasure import Erasures
from retrieval.journal import Signal
from retrieval.leases import Leases
from retrieval.recent import NO_PAGE, Recent
from retrieval.serves import Serve, ServedItem
from retrieval.stream import Event, Stream
from tests.support.indexing import Indexing
from tests.support.redis_server import free_port
from tests.support.running import HOST

NOW_S = int(time.time())
ANNA = "a" * 32


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """An empty store."""
    async with Redis.from_url(redis_url, protocol=2) as client:
        yield client


@pytest.fixture
def signals(redis: Redis, tmp_path: Path) -> Signals:
    """The work on signals, with a clock a minute ahead of the stream's."""
    return Signals(redis, Archive(str(tmp_path / "archive")), IndexerSettings(), clock=lambda: time.time() + 60.0)


async def a_page(redis: Redis, request_id: str, mode: str) -> None:
    """A page with items 1 and 2 was served to Anna."""
    items = [ServedItem(1, 0, "for_you"), ServedItem(2, 1, "for_you")]
    made_from = {"generation": 1, "policy_version": "0.0", "seed": 0, "journal_position": 0}
    facts: dict[str, Any] = {"at_s": NOW_S, "mode": mode, "surface": "", "items": items, **made_from}
    await Stream(redis).served(Serve(request_id=request_id, tenant="acme", user_key=ANNA, **facts))


async def an_event(redis: Redis, signal: Signal, item: int, request_id: str = "", value: float | None = None) -> None:
    """Anna did something."""
    await Stream(redis).record(
        "acme", ANNA, [Event(uuid4(), signal, item, NOW_S, NOW_S, value, request_id)], now_s=NOW_S
    )


def told(collector: Telemetry) -> dict[str, float]:
    """Everything a scrape would find: "name{label value}" -> value."""
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for metric in collector.collect()
        for sample in metric.samples
    }


async def test_what_waits_is_counted_and_dated(redis: Redis, signals: Signals) -> None:
    """Entries of the stream and erasures, and how old the oldest of each is; nothing waits at the end."""
    await signals.start()
    empty = await signals.backlog()
    assert (empty.entries, empty.oldest_entry_s, empty.erasures, empty.oldest_erasure_s) == (0, 0.0, 0, 0.0)
    await an_event(redis, Signal.LIKE, 1)
    await a_page(redis, "r1", "personalised")
    await Erasures(redis).ask("acme", "b" * 32, now_s=int(time.time()) - 100)
    waiting = await signals.backlog()
    assert (waiting.entries, waiting.erasures) == (2, 1)
    assert 160 <= waiting.oldest_erasure_s < 170
    assert 60 <= waiting.oldest_entry_s < 70
    await signals.drain()
    await signals.erase()
    assert await signals.backlog() == empty


async def test_what_became_of_pages_is_told_by_mode(redis: Redis, signals: Signals) -> None:
    """A video of a page counts once, as taken if anything about it was engagement; events without a page are apart."""
    await a_page(redis, "r1", "cold_start")
    await a_page(redis, "r2", "holdout")
    for signal, item, request_id, value in (
        (Signal.IMPRESSION, 1, "r1", None),
        (Signal.LIKE, 1, "r1", None),
        (Signal.WATCH, 2, "r1", 0.4),
        (Signal.WATCH, 1, "r2", 0.5),
        (Signal.LIKE, 7, "invented", None),
    ):
        await an_event(redis, signal, item, request_id, value)
    await signals.start()
    await signals.drain()
    found = {one.mode: one for one in await signals.recent()}
    assert found["cold_start"] == Recent("cold_start", events=3, shown=2, taken=1)
    assert found["holdout"] == Recent("holdout", events=1, shown=1, taken=1)
    assert found[NO_PAGE] == Recent(NO_PAGE, events=1, shown=1, taken=1)


async def test_only_who_works_on_the_signals_tells_of_them(indexing: Indexing, signals: Signals) -> None:
    """A process that waits for the lease says 0 and nothing else: what it last saw may be long over."""
    loop = SignalLoop(signals, Leases(indexing.engine), "one")
    loop.backlog = await signals.backlog()
    collector = Telemetry(loop=loop)
    assert told(collector) == {"indexer_signals_working": 0.0, "indexer_looks_failed_total": 0.0}
    loop.working = True
    assert told(collector)["indexer_signals_working"] == 1.0
    assert told(collector)["indexer_stream_entries"] == 0.0


async def test_every_tenants_index_is_told(indexing: Indexing) -> None:
    """As `python -m indexer status` says it."""
    await indexing.put_many("acme", range(3))
    await indexing.daemon().once()
    collector = Telemetry()
    async with collector.looking(indexing.catalogue, indexing.store, stale_s=60):
        while not collector.tenants:
            await indexing.catalogue.versions()
    found = told(collector)
    assert (found["indexer_videos acme"], found["indexer_generation acme"]) == (3.0, 1.0)
    assert found["indexer_index_bytes acme"] > 1000
    assert abs(found["indexer_published_timestamp_seconds acme"] - time.time()) < 60
    assert found["indexer_failing acme"] == 0.0


def test_a_port_that_is_taken_stops_no_work(capsys: pytest.CaptureFixture[str]) -> None:
    """It is logged: somebody should know that nobody watches."""
    port = free_port()
    made = []
    try:
        for _ in range(2):
            made.append(telemetry.serve(IndexerSettings(metrics_port=port, metrics_host=HOST)))
            REGISTRY.unregister(made[-1])
    finally:
        for one in made:
            with suppress(KeyError):
                REGISTRY.unregister(one)
    assert "no_metrics" in capsys.readouterr().out
