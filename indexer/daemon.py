"""The daemon: `once()` brings every tenant up to date; `run()` keeps doing it. Tenants are independent of each other.

Two daemons share the work by leases. A lease saves double work and no more: what makes it safe is that publishing is
compare-and-swap, so a holder that slept through its lease finds its generation refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from indexer.rebuild import Rebuild, Tenant
from indexer.status import clear_failure, record_failure
from retrieval.errors import FeedError, LeaseLost, SnapshotCorrupt, StaleGeneration, StoreUnavailable
from retrieval.leases import Leases
from retrieval.store import Store

log = structlog.get_logger("indexer")

RETRY_MAX_S = 60.0


@dataclass
class Attempt:
    """A tenant at work: what is remembered of it, and when it may be tried again after failures."""

    tenant: Tenant
    task: asyncio.Task[None] | None = None
    failures: int = 0
    retry_at_s: float = 0.0
    left_to_another: bool = False

    @property
    def running(self) -> bool:
        return self.task is not None and not self.task.done()

    @property
    def folding(self) -> bool:
        return self.tenant.fold is not None and not self.failures

    def behind(self, wanted: int, store: Store) -> bool:
        """Whether there is work: an unpublished change, a finished fold, a CURRENT that names
        nothing (any more), or nothing known yet about what is there."""
        fold, manifest = self.tenant.fold, self.tenant.manifest
        if manifest is None or manifest.version < wanted or (fold is not None and fold.done()):
            return True
        try:
            return store.pointer(self.tenant.id) is None
        except SnapshotCorrupt:
            return True


@dataclass
class Daemon:
    """Works on all active tenants of a catalogue. `holder` names this process in leases."""

    rebuild: Rebuild
    leases: Leases
    holder: str
    attempts: dict[str, Attempt] = field(default_factory=dict)

    async def once(self) -> int:
        """Bring every tenant up to date, folds included. Returns how many tenants failed (see `status` for why).

        A tenant another indexer is at is waited for. Raises StoreUnavailable when the catalogue cannot be read at all.
        """
        await self.begin_due()
        while busy := [a for a in self.attempts.values() if a.running or a.left_to_another or a.folding]:
            waiting = [task for a in busy for task in (a.task, a.tenant.fold) if task is not None and not task.done()]
            if waiting:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(self.rebuild.settings.poll_s)
            await self.begin_due()
        return sum(1 for attempt in self.attempts.values() if attempt.failures)

    async def rebuild_from_nothing(self, tenant_id: str) -> None:
        """Build a tenant's whole index anew, beside the old one, and switch; waits until no other indexer is at it.

        Raises NotFound, StoreUnavailable, StaleGeneration, OSError.
        """
        await self.alone(tenant_id, self.rebuild.from_nothing)

    async def alone(self, tenant_id: str, work: Callable[[Tenant], Awaitable[None]]) -> None:
        """Do `work` on a tenant once no other indexer is at it. Raises what `work` raises."""
        while not await self._while_leased(Tenant(tenant_id), work):
            log.info("waiting", tenant=tenant_id, reason="another indexer is at it")
            await asyncio.sleep(self.rebuild.settings.poll_s)

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`: look for changes every `poll_s` and work on what differs, never waiting for one tenant."""
        while not stop.is_set():
            try:
                await self.begin_due()
            except StoreUnavailable as error:
                log.warning("catalogue_unavailable", error=str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self.rebuild.settings.poll_s)
        await self._finish()

    async def begin_due(self) -> None:
        """Start work on every tenant that differs from its catalogue, is not being worked on, and may be retried."""
        versions = await self.rebuild.catalogue.versions()
        for gone in set(self.attempts) - set(versions):
            if not self.attempts[gone].running:
                del self.attempts[gone]
        for tenant, wanted in versions.items():
            attempt = self.attempts.setdefault(tenant, Attempt(Tenant(tenant)))
            if attempt.running or attempt.retry_at_s > time.monotonic():
                continue
            if attempt.behind(wanted, self.rebuild.store):
                attempt.task = asyncio.create_task(self._work(attempt))

    async def _work(self, attempt: Attempt) -> None:
        tenant, attempt.left_to_another = attempt.tenant, True
        try:
            if not await self._while_leased(tenant, self._catch_up):
                attempt.retry_at_s = time.monotonic() + self.rebuild.settings.poll_s
                return
        except (StaleGeneration, LeaseLost) as error:
            log.info("overtaken", tenant=tenant.id, by=str(error))
        except Exception as error:  # one tenant's failure, whatever it is, must not stop the others
            tenant.shows(None, None, None)  # begin from the disk next time: what is remembered may be what is wrong
            attempt.left_to_another = False
            attempt.failures += 1
            attempt.retry_at_s = time.monotonic() + min(RETRY_MAX_S, 2.0**attempt.failures)
            expected = isinstance(error, FeedError | OSError)
            log.error("failed", tenant=tenant.id, attempt=attempt.failures, error=repr(error), exc_info=not expected)
            with contextlib.suppress(OSError):  # a full disk is in the log line above
                record_failure(self.rebuild.store, tenant.id, error)
        else:
            clear_failure(self.rebuild.store, tenant.id)
            attempt.failures, attempt.retry_at_s, attempt.left_to_another = 0, 0.0, False

    async def _catch_up(self, tenant: Tenant) -> None:
        while await self.rebuild.catch_up(tenant):
            pass

    async def _while_leased(self, tenant: Tenant, work: Callable[[Tenant], Awaitable[None]]) -> bool:
        """Do `work` on the tenant; False if another indexer is at it."""
        name, ttl_s = f"index:{tenant.id}", self.rebuild.settings.lease_s
        token = await self.leases.acquire(name, self.holder, ttl_s, int(time.time()))
        if token is None:
            return False
        renewing = asyncio.create_task(self._renew(name, token, ttl_s))
        try:
            await work(tenant)
        finally:
            renewing.cancel()
            with contextlib.suppress(StoreUnavailable):  # it runs out by itself
                await self.leases.release(name, self.holder, token)
        return True

    async def _renew(self, name: str, token: int, ttl_s: int) -> None:
        while True:
            await asyncio.sleep(ttl_s / 3)
            with contextlib.suppress(StoreUnavailable, LeaseLost):
                await self.leases.renew(name, self.holder, token, ttl_s, int(time.time()))

    async def _finish(self) -> None:
        """Let steps that are near their publish finish; what is not done in time is abandoned, which loses nothing."""
        running = [attempt.task for attempt in self.attempts.values() if attempt.running and attempt.task]
        if running:
            _, late = await asyncio.wait(running, timeout=5.0)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
