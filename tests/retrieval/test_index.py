"""The index: laws of a search over random small cases, recall of every kind, and what a file promises."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval import files, index
from retrieval.index import KINDS, Float32, Index, Int64, Kind
from retrieval.masks import Mask

D = 16


def unit(vectors: np.ndarray) -> Float32:
    """The same rows with length one, as float32."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def of_kind(name: str, vectors: Float32) -> Index:
    """An index of the named kind whatever the size of `vectors`.

    Few vectors cannot fill many lists. The lists that hold the k nearest grow more slowly than all do, here as the
    root of their number, so that a small index is as hard to search as a large one.
    """
    kind = next(kind for kind in KINDS if kind.name == name)
    lists = min(kind.lists, len(vectors) // 128)
    probes = int(np.ceil(kind.probes * (lists / kind.lists) ** 0.5)) if lists else 0
    return index.build(vectors, (kind._replace(up_to=np.inf, lists=lists, probes=probes),))


def exact(vectors: Float32, queries: Float32, k: int, allowed: Mask | None = None) -> Float32:
    """The k highest cosines of each query among the allowed rows, best first, by the plainest way."""
    cosine = queries @ vectors.T
    if allowed is not None:
        cosine = cosine[:, np.unpackbits(allowed, count=len(vectors), bitorder="little").view(bool)]
    return -np.sort(-cosine, axis=1)[:, :k]


class Case(NamedTuple):
    """One search over a small index in which vectors may repeat."""

    vectors: Float32
    queries: Float32
    k: int
    mask: np.ndarray | None

    @property
    def allowed(self) -> Mask | None:
        return None if self.mask is None else np.packbits(self.mask, bitorder="little")


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """0..200 rows drawn from fewer distinct ones, 0..3 queries, k up to beyond the rows, any share of them allowed."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(0, 200))
    distinct = unit(rng.standard_normal((draw(st.integers(1, 200)), D)))
    share = draw(st.sampled_from([None, 0.0, 0.01, 0.5, 0.99, 1.0]))
    return Case(
        vectors=distinct[rng.integers(len(distinct), size=n)],
        queries=unit(rng.standard_normal((draw(st.integers(0, 3)), D))),
        k=draw(st.integers(0, 250)),
        mask=None if share is None else rng.random(n) < share,
    )


@given(cases())
@settings(deadline=None)
def test_search_is_the_exact_search_over_the_allowed_rows(case: Case) -> None:
    """The cosines are those of an exact search, best first, one per row of min(k, allowed); the rest is padding."""
    rows, cosine = index.build(case.vectors).search(case.queries, case.k, case.allowed)
    found = min(case.k, len(case.vectors) if case.mask is None else int(case.mask.sum()))
    assert rows.shape == cosine.shape == (len(case.queries), case.k)
    assert rows.dtype == np.int64
    assert cosine.dtype == np.float32
    np.testing.assert_allclose(
        cosine[:, :found], exact(case.vectors, case.queries, case.k, case.allowed), rtol=0, atol=2e-3
    )
    assert (rows[:, found:] == -1).all()
    assert np.isneginf(cosine[:, found:]).all()


@given(cases())
@settings(deadline=None)
def test_rows_are_distinct_allowed_ordered_and_carry_their_own_cosine(case: Case) -> None:
    """No row comes twice or against the filter; order is by cosine, then by row; each cosine is that of its row."""
    rows, cosine = index.build(case.vectors).search(case.queries, case.k, case.allowed)
    for query, of_query, near in zip(case.queries, rows, cosine, strict=True):
        kept = of_query[of_query >= 0]
        assert len(set(kept.tolist())) == len(kept)
        if case.mask is not None:
            assert case.mask[kept].all()
        keys = list(zip((-near[: len(kept)]).tolist(), kept.tolist(), strict=True))
        assert all(first < second for first, second in pairwise(keys))
        np.testing.assert_allclose(near[: len(kept)], case.vectors[kept] @ query, rtol=0, atol=2e-3)


@given(cases())
@settings(deadline=None, max_examples=30)
def test_a_file_answers_as_the_index_it_was_written_from(tmp_path_factory: pytest.TempPathFactory, case: Case) -> None:
    """Written and mapped again, an index has the same kind, vectors and answers."""
    path = tmp_path_factory.mktemp("index") / "index.faiss"
    built = index.build(case.vectors)
    built.write(path)
    mapped = index.read(files.mapped(path))
    assert (mapped.kind, mapped.n, mapped.d) == (built.kind, built.n, built.d)
    np.testing.assert_array_equal(mapped.vectors, built.vectors)
    for one, other in zip(
        mapped.search(case.queries, case.k, case.allowed), built.search(case.queries, case.k, case.allowed), strict=True
    ):
        np.testing.assert_array_equal(one, other)


# Every kind at a size that a test can afford.
SIZE, K = 12_000, 100


class World(NamedTuple):
    """Clustered vectors, and queries as a taste makes them: means of some vectors of one or two clusters."""

    vectors: Float32
    queries: Float32


@pytest.fixture(scope="module")
def world() -> World:
    rng = np.random.default_rng(7)
    clusters = rng.standard_normal((24, 128))
    spread = rng.standard_normal((24, 128)) / 5
    home = rng.integers(len(clusters), size=SIZE)
    vectors = unit(clusters[home] + rng.standard_normal((SIZE, 24)) @ spread + rng.standard_normal((SIZE, 128)) * 0.1)
    queries = [vectors[home == c][:8].mean(0) + vectors[home == (c ^ (c & 2) // 2)][:4].mean(0) for c in range(24)]
    return World(vectors, unit(np.array(queries)))


@pytest.fixture(scope="module")
def mapped(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Index]:
    """An index of every kind over the same vectors, as the service has it: mapped from a file."""
    folder = tmp_path_factory.mktemp("kinds")
    for kind in KINDS:
        of_kind(kind.name, world.vectors).write(folder / kind.name)
    return {kind.name: index.read(files.mapped(folder / kind.name)) for kind in KINDS}


def mask(share: float) -> Mask:
    return np.packbits(np.random.default_rng(3).random(SIZE) < share, bitorder="little")


def recall(world: World, rows: Int64, allowed: Mask | None) -> float:
    """Share of the returned rows that are no farther than the exact k-th, a float16's width allowed for."""
    limit = exact(world.vectors, world.queries, K, allowed)[:, -1:]
    near = np.einsum("qd,qkd->qk", world.queries, world.vectors[rows])
    return float(((near >= limit - 1e-3) & (rows >= 0)).mean())


@pytest.mark.parametrize("share", [None, 0.02, 0.1, 0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_every_kind_keeps_its_recall_and_full_pages_under_a_filter(
    world: World, mapped: dict[str, Index], kind: str, share: float | None
) -> None:
    """Recall is at least 0.98 with any share of rows allowed, and not one row is missing."""
    allowed = None if share is None else mask(share)
    rows, _ = mapped[kind].search(world.queries, K, allowed)
    assert (rows >= 0).all()
    if allowed is not None:
        assert np.unpackbits(allowed, count=SIZE, bitorder="little").view(bool)[rows].all()
    assert recall(world, rows, allowed) >= 0.98


def test_a_filter_that_leaves_only_a_far_corner_still_fills_the_page(world: World) -> None:
    """Where the probed lists hold too few allowed rows, the others are compared: the answer is complete and exact."""
    built = index.build(world.vectors, (KINDS[-1]._replace(up_to=np.inf, lists=64, probes=1),))
    query = world.queries[:1]
    far = np.zeros(SIZE, bool)
    far[np.argsort((query @ world.vectors.T)[0])[:2_000]] = True
    allowed = np.packbits(far, bitorder="little")
    rows, cosine = built.search(query, K, allowed)
    assert far[rows].all()
    np.testing.assert_allclose(cosine, exact(world.vectors, query, K, allowed), rtol=0, atol=2e-3)


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_queries_asked_together_are_answered_as_if_asked_alone(
    world: World, mapped: dict[str, Index], kind: str
) -> None:
    """A user's two or three interests may be searched in one call."""
    together = mapped[kind].search(world.queries[:3], K)[0]
    alone = np.concatenate([mapped[kind].search(query[None], K)[0] for query in world.queries[:3]])
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_the_same_vectors_give_the_same_file(world: World, tmp_path: Path, kind: str) -> None:
    """A build is deterministic to the byte."""
    for name in ("one", "other"):
        of_kind(kind, world.vectors[:5_000]).write(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_the_stored_vectors_are_seen_in_place(world: World, mapped: dict[str, Index], kind: str) -> None:
    """`vectors` is an aligned, read-only float16 view of the mapped file, not a copy of it."""
    vectors = mapped[kind].vectors
    np.testing.assert_allclose(vectors, world.vectors, rtol=0, atol=1e-3)
    assert vectors.dtype == np.float16
    assert not vectors.flags.owndata
    assert not vectors.flags.writeable
    assert vectors.flags.aligned
    address = vectors.__array_interface__["data"][0]
    assert any(start <= address < end and kind in name for start, end, name in maps())


def maps() -> list[tuple[int, int, str]]:
    """Start, end and file of each mapping of this process."""
    if not Path("/proc/self/maps").exists():
        pytest.skip("this system does not list a process's mappings")
    lines = [line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines()]
    return [
        (*(int(side, 16) for side in line[0].split("-")), line[5] if len(line) == 6 else "")  # type: ignore[misc]
        for line in lines
    ]


def test_vectors_outlive_the_index_and_the_files_name(world: World, tmp_path: Path) -> None:
    """Whoever holds the view keeps the mapping, also when the snapshot's folder has been replaced meanwhile."""
    path = tmp_path / "index.faiss"
    index.build(world.vectors).write(path)
    opened = index.read(files.mapped(path))
    vectors = opened.vectors
    path.unlink()
    del opened
    gc.collect()
    np.testing.assert_allclose(vectors, world.vectors, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("queries", "allowed"),
    [
        (np.zeros((1, D + 1), np.float32), None),
        (np.zeros(D, np.float32), None),
        (np.zeros((1, D), np.float32), np.zeros(1, np.uint8)),
        (np.zeros((1, D), np.float32), np.array([255, 255], np.uint8)),
    ],
    ids=["other dimension", "not a matrix", "mask too short", "bits past the last row"],
)
def test_arguments_of_another_shape_are_refused(queries: Float32, allowed: Mask | None) -> None:
    """A query or a mask that does not fit the index raises ValueError instead of reading beyond it."""
    built = index.build(unit(np.random.default_rng(0).standard_normal((12, D))))
    with pytest.raises(ValueError, match=r"expected|past"):
        built.search(queries, 3, allowed)


def test_kinds_cover_every_size_once() -> None:
    """Limits ascend to infinity and names differ."""
    assert [kind.up_to for kind in KINDS] == sorted({kind.up_to for kind in KINDS})
    assert KINDS[-1].up_to == np.inf
    assert len({kind.name for kind in KINDS}) == len(KINDS)


def test_kind_follows_from_the_number_of_rows() -> None:
    """The first kind that is large enough is taken, its limit included."""
    vectors = unit(np.random.default_rng(0).standard_normal((301, D)))
    kinds = (Kind("exact", up_to=300), KINDS[1]._replace(up_to=np.inf))
    assert [index.build(vectors[:n], kinds).kind for n in (300, 301)] == ["exact", KINDS[1].name]


def test_a_search_uses_one_thread_in_whichever_thread_it_runs(world: World, mapped: dict[str, Index]) -> None:
    """faiss's limit is per thread: a search from a pool's thread must not start a team of its own."""
    before = threading.active_count()
    tasks: list[int] = []

    def search() -> None:
        for kind in mapped.values():
            kind.search(world.queries, K)
        tasks.append(sum(1 for _ in Path("/proc/self/task").iterdir()))

    if not Path("/proc/self/task").exists():
        pytest.skip("this system does not list a process's threads")
    at_start = sum(1 for _ in Path("/proc/self/task").iterdir())
    thread = threading.Thread(target=search)
    thread.start()
    thread.join()
    assert threading.active_count() == before
    assert tasks == [at_start + 1]


def test_searches_of_several_threads_do_not_meet(world: World, mapped: dict[str, Index]) -> None:
    """Each finds what its own filter leaves, whatever others look for in the same index meanwhile."""
    masks = [mask(share) for share in (0.1, 0.3, 0.6, 0.9)]
    alone = {name: [kind.search(world.queries, K, each)[0] for each in masks] for name, kind in mapped.items()}

    def differs(which: int) -> list[str]:
        return [
            name
            for name, kind in list(mapped.items()) * 20
            if not np.array_equal(kind.search(world.queries, K, masks[which])[0], alone[name][which])
        ]

    with ThreadPoolExecutor(len(masks)) as pool:
        assert list(pool.map(differs, range(len(masks)))) == [[]] * len(masks)
