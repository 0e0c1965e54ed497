"""What a worker process holds open, from its start to its end."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from sqlalchemy.ext.asyncio import AsyncEngine

from retrieval.audit import Audit
from retrieval.catalogue import Catalogue
from retrieval.chains import Chains
from retrieval.cms_listings import CmsListings
from retrieval.counters import Counters
from retrieval.database import connect
from retrieval.deliveries import Deliveries
from retrieval.erasure import Erasures
from retrieval.flag_stores import FlagMirror, FlagStores, FlagTable, KillFiles
from retrieval.journal import Journals
from retrieval.leases import Leases
from retrieval.limits import LimitedJournals, Rate
from retrieval.live import Live
from retrieval.packed import PackedConnection
from retrieval.playlists import Playlists
from retrieval.policies import Policies
from retrieval.popularity_log import PopularityLog
from retrieval.serve_log import ServeLog
from retrieval.store import Store
from retrieval.stream import Stream
from retrieval.tenants import Tenants
from service.cursor import Cursors, local_secret
from service.feed import Stores
from service.flags import LiveFlags
from service.governor import Governor, Limits
from service.past import Past
from service.publishing import Publishing
from service.rates import LocalRates
from service.settings import ServiceSettings
from service.turns import Turns
from service.webhooks import Sweep

FLAGS_TIMEOUT_S: Final = 0.5
"""Longest wait for the mirror of the flags; its loop must notice soon when it is back."""


@dataclass(frozen=True)
class Resources:
    """`journals` answers within the feed's time limit; `written` is for storing, which may take longer.

    `pages` and `batches` are the rates of what does not read a journal first. `clock` gives unix seconds.
    """

    settings: ServiceSettings
    engine: AsyncEngine
    live: Live
    flags: LiveFlags
    journals: Journals
    limited: LimitedJournals
    pages: LocalRates
    batches: LocalRates
    written: Stream
    erasures: Erasures
    chains: Chains
    cursors: Cursors
    catalogue: Catalogue
    tenants: Tenants
    policies: Policies
    playlists: Playlists
    audit: Audit
    deliveries: Deliveries
    listings: CmsListings
    sweep: Sweep
    governor: Governor
    turns: Turns
    clock: Callable[[], float] = time.time

    @property
    def feed_stores(self) -> Stores:
        return Stores(self.limited, self.chains, self.turns)

    @cached_property
    def past(self) -> Past:
        """What it takes to make the pages of the last day again."""
        return Past(
            ServeLog(self.written.redis, self.settings.archive_url),
            Journals(self.written.redis),
            self.policies,
            self.live.store,
            PopularityLog(self.settings.snapshot_dir),
            self.live.view,
        )

    @property
    def publishing(self) -> Publishing:
        return Publishing(self.policies, self.playlists, self.live)

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
    sweep = Sweep(Deliveries(engine), live.catalogue, Leases(engine), dim=settings.vector_dim, clock=time.time)
    sweep.start()
    of_user = _rate(settings.user_requests_per_s, settings.burst_s)
    of_key = _rate(settings.key_requests_per_s, settings.burst_s)
    turns = Turns()
    try:
        yield Resources(
            settings=settings,
            engine=engine,
            live=live,
            flags=flags,
            journals=Journals(reader),
            limited=LimitedJournals(reader, per_user=of_user, per_key=of_key),
            pages=LocalRates(per_user=of_user, per_key=of_key),
            batches=LocalRates(
                per_user=_rate(settings.user_batches_per_s, settings.burst_s),
                per_key=_rate(settings.key_batches_per_s, settings.burst_s),
            ),
            written=Stream(
                writer,
                cap=settings.journal_entries,
                serve_share=settings.serve_log_share,
                fsync=settings.events_fsync,
                replicas=settings.events_replicas,
                busy=lambda: turns.awaited,
            ),
            erasures=Erasures(writer),
            chains=Chains(reader),
            cursors=Cursors(_cursor_secrets(settings)),
            catalogue=live.catalogue,
            tenants=Tenants(engine),
            policies=Policies(engine),
            playlists=Playlists(engine),
            audit=Audit(engine),
            deliveries=sweep.deliveries,
            listings=CmsListings(engine),
            sweep=sweep,
            turns=turns,
            governor=Governor(
                Limits(
                    narrow_s=settings.narrow_ms / 1000,
                    prefetch_s=settings.prefetch_ms / 1000,
                    plain_s=settings.plain_ms / 1000,
                    most_s=settings.backlog_ms / 1000,
                )
            ),
        )
    finally:
        await sweep.stop()
        await flags.stop()
        await live.stop()
        for redis in (reader, writer, quick):
            await redis.aclose()
        await engine.dispose()


def _rate(per_s: float, burst_s: float) -> Rate:
    return Rate(per_s, round(per_s * burst_s))


def _cursor_secrets(settings: ServiceSettings) -> list[bytes]:
    given = [secret.strip().encode() for secret in settings.cursor_secrets.split(",") if secret.strip()]
    return given or [local_secret(settings.state_dir / "cursor.secret")]


def _redis(url: str, timeout_s: float) -> Redis:
    """A client that fails within its limit: the library's own defaults wait for seconds and try three times."""
    return Redis.from_url(
        url,
        connection_class=PackedConnection,
        protocol=2,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
    )
