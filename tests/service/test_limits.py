"""Rates over HTTP: a burst is let through, the flood is not, nobody else notices, and it ends by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from retrieval.errors import RateLimited, StoreUnavailable
from retrieval.limits import LimitedJournals, Rate
from tests.support.running import user_id, video
from tests.support.served import Served, served


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service that allows a user five requests at once and five a second, a key three hundred."""
    tenants = {"acme": [video(f"v{n}", f"{n}") for n in range(30)], "other": [video("o", "o")]}
    rates = {"user_requests_per_s": 5, "key_requests_per_s": 300, "burst_s": 1, "redis_timeout_ms": 500}
    with served(tmp_path_factory.mktemp("limits"), tenants, **rates) as started:
        yield started


def statuses(service: Served, user: str | None, n: int, **more: str) -> list[int]:
    """The statuses of n first pages."""
    return [service.get("/v1/feed", "acme", user=user, params=more).status_code for _ in range(n)]


def test_a_user_is_limited_and_told_when_to_come_back(service: Served) -> None:
    """A burst of five, then 429 with a time that is true; the neighbour is served all the while."""
    found = statuses(service, "flood", 40)
    assert found[:5] == [200] * 5
    assert found.count(429) > 20
    refused = next(a for a in iter(lambda: service.get("/v1/feed", "acme", user="flood"), None) if a.status_code == 429)
    assert refused.json()["type"] == "/problems/rate-limited"
    assert statuses(service, "neighbour", 3) == [200] * 3
    time.sleep(int(refused.headers["retry-after"]))
    assert service.get("/v1/feed", "acme", user="flood").status_code == 200


def test_scrolling_and_conditional_requests(service: Served) -> None:
    """A 304 costs as much of the rate as a page, for it reads the same; a later page costs nothing."""
    page = service.get("/v1/feed", "acme", user="scroller", params={"limit": 1})
    cursor, tag = page.json()["next_cursor"], page.headers["etag"]
    assert statuses(service, "scroller", 20, limit="1", cursor=cursor) == [200] * 20
    found = [
        service.get(
            "/v1/feed", "acme", user="scroller", params={"limit": 1}, headers={"If-None-Match": tag}
        ).status_code
        for _ in range(30)
    ]
    assert set(found) == {304, 429}


def test_without_redis_nobody_is_limited(service: Served) -> None:
    """Fail open: the feed is worth more than its rates."""
    with service.without_redis():
        assert statuses(service, "away", 8) == [200] * 8
        assert statuses(service, None, 3) == [200] * 3


def test_the_limiter_survives_a_redis_that_forgot(service: Served) -> None:
    """Redis restarted: the script is gone, the first requests are not limited, the next ones are again."""

    async def forget() -> None:
        async with Redis.from_url(service.place.redis_url, protocol=2) as redis:
            await redis.script_flush()

    asyncio.run(forget())
    found = statuses(service, "after", 40)
    assert set(found) == {200, 429}


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A connection to the session's Redis."""
    async with Redis.from_url(redis_url, protocol=2) as client:
        yield client


async def test_one_key_is_limited_whoever_uses_it(redis: Redis) -> None:
    """A hundred different users under one key: its burst and no more; another key is not touched. Anonymous too."""
    limited = LimitedJournals(redis, per_user=Rate(0, 0), per_key=Rate(1, 10))
    users = [None if n % 2 else user_id(str(n))[:32] for n in range(100)]

    async def allowed(user: str | None, key: str) -> bool:
        try:
            await limited.read("acme", user, key)
        except RateLimited as refused:
            assert 1 <= refused.retry_after_s <= 5
            return False
        return True

    found = await asyncio.gather(*(allowed(user, "key_a") for user in users))
    assert 10 <= sum(found) <= 11
    assert await allowed(None, "key_b")


async def test_it_is_one_round_trip(redis: Redis) -> None:
    """Fifty requests in flight are one pipeline: Redis is read from once."""
    limited = LimitedJournals(redis, per_user=Rate(5, 5), per_key=Rate(500, 500))
    await limited.read("acme", "u" * 32, "key")
    before = (await redis.info("stats"))["total_commands_processed"]
    sent = (await redis.info("commandstats")).get("cmdstat_mget", {"calls": 0})["calls"]
    await asyncio.gather(*(limited.read("acme", f"{n:032x}", "key") for n in range(50)))
    assert (await redis.info("commandstats"))["cmdstat_mget"]["calls"] == sent + 1
    assert (await redis.info("stats"))["total_commands_processed"] > before


async def test_the_rate_holds_over_time(redis: Redis) -> None:
    """Whatever the timing: within any stretch, no more than the burst and the rate allow, and about as many."""
    limited = LimitedJournals(redis, per_user=Rate(50, 5), per_key=Rate(0, 0))
    began_s, passed = time.monotonic(), 0
    while time.monotonic() - began_s < 0.6:
        try:
            await limited.read("acme", "u" * 32, "key")
            passed += 1
        except RateLimited:
            await asyncio.sleep(0.002)
    took_s = time.monotonic() - began_s
    assert 0.7 * 50 * took_s <= passed <= 50 * took_s + 6


async def test_a_redis_that_is_away_is_said(redis: Redis) -> None:
    """The caller decides what that means."""
    nobody = Redis.from_url("redis://127.0.0.1:1/0", protocol=2)
    limited = LimitedJournals(nobody, per_user=Rate(1, 1), per_key=Rate(1, 1))
    with pytest.raises(StoreUnavailable):
        await limited.read("acme", None, "key")
    await nobody.aclose()
