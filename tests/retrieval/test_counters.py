"""Counters: sums that add up, counted once, and a popularity nobody moves alone."""

from collections.abc import AsyncIterator

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from retrieval import keys
from retrieval.counters import (
    COUNTED_AS,
    COUNTS,
    HALF_LIVES_H,
    HOUR_S,
    KEPT_H,
    MEASURES,
    NOTHING_BEFORE,
    WINDOWS,
    Before,
    Counters,
    added,
    folded,
    popularity,
    windows_of,
)
from retrieval.errors import StoreUnavailable
from retrieval.journal import Signal

HOUR = 498_000


def counts(*rows: tuple[int, tuple[float, ...]]) -> npt.NDArray[np.void]:
    """Rows of (item, sums)."""
    return added(
        np.zeros(0, COUNTS),
        np.array([item for item, _ in rows], np.uint32),
        np.array([sums for _, sums in rows], np.float32).reshape(-1, len(MEASURES)),
    )


AMOUNTS = st.tuples(*[st.integers(0, 50).map(float)] * len(MEASURES))
HOURS = st.dictionaries(
    st.integers(HOUR - 200, HOUR), st.lists(st.tuples(st.integers(0, 30), AMOUNTS), max_size=8), max_size=8
)


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client of the test server."""
    client = Redis.from_url(redis_url, protocol=2)
    yield client
    await client.aclose()


@given(HOURS)
def test_what_was_counted_is_half_after_each_half_life(hours: dict[int, list[tuple[int, tuple[float, ...]]]]) -> None:
    """Each window holds everything, faded by its age, item by item."""
    windows = windows_of({hour: counts(*rows) for hour, rows in hours.items()}, now_hour=HOUR)
    for column, half_life_h in enumerate(HALF_LIVES_H):
        expected: dict[int, npt.NDArray[np.float64]] = {}
        for hour, rows in hours.items():
            for item, sums in rows:
                faded = np.array(sums) * 0.5 ** ((HOUR - hour) / half_life_h)
                expected[item] = expected.get(item, np.zeros(len(MEASURES))) + faded
        found = dict(zip(windows["item"].tolist(), windows["sums"][:, column], strict=True))
        assert all(np.allclose(found[item], sums, rtol=1e-4) for item, sums in expected.items())
        assert set(found) == set(expected)


@given(HOURS, st.integers(HOUR - 210, HOUR))
def test_hours_that_were_folded_count_as_if_they_were_kept(
    hours: dict[int, list[tuple[int, tuple[float, ...]]]], up_to: int
) -> None:
    """One sum instead of many hours says the same, also when it is made in two steps and the hours are still there."""
    kept = {hour: counts(*rows) for hour, rows in hours.items()}
    before = folded(folded(NOTHING_BEFORE, kept, up_to=up_to - 3), kept, up_to=up_to)
    whole, parted = windows_of(kept, now_hour=HOUR), windows_of(kept, now_hour=HOUR, before=before)
    assert np.array_equal(whole["item"], parted["item"])
    assert np.allclose(whole["sums"], parted["sums"], rtol=1e-4, atol=1e-4)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=20), st.integers(0, 400))
def test_a_quiet_time_leaves_popularity_as_it_was(engaged: list[int], quiet_h: int) -> None:
    """What fades alike stays: nothing falls out of a window, as long as a float holds what is left."""
    kept = {HOUR: counts(*[(item, (2.0 * n, 1.0 * n, 0.1 * n, 0.0)) for item, n in enumerate(engaged)])}
    now, later = (popularity(windows_of(kept, now_hour=HOUR + h)).table for h in (0, quiet_h))
    held = [quiet_h <= 100 * half_life_h for half_life_h in HALF_LIVES_H]
    assert np.allclose(now[:, held], later[:, held], atol=0.02)
    assert sum(held) >= 3


@given(st.lists(st.integers(0, 20 * HOUR_S), min_size=1, max_size=20), st.integers(0, HOUR_S - 1))
def test_an_hour_s_window_is_within_a_factor_of_two_of_fading_by_the_second(ages_s: list[int], minute_s: int) -> None:
    """Counts are kept by the hour: at any second of the running one, each event weighs what its age says, or nearly."""
    now_s = HOUR * HOUR_S + minute_s
    kept: dict[int, npt.NDArray[np.void]] = {}
    for item, age_s in enumerate(ages_s):
        hour = (now_s - age_s) // HOUR_S
        one = np.array([item], np.uint32), np.array([[0, 1, 0, 0]], np.float32)
        kept[hour] = added(kept.get(hour, np.zeros(0, COUNTS)), *one)
    rising = windows_of(kept, now_hour=HOUR)["sums"][:, 0, 1]
    exact = np.exp2(-np.array(ages_s) / HOUR_S)
    assert (rising >= 0.499 * exact).all() and (rising <= 2.001 * exact).all()


@given(HOURS)
def test_a_full_hour_leaves_the_order_as_it_was(hours: dict[int, list[tuple[int, tuple[float, ...]]]]) -> None:
    """Everything in a window fades by the same factor when the next hour begins."""
    kept = {hour: counts(*rows) for hour, rows in hours.items()}
    now, then = (windows_of(kept, now_hour=hour)["sums"] for hour in (HOUR, HOUR + 1))
    left = np.array([0.5 ** (1 / half_life_h) for half_life_h in HALF_LIVES_H])
    assert np.allclose(then, now * left[:, None], rtol=1e-4, atol=1e-30)


def test_what_takes_off_now_rises_and_what_was_liked_for_days_does_not() -> None:
    """A hundred viewers in this hour against a hundred an hour, all of yesterday."""
    old = {HOUR - back: counts((1, (200, 100, 10, 0))) for back in range(12, 36)}
    found = popularity(windows_of({**old, HOUR: counts((2, (200, 100, 10, 0)))}, now_hour=HOUR))
    rising, trending, *_ = found.of(np.array([1, 2], np.uint32))
    assert rising[0] < 0.05 < rising[1] == 1
    assert trending[0] > trending[1]


def test_what_one_viewer_saw_tonight_is_not_what_is_popular_and_what_everybody_saw_is() -> None:
    """Ten items that are watched all the time beside 190 that hardly are; forty of both in an evening of one viewer,
    and the same evening of fifty."""
    always = [(item, (10.0, 10.0, 0.0, 0.0)) for item in range(10)]
    old = {HOUR - 24 * 60: counts(*always, *[(item, (1.0, 1.0, 0.0, 0.0)) for item in range(10, 200)])}
    tops = []
    for viewers in (1.0, 50.0):
        tonight = {HOUR: counts(*[(item, (viewers, viewers, 0.0, 0.0)) for item in range(0, 200, 5)])}
        tops.append(set(np.argsort(-popularity(windows_of(old | tonight, now_hour=HOUR)).table[:, 2])[:10].tolist()))
    assert tops[0] == set(range(10))
    assert all(item % 5 == 0 for item in tops[1])


@given(HOURS)
def test_popularity_is_between_0_and_1(hours: dict[int, list[tuple[int, tuple[float, ...]]]]) -> None:
    """Finite and in range for every count, and 0 for what was never counted."""
    found = popularity(windows_of({hour: counts(*rows) for hour, rows in hours.items()}, now_hour=HOUR))
    for values in (*found.of(np.arange(40, dtype=np.uint32)), found.table):
        assert np.isfinite(values).all() and (values >= 0).all() and (values <= 1).all()
    assert not found.of(np.array([10**6], np.uint32)).any()


def test_one_like_of_one_view_is_not_the_top() -> None:
    """With few impressions an item is drawn to the mean."""
    found = popularity(windows_of({HOUR: counts((1, (1000, 600, 90, 50)), (2, (1, 0, 1, 0)))}, now_hour=HOUR))
    assert (found.table[1] > found.table[2]).all()


def test_every_event_of_a_user_is_counted_as_something() -> None:
    """A new signal without a place in the table would be lost silently."""
    assert set(COUNTED_AS) == set(Signal) - {Signal.SERVED}


async def test_counting_twice_from_one_place_is_refused(redis: Redis) -> None:
    """The second of two counters is told, and the sums are those of the first."""
    counters = Counters(redis)
    one = {("acme", HOUR): counts((1, (1, 0, 0, 0)))}
    assert await counters.save(one, counted_from={}, counted_to={3: 2**62, 5: 1})
    assert not await counters.save(one, counted_from={}, counted_to={3: 2**62, 5: 1})
    assert await counters.counted() == {3: 2**62, 5: 1}
    two = {("acme", HOUR): counts((1, (2, 0, 0, 0)))}
    assert await counters.save(two, counted_from={3: 2**62}, counted_to={3: 2**62 + 1})
    assert (await counters.hours("acme", [HOUR]))[HOUR]["sums"][0, 0] == 2


async def test_the_service_reads_what_was_published(redis: Redis) -> None:
    """One value per tenant; junk in its place is no counters, and every key expires."""
    counters = Counters(redis)
    windows = windows_of({HOUR: counts((7, (5, 4, 3, 2)))}, now_hour=HOUR)
    await counters.publish("acme", windows)
    assert (await counters.windows("acme") == windows).all()
    assert await counters.tenants() == {"acme"}
    assert not len(await counters.windows("other"))
    other_layout = np.ones(17, np.dtype([("item", "<u4"), ("sums", "<f4", (3, 4))])).tobytes()
    for content in (b"junk", other_layout, b"\0" * WINDOWS.itemsize):
        await redis.set(keys.windows("acme"), content)
        assert not len(await counters.windows("acme"))


async def test_what_is_folded_is_kept_and_expires(redis: Redis) -> None:
    """With the hour up to which it is folded; junk in its place is nothing, and it does not stay for ever."""
    counters = Counters(redis)
    assert await counters.before("acme") == NOTHING_BEFORE
    before = folded(NOTHING_BEFORE, {HOUR: counts((7, (5, 4, 3, 2)))}, up_to=HOUR)
    await counters.keep_before("acme", before)
    found = await counters.before("acme")
    assert found.hour == HOUR
    whole, parted = (windows_of({}, now_hour=HOUR + KEPT_H, before=one) for one in (before, found))
    assert len(whole) and np.array_equal(whole, parted)
    assert 0 < await redis.ttl(keys.before("acme")) <= 400 * 86_400
    await redis.set(keys.before("acme"), b"junk")
    assert isinstance(await counters.before("acme"), Before)
    assert not len((await counters.before("acme")).sums)


async def test_a_store_that_is_away_says_so() -> None:
    """The last popularity stays then."""
    with pytest.raises(StoreUnavailable):
        await Counters(Redis.from_url("redis://127.0.0.1:1/0", protocol=2)).windows("acme")
