"""What is newest, in memory: configuration, snapshots and popularity of every tenant, swapped whole.

A request takes one `View` and keeps it; the loops here replace views behind its back. Nothing on the feed path waits
for SQL or disk. With SQL away the last configuration stays, with a damaged snapshot the last good generation, and a
start with SQL away begins from the last good copy on local disk.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from retrieval import config as configs
from retrieval.catalogue import Catalogue
from retrieval.config import Config
from retrieval.counters import Counters, Popularity, popularity, version_of
from retrieval.errors import FeedError, NotFound, SnapshotCorrupt
from retrieval.loops import uncancelled
from retrieval.snapshot import Snapshot
from retrieval.store import Pointer, Store
from retrieval.view import View

log = structlog.get_logger("retrieval")

NOTHING: Final = np.zeros(0, np.uint32)

REFUSED_S = 10.0
"""A generation that could not be opened is tried again after so long: its files may have been mended, or the fault
been one of the moment (no file descriptors, no memory)."""


class Live:
    """The newest views, and the loops that keep them so. `copy` is where the last good configuration is kept.

    `refreshed_s` and `counted_s`: when snapshots and counters were last looked at, unix seconds; 0 before the first
    time.
    """

    def __init__(self, engine: AsyncEngine, store: Store, counters: Counters, *, dim: int, copy: Path) -> None:
        self.engine = engine
        self.catalogue = Catalogue(engine)
        self.store = store
        self.counters = counters
        self.dim = dim
        self.copy = copy
        self.config = Config()
        self.refreshed_s = 0.0
        self.counted_s = 0.0
        self._views: dict[str, View] = {}
        self._pointers: dict[str, Pointer] = {}
        self._refused: dict[str, tuple[Pointer | None, float]] = {}
        self._popularity: dict[str, Popularity] = {}
        self._down: dict[str, npt.NDArray[np.uint32]] = {}
        self._failing: dict[str, str] = {}
        self._loops: list[asyncio.Task[None]] = []

    def view(self, tenant: str) -> View:
        """The tenant as it is now. Raises NotFound."""
        view = self._views.get(tenant)
        if view is None:
            raise NotFound("tenant", tenant)
        return view

    def shown(self, tenant: str) -> View | None:
        """The same, None for a tenant that is not loaded."""
        return self._views.get(tenant)

    @property
    def refused(self) -> list[str]:
        """Tenants whose newest index cannot be read: the one before it is served."""
        return list(self._refused)

    @property
    def ready(self) -> bool:
        """Whether there is a configuration to serve from: SQL's, though it may name no tenant yet, or the last copy."""
        return self.config.version >= 0 or bool(self.config.tenants)

    async def start(self, *, config_s: float, snapshots_s: float, counters_s: float) -> None:
        """Load everything once, as far as the stores answer, then keep it fresh at the given intervals (seconds)."""
        self.config = await asyncio.to_thread(configs.restore, self.copy)
        await self._attempt("config", self.refresh_config)
        # Counters first: a view is then made once, of both.
        await self._attempt("counters", self.refresh_counters)
        await self._attempt("snapshots", self.refresh_snapshots)
        await self._attempt("takedowns", self.refresh_takedowns)
        for name, step, every_s in (
            ("config", self.refresh_config, config_s),
            ("snapshots", self.refresh_snapshots, snapshots_s),
            ("counters", self.refresh_counters, counters_s),
            ("takedowns", self.refresh_takedowns, config_s),
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
            for known in (self._views, self._pointers, self._refused, self._popularity, self._down):
                known.pop(gone, None)
        for tenant, view in list(self._views.items()):
            shown = view.tenant, view.policy_version, view.given
            if shown != (config.tenants[tenant], config.policy_versions[tenant], config.policies[tenant]):
                await self._attempt("policy", partial(self._show, tenant))
        await asyncio.to_thread(self._save, config)

    async def refresh_snapshots(self) -> None:
        """Open what was published since the last look. A damaged generation is refused, the one before it stays."""
        for tenant in list(self.config.tenants):
            await self._attempt("snapshot", partial(self._refresh_snapshot, tenant))
        self.refreshed_s = time.time()

    async def refresh_counters(self) -> None:
        """Read what the indexer counted lately and derive popularity anew, of each tenant whose counts have changed.

        Time is among them: the indexer publishes windows that have faded as other counts. Raises StoreUnavailable: the
        old popularity stays.
        """
        for tenant in list(self.config.tenants):
            windows = await self.counters.windows(tenant)
            view = self._views.get(tenant)
            if view is None or view.popularity.version != version_of(windows):
                self._popularity[tenant] = await asyncio.to_thread(popularity, windows)
                await self._show(tenant)
        self.counted_s = time.time()

    async def refresh_takedowns(self) -> None:
        """Stop serving what was taken down since the snapshots were made: that does not wait for an index.

        Raises StoreUnavailable: what was known to be down stays down.
        """
        for tenant, version in (await self.catalogue.versions()).items():
            view = self._views.get(tenant)
            if view is None:
                continue
            behind = version > view.snapshot.version
            down = await self.catalogue.down_since(tenant, view.snapshot.version) if behind else NOTHING
            if not np.array_equal(down, view.down):
                self._down[tenant] = down
                await self._show(tenant)

    async def _refresh_snapshot(self, tenant: str) -> None:
        pointer = None
        try:
            pointer = self.store.pointer(tenant)
            if not self._is_news(tenant, pointer):
                return
            snapshot = await asyncio.to_thread(self._open, tenant, pointer)
        except SnapshotCorrupt as error:
            self._refuse(tenant, pointer, error)
            if tenant not in self._views:
                await self._show(tenant, await asyncio.to_thread(self._last_good, tenant))
            return
        await self._show(tenant, snapshot)
        self._refused.pop(tenant, None)
        if pointer is not None:
            self._pointers[tenant] = pointer

    def _is_news(self, tenant: str, pointer: Pointer | None) -> bool:
        if tenant not in self._views:
            return True
        if pointer is None or pointer == self._pointers.get(tenant):  # None: what was shown is gone from the disk
            return False
        refused, until_s = self._refused.get(tenant, (None, 0.0))
        return pointer != refused or time.monotonic() >= until_s

    def _open(self, tenant: str, pointer: Pointer | None) -> Snapshot:
        if pointer is None:
            return Snapshot.empty(tenant, self.dim)
        previous = self._views.get(tenant)
        return self.store.open(self.store.manifest(tenant, pointer), previous.snapshot if previous else None)

    def _last_good(self, tenant: str) -> Snapshot:
        """The newest generation on disk that is whole, for a start while CURRENT's is not; an empty one if none is."""
        for pointer in self.store.kept(tenant):
            try:
                return self._open(tenant, pointer)
            except SnapshotCorrupt:
                continue
        return Snapshot.empty(tenant, self.dim)

    def _refuse(self, tenant: str, pointer: Pointer | None, error: SnapshotCorrupt) -> None:
        """Leave a damaged generation alone for a while, and say so once."""
        if tenant not in self._refused or self._refused[tenant][0] != pointer:
            log.error("snapshot_refused", tenant=tenant, error=str(error))
        self._refused[tenant] = pointer, time.monotonic() + REFUSED_S

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
                self._down.get(tenant, NOTHING),
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
        except Exception as error:  # a loop that ended would leave this worker serving the past for ever
            if self._failing.get(name) == repr(error):
                return  # it has been said; not again several times a second until it is mended
            self._failing[name] = repr(error)
            if isinstance(error, FeedError | OSError):
                log.warning("refresh_failed", what=name, error=str(error))
            else:
                log.error("refresh_failed", what=name, exc_info=error)
        else:
            if self._failing.pop(name, None) is not None:
                log.info("refreshed_again", what=name)

    async def _repeat(self, name: str, step: Callable[[], Awaitable[None]], every_s: float) -> None:
        while uncancelled():
            await asyncio.sleep(every_s)
            await self._attempt(name, step)
