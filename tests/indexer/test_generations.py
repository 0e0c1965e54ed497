"""Generation after generation: whatever is changed, removed and folded in whatever order, the snapshot is the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from indexer.generations import Base, Contents, departing, fold, rebased, remembered
from retrieval.rows import Rows, card
from retrieval.snapshot import Snapshot
from retrieval.store import Manifest, Store
from retrieval.videos import Video
from tests.support.content import DIM, a_video, manifest_of, memory_folder, some_rows, unit_vectors

EMPTY = np.zeros(0, np.uint32)
ITEMS = st.sets(st.integers(0, 40), max_size=12)


def vector_of(video: Video) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """The vector a state of a video has: another version, another vector."""
    vector: np.ndarray[tuple[int], np.dtype[np.float32]] = unit_vectors(1, seed=1000 * video.item + video.version)[0]
    return vector


def rows_of(videos: list[Video]) -> Rows:
    return Rows.from_videos(videos, np.array([vector_of(video) for video in videos], np.float32).reshape(-1, DIM))


class Generations(RuleBasedStateMachine):
    """The indexer's steps on real segments beside a dictionary of what should be there."""

    folds = Bundle("folds")

    def __init__(self) -> None:
        super().__init__()
        self.folder = memory_folder()
        self.store = Store(self.folder.__enter__())
        self.model: dict[int, Video] = {}
        self.version = 0
        self.covered = 0
        self.manifest: Manifest = manifest_of("acme", 0)
        self.snapshot = Snapshot.empty("acme", DIM)

    def teardown(self) -> None:
        self.folder.__exit__(None, None, None)

    @initialize(items=ITEMS)
    def first(self, items: set[int]) -> None:
        """The first generation of a tenant, empty or not."""
        self._change(items, set(), Contents.empty(DIM))

    @rule(changed=ITEMS, removed=ITEMS)
    def change(self, changed: set[int], removed: set[int]) -> None:
        """One pass over the catalogue: some videos new or changed, some gone; some of those were never there."""
        self._change(changed, removed, Contents.of(self.snapshot, dict(self.manifest.segments)))

    @rule(changed=ITEMS)
    def part(self, changed: set[int]) -> None:
        """A part of a long catch-up: its rows are newer than the version the generation claims to cover."""
        covered = self.covered
        self._change(changed, set(), Contents.of(self.snapshot, dict(self.manifest.segments)), covered)

    @rule(changed=ITEMS)
    def reopen(self, changed: set[int]) -> None:
        """Another indexer takes over: it knows nothing but what is on disk."""
        self.snapshot = self.store.open(self.manifest)
        self.change(changed, set())

    @rule(target=folds)
    def begin_fold(self) -> Base:
        """A fold runs in the background; it may be finished, and used, many passes later."""
        return fold(self.store, self.snapshot)

    @precondition(lambda self: self.model)
    @rule(base=folds)
    def end_fold(self, base: Base) -> None:
        """The folded base replaces the old one, below everything that was changed meanwhile."""
        self._publish(rebased(self.snapshot, base))

    def _change(self, changed: set[int], removed: set[int], contents: Contents, covered: int | None = None) -> None:
        self.version += 1
        self.covered = self.version if covered is None else covered
        removed = removed - changed
        videos = [a_video(item, version=self.version, title=f"state {self.version}") for item in sorted(changed)]
        self.model = {item: video for item, video in self.model.items() if item not in removed}
        self.model |= {video.item: video for video in videos}
        self._publish(contents.changed(rows_of(videos), np.array(sorted(removed), np.uint32)))

    def _publish(self, contents: Contents) -> None:
        generation = self.store.newest_generation("acme") + 1
        self.manifest = contents.write(self.store, manifest_of("acme", generation, version=self.covered))
        self.store.publish(self.manifest)
        self.snapshot = self.store.open(self.manifest, self.snapshot)

    @invariant()
    def the_snapshot_is_the_model(self) -> None:
        """Items, cards, versions and vectors are those of the newest states, once each."""
        items = sorted(self.model)
        rows = self.snapshot.rows(np.array(items, np.uint32))
        assert sorted(self.snapshot.current_rows().columns["item"].tolist()) == items
        assert self.snapshot.n_items == len(items)
        assert self.snapshot.cards(rows) == [card(self.model[item]) for item in items]
        assert self.snapshot.column("version", rows).tolist() == [self.model[item].version for item in items]
        expected = np.array([vector_of(self.model[item]) for item in items], np.float32).reshape(-1, DIM)
        assert np.allclose(self.snapshot.vectors(rows), expected, atol=1e-3)

    @invariant()
    def a_search_finds_the_living_and_nobody_else(self) -> None:
        """Asked for more than there is, it returns each live item once; each is the nearest to its own vector."""
        items = sorted(self.model)
        everything, _ = self.snapshot.search(unit_vectors(1), 100, self.snapshot.live)
        found = everything[everything >= 0]
        assert sorted(self.snapshot.column("item", found).tolist()) == items
        if items:
            own = np.array([vector_of(self.model[item]) for item in items], np.float32)
            nearest, _ = self.snapshot.search(own, 1, self.snapshot.live)
            assert self.snapshot.column("item", nearest[:, 0]).tolist() == items


TestGenerations = Generations.TestCase
TestGenerations.settings = settings(max_examples=40, stateful_step_count=12, deadline=None)


SHARES = [(100, 9, 2, True), (100, 5, 5, False), (0, 9, 0, False), (999, 10, 0, False), (999, 10, 1, True)]


@pytest.mark.parametrize(("base", "beside", "dead", "wanted"), SHARES)
def test_a_fold_is_wanted_when_a_tenth_lies_beside_the_base(
    base: int, beside: int, dead: int, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Changed, new and dead rows count; beside a large base it is MOST_BESIDE; without a base nothing can be folded."""
    monkeypatch.setattr("indexer.generations.MOST_BESIDE", 10)
    kept = Base("base-1", "", np.arange(base, dtype=np.uint32), 1) if base else None
    contents = Contents(kept, some_rows(range(200, 200 + beside)), np.arange(dead, dtype=np.uint32))
    assert contents.wants_fold(fold_min_items=5) is wanted


def test_a_small_fresh_segment_is_never_folded() -> None:
    """Below `fold_min_items` one exact scan beside the base costs less than a new base."""
    kept = Base("base-1", "", np.arange(10, dtype=np.uint32), 1)
    assert not Contents(kept, some_rows(range(20, 40)), np.zeros(0, np.uint32)).wants_fold(fold_min_items=20)


def test_a_base_is_kept_as_it_is_while_things_change_beside_it(tmp_path: Path) -> None:
    """A small change costs a small segment: the base's files are named again, not written again."""
    store = Store(tmp_path)
    contents = Contents.empty(DIM).changed(some_rows(range(50)), np.zeros(0, np.uint32))
    first = contents.write(store, manifest_of("acme", 1))
    snapshot = store.open(first)
    changed = Contents.of(snapshot, dict(first.segments)).changed(some_rows([3, 99]), np.array([4], np.uint32))
    second = changed.write(store, manifest_of("acme", 2))
    assert second.segments[0] == first.segments[0]
    assert second.dead == (3, 4)
    assert [len(segment) for segment in store.open(second).segments] == [50, 2]


def test_what_changes_often_is_not_trained(tmp_path: Path) -> None:
    """Beside a base, however much it is, vectors are only compared: a small change must not cost a training."""
    store = Store(tmp_path)
    contents = Contents.empty(DIM).changed(some_rows(range(9000)), np.zeros(0, np.uint32))
    first = contents.write(store, manifest_of("acme", 1))
    beside = Contents.of(store.open(first), dict(first.segments)).changed(some_rows(range(9000, 18_000)), EMPTY)
    kinds = [segment.index.kind for segment in store.open(beside.write(store, manifest_of("acme", 2))).segments]
    assert kinds == ["scan", "exact"]


def test_rows_that_a_folded_base_lacks_stay_beside_it(tmp_path: Path) -> None:
    """Whatever their version: a fold must never lose a video."""
    store = Store(tmp_path)
    contents = Contents.empty(DIM).changed(some_rows(range(10), version=1), np.zeros(0, np.uint32))
    base = fold(store, store.open(contents.write(store, manifest_of("acme", 1, version=5))))
    more = contents.changed(some_rows([50], version=2), np.zeros(0, np.uint32))
    snapshot = store.open(more.write(store, manifest_of("acme", 2, version=6)))
    after = store.open(rebased(snapshot, base).write(store, manifest_of("acme", 3, version=6)))
    assert sorted(after.current_rows().columns["item"].tolist()) == [*range(10), 50]


DAY_S = 86_400


def departed_rows(items: range, left_s: int) -> Rows:
    """Rows of videos that left one second after the other."""
    videos = [departing(a_video(item, updated_s=left_s + item)) for item in items]
    return rows_of(videos)


def test_a_departed_video_is_found_and_does_not_live(tmp_path: Path) -> None:
    """Its vector is at hand by its number, through a fold as well; no search, no mask and no count has it."""
    store = Store(tmp_path)
    contents = Contents.empty(DIM).changed(some_rows(range(20)), EMPTY).changed(departed_rows(range(5, 8), 10), EMPTY)

    def published(contents: Contents, generation: int) -> tuple[Snapshot, Contents]:
        manifest = contents.write(store, manifest_of("acme", generation))
        snapshot = store.open(manifest)
        return snapshot, Contents.of(snapshot, dict(manifest.segments))

    snapshot, _ = published(contents, 1)
    folded, contents = published(rebased(snapshot, fold(store, snapshot)), 2)
    for one in (snapshot, folded):
        assert one.n_items == 17
        rows = one.rows(np.arange(5, 8, dtype=np.uint32))
        expected = [vector_of(a_video(item, updated_s=10 + item)) for item in range(5, 8)]
        assert np.allclose(one.vectors(rows), expected, atol=1e-3)
        found, _ = one.search(unit_vectors(1), 100, one.live)
        assert not set(one.column("item", found[found >= 0]).tolist()) & {5, 6, 7}
    back, _ = published(contents.changed(some_rows(range(6, 7)), EMPTY), 3)
    assert back.n_items == 18


@pytest.mark.parametrize("living", [10, 50_000])
def test_not_too_many_departed_videos_are_remembered(living: int) -> None:
    """A thousand, or a tenth of what lives; the last ones to leave, and none that left 90 days before the last."""
    columns = some_rows(range(2)).take(np.zeros(living, np.int64))
    left = departed_rows(range(6000), 100 * DAY_S)
    kept = remembered(Rows.concat([columns, left])).columns
    departed = kept["item"][kept["available_from_s"] >= kept["available_until_s"]]
    most = max(1000, living // 10)
    assert len(kept["item"]) - len(departed) == living
    assert sorted(departed.tolist()) == list(range(6000 - most, 6000))
    old = departed_rows(range(100), 10 * DAY_S - 200)
    both = remembered(Rows.concat([old, left.take(np.arange(100))])).columns["available_until_s"]
    assert both.min() == 100 * DAY_S
