"""Erasing: what goes at once, what stays as a receipt, and who may read it."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from redis.asyncio import Redis

from retrieval import keys
from retrieval.erasure import Erasures, rekeyed
from retrieval.errors import NotFound, StoreUnavailable
from retrieval.journal import Journals, Signal
from retrieval.stream import Event, Stream

NOW_S = 1_795_000_000
TENANT, USER = "acme", "0123456789abcdef0123456789abcdef"


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client of the test server."""
    client = Redis.from_url(redis_url, protocol=2)
    yield client
    await client.aclose()


async def test_what_redis_knows_of_a_user_goes_with_the_request(redis: Redis) -> None:
    """Journal and known ids are gone, counted, and the work on the archive is noted."""
    events = [Event(UUID(int=n), Signal.LIKE, n, NOW_S, NOW_S) for n in range(5)]
    await Stream(redis).record(TENANT, USER, events, now_s=NOW_S)
    await Stream(redis).record(TENANT, "f" * 32, events, now_s=NOW_S)
    erasures = Erasures(redis)
    erasure_id = await erasures.ask(TENANT, USER, now_s=NOW_S + 1)
    receipt = await erasures.receipt(TENANT, erasure_id)
    assert (receipt.state, receipt.counts) == ("pending", {"journal_entries": 5, "known_ids": 5})
    assert not len(await Journals(redis).read(TENANT, USER))
    assert len(await Journals(redis).read(TENANT, "f" * 32)) == 5
    assert [(one.tenant, one.user_key) for one in await erasures.pending()] == [(TENANT, USER)]


async def test_a_done_erasure_names_nobody(redis: Redis) -> None:
    """Counts add up, and no key or value in the store holds the user any more: the tombstone is a hash."""
    erasures = Erasures(redis)
    erasure_id = await erasures.ask(TENANT, USER, now_s=NOW_S)
    (pending,) = await erasures.pending()
    await erasures.note(pending, {"archived_events": 3}, done_s=None)
    assert (await erasures.receipt(TENANT, erasure_id)).state == "pending"
    await erasures.note(pending, {"archived_events": 4}, done_s=NOW_S + 9)
    receipt = await erasures.receipt(TENANT, erasure_id)
    assert (receipt.state, receipt.done_s, receipt.counts["archived_events"]) == ("done", NOW_S + 9, 7)
    assert await erasures.pending() == []
    names: list[Any] = await redis.keys("*")
    assert names
    assert not any([USER.encode() in name + (await redis.dump(name) or b"") for name in names])
    assert all([await redis.ttl(name) > 0 for name in names])


async def test_an_earlier_erasure_does_not_take_back_a_later_one(redis: Redis) -> None:
    """The tombstone only moves on."""
    erasures = Erasures(redis)
    await erasures.ask(TENANT, USER, now_s=NOW_S + 10)
    await erasures.ask(TENANT, USER, now_s=NOW_S)
    assert await redis.get(keys.tombstone(TENANT, USER)) == str(NOW_S + 10).encode()


async def test_a_receipt_is_its_tenants_own(redis: Redis) -> None:
    """Another tenant's and one that never was look the same."""
    erasures = Erasures(redis)
    erasure_id = await erasures.ask(TENANT, USER, now_s=NOW_S)
    for tenant, name in (("other", erasure_id), (TENANT, "nothing")):
        with pytest.raises(NotFound):
            await erasures.receipt(tenant, name)


async def test_a_server_without_a_log_needs_no_rewriting(redis: Redis) -> None:
    """Nothing deleted can be read from a log that is not there."""
    assert not await Erasures(redis).rewrite_log()


async def test_a_store_that_is_away_says_so() -> None:
    """The caller hears 503 and asks again; nothing was promised."""
    with pytest.raises(StoreUnavailable):
        await Erasures(Redis.from_url("redis://127.0.0.1:1/0", protocol=2)).ask(TENANT, USER, now_s=NOW_S)


def test_two_tenants_cannot_link_their_users() -> None:
    """The same id under another pepper is another user, and never the id itself."""
    one, two = rekeyed("a" * 64, b"1" * 32), rekeyed("a" * 64, b"2" * 32)
    assert one != two
    assert {len(one), len(two)} == {32}
