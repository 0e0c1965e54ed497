"""The work on signals: archived and counted once whatever is killed, ninety days, erased, and made again."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from indexer.counting import ALLOWANCE
from indexer.rebuild_journals import rebuild_journals
from indexer.settings import IndexerSettings
from indexer.signal_loop import SignalLoop
from indexer.signals import Signals
from retrieval import keys
from retrieval.archive import Archive
from retrieval.archive_tables import EVENTS, SERVES
from retrieval.counters import HALF_LIVES_H, Counters, popularity
from retrieval.errors import FeedError, LeaseLost
from retrieval.journal import DAY_S, Journals, Signal
from retrieval.leases import Leases
from retrieval.serves import Serve, ServedItem
from retrieval.stream import Event, Stream
from retrieval.tail import CLAIM_S

NOW_S = 1_795_000_000
NOON_S = NOW_S // DAY_S * DAY_S + DAY_S // 2
TENANT, USER, CANARY = "acme", "0123456789abcdef0123456789abcdef", "canary5678canary5678canary5678ca"


@dataclass
class World:
    """A store, an archive, and a clock that only moves when told."""

    redis: Redis
    archive: Archive
    folder: Path
    now_s: int = NOON_S
    stream: Stream = field(init=False)

    def __post_init__(self) -> None:
        self.stream = Stream(self.redis)

    def signals(self, kind: type[Signals] = Signals) -> Signals:
        """A process that has just started."""
        settings = IndexerSettings(snapshot_dir=self.folder / "snapshots")
        return kind(self.redis, Archive(str(self.folder)), settings, clock=lambda: float(self.now_s))

    async def serve(self, *items: int, user: str | None = USER, request_id: str = "ab12") -> None:
        """Answer a page with these items."""
        page = [ServedItem(item, place, "for_you", 0.5) for place, item in enumerate(items)]
        facts = (TENANT, user, request_id, self.now_s, "personalised", "", 3, "1", 9, 0)
        await self.stream.served(Serve(*facts, items=page))

    async def send(
        self,
        *events: tuple[Signal, int],
        user: str | None = USER,
        request_id: str = "ab12",
        ids: Callable[[], UUID] = uuid4,
    ) -> None:
        """Send events that happen now, in batches as large as the API allows."""
        made = [Event(ids(), signal, item, self.now_s, self.now_s, None, request_id) for signal, item in events]
        for first in range(0, len(made), 100):
            await self.stream.record(TENANT, user, made[first : first + 100], now_s=self.now_s)

    async def work(self) -> Signals:
        """One process that starts, does everything once, and ends."""
        signals = self.signals()
        await signals.start()
        await signals.drain()
        await signals.publish()
        return signals

    async def shown(self, item: int) -> list[float]:
        """The sums of an item over the last seven days: shown, watched, liked, skipped."""
        windows = await Counters(self.redis).windows(TENANT)
        sums: list[float] = windows["sums"][windows["item"] == item][0, -1].tolist()
        return sums


@pytest.fixture
async def world(redis_url: str, tmp_path: Path) -> AsyncIterator[World]:
    """An empty one."""
    redis = Redis.from_url(redis_url, protocol=2)
    yield World(redis, Archive(str(tmp_path / "archive")), tmp_path / "archive")
    await redis.aclose()


async def test_events_and_pages_reach_the_archive(world: World) -> None:
    """Everything accepted is archived, the stream is empty then, and events find their page."""
    await world.serve(1, 2)
    await world.send((Signal.IMPRESSION, 1), (Signal.LIKE, 1))
    signals = await world.work()
    assert (world.archive.count(EVENTS), world.archive.count(SERVES)) == (2, 1)
    assert await signals.tail.backlog() == 0
    (joined,) = world.archive.query("SELECT count(*) AS n FROM events e JOIN serves s ON e.request_id = s.request_id")
    assert joined["n"] == 2
    assert (await signals.retain()).joined_share == 1.0
    await world.send((Signal.LIKE, 1), (Signal.LIKE, 2), request_id="0000")
    assert (await (await world.work()).retain()).joined_share == 0.5


async def test_two_deployments_on_one_redis_lose_nothing(world: World, tmp_path: Path) -> None:
    """The second is told so and takes nothing, however often it tries; when the first is gone for good it may."""
    await world.serve(1)
    await world.work()
    other = World(world.redis, Archive(str(tmp_path / "other")), tmp_path / "other")
    await world.send((Signal.LIKE, 1))
    for _ in range(2):
        with pytest.raises(LeaseLost, match="another archive"):
            await other.work()
    await world.work()
    assert (world.archive.count(EVENTS), world.archive.count(SERVES)) == (1, 1)
    assert other.archive.count(EVENTS) == 0
    assert 0 < await world.redis.ttl(keys.DRAINED_BY) <= CLAIM_S
    await world.redis.delete(keys.DRAINED_BY)  # as time does
    await world.send((Signal.LIKE, 2))
    await other.work()
    assert other.archive.count(EVENTS) == 1
    with pytest.raises(LeaseLost, match="another archive"):
        await world.work()


class Killed(Exception):
    """The process ended here."""


def killed_after(step: int) -> type[Signals]:
    """Signals that end after that many of the steps of a flush: events, serves, counters, forgetting."""

    class Mortal(Signals):
        steps = 0

        async def _archive(self, *given: object) -> None:
            await super()._archive(*given)  # type: ignore[arg-type]  # passed through as it came
            self.passed()

        async def _count(self, *given: object) -> None:
            await super()._count(*given)  # type: ignore[arg-type]  # as above
            self.passed()

        def passed(self) -> None:
            self.steps += 1
            if self.steps == step:
                raise Killed

    return Mortal


@pytest.mark.parametrize("step", [1, 2, 3])
async def test_a_process_killed_anywhere_loses_and_repeats_nothing(world: World, step: int) -> None:
    """After events, after serves, after counters: the next process brings all three to the same place, once."""
    await world.serve(1, 2)
    await world.send((Signal.IMPRESSION, 1), (Signal.LIKE, 1), (Signal.LIKE, 9))
    signals = world.signals(killed_after(step))
    await signals.start()
    with pytest.raises(Killed):
        await signals.drain()
    await world.serve(3, request_id="cd34")
    await world.send((Signal.IMPRESSION, 3), request_id="cd34")
    await world.work()
    await world.work()
    assert (world.archive.count(EVENTS), world.archive.count(SERVES)) == (4, 2)
    assert await world.shown(1) == [1, 0, 1, 0]
    assert await world.shown(3) == [1, 0, 0, 0]


async def test_two_processes_at_once_archive_once(world: World) -> None:
    """Leases fail when clocks do; the places in the archive and in the counters do not."""
    await world.serve(1)
    await world.send((Signal.IMPRESSION, 1), (Signal.LIKE, 1))
    one, two = world.signals(), world.signals()
    await one.start()
    await two.start()
    outcomes = await asyncio.gather(one.drain(), two.drain(), return_exceptions=True)
    assert all(outcome is None or isinstance(outcome, FeedError) for outcome in outcomes)
    await world.work()
    assert (world.archive.count(EVENTS), world.archive.count(SERVES)) == (2, 1)
    assert await world.shown(1) == [1, 0, 1, 0]


async def test_only_one_process_holds_the_lease(world: World, engine: AsyncEngine) -> None:
    """A second one is told who is at it, and may when the first is done."""
    leases = Leases(engine)
    token = await leases.acquire("signals", "another", 60, 0)
    loop = SignalLoop(world.signals(), leases, "me")
    assert token is not None
    await leases.renew("signals", "another", token, 60, 2**33)
    with pytest.raises(LeaseLost):
        await loop.once()
    await leases.release("signals", "another", token)
    assert (await loop.once()).keys_without_expiry == 0


async def test_the_loop_archives_what_waits_when_it_is_stopped(world: World, engine: AsyncEngine) -> None:
    """An orderly end leaves nothing behind."""
    stop = asyncio.Event()
    running = asyncio.create_task(SignalLoop(world.signals(), Leases(engine), "me").run(stop))
    await asyncio.sleep(0.3)
    await world.send((Signal.LIKE, 1))
    await asyncio.sleep(0.5)
    stop.set()
    await running
    assert world.archive.count(EVENTS) == 1


async def test_engagement_counts_only_for_what_was_served(world: World) -> None:
    """Likes of something never served to that user, by its own or a foreign page, move nothing."""
    await world.serve(1)
    await world.serve(5, user=None, request_id="ee99")
    await world.send((Signal.LIKE, 1), (Signal.LIKE, 2))
    await world.send((Signal.LIKE, 1), user="f" * 32)
    await world.send((Signal.LIKE, 5), user=None, request_id="ee99")
    await world.send((Signal.LIKE, 5), user=None, request_id="0000")
    await world.work()
    windows = await Counters(world.redis).windows(TENANT)
    assert dict(zip(windows["item"].tolist(), windows["sums"][:, -1, 2].tolist(), strict=True)) == {1: 1.0, 5: 1.0}


async def test_ten_thousand_likes_of_a_bot_move_the_ranking_by_less_than_one_percent(world: World) -> None:
    """A bot that is served pages and likes everything on them, again and again, against two hundred people."""
    rng = np.random.default_rng(7)
    appeal = rng.random(60)
    for n in range(200):
        items = rng.choice(60, 20, replace=False).tolist()
        liked = [(Signal.LIKE, item) for item in items if rng.random() < appeal[item] / 3]
        watched = [(Signal.COMPLETE, item) for item in items if rng.random() < appeal[item]]
        await world.serve(*items, user=f"{n:032x}")
        await world.send(*[(Signal.IMPRESSION, item) for item in items], *watched, *liked, user=f"{n:032x}")
    await world.work()
    before = popularity(await Counters(world.redis).windows(TENANT)).table
    await world.serve(*range(20), user="b" * 32)
    await world.send(*[(Signal.LIKE, n % 20) for n in range(10_000)], user="b" * 32)
    await world.work()
    after = popularity(await Counters(world.redis).windows(TENANT)).table
    assert (np.abs(after - before).mean(axis=0) < 0.01).all()
    assert ALLOWANCE[2] <= 20


async def test_windows_move_on_although_nothing_happens(world: World) -> None:
    """Each is down to a half after its half-life; what is older than the hours that are kept is still there."""
    await world.serve(1)
    await world.send((Signal.LIKE, 1))
    signals = await world.work()
    found = []
    for hours in (0, *HALF_LIVES_H):
        world.now_s = NOON_S + hours * 3600
        await signals.retain()
        await signals.publish()
        windows = await Counters(world.redis).windows(TENANT)
        found.append(windows["sums"][0, :, 2])
    assert np.allclose(found[0], 1)
    assert np.allclose([found[n + 1][n] for n in range(len(HALF_LIVES_H))], 0.5)


async def test_a_restart_goes_on_from_what_was_folded(world: World) -> None:
    """Hours that are no longer kept are in the sum, once, whoever counts on; also when they are still in Redis."""
    await world.serve(1)
    await world.send((Signal.LIKE, 1))
    await world.work()
    world.now_s = NOON_S + 170 * 3600
    for _ in range(2):
        signals = await world.work()
        await signals.retain()
        await signals.publish()
    windows = await Counters(world.redis).windows(TENANT)
    assert np.allclose(
        windows["sums"][0, :, 2], [0.5 ** (170 / half_life_h) for half_life_h in HALF_LIVES_H], rtol=1e-3
    )
    assert (await Counters(world.redis).before(TENANT)).hour == world.now_s // 3600 - 168


@pytest.mark.parametrize(("days", "left"), [(89, 1), (90, 0), (91, 0)])
async def test_ninety_days_on_an_injected_clock(world: World, days: int, left: int) -> None:
    """Archive and journal of somebody who stays active: the old is physically gone, the new is there."""
    await world.serve(1)
    await world.send((Signal.LIKE, 1))
    await world.work()
    world.now_s = NOON_S + days * DAY_S - DAY_S
    await world.send((Signal.LIKE, 2))
    signals = await world.work()
    world.now_s += DAY_S
    report = await signals.retain()
    assert world.archive.query("SELECT count(*) AS n FROM events WHERE item = 1")[0]["n"] == left
    assert report.oldest_event_age_seconds <= 90 * DAY_S
    assert report.keys_without_expiry == 0
    journal = await Journals(world.redis).read(TENANT, USER)
    assert 2 in journal["item"]
    assert (world.now_s - journal["at_s"].astype(np.int64)).max() <= 90 * DAY_S


async def test_a_key_that_would_stay_for_ever_is_reported(world: World) -> None:
    """Somebody's hand in the store is seen."""
    await world.redis.set(keys.journal(TENANT, USER), b"")
    assert (await (await world.work()).retain()).keys_without_expiry == 1


async def test_an_erased_user_is_nowhere(world: World) -> None:
    """Journal, stream, archive and old versions, with events still waiting; others keep all of theirs."""
    for user in (CANARY, USER):
        await world.serve(1, 2, user=user)
        await world.send((Signal.LIKE, 1), user=user)
    signals = await world.work()
    await world.send((Signal.LIKE, 2), user=CANARY)
    erasure_id = await signals.erasures.ask(TENANT, CANARY, now_s=world.now_s)
    await world.send((Signal.LIKE, 3), user=CANARY)  # late: not even the stream takes it
    assert await signals.erase() == 1
    receipt = await signals.erasures.receipt(TENANT, erasure_id)
    assert receipt.state == "done"
    assert receipt.counts == {"journal_entries": 4, "known_ids": 2, "archived_events": 2, "archived_serves": 1}
    names: list[Any] = await world.redis.keys("*")
    stored = [name + (await world.redis.dump(name) or b"") for name in names]
    files = [path.read_bytes() for path in world.folder.rglob("*") if path.is_file()]
    assert not any(CANARY.encode() in content for content in (*stored, *files))
    assert (world.archive.count(EVENTS), world.archive.count(SERVES)) == (1, 1)
    assert len(await Journals(world.redis).read(TENANT, USER)) == 3


def as_set(journals: Sequence[np.ndarray]) -> list[set[bytes]]:
    """Entries of each journal, in no order."""
    return [{entry.tobytes() for entry in journal} for journal in journals]


async def test_journals_are_made_again_from_the_archive(world: World) -> None:
    """After a loss every entry is back; what arrived meanwhile stays; a second time changes nothing."""
    users = [(TENANT, f"{n:032x}") for n in range(5)]
    for n, (_, user) in enumerate(users):
        await world.serve(n, n + 1, user=user)
        await world.send((Signal.LIKE, n), (Signal.SKIP, n + 1), user=user)
    signals = await world.work()
    before = as_set(await signals.journals.read_many(users))
    await world.redis.flushall()
    await world.send((Signal.SHARE, 77), user=users[0][1])
    archive = Archive(str(world.folder))
    assert await rebuild_journals(archive, signals.journals, cap=4096, now_s=world.now_s) == 5
    after = as_set(await signals.journals.read_many(users))
    assert [len(new - old) for new, old in zip(after, before, strict=True)] == [1, 0, 0, 0, 0]
    assert all(old <= new for new, old in zip(after, before, strict=True))
    assert await rebuild_journals(archive, signals.journals, cap=4096, now_s=world.now_s) == 0
    assert await world.redis.ttl(keys.journal(*users[1])) > 0


async def test_popularity_is_published_although_its_versions_cannot_be_kept(world: World) -> None:
    """A file in the way of the folder: replay loses a version, the ranking loses nothing."""
    await world.serve(1)
    await world.send((Signal.LIKE, 1))
    (world.folder / "snapshots").mkdir(parents=True, exist_ok=True)
    (world.folder / "snapshots" / TENANT).write_text("not a folder")
    signals = await world.work()
    await signals.publish()
    assert (await Counters(world.redis).windows(TENANT))["item"].tolist() == [1]
