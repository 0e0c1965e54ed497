"""What the stores pay: CPU and memory of Redis, and bytes of the archive, per feed and per event.

    python -m benchmarks.stores [--users 1000]

A real Valkey with the options of the demo; each user reads a first page's journal, is served pages of 20, and posts
batches of 10 events. CPU is the server's own, user and system. Everything is then archived and compacted by the
indexer's code. `benchmarks/capacity.py` multiplies these figures. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import numpy as np
import psutil  # type: ignore[import-untyped]  # ships no types
from redis.asyncio import Redis

from deploy.local import valkey
from deploy.local.processes import spawn
from indexer.settings import IndexerSettings
from indexer.signals import Signals
from retrieval import keys
from retrieval.archive import Archive
from retrieval.archive_tables import EVENTS, SERVES
from retrieval.journal import Signal
from retrieval.limits import LimitedJournals, Rate
from retrieval.serves import Serve, ServedItem
from retrieval.stream import Event, Stream
from tests.support.redis_server import free_port
from tests.support.running import eventually

NOW_S = 1_795_000_000
TENANT = "acme"
PAGE, BATCH, ROUNDS = 20, 10, 5
CATALOGUE = 10_000
TOGETHER = 16
"""Requests whose calls share a round trip: what a busy worker has in flight."""


class Bench:
    """The store and the users; each step does one thing for every user."""

    def __init__(self, url: str, server: psutil.Process, users: int) -> None:
        self.redis, self.server = Redis.from_url(url, protocol=2), server
        self.stream = Stream(self.redis)
        rate = Rate(1e6, 1_000_000)
        self.journals = LimitedJournals(self.redis, per_user=rate, per_key=rate)
        self.users = [uuid4().hex for _ in range(users)]
        self.chance = np.random.default_rng(1)

    async def cpu_us(self, step: Callable[[str, int], Awaitable[object]]) -> float:
        """CPU of the server per call, the users in turn."""
        before = self._server_s()
        for round_ in range(ROUNDS):
            for first in range(0, len(self.users), TOGETHER):
                await asyncio.gather(*(step(user, round_) for user in self.users[first : first + TOGETHER]))
        return 1e6 * (self._server_s() - before) / (ROUNDS * len(self.users))

    def _server_s(self) -> float:
        used = self.server.cpu_times()
        return float(used.user + used.system)

    async def read(self, user: str, _: int) -> None:
        """What a first page asks."""
        await self.journals.read(TENANT, user, "key")

    async def served(self, user: str, _: int) -> None:
        """What a page leaves."""
        drawn = self.chance.choice(CATALOGUE, PAGE, replace=False).tolist()
        items = [ServedItem(item, n, "for_you", float(self.chance.random()), 1.0) for n, item in enumerate(drawn)]
        page = Serve(
            request_id=uuid4().hex[:24],
            tenant=TENANT,
            user_key=user,
            at_s=NOW_S,
            mode="personalised",
            surface="home",
            generation=3,
            policy_version="1.2",
            seed=9,
            journal_position=7,
            items=items,
        )
        await self.stream.served(page)

    async def posted(self, user: str, round_: int) -> None:
        """A batch: an impression and a watch of half the number of videos."""
        kinds, request_id, at_s = (Signal.IMPRESSION, Signal.WATCH), uuid4().hex[:24], NOW_S + round_
        drawn = self.chance.integers(CATALOGUE, size=BATCH).tolist()
        batch = [
            Event(uuid4(), kinds[n % 2], drawn[n // 2], at_s, at_s, float(self.chance.random()), request_id, n // 2)
            for n in range(BATCH)
        ]
        await self.stream.record(TENANT, user, batch, now_s=NOW_S)

    async def bytes_of(self, name: str) -> float:
        """Memory of one key in the server."""
        return float(await self.redis.memory_usage(name) or 0)

    async def stream_bytes(self) -> float:
        """Memory of the streams of all shards."""
        return sum([await self.bytes_of(keys.stream(shard)) for shard in range(keys.SHARDS)])


async def measured(folder: Path, url: str, server: psutil.Process, users: int) -> dict[str, float]:
    """Every figure, by name."""
    bench = Bench(url, server, users)
    facts = {"redis_us_per_served_page": await bench.cpu_us(bench.served)}
    serves_bytes = await bench.stream_bytes()
    facts["redis_us_per_batch_of_10"] = await bench.cpu_us(bench.posted)
    facts["redis_us_per_first_page"] = await bench.cpu_us(bench.read)
    pages, events = ROUNDS * users, ROUNDS * users * BATCH
    entries = ROUNDS * (PAGE + BATCH)
    user = bench.users[0]
    facts["redis_bytes_per_journal_entry"] = await bench.bytes_of(keys.journal(TENANT, user)) / entries
    taken = await bench.bytes_of(keys.taken(TENANT, user, NOW_S // 86_400))
    facts["redis_bytes_per_known_event_id"] = taken / (ROUNDS * BATCH)
    facts["redis_bytes_per_waiting_page"] = serves_bytes / pages
    facts["redis_bytes_per_waiting_event"] = (await bench.stream_bytes() - serves_bytes) / events
    archive = Archive(str(folder / "archive"))
    signals = Signals(bench.redis, archive, IndexerSettings(), clock=lambda: NOW_S)
    await signals.start()
    await signals.drain()
    archive.compact()
    for table, rows, name in ((EVENTS, events, "event"), (SERVES, pages, "page")):
        files = [Path(uri.removeprefix("file://")) for uri in archive.table(table).file_uris()]
        facts[f"archive_bytes_per_{name}"] = sum(path.stat().st_size for path in files) / rows
    await bench.redis.aclose()
    return facts


def main() -> None:
    """Print every figure, and all of them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1000)
    users = parser.parse_args().users
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        (folder / "store").mkdir()
        command = valkey.server_command(port, folder / "store", valkey.DURABLE)
        child = spawn("store", command, folder / "store.log", env={}, grace_s=5.0)
        try:
            eventually(lambda: valkey.answers(port))
            server = psutil.Process(child.process.pid)
            facts = asyncio.run(measured(folder, f"redis://{valkey.HOST}:{port}/0", server, users))
        finally:
            child.stop()
    for fact, number in facts.items():
        print(f"{fact:34} {number:10,.1f}")
    print(json.dumps({fact: round(number, 2) for fact, number in facts.items()}))


if __name__ == "__main__":
    main()
