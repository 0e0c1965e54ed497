"""Purging a tenant: what may be purged, what happens without an indexer, and what other tenants keep.

That nothing is left in any byte is shown by `tests/e2e/test_purge.py`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from retrieval import keys, purge
from retrieval.catalogue import Catalogue
from retrieval.erasure import Erasures
from retrieval.errors import InvalidInput, NotFound, StoreUnavailable
from retrieval.flag_stores import FlagMirror, FlagStores, FlagTable
from retrieval.leases import Leases
from retrieval.loops import uncancelled
from retrieval.purge import OF_A_TENANT, Purge
from retrieval.store import Store
from retrieval.tables import METADATA
from retrieval.tenants import Tenants
from retrieval.vectors import VectorCache
from retrieval.videos import parse_videos
from tests.support.databases import NOW_S
from tests.support.running import video

WHY = {"who": "ada", "reason": "contract ended"}


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client of the test server."""
    client = Redis.from_url(redis_url, protocol=2)
    yield client
    await client.aclose()


@pytest.fixture
async def purging(
    engine: AsyncEngine, redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Purge]:
    """Two tenants with a text of their own and one in common."""
    monkeypatch.setattr(purge, "SETTLE_S", 0.0)
    for tenant in ("acme", "acme-2"):
        await Tenants(engine).create(tenant, tenant, NOW_S)
        parsed = parse_videos([video("a", "Bread"), video("b", f"Trains of {tenant}")], 4)
        await Catalogue(engine).upsert(tenant, [one.video for one in parsed.accepted], NOW_S)
        for key in (
            keys.journal(tenant, "f" * 32),
            keys.windows(tenant),
            keys.counts(tenant, 9),
            keys.chain(tenant, "c"),
        ):
            await redis.set(key, tenant, ex=60)
    texts = {one.text_hash for tenant in ("acme", "acme-2") for one in await Catalogue(engine).page(tenant)}
    await VectorCache(engine).put("tiny", {text: np.ones(4, np.float32) for text in texts})
    yield Purge(engine, Erasures(redis), Store(tmp_path), FlagStores(FlagTable(engine), FlagMirror(redis)))


@pytest.fixture
def little_patience() -> Iterator[pytest.MonkeyPatch]:
    """`undo` it for as much as there is otherwise."""
    with pytest.MonkeyPatch.context() as impatient:
        impatient.setattr(purge, "PATIENCE_S", 1.5)
        yield impatient


@asynccontextmanager
async def an_indexer(purging: Purge) -> AsyncIterator[None]:
    """One that says of everything that is asked for that the archive has forgotten it."""

    async def work() -> None:
        while uncancelled():
            for one in await purging.erasures.pending():
                await purging.erasures.note(one, {"archived_events": 0}, done_s=NOW_S)
            await asyncio.sleep(0.01)

    working = asyncio.create_task(work())
    try:
        yield
    finally:
        working.cancel()
        await asyncio.wait([working])


async def test_only_what_is_suspended_is_purged(purging: Purge) -> None:
    """A tenant that is served, or is not there, is refused before anything goes."""
    with pytest.raises(InvalidInput, match="suspended"):
        await purging.purge("acme", **WHY)
    with pytest.raises(NotFound):
        await purging.purge("nobody", **WHY)
    assert len(await Catalogue(purging.engine).page("acme")) == 2


async def test_without_an_indexer_it_is_still_there_and_can_be_purged_later(
    purging: Purge, little_patience: pytest.MonkeyPatch
) -> None:
    """The archive cannot follow, and says so; the same call goes on from there, and touches nobody else."""
    await Tenants(purging.engine).suspend("acme", NOW_S)
    with pytest.raises(StoreUnavailable, match="start an indexer"):
        await purging.purge("acme", **WHY)
    assert (await Tenants(purging.engine).get("acme")).status == "suspended"
    little_patience.undo()
    async with an_indexer(purging):
        gone = await purging.purge("acme", **WHY)
    assert (gone["videos"], gone["vectors"]) == (2, 1)  # the other text is the other tenant's, too
    with pytest.raises(NotFound):
        await Tenants(purging.engine).get("acme")
    assert len(await Catalogue(purging.engine).page("acme-2")) == 2
    names: list[Any] = await purging.erasures.redis.keys("*")
    left = {keys.tenant_of(name) for name in names}
    assert left == {None, "acme-2"}


async def test_an_indexer_that_is_at_it_is_waited_for(purging: Purge, little_patience: pytest.MonkeyPatch) -> None:
    """Nothing of SQL goes while a snapshot is being written."""
    await Tenants(purging.engine).suspend("acme", NOW_S)
    leases = Leases(purging.engine)
    token = await leases.acquire("index:acme", "an indexer", 600, int(time.time()))
    async with an_indexer(purging):
        with pytest.raises(StoreUnavailable, match="still at its index"):
            await purging.purge("acme", **WHY)
        await leases.release("index:acme", "an indexer", token or 0)
        little_patience.undo()
        assert (await purging.purge("acme", **WHY))["videos"] == 2


def test_every_table_with_a_tenant_is_purged() -> None:
    """A new table cannot be forgotten; the audit is kept on purpose."""
    with_tenant = {table.name for table in METADATA.tables.values() if "tenant_id" in table.columns}
    assert {table.name for table in OF_A_TENANT} == with_tenant - {"audit"}
