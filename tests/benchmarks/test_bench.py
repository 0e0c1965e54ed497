"""The world and the load together: a small world is built, a real service opened on it and asked by the benchmarks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from benchmarks.bench_feeds import Offered, measured
from benchmarks.load_mixes import CURSOR, EVENTS, FIRST, REFRESH, Checks, Mixes
from benchmarks.product import running
from benchmarks.world import World, opened, sizes
from benchmarks.world_users import journals, users
from retrieval.journal import Signal
from tests.support.content import unit_vectors

REAL = 300
"""Videos that this world grows out of; the real ones would have to be embedded first."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return opened("small", tmp_path_factory.mktemp("worlds"), unit_vectors(REAL, 384))


@given(st.integers(2, 200), st.integers(10, 1000), st.integers(2, 1000), st.floats(0.05, 0.95))
def test_sizes(tenants: int, smallest: int, times: int, place: float) -> None:
    """From the largest down to the smallest, and in sum what was asked for, if the law can give that at all."""
    largest = smallest * times
    least, most = (sum(sizes(tenants, smallest, largest, items)) for items in (0, 10**12))
    assume(most - least > tenants)
    wanted = round(least + place * (most - least))
    found = sizes(tenants, smallest, largest, wanted)
    assert found == sorted(found, reverse=True)
    assert (found[0], found[-1]) == (largest, smallest)
    assert sum(found) == pytest.approx(wanted, rel=0.01, abs=tenants)


def test_is_built_once(world: World) -> None:
    """Opening it again reads what is there."""
    before = (world.folder / "feed.db").stat().st_mtime_ns
    again = opened("small", world.folder.parent, unit_vectors(REAL, 384))
    assert again.tenants == world.tenants
    assert (world.folder / "feed.db").stat().st_mtime_ns == before


def test_journals(world: World) -> None:
    """Hold items of the user's tenant, nothing from the future, and a like at their end; a few are empty."""
    now_s, of = 1_800_000_000, users(world)
    for user, journal in zip(of, journals(world, of, now_s), strict=True):
        assert len(journal) == user.entries <= 500
        if user.is_known:
            assert journal["item"].max() < user.tenant.items
            assert journal["at_s"].max() < now_s
            assert (np.diff(journal["at_s"].astype(int)) >= 0).all()
            assert journal["signal"][-1] == Signal.LIKE
    assert 0 < sum(not user.is_known for user in of) < len(of) / 5


def test_measures_a_real_service(world: World) -> None:
    """Two seconds in the closed loop and two at a fixed rate: every answer right, every process's cost known."""
    with running(world, workers=2) as product:
        checks = Checks()
        mixes = Mixes(product.users, checks)
        closed = measured(product, mixes.scroll(), checks, Offered(8, 2.0, warm_up_s=0.2))
        opened_loop = measured(product, mixes.scroll(), checks, Offered(8, 2.0, rate=40.0, warm_up_s=0))
    assert set(closed.observed.kinds) == {FIRST, REFRESH, CURSOR, EVENTS}
    assert set(closed.observed.statuses()) == {200, 207, 304}
    assert len(opened_loop.observed) == pytest.approx(80, abs=2)
    assert checks.pages > 0
    assert not checks.problems
    facts = closed.summary()
    assert facts["errors"] == 0
    assert facts["feeds_per_s"] > 0
    assert facts["p50_ms"] <= facts["p99.9_ms"]
    assert set(facts["cpu_us_per_feed"]) == {"workers", "redis", "generator"}
    assert facts["cpu_us_per_feed"]["workers"] > 0
    assert facts["private_mb_per_worker"] > 10
