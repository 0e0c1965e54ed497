"""The reconciling sweep: each tenant's catalogue is held against its CMS's own listing, to find what was lost.

    fetch (unless unchanged) -> create and change, batch by batch -> take down what is missing, if it is not too much

What a webhook or the API said later than the listing was made stays. Every tenant is swept by itself: one that is slow
or answers nonsense delays nobody, and how each look ended is kept with its address.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog

from indexer.fetching import fetched
from indexer.settings import IndexerSettings
from retrieval.catalogue import Catalogue
from retrieval.cms_listings import CmsListing, CmsListings
from retrieval.database import connect
from retrieval.deliveries import Deliveries
from retrieval.errors import FeedError, StoreUnavailable
from retrieval.leases import Leases
from retrieval.mirror import BATCH, Mirror

log = structlog.get_logger("indexer")

LOOK_EVERY_S: Final = 2.0
LEASE_S: Final = 1200
"""Longer than a fetch may take; a sweep whose process died is taken up after that."""


class ListingEmpty(FeedError):
    """A listing without a single video in it is taken for a mistake."""


@dataclass
class ListingSweep:
    """Sweeps the listings that are due. `holder` names this process in leases; `clock` gives unix seconds."""

    listings: CmsListings
    catalogue: Catalogue
    deliveries: Deliveries
    leases: Leases
    settings: IndexerSettings
    holder: str
    clock: Callable[[], float] = time.time
    _running: dict[str, asyncio.Task[str]] = field(default_factory=dict)

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`: look which listings are due, and sweep each in a task of its own."""
        while not stop.is_set():
            try:
                await self._begin_due()
            except StoreUnavailable as error:
                log.warning("listings_unavailable", error=str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_EVERY_S)
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def sweep(self, listing: CmsListing, *, forced: bool = False) -> str:
        """Hold a tenant against its listing, unless another process is at it; what came of it, in words.

        forced: fetch it also if it is unchanged, and take down however many are missing. Never raises but
        StoreUnavailable when not even the outcome could be noted.
        """
        name = f"listing:{listing.tenant_id}"
        token = await self.leases.acquire(name, self.holder, LEASE_S, int(self.clock()))
        if token is None:
            return "another process is at it"
        etag: str | None = None
        try:
            etag, outcome = await self._mirror(listing, forced=forced)
        except FeedError as error:
            outcome = f"failed: {error}"
            log.warning("listing_failed", tenant=listing.tenant_id, error=str(error))
        except Exception as error:  # whatever is in a listing, the next look must come
            outcome = "failed: something nobody foresaw; see the indexer's log"
            log.error("listing_failed", tenant=listing.tenant_id, exc_info=error)
        finally:
            with contextlib.suppress(StoreUnavailable):  # it runs out by itself
                await self.leases.release(name, self.holder, token)
        await self.listings.note(listing, outcome, int(self.clock()), etag=etag)
        return outcome

    async def _mirror(self, listing: CmsListing, *, forced: bool) -> tuple[str, str]:
        """(the ETag that was taken over, what changed). Raises FetchFailed, TooManyGone, StoreUnavailable."""
        began_s = int(self.clock())
        known = "" if forced else listing.etag
        async with fetched(listing.url, known, private_allowed=self.settings.listings_private) as answer:
            if answer.unchanged:
                return listing.etag, "unchanged"
            made_s = min(answer.made_s or began_s, began_s)
            mirror = Mirror(
                self.catalogue,
                listing.tenant_id,
                self.settings.vector_dim,
                began_s,
                newer=lambda ids: self._changed_since(listing.tenant_id, ids, made_s),
                made_s=made_s,
            )
            batch = []
            async for line in answer.lines:
                batch.append(line)
                if len(batch) == BATCH:
                    await mirror.add(batch)
                    batch = []
            await mirror.add(batch)
        if not mirror.seen:
            raise ListingEmpty("the listing has no videos")
        await mirror.take_down_missing(most_percent=100 if forced else listing.most_gone_percent)
        if any(mirror.counts[what] for what in ("created", "updated", "removed", "refused")):
            log.info("listing_applied", tenant=listing.tenant_id, **mirror.counts)
        return answer.etag, _worded(mirror)

    async def _changed_since(self, tenant: str, ids: Sequence[str], made_s: int) -> Collection[str]:
        changed_us = await self.deliveries.changed_us(tenant, ids)
        return {name for name, at_us in changed_us.items() if at_us >= made_s * 1_000_000}

    async def _begin_due(self) -> None:
        self._running = {name: task for name, task in self._running.items() if not task.done()}
        now_s = self.clock()
        for listing in await self.listings.all():
            if listing.tenant_id not in self._running and now_s >= listing.tried_s + listing.every_s:
                self._running[listing.tenant_id] = asyncio.create_task(self.sweep(listing))


@asynccontextmanager
async def opened_sweep(settings: IndexerSettings, holder: str) -> AsyncIterator[ListingSweep]:
    """The sweep with a connection of its own to the database."""
    engine = connect(settings.database_url)
    try:
        yield ListingSweep(CmsListings(engine), Catalogue(engine), Deliveries(engine), Leases(engine), settings, holder)
    finally:
        await engine.dispose()


async def run_sweep(settings: IndexerSettings, holder: str, stop: asyncio.Event) -> None:
    """Open and run it until `stop`."""
    async with opened_sweep(settings, holder) as sweeping:
        await sweeping.run(stop)


def _worded(mirror: Mirror) -> str:
    counts = ", ".join(f"{number} {what}" for what, number in mirror.counts.items())
    first = "".join(f"; line {line}: {said[:200]}" for line, _, said in mirror.problems[:3])
    return counts + first
