"""What is newest, in memory: swapped whole, never backwards to nothing, and one tenant's trouble is its own."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from retrieval import live as live_module
from retrieval.counters import COUNTS, Counters, added, windows_of
from retrieval.database import connect
from retrieval.errors import NotFound, StoreUnavailable
from retrieval.live import Live
from retrieval.policies import Policies
from retrieval.store import Store
from retrieval.tables import GLOBAL
from retrieval.tenants import Tenants
from retrieval.view import View
from tests.support.content import DIM, published, some_rows
from tests.support.databases import NOW_S


@dataclass
class Worker:
    """A service worker's view of the stores, and the stores."""

    engine: AsyncEngine
    store: Store
    redis: Redis
    copy: Path

    def live(self, *, engine: AsyncEngine | None = None) -> Live:
        return Live(engine or self.engine, self.store, Counters(self.redis), dim=DIM, copy=self.copy)

    async def loaded(self) -> Live:
        """As a worker is when it has started, without its loops."""
        live = self.live()
        await live.refresh_config()
        await live.refresh_snapshots()
        return live

    def publish(self, generation: int, items: int | None = None, tenant: str = "acme") -> None:
        """A generation with so many items (default: as many as its number)."""
        published(self.store, tenant, generation, some_rows(range(generation if items is None else items)))


@pytest.fixture
async def worker(sqlite_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Worker]:
    """A database with the tenants `acme` and `other`, nothing published."""
    engine, redis = connect(sqlite_url), Redis.from_url(redis_url, protocol=2)
    for tenant in ("acme", "other"):
        await Tenants(engine).create(tenant, tenant, NOW_S)
    yield Worker(engine, Store(tmp_path / "snapshots"), redis, tmp_path / "state" / "config.json")
    await redis.aclose()
    await engine.dispose()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def newest_segment(store: Store) -> Path:
    manifest = store.current("acme")
    assert manifest is not None
    return store.root / "acme" / "segments" / manifest.segments[-1][0]


def shown(live: Live, tenant: str = "acme") -> tuple[int, int]:
    """(generation, items) of what is served."""
    snapshot = live.view(tenant).snapshot
    return snapshot.generation, snapshot.n_items


async def test_what_is_published_is_shown_at_the_next_look(worker: Worker) -> None:
    """A tenant without a generation is empty, not unknown; an unknown one is NotFound."""
    live = await worker.loaded()
    assert shown(live) == (0, 0)
    for generation in (1, 2, 3):
        worker.publish(generation)
        await live.refresh_snapshots()
        assert shown(live) == (generation, generation)
    with pytest.raises(NotFound):
        live.view("nobody")


async def test_a_request_keeps_the_view_it_began_with(worker: Worker) -> None:
    """Views are replaced, never changed, also when the files behind them are gone."""
    worker.publish(1, 20)
    live = await worker.loaded()
    view = live.view("acme")
    worker.publish(2, 30)
    await live.refresh_snapshots()
    shutil.rmtree(worker.store.root)
    assert view.snapshot.n_items == 20
    assert view.snapshot.cards(view.newest)[0].startswith(b'{"id":"video-0"')
    assert shown(live) == (2, 30)


DAMAGE: dict[str, Callable[[Store], object]] = {
    "rows flipped": lambda store: flip(newest_segment(store) / "rows.bin"),
    "vectors flipped": lambda store: flip(newest_segment(store) / "vectors.faiss"),
    "about flipped": lambda store: flip(newest_segment(store) / "segment.json"),
    "segment gone": lambda store: shutil.rmtree(newest_segment(store)),
    "manifest flipped": lambda store: flip(sorted((store.root / "acme" / "generations").iterdir())[-1]),
    "CURRENT flipped": lambda store: flip(store.root / "acme" / "CURRENT"),
    "CURRENT gone": lambda store: (store.root / "acme" / "CURRENT").unlink(),
    "everything gone": lambda store: shutil.rmtree(store.root / "acme"),
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_damaged_generation_is_refused_and_the_last_good_one_serves(worker: Worker, damage: str) -> None:
    """By itself it takes up the next good one; the other tenants notice nothing."""
    worker.publish(1)
    worker.publish(2)
    live = await worker.loaded()
    worker.publish(3)
    worker.publish(1, tenant="other")
    DAMAGE[damage](worker.store)
    for _ in range(3):
        await live.refresh_snapshots()
    assert shown(live) == (2, 2)
    assert shown(live, "other") == (1, 1)
    worker.publish(worker.store.newest_generation("acme") + 1, 7)
    await live.refresh_snapshots()
    assert shown(live)[1] == 7


@pytest.mark.parametrize("damage", [name for name in DAMAGE if name != "everything gone"])
async def test_a_start_on_a_damaged_generation_serves_the_one_before(worker: Worker, damage: str) -> None:
    """A worker that is replaced just then has nothing in memory, but the generation before is still on disk."""
    worker.publish(1)
    worker.publish(2, 5)
    DAMAGE[damage](worker.store)
    live = await worker.loaded()
    expected = (2, 5) if damage in ("CURRENT flipped", "CURRENT gone") else (1, 1)
    assert shown(live) == expected
    worker.publish(worker.store.newest_generation("acme") + 1, 7)
    await live.refresh_snapshots()
    assert shown(live)[1] == 7


async def test_a_start_without_any_whole_generation_is_empty(worker: Worker) -> None:
    """Nothing to show is still an answer."""
    worker.publish(1)
    worker.publish(2)
    shutil.rmtree(worker.store.root / "acme" / "segments")
    assert shown(await worker.loaded()) == (0, 0)


async def test_a_mended_generation_is_taken_up(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault may have been one of the moment, or the files be restored: it is tried again after a while."""
    worker.publish(1)
    live = await worker.loaded()
    worker.publish(2)
    path = newest_segment(worker.store) / "rows.bin"
    flip(path)
    await live.refresh_snapshots()
    flip(path)
    await live.refresh_snapshots()
    assert shown(live) == (1, 1), "not tried at every look"
    late_s = time.monotonic() + live_module.REFUSED_S + 1
    monkeypatch.setattr(time, "monotonic", lambda: late_s)
    await live.refresh_snapshots()
    assert shown(live) == (2, 2)


async def test_a_refusal_is_said_once(worker: Worker, capsys: pytest.CaptureFixture[str]) -> None:
    """Four looks a second must not be four log lines a second."""
    worker.publish(1)
    live = await worker.loaded()
    worker.publish(2)
    flip(newest_segment(worker.store) / "rows.bin")
    for _ in range(5):
        await live.refresh_snapshots()
    assert capsys.readouterr().out.count("snapshot_refused") == 1
    assert live.refused == ["acme"]
    worker.publish(3)
    await live.refresh_snapshots()
    assert live.refused == []


async def test_what_fails_at_every_look_is_said_once(worker: Worker, capsys: pytest.CaptureFixture[str]) -> None:
    """With a store away a loop fails several times a second; the log has its beginning and its end."""
    live = worker.live()

    async def away() -> None:
        raise StoreUnavailable("gone")

    for _ in range(3):
        await live._attempt("config", away)
    await live._attempt("config", live.refresh_config)
    await live._attempt("config", live.refresh_config)
    said = capsys.readouterr().out
    assert (said.count("refresh_failed"), said.count("refreshed_again")) == (1, 1)


async def test_one_tenants_trouble_is_its_own(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is raised for one, the others get their news, and the look counts as a look."""
    worker.publish(1)
    worker.publish(1, tenant="other")
    real = worker.store.pointer

    def pointer(tenant: str) -> tuple[int, str] | None:
        if tenant == "acme":
            raise ZeroDivisionError("a bug")
        return real(tenant)

    monkeypatch.setattr(worker.store, "pointer", pointer)
    live = await worker.loaded()
    assert shown(live, "other") == (1, 1)
    assert live.refreshed_s > 0


async def test_a_new_policy_is_shown_with_the_same_snapshot(worker: Worker) -> None:
    """And work done for the base is kept as long as the rules are the same, and not for others."""
    worker.publish(1, 30)
    live = await worker.loaded()
    before = live.view("acme")
    await Policies(worker.engine).publish("acme", {"weights": {"similarity": 0.9}}, "ada", "test", 0, NOW_S)
    await live.refresh_config()
    after = live.view("acme")
    assert (before.policy_version, after.policy_version) == ("0.0", "0.1")
    assert after.snapshot is before.snapshot
    assert after.policy.weights["similarity"] == 0.9
    assert after.parts[0] is before.parts[0]
    rule = {"id": "no", "kind": "block", "target": {"items": ["video-3"]}}
    await Policies(worker.engine).publish("acme", {"rules": [rule]}, "ada", "test", 1, NOW_S)
    await live.refresh_config()
    assert live.view("acme").parts[0] is not before.parts[0]


async def test_one_tenants_policy_leaves_the_others_as_they_are(worker: Worker) -> None:
    """A hundred tenants are not shown anew for one; a global policy is everybody's."""
    live = await worker.loaded()
    policies, before = Policies(worker.engine), live.view("other")
    await policies.publish("acme", {"weights": {"similarity": 0.9}}, "ada", "test", 0, NOW_S)
    await live.refresh_config()
    assert live.view("acme").policy_version == "0.1"
    assert live.view("other") is before
    await policies.publish(GLOBAL, {"weights": {"similarity": 0.8}}, "ada", "test", 0, NOW_S)
    await live.refresh_config()
    assert [live.view(tenant).policy_version for tenant in ("acme", "other")] == ["1.1", "1.0"]
    assert live.view("other").policy.weights["similarity"] == 0.8


async def test_a_suspended_tenant_is_known_as_such(worker: Worker) -> None:
    """Within one look at the configuration."""
    live = await worker.loaded()
    await Tenants(worker.engine).suspend("acme", NOW_S)
    await live.refresh_config()
    assert live.config.tenants["acme"].status == "suspended"


async def test_a_start_without_sql_serves_from_the_copy(worker: Worker, tmp_path: Path) -> None:
    """Keys, tenants and policies of the last good start; ready, and recovering by itself when SQL answers."""
    worker.publish(1, 5)
    await worker.loaded()
    away = connect(f"sqlite+aiosqlite:///{tmp_path / 'nowhere' / 'feed.db'}")
    live = worker.live(engine=away)
    await live.start(config_s=60, snapshots_s=60, counters_s=60)
    assert live.ready
    assert shown(live) == (1, 5)
    live.engine = worker.engine
    await Tenants(worker.engine).create("third", "third", NOW_S)
    await live.refresh_config()
    assert "third" in live.config.tenants
    await live.stop()
    await away.dispose()


async def test_a_look_at_the_same_counts_keeps_the_very_view(worker: Worker) -> None:
    """Nothing is built anew every ten seconds; what one more hour has faded, or another count, is taken up at once."""
    worker.publish(1, 5)
    live = await worker.loaded()
    liked = added(np.zeros(0, COUNTS), np.arange(3, dtype=np.uint32), np.array([[4, 1, n, 0] for n in range(3)], "f4"))
    newest: list[View] = []
    for now_hour in (100, 100, 101, 101):
        await live.counters.publish("acme", windows_of({99: liked}, now_hour=now_hour))
        await live.refresh_counters()
        await live.refresh_counters()
        newest.append(live.view("acme"))
    first, same, faded, same_again = newest
    assert same is first
    assert faded is not first
    assert same_again is faded
    assert faded.popularity.version != first.popularity.version
    assert live.counted_s > 0
    other = live.view("other")
    await live.refresh_counters()
    assert live.view("other") is other


async def test_a_start_with_nothing_is_not_ready(worker: Worker, tmp_path: Path) -> None:
    """No SQL and no copy: it stays up, says so, and becomes ready when SQL answers."""
    away = connect(f"sqlite+aiosqlite:///{tmp_path / 'nowhere' / 'feed.db'}")
    live = worker.live(engine=away)
    await live.start(config_s=60, snapshots_s=60, counters_s=60)
    before = live.ready
    live.engine = worker.engine
    await live.refresh_config()
    assert (before, live.ready) == (False, True)
    await live.stop()
    await away.dispose()


async def test_an_installation_without_tenants_is_ready(worker: Worker, sqlite_url: str) -> None:
    """There is nobody to serve yet, and nothing is wrong."""
    live = worker.live()
    await live.refresh_config()
    object.__setattr__(live.config, "tenants", {})
    assert live.ready


async def test_the_loops_bring_news_and_survive_errors(worker: Worker) -> None:
    """Started for real: a new tenant, its first generation, and a damaged one in between."""
    live = worker.live()
    await live.start(config_s=0.02, snapshots_s=0.02, counters_s=0.02)
    await Tenants(worker.engine).create("third", "third", NOW_S)
    published(worker.store, "third", 1, some_rows(range(3)))
    await _until(lambda: "third" in live.config.tenants and shown(live, "third") == (1, 3))
    (worker.store.root / "third" / "CURRENT").write_bytes(b"{")
    await asyncio.sleep(0.1)
    assert shown(live, "third") == (1, 3)
    published(worker.store, "third", 2, some_rows(range(4)))
    await _until(lambda: shown(live, "third") == (2, 4))
    await live.stop()


async def test_a_reader_follows_a_publisher_that_sweeps(worker: Worker) -> None:
    """Publishing and sweeping as fast as it goes, without any grace: never empty, never backwards, and at the end
    the newest."""
    worker.publish(1)
    live = await worker.loaded()

    def publish() -> None:
        for generation in range(2, 40):
            worker.publish(generation)
            worker.store.sweep("acme", now_s=time.time() + 1e6, keep=1)

    publishing = asyncio.create_task(asyncio.to_thread(publish))
    seen = [1]
    while not publishing.done():
        await live.refresh_snapshots()
        await asyncio.sleep(0)
        generation, items = shown(live)
        assert generation == items >= seen[-1]
        seen.append(generation)
    await publishing
    await live.refresh_snapshots()
    assert shown(live) == (39, 39)


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while True:
            try:
                if true():
                    return
            except NotFound:
                pass
            await asyncio.sleep(0.01)
