"""What an operator is told: whether each tenant's snapshot is what its catalogue says, and if not, why not."""

from __future__ import annotations

import time

from indexer.status import TenantStatus, clear_failure, read_failure, record_failure, status
from retrieval.tenants import Tenants
from tests.support.indexing import Indexing
from tests.support.running import POISON, video

STALE_S = 60.0


async def of_acme(indexing: Indexing, *, later_s: float = 0.0) -> TenantStatus:
    """The status of `acme`, as seen `later_s` from now."""
    [one] = await status(indexing.catalogue, indexing.store, stale_s=STALE_S, now_s=time.time() + later_s)
    return one


async def test_a_tenant_nobody_has_indexed_is_stale(indexing: Indexing) -> None:
    """There is no snapshot to serve at all, whatever the lag."""
    one = await of_acme(indexing)
    assert (one.published, one.generation, one.stale) == (None, 0, True)


async def test_an_indexed_tenant_is_not_stale(indexing: Indexing) -> None:
    """However long ago that was: nothing is waiting."""
    await indexing.put_many("acme", range(5))
    await indexing.daemon().once()
    one = await of_acme(indexing, later_s=1e6)
    assert (one.items, one.wanted, one.published, one.generation) == (5, 1, 1, 1)
    assert one.model == indexing.encoder.model_id
    assert (one.lag_s, one.last_error, one.stale) == (0.0, "", False)


async def test_the_lag_is_the_age_of_the_oldest_unpublished_change(indexing: Indexing) -> None:
    """Stale only when it has waited longer than the limit."""
    await indexing.put_many("acme", range(5))
    await indexing.daemon().once()
    await indexing.put_many("acme", [9])
    soon, late = await of_acme(indexing, later_s=20), await of_acme(indexing, later_s=STALE_S + 2)
    assert 19 <= soon.lag_s <= 23
    assert not soon.stale
    assert late.stale
    assert (late.wanted, late.published) == (2, 1)


async def test_poison_is_counted(indexing: Indexing) -> None:
    """A quarantined video keeps nobody stale, but is seen here."""
    await indexing.put("acme", video("a", "bread"), video("b", POISON))
    await indexing.daemon().once()
    one = await of_acme(indexing)
    assert (one.items, one.quarantined, one.stale) == (2, 1, False)


async def test_damage_is_named(indexing: Indexing) -> None:
    """A CURRENT or manifest that cannot be read is an error to show, not one to die of."""
    await indexing.put_many("acme", range(5))
    await indexing.daemon().once()
    (indexing.store.root / "acme" / "CURRENT").write_bytes(b"nonsense")
    one = await of_acme(indexing)
    assert one.stale
    assert "CURRENT" in one.last_error


async def test_suspended_tenants_are_not_looked_at(indexing: Indexing) -> None:
    """Nobody indexes them, so nobody should be woken for them."""
    await Tenants(indexing.engine).suspend("acme", int(time.time()))
    assert await status(indexing.catalogue, indexing.store, stale_s=STALE_S) == []


def test_a_failure_is_remembered_until_it_is_over(indexing: Indexing) -> None:
    """The newest one, in a line; clearing twice is fine."""
    assert read_failure(indexing.store, "acme") == ""
    record_failure(indexing.store, "acme", OSError("first"))
    record_failure(indexing.store, "acme", OSError("disk full " * 200))
    assert read_failure(indexing.store, "acme").startswith("OSError: disk full")
    assert len(read_failure(indexing.store, "acme")) <= 500
    for _ in range(2):
        clear_failure(indexing.store, "acme")
        assert read_failure(indexing.store, "acme") == ""
