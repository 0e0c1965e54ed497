"""`indexer learn`: published in one step with its snapshot, kept through changes, and taken back by a command."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from indexer.generations import number_of
from indexer.learn import Log
from indexer.learning import Learning, events_of
from ranking.context import Context
from ranking.policy import Layer, resolve
from retrieval.archive import Archive
from retrieval.archive_tables import EVENTS
from retrieval.counters import Popularity
from retrieval.errors import NotFound, SnapshotCorrupt
from retrieval.journal import Signal, entries
from retrieval.snapshot import Snapshot
from retrieval.tenants import Tenant
from retrieval.view import View
from service.ranked import replayed
from tests.support.behaving import BEGAN_S, N_CIRCLES, N_ITEMS, habits
from tests.support.indexing import Indexing
from tests.support.tiny_encoder import TinyEncoder

NOW_S = BEGAN_S + 30 * 86_400


class World:
    """A tenant whose catalogue is indexed and whose archive is full of habits."""

    def __init__(self, indexing: Indexing, folder: Path) -> None:
        self.indexing = indexing
        self.archive = Archive(str(folder / "archive"))
        self.daemon = indexing.daemon()
        self.learning = Learning(self.daemon, lambda: self.archive)

    def archived(self, log: Log, tenant: str = "acme") -> None:
        """Put events into the archive."""
        rows = [
            (tenant, f"{user:032x}", f"{n:032x}", signal, item, at_s, at_s, None, "", None)
            for n, (user, item, at_s, signal) in enumerate(
                zip(log.user.tolist(), log.item.tolist(), log.at_s.tolist(), log.signal.tolist(), strict=True)
            )
        ]
        place = self.archive.positions(EVENTS).get(1, 0)
        self.archive.append(EVENTS, rows, after={1: place}, positions={1: place + 1})

    @property
    def snapshot(self) -> Snapshot:
        """What CURRENT names."""
        return self.indexing.snapshot("acme")

    def feed(self, likes: list[int], **policy: dict[str, float]) -> list[int]:
        """Items of the first page of somebody who likes these."""
        owner = Tenant("acme", "acme", "active", b"p" * 32, 1, 0)
        view = View.of(owner, resolve([Layer("tenant", policy)]), "1", self.snapshot, Popularity.nothing())
        journal = entries([(item, NOW_S - 60, Signal.LIKE, 1.0) for item in likes])
        page = replayed(view, journal, Context(now_s=NOW_S), 10).page
        found: list[int] = page.tolist()
        return found


@pytest.fixture
async def world(indexing: Indexing, tmp_path: Path) -> World:
    """Indexed, nothing learned yet. Item numbers begin at 1, so item 0 of the habits is not in the catalogue."""
    made = World(indexing, tmp_path)
    await indexing.put_many("acme", range(N_ITEMS), words="a film")
    await made.daemon.once()
    return made


def circles(items: list[int]) -> list[int]:
    return [item % N_CIRCLES for item in items]


async def test_what_others_watched_along_with_it_comes_first(world: World) -> None:
    """Texts are all alike; after learning, the feed of who likes one circle is of that circle."""
    world.archived(habits())
    before = circles(world.feed([2, 8, 14])).count(2)
    assert await world.learning.learn("acme") == 1
    assert world.snapshot.learned is not None
    assert circles(world.feed([2, 8, 14])).count(2) >= 8 > before


async def test_the_share_of_behaviour_acts_without_a_new_index(world: World) -> None:
    """A policy that wants texts alone gets them, from the same generation; a person's number beats a learned one."""
    world.archived(habits())
    await world.learning.learn("acme")
    generation = world.snapshot.generation
    behaviour, text = (circles(world.feed([2, 8, 14], taste={"behaviour": share})).count(2) for share in (1.0, 0.0))
    assert behaviour > text
    assert world.snapshot.generation == generation


async def test_too_little_behaviour_leaves_texts_alone(world: World) -> None:
    """No model, no new generation, rows as long as the encoder's."""
    generation = world.snapshot.generation
    world.archived(habits(users=20))
    assert await world.learning.learn("acme") is None
    assert (world.snapshot.generation, world.snapshot.dim, world.snapshot.learned) == (
        generation,
        TinyEncoder.dim,
        None,
    )


async def test_one_command_takes_a_model_back(world: World) -> None:
    """To an older one, to texts alone, and to the newest again; each is a generation of its own."""
    world.archived(habits())
    text = world.snapshot.vectors(np.arange(5))
    await world.learning.learn("acme")
    first = world.snapshot.vectors(np.arange(5))
    world.archived(habits(seed=1))
    assert await world.learning.learn("acme") == 2
    assert not np.allclose(world.snapshot.vectors(np.arange(5)), first)
    await world.learning.use("acme", 1)
    assert number_of(world.snapshot) == 1 and np.allclose(world.snapshot.vectors(np.arange(5)), first, atol=2e-3)
    await world.learning.use("acme", 0)
    assert world.snapshot.learned is None and np.allclose(world.snapshot.vectors(np.arange(5)), text, atol=2e-3)
    await world.learning.use("acme", 2)
    assert number_of(world.snapshot) == 2
    with pytest.raises(NotFound):
        await world.learning.use("acme", 9)


async def test_content_that_changes_later_is_joined_too(world: World) -> None:
    """A brand-new video has a behaviour from its text, a changed one keeps what was learned, a removed one goes."""
    world.archived(habits())
    await world.learning.learn("acme")
    await world.indexing.put_many("acme", range(N_ITEMS, N_ITEMS + 3), words="a new film")
    await world.indexing.remove("acme", "v5")
    assert not await world.daemon.once()
    snapshot = world.snapshot
    assert number_of(snapshot) == 1 and snapshot.n_items == N_ITEMS + 2
    rows = snapshot.current_rows()
    assert np.allclose(np.linalg.norm(rows.vectors.astype(np.float32), axis=1), 1, atol=5e-3)
    await world.daemon.rebuild_from_nothing("acme")
    assert number_of(world.snapshot) == 1


async def test_another_encoder_drops_what_was_learned_from_the_old_vectors(world: World) -> None:
    """Texts alone until behaviour is learned anew; the new model fits the new vectors."""
    world.archived(habits())
    await world.learning.learn("acme")
    other = world.indexing.daemon(TinyEncoder("other"))
    assert not await other.once()
    assert world.snapshot.learned is None
    assert await Learning(other, lambda: world.archive).learn("acme") == 2


async def test_rows_and_model_are_published_in_one_step(world: World) -> None:
    """A model that was written and not published is in nobody's way; one that is damaged is not served."""
    world.archived(habits())
    await world.learning.learn("acme")
    store = world.indexing.store
    before = store.current("acme")
    assert before is not None and before.learned is not None and before.learned[0] == 1
    model = store.models.read("acme", before.learned)
    store.models.write("acme", type(model)(7, *(getattr(model, name) for name in list(vars(model))[1:])))
    assert store.current("acme") == before
    path = store.models.path("acme", before.learned)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(SnapshotCorrupt):
        store.open(before)


async def test_learning_reads_one_tenant_and_nobody_anonymous(world: World) -> None:
    """Another tenant's events and those of nobody in particular teach nothing."""
    world.archived(habits(users=60), tenant="other")
    assert not len(events_of(world.archive, "acme"))
    world.archived(habits(users=3))
    log = events_of(world.archive, "acme")
    assert len(np.unique(log.user)) == 3 and (np.diff(log.at_s) >= 0).all()


def learned_number(world: World) -> int:
    """The number of the model that is published, 0 without one."""
    manifest = world.indexing.store.current("acme")
    return manifest.learned[0] if manifest is not None and manifest.learned is not None else 0


async def test_the_loop_learns_once_in_its_interval(world: World) -> None:
    """At the start where nothing was learned yet, and not again before it is due."""
    world.archived(habits())
    stop = asyncio.Event()
    running = asyncio.create_task(world.learning.run(stop))
    async with asyncio.timeout(60):
        while not learned_number(world):  # noqa: ASYNC110 - it is a file of the store that changes
            await asyncio.sleep(0.05)
    stop.set()
    await running
    assert [number for number, _ in world.indexing.store.models.kept("acme")] == [1]
