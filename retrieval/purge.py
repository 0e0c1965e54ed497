"""Removing a tenant for good, in an order that can be interrupted and begun again.

    flag       off, and without its allow-list: what workers remember of it they would write back
    Redis      every key that names the tenant                      the request itself
    archive    its rows, and the files and versions that held them  the indexer, as for one user (retrieval.erasure)
    snapshots  its folder, while no indexer is at it
    SQL        every row, last, together with the entry in the audit

Until the last step the tenant is there and suspended, so the command can simply be given again. What stays: its audit,
which nothing can delete, and which has policies and titles of playlists; the flag; receipts and hashes of erased users,
for 90 days.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Table, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from retrieval import audit
from retrieval.database import bump_config, wipe, writing
from retrieval.erasure import Erasures
from retrieval.errors import InvalidInput, Problem, StoreUnavailable
from retrieval.flag_stores import FlagStores, bump_flags
from retrieval.keys import EVERYBODY
from retrieval.leases import Leases
from retrieval.store import Store
from retrieval.tables import (
    API_KEYS,
    CMS_LISTINGS,
    CMS_VERSIONS,
    DELIVERIES,
    DRAFTS,
    FLAGS,
    PLAYLISTS,
    POLICIES,
    TENANTS,
    VECTORS,
    VIDEOS,
    WEBHOOK_SECRETS,
)
from retrieval.tenants import Tenants

OF_A_TENANT: Final[tuple[Table, ...]] = (
    API_KEYS,
    CMS_LISTINGS,
    CMS_VERSIONS,
    DELIVERIES,
    DRAFTS,
    FLAGS,
    PLAYLISTS,
    POLICIES,
    VIDEOS,
    WEBHOOK_SECRETS,
)
"""Every table with a tenant in it but the audit."""
SETTLE_S: Final = 5.0
"""So long, requests that were under way when the tenant was suspended may still write."""
PATIENCE_S: Final = 60.0
"""So long, an indexer is waited for."""
LEASE_S: Final = 600
LOOK_EVERY_S: Final = 0.2


@dataclass(frozen=True)
class Purge:
    """The stores that hold something of a tenant."""

    engine: AsyncEngine
    erasures: Erasures
    store: Store
    flags: FlagStores

    async def purge(self, tenant_id: str, *, who: str, reason: str) -> dict[str, int]:
        """Remove a suspended tenant; how much of what was in each store.

        Raises NotFound, InvalidInput (it is served, or there is no reason), and StoreUnavailable when a store or the
        indexer does not answer in time.
        """
        await self.check(tenant_id)
        change = {"state": "off", "allow": [], "reason": reason}
        await self.flags.set(tenant_id, change, author=who, if_version=None, now_ms=int(time.time() * 1000))
        await asyncio.sleep(SETTLE_S)
        counts = await self._signals(tenant_id)
        async with self._alone(tenant_id):
            folder = self.store.root / tenant_id
            counts["snapshot_files"] = await asyncio.to_thread(_files, folder)
            await asyncio.to_thread(self.store.forget, tenant_id)
            counts |= await self._rows(tenant_id, counts, who=who, reason=reason)
        await wipe(self.engine)
        return counts

    async def check(self, tenant_id: str) -> None:
        """Whether it may be purged: its keys must be refused before anything goes. Raises like `purge`."""
        if (await Tenants(self.engine).get(tenant_id)).status != "suspended":
            raise InvalidInput([Problem("/tenant", f"{tenant_id} is served; only a suspended tenant can be purged")])

    async def _signals(self, tenant_id: str) -> dict[str, int]:
        """Journals and what was counted, then what the indexer finds in stream and archive."""
        erasure_id = await self.erasures.ask(tenant_id, EVERYBODY, now_s=int(time.time()))
        deadline = time.monotonic() + PATIENCE_S
        while (receipt := await self.erasures.receipt(tenant_id, erasure_id)).state != "done":
            if time.monotonic() > deadline:
                raise StoreUnavailable("the archive still holds it: start an indexer, then purge again")
            await asyncio.sleep(LOOK_EVERY_S)
        return dict(receipt.counts)

    @asynccontextmanager
    async def _alone(self, tenant_id: str) -> AsyncIterator[None]:
        """While no indexer is at the tenant: it would write its folder anew."""
        leases, name, holder = Leases(self.engine), f"index:{tenant_id}", f"purge-{secrets.token_hex(8)}"
        deadline = time.monotonic() + PATIENCE_S
        while (token := await leases.acquire(name, holder, LEASE_S, int(time.time()))) is None:
            if time.monotonic() > deadline:
                raise StoreUnavailable("an indexer is still at its index: purge again")
            await asyncio.sleep(LOOK_EVERY_S)
        try:
            yield
        finally:
            await leases.release(name, holder, token)

    async def _rows(self, tenant_id: str, before: dict[str, int], *, who: str, reason: str) -> dict[str, int]:
        async with writing(self.engine) as connection:
            await bump_config(connection)
            await bump_flags(connection)
            counts = {"vectors": await _delete_vectors(connection, tenant_id)}
            for table in OF_A_TENANT:
                gone = await connection.execute(delete(table).where(table.c.tenant_id == tenant_id))
                counts[str(table.name)] = gone.rowcount
            await connection.execute(delete(TENANTS).where(TENANTS.c.id == tenant_id))
            note: dict[str, Any] = {"who": who, "reason": reason, "now_s": int(time.time()), "after": before | counts}
            await audit.record(connection, "tenant.purge", tenant_id, **note)
        return counts


async def _delete_vectors(connection: AsyncConnection, tenant_id: str) -> int:
    """Those made of texts that no other tenant has; how many."""
    mine = select(VIDEOS.c.text_hash).where(VIDEOS.c.tenant_id == tenant_id)
    others = select(VIDEOS.c.text_hash).where(VIDEOS.c.tenant_id != tenant_id)
    of_mine_alone = VECTORS.c.text_hash.in_(mine), VECTORS.c.text_hash.not_in(others)
    return (await connection.execute(delete(VECTORS).where(*of_mine_alone))).rowcount


def _files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))
