"""Rates over HTTP: a burst is let through, the flood is not, nobody else notices, and it ends by itself."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from uuid import uuid4

import httpx
import pytest
import redis as redis_sync
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from retrieval import keys
from retrieval.erasure import rekeyed
from retrieval.errors import RateLimited, StoreUnavailable
from retrieval.journal import Signal, entries, parse
from retrieval.limits import LimitedJournals, Rate
from service.rates import FEW, MOST_BUCKETS, LocalRates
from tests.support.running import PEPPER, user_id, video
from tests.support.served import Served, served


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service that allows a user five requests (and batches) at once and five a second, a key three hundred."""
    tenants = {"acme": [video(f"v{n}", f"{n}") for n in range(30)], "other": [video("o", "o")]}
    rates = {"user_requests_per_s": 5, "user_batches_per_s": 5, "key_requests_per_s": 300, "burst_s": 1}
    with served(tmp_path_factory.mktemp("limits"), tenants, redis_timeout_ms=500, **rates) as started:
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
    """A 304 costs as much of the rate as a page, for it reads the same; later pages have a rate of their own."""
    page = service.get("/v1/feed", "acme", user="scroller", params={"limit": 1})
    cursor, tag = page.json()["next_cursor"], page.headers["etag"]
    scrolled = statuses(service, "scroller", 20, limit="1", cursor=cursor)
    assert scrolled[:5] == [200] * 5
    assert scrolled.count(429) > 5
    assert statuses(service, "neighbour", 1, limit="1", cursor=cursor) == [400]  # not theirs, and not limited either
    found = [
        service.get(
            "/v1/feed", "acme", user="scroller", params={"limit": 1}, headers={"If-None-Match": tag}
        ).status_code
        for _ in range(30)
    ]
    assert set(found) == {304, 429}


def test_a_flood_of_events_is_refused_before_it_is_read(service: Served) -> None:
    """A burst of batches, then 429 with Retry-After, also for a body that is nonsense; nothing of those is stored."""
    now = "2026-01-01T00:00:00Z"

    def send(user: str, content: bytes | None = None) -> httpx.Response:
        event = {"id": str(uuid4()), "type": "like", "item_id": "v1", "occurred_at": now}
        headers = {"Content-Type": "application/json"}
        body = content or json.dumps({"events": [event]}).encode()
        return service.call("POST", "/v1/events", "acme", user=user, content=body, headers=headers)

    answers = [send("sender") for _ in range(20)]
    taken = sum(answer.json().get("accepted", 0) for answer in answers)
    assert [answer.status_code for answer in answers[:3]] == [207] * 3
    assert answers[-1].status_code == 429 and 1 <= int(answers[-1].headers["retry-after"]) <= 5
    assert send("sender", b"nonsense").status_code == 429
    assert send("somebody else").status_code == 207
    with redis_sync.Redis.from_url(service.place.redis_url, protocol=2) as store:
        stored = store.get(keys.journal("acme", rekeyed(user_id("sender"), PEPPER)))
    assert len(parse(stored)) == taken < 10


def test_what_reads_no_journal_is_limited_too(service: Served) -> None:
    """The public feed by its key, and a user's first pages while a flag keeps them from being personal."""
    usual = service.resources
    service.app.state.resources = replace(usual, pages=LocalRates(Rate(0.1, 4), Rate(0.1, 6)))
    try:
        public = [service.get("/v1/tenants/other/feed/default", "other").status_code for _ in range(9)]
        service.set_flag("acme", state="off")
        assert statuses(service, "under a flag", 6) == [200] * 4 + [429] * 2
    finally:
        service.set_flag("acme", state="on")
        service.app.state.resources = usual
    assert public == [200] * 6 + [429] * 3


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


async def test_it_is_one_round_trip_of_two_commands(redis: Redis) -> None:
    """Fifty requests in flight: their journals are read at once, and all their buckets are charged at once."""
    limited = LimitedJournals(redis, per_user=Rate(5, 5), per_key=Rate(500, 500))
    await limited.read("acme", "u" * 32, "key")

    async def calls() -> list[int]:
        stats = await redis.info("commandstats")
        return [stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("mget", "evalsha")]

    reads, charges = await calls()
    await asyncio.gather(*(limited.read("acme", f"{n:032x}", "key") for n in range(50)))
    assert await calls() == [reads + 1, charges + 1]


async def test_each_hears_of_its_own_buckets(redis: Redis) -> None:
    """Requests of one round trip: who is over is refused, who is not gets their own journal."""
    limited = LimitedJournals(redis, per_user=Rate(0.01, 3), per_key=Rate(0, 0))
    users = [f"{n:032x}" for n in range(10)]
    for n, user in enumerate(users):
        await redis.set(keys.journal("acme", user), entries([(n, 1, Signal.LIKE, 1.0)]).tobytes())
    asked = [user for user in users for _ in range(3 + int(user, 16) % 2)]  # every other one asks once too often
    found = await asyncio.gather(*(limited.read("acme", user, "key") for user in asked), return_exceptions=True)
    refused = [user for user, journal in zip(asked, found, strict=True) if isinstance(journal, RateLimited)]
    assert refused == users[1::2]
    for user, journal in zip(asked, found, strict=True):
        assert isinstance(journal, BaseException) or journal["item"].tolist() == [int(user, 16)]


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


@pytest.mark.parametrize("said", [[], [[b"one"], [0]], ConnectionError("gone")])
async def test_nobody_waits_for_an_answer_that_makes_no_sense(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, said: list[object] | Exception
) -> None:
    """Too few answers, or too few in one, as a proxy in between might give them: all who share the trip hear of it."""
    limited = LimitedJournals(redis, per_user=Rate(1, 1), per_key=Rate(1, 1))
    await limited.read("acme", None, "key")

    async def send(_commands: object) -> list[object]:
        if isinstance(said, Exception):
            raise said
        return list(said)

    monkeypatch.setattr(limited.round_trips, "send", send)
    reads = (limited.read("acme", f"{n:032x}", "key") for n in range(2))
    found = await asyncio.wait_for(asyncio.gather(*reads, return_exceptions=True), 5)
    assert all(isinstance(one, StoreUnavailable if isinstance(said, Exception) else Exception) for one in found)


def let_through(rates: LocalRates, user: str | None, key: str = "key_a") -> bool:
    """Whether a request passes; what a refused one is told is checked."""
    try:
        rates.charge("acme", user, key)
    except RateLimited as refused:
        assert 1 <= refused.retry_after_s <= 5
        return False
    return True


@given(waits_s=st.lists(st.floats(0, 3), max_size=60), per_s=st.floats(0.1, 50), burst=st.integers(0, 20))
def test_a_workers_own_bucket_is_a_bucket(waits_s: list[float], per_s: float, burst: int) -> None:
    """Whenever requests come: never more than burst and rate allow, and one that may come is never refused."""
    now_s, level = 0.0, 0.0  # the textbook's leaky bucket, in requests
    rates = LocalRates(Rate(per_s, burst), Rate(0, 0), clock=lambda: now_s)
    for wait_s in waits_s:
        now_s += wait_s
        level = max(level - wait_s * per_s, 0.0)
        if abs(level + 1 - max(burst, 1)) < 1e-6:
            level = max(burst, 1) - 1.0
        may = level + 1 <= max(burst, 1) + 1e-6
        assert let_through(rates, "u") is may
        level += may


def test_who_is_refused_takes_nothing_from_the_key() -> None:
    """One user's flood does not use up what all users of an app have together; anonymous ones share just that."""
    rates = LocalRates(Rate(1, 3), Rate(1, 10), clock=lambda: 0.0)
    assert [let_through(rates, "flood") for _ in range(9)] == [True] * 3 + [False] * 6
    assert [let_through(rates, None) for _ in range(9)] == [True] * 7 + [False] * 2
    assert not let_through(rates, "other")
    assert let_through(rates, "other", "key_b")


def test_its_memory_is_bounded() -> None:
    """A flood of made-up users does not make it grow; who was limited a moment ago and is idle since is forgotten."""
    now_s = 0.0
    rates = LocalRates(Rate(1, 1), Rate(0, 0), clock=lambda: now_s)
    for n in range(3 * MOST_BUCKETS):
        rates.charge("acme", f"{n:032x}", "key")
        now_s += 1e-5
        assert len(rates.due_s) <= MOST_BUCKETS


def test_who_has_gone_is_forgotten() -> None:
    """Of users who come and go, a second apart, hardly more are kept than come within the time a bucket needs."""
    now_s = 0.0
    rates = LocalRates(Rate(10, 20), Rate(0, 0), clock=lambda: now_s)
    for n in range(5 * FEW):
        now_s += 1
        rates.charge("acme", f"{n:032x}", "key")
        assert len(rates.due_s) <= FEW


@given(asked=st.lists(st.tuples(st.integers(0, 4), st.floats(0, 0.5)), max_size=80))
def test_what_is_forgotten_changes_nothing(asked: list[tuple[int, float]]) -> None:
    """A worker that looks for empty buckets at each request lets through whom one that never looks does."""
    now_s = 0.0
    looks, never = (LocalRates(Rate(3, 4), Rate(5, 6), clock=lambda: now_s) for _ in range(2))
    for user, wait_s in asked:
        now_s += wait_s
        looks._look_at = 0
        assert let_through(looks, f"u{user}") is let_through(never, f"u{user}")


def test_it_costs_next_to_nothing() -> None:
    """A charge is a few microseconds of CPU, also between tens of thousands of buckets."""
    rates = LocalRates(Rate(20, 200), Rate(10_000, 100_000))
    users = [f"{n:032x}" for n in range(20_000)]
    began_s = time.process_time()
    for user in users:
        rates.charge("acme", user, "key")
    assert (time.process_time() - began_s) / len(users) < 20e-6  # 2 µs on an idle machine
