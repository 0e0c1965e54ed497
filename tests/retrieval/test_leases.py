"""One holder at a time, and tokens that only grow; on both databases."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from retrieval.database import connect
from retrieval.errors import LeaseLost
from retrieval.leases import Leases
from tests.support.databases import NOW_S

TTL_S = 10


@pytest.fixture
def leases(engine: AsyncEngine) -> Leases:
    """The leases as one daemon sees them."""
    return Leases(engine)


@pytest.fixture
async def second(database_url: str) -> AsyncIterator[Leases]:
    """The same leases over another daemon's connections."""
    engine = connect(database_url)
    yield Leases(engine)
    await engine.dispose()


async def test_one_holder_at_a_time(leases: Leases, second: Leases) -> None:
    """While it is held nobody gets it, not even its holder again; names are independent."""
    assert await leases.acquire("acme", "one", TTL_S, NOW_S) == 1
    assert await second.acquire("acme", "two", TTL_S, NOW_S + TTL_S - 1) is None
    assert await leases.acquire("acme", "one", TTL_S, NOW_S) is None
    assert await second.acquire("other", "two", TTL_S, NOW_S) == 1


async def test_of_many_at_once_one_gets_it(leases: Leases, second: Leases) -> None:
    """A race has one winner, again and again, and its token is the next one."""
    for turn in range(5):
        asked = [(leases, f"a{number}") for number in range(5)] + [(second, f"b{number}") for number in range(5)]
        moment_s = NOW_S + turn * TTL_S
        tokens = await asyncio.gather(*(of.acquire("acme", holder, TTL_S, moment_s) for of, holder in asked))
        assert [token for token in tokens if token is not None] == [turn + 1]


async def test_renewing_keeps_it(leases: Leases, second: Leases) -> None:
    """The holder may go on as long as it says so, even a little late when nobody came."""
    token = await leases.acquire("acme", "one", TTL_S, NOW_S)
    assert token is not None
    await leases.renew("acme", "one", token, TTL_S, NOW_S + 9)
    assert await second.acquire("acme", "two", TTL_S, NOW_S + 18) is None
    await leases.renew("acme", "one", token, TTL_S, NOW_S + 30)
    assert await second.acquire("acme", "two", TTL_S, NOW_S + 39) is None


async def test_a_holder_that_slept_has_lost_it(leases: Leases, second: Leases) -> None:
    """After another took over, the first is told so, cannot harm it, and has the smaller token."""
    old = await leases.acquire("acme", "one", TTL_S, NOW_S)
    new = await second.acquire("acme", "two", TTL_S, NOW_S + TTL_S)
    assert old is not None and new is not None and old < new
    with pytest.raises(LeaseLost, match="acme"):
        await leases.renew("acme", "one", old, TTL_S, NOW_S + TTL_S)
    await leases.release("acme", "one", old)
    assert await leases.acquire("acme", "one", TTL_S, NOW_S + TTL_S + 1) is None


async def test_a_released_lease_is_free_at_once(leases: Leases, second: Leases) -> None:
    """Releasing ends it for good; tokens go on growing across releases."""
    token = await leases.acquire("acme", "one", TTL_S, NOW_S)
    assert token == 1
    await leases.release("acme", "one", token)
    with pytest.raises(LeaseLost):
        await leases.renew("acme", "one", token, TTL_S, NOW_S)
    assert await second.acquire("acme", "two", TTL_S, NOW_S) == 2
