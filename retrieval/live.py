"""What is newest, in memory: configuration, snapshots and popularity of every tenant, swapped whole.

A request takes one `View` and keeps it; the loops here replace views behind its back. Nothing on the feed path waits
for SQL or disk. With SQL away the last configuration stays, with a damaged snapshot the last good generation, and a
start with SQL away begins from the last good copy on local disk.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from retrieval import config as configs
from retrieval.config import Config
from retrieval.counters import HOUR_S, WINDOW_HOURS, Counters, Popularity, popularity
from retrieval.errors import FeedError, NotFound, SnapshotCorrupt
from retrieval.snapshot import Snapshot
from retrieval.store import Pointer, Store
from retrieval.view import View

log = structlog.get_logger("retrieval")


class Live:
    """The newest views, and the loops that keep them so. `copy` is where the last good configuration is kept."""

    def __init__(self, engine: AsyncEngine, store: Store, counters: Counters, *, dim: int, copy: Path) -> None:
        self.engine = engine
        self.store = store
        self.counters = counters
        self.dim = dim
        self.copy = copy
        self.config = Config()
        self.refreshed_s = 0.0
        self._views: dict[str, View] = {}
        self._pointers: dict[str, Pointer | None] = {}
        self._refused: dict[str, Pointer] = {}
        self._popularity: dict[str, Popularity] = {}
        self._hours: dict[str, dict[int, dict[bytes, bytes]]] = {}
        self._loops: list[asyncio.Task[None]] = []

    def view(self, tenant: str) -> View:
        """The tenant as it is now. Raises NotFound."""
        view = self._views.get(tenant)
        if view is None:
            raise NotFound("tenant", tenant)
        return view

    @property
    def ready(self) -> bool:
        """Whether there is a configuration to serve from."""
        return bool(self.config.tenants)

    async def start(self, *, config_s: float, snapshots_s: float, counters_s: float) -> None:
        """Load everything once, as far as the stores answer, then keep it fresh at the given intervals (seconds)."""
        self.config = await asyncio.to_thread(configs.restore, self.copy)
        await self._attempt("config", self.refresh_config)
        await self._attempt("snapshots", self.refresh_snapshots)
        await self._attempt("counters", self.refresh_counters)
        for name, step, every_s in (
            ("config", self.refresh_config, config_s),
            ("snapshots", self.refresh_snapshots, snapshots_s),
            ("counters", self.refresh_counters, counters_s),
        ):
            self._loops.append(asyncio.create_task(self._repeat(name, step, every_s)))

    async def stop(self) -> None:
        """End the loops."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)

    async def refresh_config(self) -> None:
        """Take over tenants, keys and policies if they have changed. Raises StoreUnavailable: the old ones stay."""
        config = await configs.load(self.engine, self.config)
        if config is self.config:
            return
        self.config = config
        for gone in set(self._views) - set(config.tenants):
            for known in (self._views, self._pointers, self._popularity, self._hours):
                known.pop(gone, None)
        for tenant in list(self._views):
            await self._show(tenant)
        await asyncio.to_thread(self._save, config)

    async def refresh_snapshots(self) -> None:
        """Open what was published since the last look. A damaged generation is refused, the one before it stays."""
        for tenant in list(self.config.tenants):
            try:
                pointer = self.store.pointer(tenant)
                if tenant in self._views and pointer == self._pointers.get(tenant):
                    continue
                if pointer is not None and self._refused.get(tenant) == pointer:
                    continue
                self._refused.pop(tenant, None)
                await self._show(tenant, await asyncio.to_thread(self._open, tenant, pointer))
                self._pointers[tenant] = pointer
            except SnapshotCorrupt as error:
                log.error("snapshot_refused", tenant=tenant, error=str(error))
                await self._refuse(tenant)
        self.refreshed_s = time.time()

    async def refresh_counters(self) -> None:
        """Read the counters of the running hour (and once, of those before it) and derive popularity anew.

        Raises StoreUnavailable: the old popularity stays.
        """
        for tenant in list(self._views):
            hour = int(time.time() // HOUR_S)
            hours = self._hours.setdefault(tenant, {})
            # The hour before is read again too: events of its last seconds may have come late.
            wanted = [h for h in range(hour - WINDOW_HOURS + 1, hour + 1) if h not in hours or h >= hour - 1]
            hours |= await self.counters.hours(tenant, wanted)
            for old in [h for h in hours if h <= hour - WINDOW_HOURS]:
                del hours[old]
            self._popularity[tenant] = await asyncio.to_thread(popularity, hours, now_s=time.time())
            await self._show(tenant)

    def _open(self, tenant: str, pointer: Pointer | None) -> Snapshot:
        if pointer is None:
            return Snapshot.empty(tenant, self.dim)
        previous = self._views.get(tenant)
        try:
            return self.store.open(self.store.manifest(tenant, pointer), previous.snapshot if previous else None)
        except SnapshotCorrupt:
            newer = self.store.pointer(tenant)
            if newer is None or newer == pointer:
                raise
            # Swept away while we were opening it, because it is no longer the newest.
            return self._open(tenant, newer)

    async def _refuse(self, tenant: str) -> None:
        """Do not try a damaged generation again and again; serve an empty one if there never was a good one."""
        if tenant not in self._views:
            await self._show(tenant, Snapshot.empty(tenant, self.dim))
        try:
            pointer = self.store.pointer(tenant)
        except SnapshotCorrupt:
            return
        if pointer is not None:
            self._refused[tenant] = pointer

    async def _show(self, tenant: str, snapshot: Snapshot | None = None) -> None:
        """Swap in a view of `snapshot` (default: of the one shown now) under the present policy and popularity.

        Only `refresh_snapshots` brings a snapshot. When another loop was faster, begin again from what is there now.
        """
        while True:
            config, previous = self.config, self._views.get(tenant)
            shown = snapshot or (previous.snapshot if previous else None)
            if tenant not in config.tenants or shown is None:
                return
            view = await asyncio.to_thread(
                View.of,
                config.tenants[tenant],
                config.policies[tenant],
                config.policy_versions[tenant],
                shown,
                self._popularity.get(tenant, Popularity.nothing()),
                previous,
            )
            if self._views.get(tenant) is previous and self.config is config:
                self._views[tenant] = view
                return

    def _save(self, config: Config) -> None:
        try:
            configs.save(config, self.copy)
        except OSError as error:
            log.warning("last_good_copy_not_written", error=str(error))

    async def _attempt(self, name: str, step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
        except (FeedError, OSError) as error:
            log.warning("refresh_failed", what=name, error=str(error))
        except Exception as error:  # a loop that ended would leave this worker serving the past for ever
            log.error("refresh_failed", what=name, exc_info=error)

    async def _repeat(self, name: str, step: Callable[[], Awaitable[None]], every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            await self._attempt(name, step)
