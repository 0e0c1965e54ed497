"""The journal: fixed-size entries in one value, read together, replaced without losing what arrives meanwhile."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from retrieval import keys
from retrieval.errors import StoreUnavailable
from retrieval.journal import EMPTY, ENTRY, RETENTION_S, Journals, Signal, alike, entries, newest, parse, position

NOW_S = 1_795_000_000
TENANT, USER = "acme", "0123456789abcdef0123456789abcdef"

ROWS = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.sampled_from(list(Signal)), st.floats(0, 1))


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client of the test server."""
    client = Redis.from_url(redis_url, protocol=2)
    yield client
    await client.aclose()


@given(st.lists(ROWS))
def test_entries_are_read_as_they_were_written(rows: list[tuple[int, int, Signal, float]]) -> None:
    """Bytes and back keeps item, time and signal, and the strength to one part in 255."""
    journal = parse(entries(rows).tobytes())
    assert [(int(e["item"]), int(e["at_s"]), Signal(e["signal"])) for e in journal] == [row[:3] for row in rows]
    assert np.allclose(journal["strength"] / 255, [row[3] for row in rows], atol=1 / 255)


@given(st.binary())
def test_any_bytes_are_a_journal(content: bytes) -> None:
    """Junk in the store is a cold user or known signals, never an error."""
    assert all(entry["signal"] <= max(Signal) for entry in parse(content))


def test_a_position_tells_states_apart() -> None:
    """Another entry, or a newer one, is another position."""
    one = entries([(1, NOW_S, Signal.LIKE, 1.0)])
    two = np.concatenate([one, one])
    assert len({position(EMPTY), position(one), position(two)}) == 3


async def test_reads_in_flight_share_one_round_trip(redis: Redis) -> None:
    """Twenty readers at once cost one command, and each gets its own user."""
    for n in range(20):
        await redis.set(keys.journal(TENANT, f"{n:032x}"), entries([(n, NOW_S, Signal.LIKE, 1.0)]).tobytes())
    before = (await redis.info("commandstats")).get("cmdstat_mget", {}).get("calls", 0)
    journals = Journals(redis)
    found = await asyncio.gather(*(journals.read(TENANT, f"{n:032x}") for n in range(20)))
    assert [int(journal["item"][0]) for journal in found] == list(range(20))
    assert (await redis.info("commandstats"))["cmdstat_mget"]["calls"] == before + 1


async def test_an_unknown_user_has_an_empty_journal(redis: Redis) -> None:
    """Nobody yet is nobody wrong."""
    assert len(await Journals(redis).read(TENANT, USER)) == 0


async def test_a_store_that_is_away_says_so() -> None:
    """Every waiting reader hears of it."""
    journals = Journals(Redis.from_url("redis://127.0.0.1:1/0", protocol=2))
    answers = await asyncio.gather(*(journals.read(TENANT, USER) for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 3


async def test_what_arrives_while_it_is_replaced_stays(redis: Redis) -> None:
    """A journal is put in place of what was seen, and an entry appended meanwhile is behind it."""
    old, late, new = (entries([(item, NOW_S, Signal.LIKE, 1.0)]) for item in (1, 2, 3))
    key = keys.journal(TENANT, USER)
    await redis.set(key, np.concatenate([old, late]).tobytes())
    assert await Journals(redis).replace(TENANT, USER, old, new)
    assert (await Journals(redis).read(TENANT, USER))["item"].tolist() == [3, 2]
    assert 0 < await redis.ttl(key) <= RETENTION_S


async def test_a_journal_that_changed_at_its_beginning_is_not_replaced(redis: Redis) -> None:
    """Trimmed or erased since it was read: nothing is done, so nothing erased comes back."""
    seen = entries([(1, NOW_S, Signal.LIKE, 1.0)])
    assert not await Journals(redis).replace(TENANT, USER, seen, seen)
    assert not await redis.exists(keys.journal(TENANT, USER))


async def test_a_journal_replaced_by_nothing_is_gone(redis: Redis) -> None:
    """No key with an empty value stays behind."""
    seen = entries([(1, NOW_S, Signal.LIKE, 1.0)])
    await redis.set(keys.journal(TENANT, USER), seen.tobytes(), px=500_000)
    assert await Journals(redis).replace(TENANT, USER, seen, np.zeros(0, ENTRY))
    assert not await redis.exists(keys.journal(TENANT, USER))


async def test_every_user_with_a_journal_is_found(redis: Redis) -> None:
    """The sweep sees each journal, and its tenant and user."""
    users = {(tenant, f"{n:032x}") for tenant in ("acme", "b-2") for n in range(50)}
    for user in users:
        await redis.set(keys.journal(*user), b"")
    assert {user async for lot in Journals(redis).all_users() for user in lot} == users


def test_a_user_and_their_stream_are_in_one_slot() -> None:
    """One script may touch all keys of a user in a cluster: they share one hash tag, as the stream does."""
    shard = keys.shard(TENANT, USER)
    names = [keys.journal(TENANT, USER), keys.taken(TENANT, USER, 1), keys.tombstone(TENANT, USER), keys.stream(shard)]
    assert {name[name.index("{") : name.index("}")] for name in names} == {f"{{{shard:02x}"}


@given(st.integers(0, 2**128 - 1))
def test_shards_never_move(user: int) -> None:
    """Within range, and the same for the same user."""
    assert 0 <= keys.shard(TENANT, f"{user:032x}") == keys.shard(TENANT, f"{user:032x}") < keys.SHARDS


def test_the_shard_of_a_known_user_is_what_it_was() -> None:
    """Part of what is stored: whoever changes the function loses every journal."""
    assert [keys.shard("acme", f"{n:032x}") for n in range(4)] == [36, 50, 8, 30]


@given(st.lists(st.integers(0, 2**32 - 1), max_size=50), st.integers(0, 2**32 - 1), st.sampled_from(Signal))
def test_the_same_said_of_many(items: list[int], at_s: int, signal: Signal) -> None:
    """The bytes are those of entries made one by one."""
    one_by_one = entries([(item, at_s, signal, 1.0) for item in items])
    assert alike(items, at_s, signal).tobytes() == one_by_one.tobytes()


@given(st.lists(ROWS, max_size=80), st.sets(st.sampled_from(list(Signal))), st.integers(1, 5))
def test_the_newest_of_some_signals(rows: list[tuple[int, int, Signal, float]], of: set[Signal], most: int) -> None:
    """The last few of these signals, in order, wherever in the journal they are."""
    journal = entries(rows)
    wanted = np.array([signal in of for signal in Signal])
    expected = [entry for entry in journal.tolist() if Signal(entry[2]) in of][-most:]
    assert newest(journal, wanted, most).tolist() == expected
