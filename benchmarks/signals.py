"""What do signals cost? `python benchmarks/signals.py [--seconds 8] [--events 1000000] [--only journal]`

Five measurements on this machine: events accepted beside feeds (a real service with two workers, a real store with a
log on disk; `benchmarks/signals_beside.py`), what one process archives, what a full journal adds to a feed, how long
one user's erasure from an archive of 90 days takes, and how long a batch of events and the read of a journal take under
each `appendfsync`. Prints a table with the targets; the last line is the same as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from hashlib import md5
from pathlib import Path
from typing import Any
from uuid import UUID

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # one core per worker, as it is served
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from deltalake import QueryBuilder, write_deltalake
from redis.asyncio import Redis

from benchmarks.signals_beside import BATCH, EVENTS_PER_S, FEEDS_PER_S, beside_feeds
from deploy.local import valkey
from deploy.local.processes import spawn
from indexer.settings import IndexerSettings
from indexer.signals import Signals
from ranking.context import Context
from ranking.policy import resolve
from retrieval import keys
from retrieval.archive import Archive
from retrieval.counters import Popularity
from retrieval.journal import ENTRY, Journals, Signal
from retrieval.limits import LimitedJournals, Rate
from retrieval.rows import Rows
from retrieval.segment import Segment
from retrieval.serves import Serve, ServedItem
from retrieval.snapshot import Snapshot
from retrieval.stream import Event, Stream
from retrieval.tenants import Tenant
from retrieval.videos import OPEN_END_S, Video
from retrieval.view import View
from service.feed import Stores, first_page
from service.page import Asked
from service.settings import ServiceSettings
from tests.support.redis_server import free_port
from tests.support.running import HOST, eventually, system, video

NOW_S = 1_795_000_000
VIDEOS, DIM = 10_000, 384
FULL = ServiceSettings.model_fields["journal_entries"].default
"""Entries of a full journal: the heaviest users have one."""
DAYS = 90
TARGETS = {
    "events_accepted_per_s": f">= {0.97 * EVENTS_PER_S:.0f} offered {EVENTS_PER_S}",
    "feeds_answered_per_s": f">= {0.97 * FEEDS_PER_S:.0f} offered {FEEDS_PER_S}",
    "event_to_feed_p99_ms": "< 1000",
    "archived_events_per_s": ">= 10000",
    "full_journal_more_cpu_percent": "< 20",
    "erasure_s": "< 10 (10 M events)",
}


@contextmanager
def store(folder: Path, appendfsync: str = "everysec") -> Iterator[str]:
    """A store of its own with the settings of one machine, as a URL."""
    folder.mkdir(parents=True)
    port, options = free_port(), {**valkey.DURABLE, "appendfsync": appendfsync}
    child = spawn("store", valkey.server_command(port, folder, options), folder / "log", env={}, grace_s=5.0)
    eventually(lambda: valkey.answers(port))
    try:
        yield f"redis://{HOST}:{port}/0"
    finally:
        child.stop()


def beside(folder: Path, seconds: float) -> dict[str, float]:
    """Events accepted while feeds are answered, by a service of 500 videos."""
    videos = [video(f"v{n}", f"bread part {n}", creator=f"c{n % 40}") for n in range(500)]
    with store(folder / "store") as url, system(folder / "system", url, {"acme": videos}, daemons=1) as running:
        return beside_feeds(running, seconds)


async def fsync(folder: Path, seconds: float) -> dict[str, float]:
    """Milliseconds of a batch and of a journal's read at EVENTS_PER_S, with each `appendfsync` on the disk of `folder`.

    The settings take turns, so that a disk that is busy for a while is so for both.
    """
    found: dict[str, list[float]] = {}
    for turn in range(4):
        setting = ("everysec", "always")[turn % 2]
        with store(folder / f"{turn}", setting) as url:
            for what, took_ms in (await _batches_and_reads(url, seconds / 4)).items():
                found.setdefault(f"{what}_{setting}", []).extend(took_ms)
    medians = {f"{what}_median_ms": float(np.median(took_ms)) for what, took_ms in found.items()}
    return medians | {f"{what}_p99_ms": float(np.percentile(took_ms, 99)) for what, took_ms in found.items()}


async def _batches_and_reads(url: str, seconds: float) -> dict[str, list[float]]:
    redis = Redis.from_url(url, protocol=2)
    stream, journals, began = Stream(redis), Journals(redis), time.perf_counter()
    found: dict[str, list[float]] = {"batch": [], "read": []}

    async def timed(what: str, asked: Awaitable[Any]) -> None:
        asked_s = time.perf_counter()
        await asked
        found[what].append(1000 * (time.perf_counter() - asked_s))

    async with asyncio.TaskGroup() as group:
        for n in range(int(seconds * EVENTS_PER_S / BATCH)):
            await asyncio.sleep(max(0.0, began + n * BATCH / EVENTS_PER_S - time.perf_counter()))
            user, events = f"{n % 500:032x}", [_event(n * BATCH + k) for k in range(BATCH)]
            group.create_task(timed("batch", stream.record("acme", user, events, now_s=NOW_S)))
            group.create_task(timed("read", journals.read("acme", f"{(n + 250) % 500:032x}")))
    await redis.aclose()
    return found


async def archiving(folder: Path, events: int) -> dict[str, float]:
    """Events per second from the stream into the archive and the counters, by one process. The users have histories."""
    with store(folder / "store") as url:
        redis = Redis.from_url(url, protocol=2)
        stream, users = Stream(redis), [f"{n:032x}" for n in range(1000)]
        page = [ServedItem(item, item, "for_you", 0.5) for item in range(50)]
        serves = [Serve("acme", user, "ab", NOW_S, "personalised", "", 1, "1", 0, 0, items=page) for user in users]
        await asyncio.gather(*(stream.served(serve) for serve in serves))
        for first in range(0, events, 10_000):
            batches = [
                stream.record("acme", users[n % 1000], [_event(n + k) for k in range(BATCH)], now_s=NOW_S)
                for n in range(first, first + 10_000, BATCH)
            ]
            await asyncio.gather(*batches)
        settings = IndexerSettings(snapshot_dir=folder / "snapshots")
        signals = Signals(redis, Archive(str(folder / "archive")), settings, clock=lambda: NOW_S)
        await signals.start()
        began, cpu_s = time.perf_counter(), time.process_time()
        await signals.drain()
        while await signals.tail.backlog():
            await signals.drain()
        took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_s
        await redis.aclose()
    return {"archived_events_per_s": events / took_s, "archived_events_per_cpu_s": events / cpu_s}


def _event(n: int) -> Event:
    return Event(UUID(int=n), Signal.WATCH, n % 50, NOW_S, NOW_S, 0.5, "ab12", 3)


async def full_journal(folder: Path) -> dict[str, float]:
    """CPU of a first page, the journal's read included, for 50 entries and for as many as are kept."""
    view = _view(folder / "base")
    with store(folder / "store") as url:
        redis = Redis.from_url(url, protocol=2)
        journals = LimitedJournals(redis, per_user=Rate(0, 0), per_key=Rate(0, 0))
        costs: dict[int, list[float]] = {50: [], FULL: []}
        for entries in costs:
            await redis.set(keys.journal("acme", f"{entries:032x}"), _history(entries).tobytes())
        for _ in range(300):  # in turns, so that whatever else this machine does meets both alike
            for entries, found in costs.items():
                asked = Asked(view, f"{entries:032x}", 20, Context(now_s=NOW_S, seed=1))
                found.append(await _cost_us(asked, Stores(journals, None)))  # type: ignore[arg-type]
        small_us, full_us = (float(np.median(found[50:])) for found in costs.values())
        await redis.aclose()
    return {
        "feed_cpu_us_50_entries": small_us,
        "feed_cpu_us_full_journal": full_us,
        "full_journal_more_cpu_percent": 100 * (full_us / small_us - 1),
    }


async def _cost_us(asked: Asked, stores: Stores) -> float:
    began = time.process_time_ns()
    await first_page(asked, stores)
    return (time.process_time_ns() - began) / 1000


def _history(entries: int) -> np.ndarray:
    """Pages served, and of every third item an impression, a watch, now and then a like."""
    rng = np.random.default_rng(1)
    journal = np.zeros(entries, ENTRY)
    journal["at_s"] = NOW_S - np.arange(entries)[::-1] * 60
    journal["item"] = rng.integers(0, VIDEOS, entries)
    journal["signal"] = rng.choice(
        [Signal.SERVED, Signal.IMPRESSION, Signal.WATCH, Signal.LIKE], entries, p=[0.5, 0.25, 0.2, 0.05]
    )
    journal["strength"] = 255
    return journal


def _view(folder: Path) -> View:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(50, DIM))[rng.integers(0, 50, VIDEOS)] + 1.2 * rng.normal(size=(VIDEOS, DIM))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = Rows.from_videos([_video(n) for n in range(VIDEOS)], vectors.astype(np.float32))
    segment = Segment.open(folder, Segment.write(folder, rows))
    snapshot = Snapshot("acme", 1, 1, "m", DIM, (segment,), np.zeros(0, np.uint32))
    popular = Popularity.alike(rng.random(VIDEOS).astype(np.float32))
    return View.of(Tenant("acme", "acme", "active", b"p" * 32, 1, NOW_S), resolve(), "1.0", snapshot, popular)


def _video(n: int) -> Video:
    return Video(
        item=n, id=f"v{n}", title=f"Video {n}", description="", transcript="", tags=(f"t{n % 50}",),
        categories=(f"c{n % 12}",), creator=f"m{n % 500}", playlists=(), language="en", countries=(), ratings=(),
        media_url="https://cdn.example/v.mp4", poster_url=None, duration_s=60, published_s=NOW_S - 100 * n,
        available_from_s=0, available_until_s=OPEN_END_S, status="published", vector=None, text_hash=b"0" * 16,
        version=1, quarantine=None, created_s=NOW_S, updated_s=NOW_S,
    )  # fmt: skip


def erasure(folder: Path, events: int) -> dict[str, float]:
    """Seconds to erase one user who was active on every one of 90 compacted days, old versions included."""
    archive = Archive(str(folder / "archive"))
    table, per_day, users = archive.table("events"), events // DAYS, max(events // 250, 1)
    for day in range(DAYS):
        rows = QueryBuilder().execute(_day_of_events(day, per_day, users))
        write_deltalake(table, rows, mode="append", target_file_size=60 * 25_000)
    victim = md5(b"5", usedforsecurity=False).hexdigest()
    began = time.perf_counter()
    counts = archive.erase([("acme", victim)])
    archive.sweep()
    return {
        "erasure_s": time.perf_counter() - began,
        "erasure_from_events": per_day * DAYS,
        "erased_events": counts["acme", victim]["events"],
        "archive_files": len(archive.files()),
    }


def _day_of_events(day: int, rows: int, users: int) -> str:
    at_s = (NOW_S // 86_400 - DAYS + 1 + day) * 86_400
    name = (date(1970, 1, 1) + timedelta(days=at_s // 86_400)).isoformat()
    return f"""
    SELECT DATE '{name}' AS date, 'acme' AS tenant, md5(CAST(value % {users} AS VARCHAR)) AS user_key,
      md5(CAST(value AS VARCHAR)) AS event_id, CAST(value % 11 + 1 AS INT) AS signal,
      CAST(value * 7919 % 10000 AS INT) AS item, CAST({at_s} + value % 86400 AS BIGINT) AS at_s,
      CAST({at_s} + value % 86400 AS BIGINT) AS received_s, CAST(0.5 AS FLOAT) AS value,
      substr(md5(CAST(value / 20 AS VARCHAR)), 1, 24) AS request_id, CAST(value % 50 AS INT) AS position
    FROM generate_series({day * rows + 1}, {(day + 1) * rows}) ORDER BY tenant, user_key, at_s
    """  # noqa: S608 - numbers of our own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, help="how long feeds and events are offered")
    parser.add_argument("--folder", type=Path, help="where the files go, to measure a given disk; default: /tmp")
    parser.add_argument(
        "--only", choices=("journal", "archiving", "erasure", "fsync", "beside"), help="one measurement"
    )
    parser.add_argument("--events", type=int, default=1_000_000, help="events in the archive of the erasure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="signals-", dir=options.folder) as name:
        folder = Path(name)
        measurements: dict[str, Callable[[], dict[str, float]]] = {
            "journal": lambda: asyncio.run(full_journal(folder / "journal")),
            "archiving": lambda: asyncio.run(archiving(folder / "archiving", 100_000)),
            "erasure": lambda: erasure(folder / "erasure", options.events),
            "fsync": lambda: asyncio.run(fsync(folder / "fsync", options.seconds)),
            "beside": lambda: beside(folder / "beside", options.seconds),
        }
        facts: dict[str, float] = {}
        for measurement in [options.only] if options.only else measurements:
            facts |= measurements[measurement]()
    for fact, number in facts.items():
        print(f"{fact:32} {number:12,.2f}   {TARGETS.get(fact, '')}")
    print(json.dumps({fact: round(number, 2) for fact, number in facts.items()}))


if __name__ == "__main__":
    main()
