"""The loop around the signals: one process at a time, whatever goes wrong tried again, at the end all put away."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog
from redis.asyncio import Redis

from indexer.retention import Report
from indexer.settings import IndexerSettings
from indexer.signals import Backlog, Signals
from retrieval.archive import Archive
from retrieval.errors import FeedError, LeaseLost, StoreUnavailable
from retrieval.leases import Leases
from retrieval.recent import Recent

log = structlog.get_logger("indexer")

LEASE: Final = "signals"
IDLE_S: Final = 0.25
RETRY_S: Final = 1.0
REDIS_TIMEOUT_S: Final = 10.0
LOOK_EVERY_S: Final = 2.0
RECENT_EVERY_S: Final = 300.0


@dataclass
class SignalLoop:
    """Runs `Signals` while it holds the lease, again and again. `holder` names this process.

    How things are, for whoever watches: `working` while it holds the lease, and what was last seen of the rest.
    """

    signals: Signals
    leases: Leases
    holder: str
    working: bool = False
    backlog: Backlog | None = None
    recent: Sequence[Recent] = ()
    report: Report | None = None
    reported_s: float = 0.0
    _due_s: dict[str, float] = field(default_factory=dict)
    _hour: int = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`; then what waits is archived. Whatever goes wrong is logged and tried again."""
        while not stop.is_set():
            try:
                await self._while_leased(stop)
            except (FeedError, OSError) as error:
                log.warning("signals_failed", error=f"{type(error).__name__}: {error}")
            except Exception as error:  # a loop that ended would let the stream grow until Redis is full
                log.error("signals_failed", exc_info=error)
            await _pause(stop, RETRY_S)

    async def once(self) -> Report:
        """Drain, publish, erase and retain, once. Raises LeaseLost when another process is at it."""
        token = await self._acquire()
        if token is None:
            raise LeaseLost("another process works on the signals")
        try:
            await self.signals.start()
            await self.signals.drain()
            await self.signals.publish()
            await self.signals.erase()
            return await self.signals.retain()
        finally:
            await self._release(token)

    async def _while_leased(self, stop: asyncio.Event) -> None:
        token = await self._acquire()
        if token is None:
            return
        renewing = asyncio.create_task(self._renew(token))
        try:
            await self.signals.start()
            self.working = True
            while not stop.is_set() and not renewing.done():
                await self._step()
                await _pause(stop, IDLE_S)
            await self.signals.flush()
        finally:
            self.working = False
            renewing.cancel()
            await self._release(token)

    async def _step(self) -> None:
        signals, settings = self.signals, self.signals.settings
        waiting = await signals.read()
        while waiting >= settings.signals_rows:
            await signals.flush()
            waiting = await signals.read()
        if self._due("flush", settings.signals_flush_s):
            await signals.flush()
        await signals.erase()
        if self._due("publish", settings.signals_publish_s):
            await signals.publish()
        if self._due("retain", settings.retention_every_s):
            self.report, self.reported_s = await signals.retain(), signals.clock()
            log.info("retained", **self.report.as_dict())
        if self._due("look", LOOK_EVERY_S):
            self.backlog = await signals.backlog()
        if self._due("recent", RECENT_EVERY_S):
            self.recent = await signals.recent()

    def _due(self, name: str, every_s: float) -> bool:
        now_s = time.monotonic()
        if now_s < self._due_s.get(name, 0.0):
            return False
        self._due_s[name] = now_s + every_s
        return True

    async def _acquire(self) -> int | None:
        return await self.leases.acquire(LEASE, self.holder, self.signals.settings.lease_s, int(time.time()))

    async def _release(self, token: int) -> None:
        with contextlib.suppress(StoreUnavailable):  # it runs out by itself
            await self.leases.release(LEASE, self.holder, token)

    async def _renew(self, token: int) -> None:
        ttl_s = self.signals.settings.lease_s
        while True:
            await asyncio.sleep(ttl_s / 3)
            try:
                await self.leases.renew(LEASE, self.holder, token, ttl_s, int(time.time()))
            except LeaseLost:
                return
            except StoreUnavailable:
                continue


@asynccontextmanager
async def opened_signals(settings: IndexerSettings, leases: Leases, holder: str) -> AsyncIterator[SignalLoop]:
    """The loop with its own connection to Redis. Opens the archive. Raises StoreUnavailable."""
    redis = Redis.from_url(settings.redis_url, protocol=2, socket_timeout=REDIS_TIMEOUT_S)
    try:
        archive = await asyncio.to_thread(Archive, settings.archive_url)
        yield SignalLoop(Signals(redis, archive, settings), leases, holder)
    finally:
        await redis.aclose()


async def run_signals(
    settings: IndexerSettings,
    leases: Leases,
    holder: str,
    stop: asyncio.Event,
    opened: Callable[[SignalLoop], None] = lambda _loop: None,
) -> None:
    """Open and run the loop until `stop`. An archive that cannot be opened is tried again, and stops nobody else.

    `opened` is told of each loop before it runs.
    """
    while not stop.is_set():
        try:
            async with opened_signals(settings, leases, holder) as loop:
                opened(loop)
                await loop.run(stop)
        except (FeedError, OSError) as error:
            log.warning("archive_unavailable", error=str(error))
            await _pause(stop, RETRY_S)


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
