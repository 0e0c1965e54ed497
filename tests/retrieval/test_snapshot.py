"""A snapshot of base, fresh and dead rows answers as one table of the live rows would."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.rows import Rows
from retrieval.segment import Segment
from retrieval.snapshot import Snapshot
from retrieval.store import Store
from tests.support.content import (
    DIM,
    a_video,
    manifest_of,
    memory_folder,
    snapshot_of,
    some_rows,
    unit_vectors,
    written,
)


@dataclass(frozen=True)
class Case:
    """A snapshot's parts by item number: `base` and `fresh` items, `dead` ones of the base (the changed among them)."""

    base: tuple[int, ...]
    fresh: tuple[int, ...]
    dead: tuple[int, ...]

    @property
    def live(self) -> set[int]:
        return set(self.fresh) | set(self.base) - set(self.dead)

    def rows(self) -> tuple[Rows, Rows]:
        return some_rows(self.base, seed=1, title="old"), some_rows(self.fresh, seed=2, title="new")

    def vector(self, item: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """The vector an item has now."""
        part, items = (1, self.fresh) if item in self.fresh else (0, self.base)
        vector: np.ndarray[tuple[int], np.dtype[np.float32]] = self.rows()[part].vectors[items.index(item)]
        return vector.astype(np.float32)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    base = draw(st.lists(st.integers(0, 60), unique=True, max_size=40))
    changed = draw(st.sets(st.sampled_from(base))) if base else set()
    new = draw(st.lists(st.integers(61, 90), unique=True, max_size=12))
    removed = draw(st.sets(st.sampled_from(base))) if base else set()
    fresh = [*sorted(changed), *new]
    return Case(tuple(base), tuple(fresh), tuple(sorted(changed | removed)))


def opened(case: Case, folder: Path) -> Snapshot:
    base, fresh = case.rows()
    return snapshot_of(folder, base, *([fresh] if len(fresh) else []), dead=case.dead)


@given(cases(), st.integers(1, 30), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_search_is_brute_force_over_the_live_and_allowed(case: Case, k: int, random: Random) -> None:
    """The k nearest allowed live items, best first, whichever segment they lie in."""
    with memory_folder() as folder:
        snapshot = opened(case, folder)
        allowed_items = {item for item in case.live if random.random() < 0.7}
        bits = np.zeros(snapshot.n_rows, bool)
        bits[snapshot.rows(np.array(sorted(allowed_items), np.uint32))] = True
        queries = unit_vectors(3, seed=5)
        rows, cosine = snapshot.search(queries, k, np.packbits(bits, bitorder="little"))
        for query, found, near in zip(queries, rows, cosine, strict=True):
            expected = sorted(-float(case.vector(item) @ query) for item in allowed_items)[:k]
            hits = found[found >= 0]
            assert set(snapshot.column("item", hits).tolist()) <= allowed_items
            assert len(set(hits.tolist())) == len(hits) == min(k, len(allowed_items))
            assert near[: len(hits)] == pytest.approx([-value for value in expected], abs=2e-3)
            assert np.isneginf(near[len(hits) :]).all()


@given(cases())
@settings(max_examples=60, deadline=None)
def test_each_live_item_has_one_row_with_its_newest_state(case: Case) -> None:
    """rows(), column(), cards(), find(), live and current_rows() agree about what is there."""
    with memory_folder() as folder:
        snapshot = opened(case, folder)
        items = np.arange(100, dtype=np.uint32)
        rows = snapshot.rows(items)
        live = sorted(case.live)
        assert np.flatnonzero(rows >= 0).tolist() == live
        there = rows[live].astype(np.int64)
        assert snapshot.column("item", there).tolist() == live
        assert np.unpackbits(snapshot.live, bitorder="little").nonzero()[0].tolist() == sorted(there.tolist())
        assert snapshot.n_items == len(live)
        for item, card in zip(live, snapshot.cards(there), strict=True):
            state = "new" if item in case.fresh else "old"
            assert card.startswith(f'{{"id":"video-{item}","title":"{state}"'.encode())
        assert [snapshot.find(f"video-{item}") for item in range(100)] == [i if i in live else None for i in range(100)]
        table = snapshot.current_rows()
        assert sorted(table.columns["item"].tolist()) == live
        vectors = np.array([case.vector(item) for item in live]).reshape(-1, DIM)
        assert np.allclose(snapshot.vectors(there), vectors, atol=1e-3)


def test_an_empty_snapshot_answers_everything(tmp_path: Path) -> None:
    """A tenant that was never published has no items, and nobody needs to know that."""
    snapshot = Snapshot.empty("acme", DIM)
    rows, cosine = snapshot.search(unit_vectors(2), 5, np.zeros(0, np.uint8))
    assert rows.shape == cosine.shape == (2, 0)
    assert snapshot.rows(np.array([0, 7], np.uint32)).tolist() == [-1, -1]
    assert snapshot.find("video-1") is None
    assert snapshot.n_items == snapshot.n_rows == 0
    assert len(snapshot.current_rows()) == 0
    assert snapshot.cards(np.zeros(0, np.int64)) == []


def test_an_id_is_compared_and_not_only_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two videos whose hashes collide are still told apart."""
    monkeypatch.setattr("retrieval.rows.key_hash", lambda text: 5)
    monkeypatch.setattr("retrieval.snapshot.key_hash", lambda text: 5)
    videos = [a_video(item, id=f"video-{item}") for item in range(12)]
    snapshot = snapshot_of(tmp_path, Rows.from_videos(videos, unit_vectors(12)))
    assert [snapshot.find(f"video-{item}") for item in range(12)] == list(range(12))
    assert snapshot.find("video-1x") is None
    assert snapshot.find("video") is None


def test_item_numbers_beyond_the_table_are_unknown(tmp_path: Path) -> None:
    """A journal may name items this snapshot has never seen: they have no row."""
    snapshot = snapshot_of(tmp_path, some_rows([0, 5]))
    assert snapshot.rows(np.array([5, 6, 2**32 - 1], np.uint32)).tolist() == [1, -1, -1]
    assert snapshot.rows(np.zeros(0, np.uint32)).tolist() == []


def test_segments_that_are_kept_are_not_opened_again(tmp_path: Path) -> None:
    """A publish that changes only the fresh segment costs the fresh segment; also when the base is empty."""
    store = Store(tmp_path)
    for base in (some_rows(range(20)), Rows.empty(DIM)):
        kept = written(store, "acme", base)
        first = store.open(manifest_of("acme", 1, kept))
        more = written(store, "acme", some_rows([50]), kind="fresh")
        second = store.open(manifest_of("acme", 2, (*kept, *more)), first)
        assert second.segments[0] is first.segments[0]
        assert isinstance(second.segments[1], Segment)
