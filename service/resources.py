"""What a worker process holds open, from its start to its end."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from sqlalchemy.ext.asyncio import AsyncEngine

from retrieval.catalogue import Catalogue
from retrieval.chains import Chains
from retrieval.counters import Counters
from retrieval.database import connect
from retrieval.flag_stores import FlagMirror, FlagStores, FlagTable, KillFiles
from retrieval.journal import Journals
from retrieval.live import Live
from retrieval.policies import Policies
from retrieval.store import Store
from retrieval.tenants import Tenants
from service.cursor import Cursors, local_secret
from service.feed import Stores
from service.flags import LiveFlags
from service.settings import ServiceSettings

FLAGS_TIMEOUT_S: Final = 0.5
"""Longest wait for the mirror of the flags; its loop must notice soon when it is back."""


@dataclass(frozen=True)
class Resources:
    """`journals` answers within the feed's time limit; `written` and `counters` are for storing, which may take longer.

    `clock` gives unix seconds.
    """

    settings: ServiceSettings
    engine: AsyncEngine
    live: Live
    flags: LiveFlags
    journals: Journals
    written: Journals
    counters: Counters
    chains: Chains
    cursors: Cursors
    catalogue: Catalogue
    tenants: Tenants
    policies: Policies
    clock: Callable[[], float] = time.time

    @property
    def feed_stores(self) -> Stores:
        return Stores(self.journals, self.chains)

    @property
    def now_s(self) -> int:
        return int(self.clock())


@asynccontextmanager
async def opened(settings: ServiceSettings) -> AsyncIterator[Resources]:
    """All resources, with everything loaded once. Starts also with SQL and Redis away."""
    engine = connect(settings.database_url)
    reader = _redis(settings.redis_url, settings.redis_timeout_ms / 1000)
    writer = _redis(settings.redis_url, settings.redis_write_timeout_ms / 1000)
    counters = Counters(writer)
    live = Live(
        engine,
        Store(settings.snapshot_dir),
        counters,
        dim=settings.vector_dim,
        copy=settings.state_dir / "config.json",
    )
    quick = _redis(settings.redis_url, FLAGS_TIMEOUT_S)
    flags = LiveFlags(
        FlagStores(FlagTable(engine), FlagMirror(quick)),
        KillFiles(settings.state_dir),
        copy=settings.state_dir / "flags.json",
    )
    await flags.start()  # before the snapshots, which may take seconds to load
    await live.start(
        config_s=settings.config_poll_ms / 1000,
        snapshots_s=settings.snapshot_poll_ms / 1000,
        counters_s=settings.counters_poll_ms / 1000,
    )
    try:
        yield Resources(
            settings=settings,
            engine=engine,
            live=live,
            flags=flags,
            journals=Journals(reader, cap=settings.journal_entries),
            written=Journals(writer, cap=settings.journal_entries),
            counters=counters,
            chains=Chains(reader),
            cursors=Cursors(_cursor_secrets(settings)),
            catalogue=Catalogue(engine),
            tenants=Tenants(engine),
            policies=Policies(engine),
        )
    finally:
        await flags.stop()
        await live.stop()
        for redis in (reader, writer, quick):
            await redis.aclose()
        await engine.dispose()


def _cursor_secrets(settings: ServiceSettings) -> list[bytes]:
    given = [secret.strip().encode() for secret in settings.cursor_secrets.split(",") if secret.strip()]
    return given or [local_secret(settings.state_dir / "cursor.secret")]


def _redis(url: str, timeout_s: float) -> Redis:
    """A client that fails within its limit: the library's own defaults wait for seconds and try three times."""
    return Redis.from_url(
        url,
        protocol=2,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
    )
