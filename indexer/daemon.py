"""The daemon: `once()` brings every tenant up to date; `run()` keeps doing it. Tenants are independent of each other.

Two daemons share the work by leases. A lease saves double work and no more: what makes it safe is that publishing is
compare-and-swap, so a holder that slept through its lease finds its generation refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field

import structlog

from indexer.rebuild import Rebuild, Tenant
from indexer.status import clear_failure, record_failure
from retrieval.errors import FeedError, LeaseLost, StaleGeneration, StoreUnavailable
from retrieval.leases import Leases

log = structlog.get_logger("indexer")

RETRY_MAX_S = 60.0


@dataclass
class Attempt:
    """A tenant at work: what is remembered of it, and when it may be tried again after failures."""

    tenant: Tenant
    task: asyncio.Task[None] | None = None
    failures: int = 0
    retry_at_s: float = 0.0

    @property
    def running(self) -> bool:
        return self.task is not None and not self.task.done()

    def behind(self, wanted: int) -> bool:
        """Whether there is work: an unpublished change, a finished fold, or nothing known yet about what is there."""
        fold, manifest = self.tenant.fold, self.tenant.manifest
        return manifest is None or manifest.version < wanted or (fold is not None and fold.done())


@dataclass
class Daemon:
    """Works on all active tenants of a catalogue. `holder` names this process in leases."""

    rebuild: Rebuild
    leases: Leases
    holder: str
    attempts: dict[str, Attempt] = field(default_factory=dict)

    async def once(self) -> int:
        """Bring every tenant up to date, folds included. Returns how many tenants failed (see `status` for why).

        Raises StoreUnavailable when the catalogue cannot be read at all.
        """
        await self.begin_due()
        while busy := [a for a in self.attempts.values() if a.running or (a.tenant.fold and not a.failures)]:
            waiting = [task for a in busy for task in (a.task, a.tenant.fold) if task is not None and not task.done()]
            if waiting:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            await self.begin_due()
        return sum(1 for attempt in self.attempts.values() if attempt.failures)

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
            if not attempt.running and attempt.behind(wanted) and attempt.retry_at_s <= time.monotonic():
                attempt.task = asyncio.create_task(self._work(attempt))

    async def _work(self, attempt: Attempt) -> None:
        tenant = attempt.tenant
        try:
            if not await self._catch_up_while_leased(tenant):
                attempt.retry_at_s = time.monotonic() + self.rebuild.settings.poll_s
                return
        except (StaleGeneration, LeaseLost) as error:
            log.info("overtaken", tenant=tenant.id, by=str(error))
        except Exception as error:  # one tenant's failure, whatever it is, must not stop the others
            attempt.failures += 1
            attempt.retry_at_s = time.monotonic() + min(RETRY_MAX_S, 2.0**attempt.failures)
            expected = isinstance(error, FeedError | OSError)
            log.error("failed", tenant=tenant.id, attempt=attempt.failures, error=repr(error), exc_info=not expected)
            with contextlib.suppress(OSError):  # a full disk is in the log line above
                record_failure(self.rebuild.store, tenant.id, error)
        else:
            clear_failure(self.rebuild.store, tenant.id)
            attempt.failures, attempt.retry_at_s = 0, 0.0

    async def _catch_up_while_leased(self, tenant: Tenant) -> bool:
        """Bring the tenant up to date; False if another indexer is at it."""
        name, ttl_s = f"index:{tenant.id}", self.rebuild.settings.lease_s
        token = await self.leases.acquire(name, self.holder, ttl_s, int(time.time()))
        if token is None:
            return False
        renewing = asyncio.create_task(self._renew(name, token, ttl_s))
        try:
            while await self.rebuild.catch_up(tenant):
                pass
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
