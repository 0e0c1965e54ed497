"""The stream: an event is in journal and stream together or not at all, and never twice."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from retrieval import keys
from retrieval.erasure import Erasure, Erasures
from retrieval.errors import StoreUnavailable
from retrieval.journal import DAY_S, RETENTION_S, Journals, Signal
from retrieval.keys import SHARDS
from retrieval.serves import Serve, ServedItem
from retrieval.stream import Answer, Event, Stream
from retrieval.tail import Tail, position, stream_id

NOW_S = 1_795_000_000
TENANT, USER = "acme", "0123456789abcdef0123456789abcdef"
ACCEPTED, DUPLICATE, ERASED = Answer.ACCEPTED, Answer.DUPLICATE, Answer.ERASED


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client of the test server."""
    client = Redis.from_url(redis_url, protocol=2)
    yield client
    await client.config_set("maxmemory", 0)
    await client.aclose()


def like(n: int, item: int = 7, at_s: int = NOW_S) -> Event:
    """The like with id n."""
    return Event(UUID(int=n), Signal.LIKE, item, at_s, at_s)


def page(request_id: str, *items: int, user_key: str | None = USER) -> Serve:
    """A page with these items."""
    served = [ServedItem(item, place, "for_you", 0.5) for place, item in enumerate(items)]
    return Serve(TENANT, user_key, request_id, NOW_S, "personalised", "home", 3, "1.2", 9, 0, "en", items=served)


async def rows(redis: Redis) -> list[tuple[object, ...]]:
    """Every event in the stream, as the archive would get it."""
    return [event.row for entry in await Tail(redis).read({}) for event in entry.events]


async def test_an_event_is_in_journal_and_stream(redis: Redis) -> None:
    """Accepted means: remembered for the next feed, and waiting for the archive, with nothing lost on the way."""
    watch = Event(UUID(int=1), Signal.WATCH, 7, NOW_S - 5, NOW_S - 5, 0.5, "ab12", 3)
    assert await Stream(redis).record(TENANT, USER, [watch], now_s=NOW_S) == [ACCEPTED]
    (entry,) = await Journals(redis).read(TENANT, USER)
    assert (entry["item"], entry["at_s"], entry["signal"], entry["strength"]) == (7, NOW_S - 5, Signal.WATCH, 128)
    assert await rows(redis) == [
        (TENANT, USER, UUID(int=1).hex, Signal.WATCH, 7, NOW_S - 5, NOW_S, 0.5, "ab12", 3),
    ]


@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=6), max_size=6))
@settings(max_examples=30, deadline=None)
def test_each_id_is_taken_once(scratch_redis: str, batches: list[list[int]]) -> None:
    """Whatever is sent again, in the same batch or another: one entry per id, and the answers say which."""

    async def send() -> None:
        redis = Redis.from_url(scratch_redis, protocol=2)
        await redis.flushall()
        seen: set[int] = set()
        for batch in batches:
            answers = await Stream(redis).record(TENANT, USER, [like(n, item=n) for n in batch], now_s=NOW_S)
            for n, answer in zip(batch, answers, strict=True):
                assert answer == (DUPLICATE if n in seen else ACCEPTED)
                seen.add(n)
        assert sorted((await Journals(redis).read(TENANT, USER))["item"].tolist()) == sorted(seen)
        assert sorted(str(row[2]) for row in await rows(redis)) == sorted(UUID(int=n).hex for n in seen)
        await redis.aclose()

    asyncio.run(send())


@pytest.mark.parametrize("hours", [0, 1, 24, 47, 48])
async def test_ids_are_known_for_48_hours(redis: Redis, hours: int) -> None:
    """A retry within two days is a duplicate, at whatever hour of the day it began."""
    for begin_s in (NOW_S // DAY_S * DAY_S, NOW_S // DAY_S * DAY_S + DAY_S - 1):
        first = like(begin_s)
        await Stream(redis).record(TENANT, USER, [first], now_s=begin_s)
        assert await Stream(redis).record(TENANT, USER, [first], now_s=begin_s + hours * 3600) == [DUPLICATE]


async def test_the_same_id_of_another_user_is_another_event(redis: Redis) -> None:
    """Ids are the SDK's: two devices, or two tenants, may make the same one."""
    stream = Stream(redis)
    for tenant, user in ((TENANT, USER), (TENANT, "f" * 32), ("other", USER), (TENANT, None)):
        assert await stream.record(tenant, user, [like(1)], now_s=NOW_S) == [ACCEPTED]


async def test_an_anonymous_event_is_in_nobodys_journal(redis: Redis) -> None:
    """It is archived and counted, and no journal of all strangers together grows."""
    await Stream(redis).record(TENANT, None, [like(1)], now_s=NOW_S)
    assert len(await rows(redis)) == 1
    assert not await redis.keys("j:*")


async def test_events_from_before_an_erasure_are_refused(redis: Redis) -> None:
    """A phone that was offline brings nothing back; what happens afterwards is a new beginning."""
    await Erasures(redis).forget(Erasure("e", TENANT, USER, NOW_S), now_s=NOW_S)
    late = replace(like(1, at_s=NOW_S + DAY_S), claimed_s=NOW_S - 30 * DAY_S)  # dated back no further than 7 days
    answers = await Stream(redis).record(
        TENANT, USER, [like(2, at_s=NOW_S), late, like(3, at_s=NOW_S + 1)], now_s=NOW_S + 8 * DAY_S
    )
    assert answers == [ERASED, ERASED, ACCEPTED]
    await Stream(redis).served(page("aa", 1))
    assert len(await rows(redis)) == 1


async def test_a_full_store_takes_nothing(redis: Redis) -> None:
    """No memory left: StoreUnavailable, and neither journal nor stream nor id has a trace of it."""
    stream = Stream(redis)
    await stream.record(TENANT, USER, [like(1)], now_s=NOW_S)
    await redis.config_set("maxmemory", 1)
    with pytest.raises(StoreUnavailable):
        await stream.record(TENANT, USER, [like(2)], now_s=NOW_S)
    await redis.config_set("maxmemory", 0)
    assert len(await rows(redis)) == len(await Journals(redis).read(TENANT, USER)) == 1
    assert await stream.record(TENANT, USER, [like(2)], now_s=NOW_S) == [ACCEPTED]


async def test_a_restarted_server_is_told_the_scripts_again(redis: Redis) -> None:
    """It has forgotten them; whoever waits does not notice, and a page is noted once."""
    stream = Stream(redis)
    await stream.record(TENANT, USER, [like(1)], now_s=NOW_S)
    await redis.script_flush()
    answers, _ = await asyncio.gather(
        stream.record(TENANT, USER, [like(2)], now_s=NOW_S), stream.served(page("aa", 1, 2))
    )
    assert answers == [ACCEPTED]
    assert len(await Journals(redis).read(TENANT, USER)) == 4


async def test_nothing_is_acknowledged_that_is_not_as_safe_as_asked(redis: Redis) -> None:
    """A server without a log on disk, or without replicas, cannot promise either."""
    for strict in (Stream(redis, fsync=True), Stream(redis, replicas=1, wait_ms=50)):
        with pytest.raises(StoreUnavailable):
            await strict.record(TENANT, USER, [like(1)], now_s=NOW_S)


async def test_callers_of_one_moment_share_a_round_trip(redis: Redis) -> None:
    """A hundred batches at once go out as one pipeline, and each caller hears of its own."""
    stream = Stream(redis)
    batches = [stream.record(TENANT, f"{n:032x}", [like(1), like(1)], now_s=NOW_S) for n in range(100)]
    assert await asyncio.gather(*batches) == [[ACCEPTED, DUPLICATE]] * 100
    assert len(await redis.client_list()) <= 2


async def test_pages_of_a_busy_worker_share_a_round_trip(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first goes out at once; those that follow it closely go out together, a pause later, or with an event. When
    nothing more is to come, none waits."""
    pause_s = 0.5  # so long that a slow machine has asked for everything before it is over
    monkeypatch.setattr("retrieval.stream.SERVES_EVERY_S", pause_s)
    busy = True
    stream = Stream(redis, busy=lambda: busy)
    await stream.served(page("aa", 1))

    async def round_trips() -> int:
        reads: int = (await redis.info("stats"))["total_reads_processed"]
        return reads

    asked, pages = await round_trips(), []
    for n in range(5):
        pages.append(asyncio.create_task(stream.served(page(f"b{n}", n))))
        await asyncio.sleep(0)  # each in a turn of the loop of its own
    await asyncio.gather(*pages)
    assert await round_trips() == asked + 2  # theirs, and this question
    pages = [asyncio.create_task(stream.served(page("cc", 9)))]
    await asyncio.sleep(0)
    assert await stream.record(TENANT, USER, [like(1)], now_s=NOW_S) == [ACCEPTED]
    await asyncio.gather(*pages)
    assert await round_trips() == asked + 4
    assert len(await Journals(redis).read(TENANT, USER)) == 8
    busy, began_s = False, time.monotonic()
    for n in range(20):
        await stream.served(page(f"d{n}", n))
    assert time.monotonic() - began_s < 20 * pause_s / 2


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(1, 3)), min_size=1, max_size=12))
@settings(max_examples=30, deadline=None)
def test_pages_and_events_of_one_moment(scratch_redis: str, asked: list[tuple[int, bool, int]]) -> None:
    """Whatever goes out together is written as if each had gone alone: to its own user, whole and once."""

    async def written() -> None:
        async with Redis.from_url(scratch_redis, protocol=2) as redis:
            await redis.flushdb()
            stream, calls = Stream(redis), []
            for n, (user, is_page, count) in enumerate(asked):
                items, key = [100 * n + i for i in range(count)], f"{user:032x}"
                events = [like(100 * n + item, item) for item in items]
                calls.append(
                    stream.served(page(f"{n:x}", *items, user_key=key))
                    if is_page
                    else stream.record(TENANT, key, events, now_s=NOW_S)
                )
            await asyncio.gather(*calls)
            for user in range(4):
                journal = await Journals(redis).read(TENANT, f"{user:032x}")
                of_user = [(100 * n + i, is_page) for n, (who, is_page, k) in enumerate(asked) if who == user
                           for i in range(k)]  # fmt: skip
                said = zip(journal["item"].tolist(), (journal["signal"] == int(Signal.SERVED)).tolist(), strict=True)
                assert sorted(said) == of_user
            found = await Tail(redis).read({})
            serves = [Serve.of(one.serve) for one in found if one.serve]
            pages = sorted((serve.request_id, serve.user_key, len(serve.items)) for serve in serves)
            assert pages == sorted((f"{n:x}", f"{who:032x}", k) for n, (who, is_page, k) in enumerate(asked) if is_page)
            assert sum(len(one.events) for one in found) == sum(k for _, is_page, k in asked if not is_page)

    asyncio.run(written())


async def test_a_journal_keeps_its_newest_entries(redis: Redis) -> None:
    """Past the cap it is cut to seven eighths, and never holds half an entry."""
    stream = Stream(redis, cap=100)
    for n in range(40):
        await stream.record(TENANT, USER, [like(10 * n + k, item=10 * n + k) for k in range(10)], now_s=NOW_S)
        items = (await Journals(redis).read(TENANT, USER))["item"].tolist()
        assert min(10 * n + 10, 87) <= len(items) <= 100
        assert items == list(range(10 * n + 10 - len(items), 10 * n + 10))


async def test_junk_in_place_of_a_journal_is_started_afresh(redis: Redis) -> None:
    """Foreign bytes, and another type, cost that user's past and nothing else."""
    key = keys.journal(TENANT, USER)
    await redis.set(key, b"12345")
    await Stream(redis).record(TENANT, USER, [like(1)], now_s=NOW_S)
    assert len(await Journals(redis).read(TENANT, USER)) == 1
    await redis.delete(key)
    await redis.lpush(key, "x")
    await Stream(redis).record(TENANT, USER, [like(2)], now_s=NOW_S)
    assert len(await Journals(redis).read(TENANT, USER)) == 1


async def test_a_page_is_in_the_journal_and_in_the_serve_log(redis: Redis) -> None:
    """Served items step back next time, and what is learnt from is complete."""
    await Stream(redis).served(page("ab12", 5, 6))
    journal = await Journals(redis).read(TENANT, USER)
    assert journal["item"].tolist() == [5, 6]
    assert set(journal["signal"].tolist()) == {Signal.SERVED}
    (entry,) = await Tail(redis).read({})
    assert entry.serve == (
        *(TENANT, USER, "ab12", NOW_S, "personalised", "home", 3, "1.2", 9, 0, "en", "", "", 18, 0, "", [], "", []),
        [(5, 0, "for_you", 0.5, None), (6, 1, "for_you", 0.5, None)],
    )
    assert Serve.of(entry.serve) == replace(page("ab12", 5, 6), down=[], degraded=[])


async def test_a_sampled_serve_log_still_remembers_every_page(redis: Redis) -> None:
    """The journal is for serving, the log for learning: only the log may be thinned out."""
    stream = Stream(redis, serve_share=0.5)
    for n in range(64):
        await stream.served(page(f"{n:024x}", n))
    assert len(await Journals(redis).read(TENANT, USER)) == 64
    assert 16 <= await Tail(redis).backlog() <= 48


async def test_every_key_expires(redis: Redis) -> None:
    """Whatever events and pages leave behind has an end."""
    stream = Stream(redis)
    await stream.record(TENANT, USER, [like(1)], now_s=NOW_S)
    await stream.served(page("aa", 1))
    found = await redis.keys("*")
    assert len(found) == 3
    assert all([0 < await redis.ttl(key) <= RETENTION_S for key in found])


async def test_the_tail_reads_on_from_a_place_and_forgets_up_to_one(redis: Redis) -> None:
    """Nothing twice, nothing passed over, and what is dropped is the past only."""
    stream, tail = Stream(redis), Tail(redis)
    for n in range(300):
        await stream.record(TENANT, USER, [like(n)], now_s=NOW_S)
    shard, place, seen = keys.shard(TENANT, USER), 0, []
    while entries := await tail.read({shard: place}):
        place = entries[-1].position
        seen += [event.row[2] for entry in entries for event in entry.events]
    assert seen == [UUID(int=n).hex for n in range(300)]
    entries = await tail.read({})
    middle = entries[99].position
    await tail.drop({shard: middle})
    assert await tail.backlog() == 200


async def test_an_entry_nobody_can_read_is_passed_over(redis: Redis) -> None:
    """Junk in the stream is counted and does not stop what comes after it."""
    await redis.xadd(keys.stream(0), {"e": "{"})
    await redis.xadd(keys.stream(0), {"s": '["acme"]'})
    await redis.xadd(keys.stream(0), {"?": ""})
    tail = Tail(redis)
    assert [entry.events for entry in await tail.read({})] == [()] * 3
    assert tail.damaged == 3


@given(st.integers(0, 2**41 - 1), st.integers(0, 2**22 - 1))
def test_a_position_is_a_stream_id(milliseconds: int, sequence: int) -> None:
    """There and back, in order, and within the 63 bits a Delta table keeps."""
    name = f"{milliseconds}-{sequence}"
    assert stream_id(position(name.encode())) == name
    assert position(name.encode()) < 2**63
    assert position(name.encode()) < position(f"{milliseconds + 1}-0".encode())


def test_there_are_as_many_streams_as_shards() -> None:
    """Two hex digits name them all."""
    assert len({keys.stream(shard) for shard in range(SHARDS)}) == SHARDS <= 256
