"""Nearest neighbours of one segment: build, search, filter, read, write. The only file that imports faiss.

Every kind stores the vectors once, as float16, inside one faiss file: `Index.vectors` is a view of those bytes. A kind
with lists adds 4-bit codes (48 or 64 bytes for 384 dimensions) to scan first; the best of them are compared exactly.
Which kind serves which size is measured: `benchmarks/index_kinds.py`, `docs/decisions/0003-index-kinds.md`.
"""

from __future__ import annotations

import mmap
import os
import threading
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from retrieval.masks import Mask

if TYPE_CHECKING:
    faiss: Any  # its own stubs refuse the arguments its wrappers take
else:
    import faiss

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


class Kind(NamedTuple):
    """How a segment of at most `up_to` rows is searched."""

    name: str
    up_to: float
    lists: int = 0  # clusters the codes are kept in; 0: no codes, every vector is compared
    probes: int = 0  # clusters looked into when no filter is given
    width: int = 0  # dimensions that share one 4-bit code
    refined: int = 0  # how many times k of the scan's best are compared exactly


KINDS = (
    Kind("exact", up_to=5_000),
    Kind("scan", up_to=40_000, lists=1, probes=1, width=4, refined=6),
    Kind("probe", up_to=150_000, lists=256, probes=64, width=4, refined=8),
    Kind("wide", up_to=np.inf, lists=1024, probes=80, width=3, refined=12),
)

FEW = 0.02  # a filter that leaves no more than this share of the rows is answered by comparing what it leaves
WIDENING = 0.75  # probes grow as this power of rows / rows allowed
TRAINING_ROWS = 65_536
ADD_ROWS = 65_536  # bounds the memory of a build


def build(vectors: Float32, kinds: tuple[Kind, ...] = KINDS) -> Index:
    """An index over `vectors` (float32[n, d], unit rows); row i of the index is row i of the argument.

    The first of `kinds` that is large enough is taken. The same vectors give the same index.
    """
    faiss.omp_set_num_threads(1)
    n, d = vectors.shape
    kind = next(kind for kind in kinds if n <= kind.up_to)
    stored = _float16(d)
    codes = _trained_codes(vectors, kind) if kind.lists else None
    for start in range(0, n, ADD_ROWS):
        part = np.ascontiguousarray(vectors[start : start + ADD_ROWS], np.float32)
        stored.add(part)
        if codes is not None:
            codes.add(part)
    if codes is None:
        # The wrapper transforms nothing. Its header moves the vectors to an even place in the file, as numpy needs it.
        return Index(faiss.IndexPreTransform(stored))
    refine = faiss.IndexRefine(codes, stored)
    refine.k_factor = kind.refined
    return Index(refine)


def read(content: mmap.mmap) -> Index:
    """The index in a mapped file: its vectors stay where they are, its codes are copied. faiss trusts the bytes: the
    caller has verified them.

    Raises RuntimeError if faiss finds no index there.
    """
    memory = np.frombuffer(content, np.uint8)
    return Index(faiss.read_index(faiss.ZeroCopyIOReader(faiss.swig_ptr(memory), len(memory))), memory)


class Index:
    """The vectors of one segment and the search over them. Immutable; any number of threads may search at once."""

    def __init__(self, engine: Any, memory: npt.NDArray[np.uint8] | None = None) -> None:
        """Wrap what `build` composed or `read` found: IndexPreTransform(vectors) or IndexRefine(codes, vectors).

        `memory` is where the vectors lie if the engine does not own them.
        """
        self._engine = engine
        self._memory = memory
        refines = isinstance(engine, faiss.IndexRefine)
        self._stored = faiss.downcast_index(engine.refine_index if refines else engine.index)
        self._codes: Any = faiss.downcast_index(engine.base_index) if refines else None
        self.n = int(engine.ntotal)
        self.d = int(engine.d)

    @property
    def kind(self) -> str:
        """Name of its row of KINDS; "unlisted" if it was built by another table."""
        lists = 0 if self._codes is None else self._codes.nlist
        return next((kind.name for kind in KINDS if kind.lists == lists), "unlisted")

    @cached_property
    def vectors(self) -> npt.NDArray[np.float16]:
        """float16[n, d], read-only: the stored bytes themselves, which stay mapped while the array lives."""
        if self.n == 0:
            return np.empty((0, self.d), np.float16)
        address = int(self._stored.codes.data())
        return np.asarray(_StoredVectors(address, (self.n, self.d), (self._engine, self._memory)))

    def write(self, path: Path) -> None:
        """Write the one file that `read` maps, flushed to disk. Raises OSError (disk full)."""
        # Through Python's file: faiss's own writer loses what fails when it closes, and a full disk is seen just then.
        with path.open("wb") as file:
            faiss.write_index(self._engine, faiss.PyCallbackIOWriter(file.write))
            file.flush()
            os.fsync(file.fileno())

    def search(self, queries: Float32, k: int, allowed: Mask | None = None) -> tuple[Int64, Float32]:
        """The `k` nearest rows of each query: best first, ties by smaller row.

        queries: float32[q, d], unit rows (or not: the cosine is then scaled by the length).
        allowed: uint8[(n + 7) // 8], little bit order; a 1 for each row that may be returned, 0 past the last row.

        Returns rows int64[q, k] padded with -1 and their cosine float32[q, k] padded with -inf. Always min(k, allowed
        rows) are found. Which of several equal vectors takes the k-th place is fixed but not specified.
        Raises ValueError on arguments of another shape.
        """
        faiss.omp_set_num_threads(1)  # per thread: at import it would hold for the importing thread only
        queries = np.ascontiguousarray(queries, np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.d:
            raise ValueError(f"queries have shape {queries.shape}, expected (q, {self.d})")
        if allowed is None:
            allowed = np.packbits(np.ones(self.n, np.bool_), bitorder="little")
        count = _count(allowed, self.n)
        wanted = min(k, count)
        if wanted == k and k and len(queries):
            return _ties_by_row(*self._nearest(queries, k, allowed, count))
        rows = np.full((len(queries), k), -1, np.int64)
        cosine = np.full((len(queries), k), -np.inf, np.float32)
        if wanted and len(queries):
            rows[:, :wanted], cosine[:, :wanted] = _ties_by_row(*self._nearest(queries, wanted, allowed, count))
        return rows, cosine

    def _nearest(self, queries: Float32, k: int, allowed: Mask, count: int) -> tuple[Int64, Float32]:
        """The k nearest of the `count` allowed rows, of which there are at least k; best first, ties in any order."""
        if self._codes is None:
            return self._compare_all(queries, k, allowed)
        if count <= max(self.n * FEW, k * self._engine.k_factor):
            return self._compare(queries, k, _positions(allowed, self.n))
        found, near = self._scan(queries, k, allowed, count)
        # A scan may run dry: too few allowed rows in the probed lists, or codes at the bottom of the 16-bit scale.
        dry = np.flatnonzero((found < 0).any(axis=1))
        if len(dry):
            found[dry], near[dry] = self._compare_all(queries[dry], k, allowed)
        return found, near

    def _scan(self, queries: Float32, k: int, allowed: Mask, count: int) -> tuple[Int64, Float32]:
        """By codes. The k nearest of the rows that a filter leaves lie in more lists, the more the fewer it leaves."""
        _WHERE.allow(allowed)
        _WHERE.probed.nprobe = min(self._codes.nlist, round(self._codes.nprobe * (self.n / count) ** WIDENING))
        _WHERE.refined.k_factor = self._engine.k_factor
        cosine, rows = self._engine.search(queries, k, params=_WHERE.refined)
        return rows, cosine

    def _compare_all(self, queries: Float32, k: int, allowed: Mask) -> tuple[Int64, Float32]:
        _WHERE.allow(allowed)
        cosine, rows = self._stored.search(queries, k, params=_WHERE.compared)
        return rows, cosine

    def _compare(self, queries: Float32, k: int, among: Int64) -> tuple[Int64, Float32]:
        few = _float16(self.d)
        few.add_sa_codes(self.vectors.view(np.uint8)[among])
        cosine, places = few.search(queries, k)
        return among[places], cosine


class _Where(threading.local):
    """Where and how a search looks, as faiss wants to be told; of each thread, which searches one index at a time.
    Making these anew takes longer than scanning 1,000 rows."""

    def __init__(self) -> None:
        self._allowed = faiss.IDSelectorBitmap(np.zeros(0, np.uint8))
        self.compared = faiss.SearchParameters(sel=self._allowed)
        self.probed = faiss.IVFSearchParameters(sel=self._allowed)
        self.refined = faiss.IndexRefineSearchParameters(base_index_params=self.probed)

    def allow(self, rows: Mask) -> None:
        """From now on; faiss reads `rows` where they are, so they must live and lie still until the search is done."""
        self._allowed.n, self._allowed.bitmap = len(rows), faiss.swig_ptr(rows)


_WHERE = _Where()


class _StoredVectors:
    """What numpy asks for the address of the stored vectors; it keeps their owner alive, an index or a mapped file."""

    def __init__(self, address: int, shape: tuple[int, int], owner: object) -> None:
        self._owner = owner
        self.__array_interface__ = {"version": 3, "typestr": "<f2", "shape": shape, "data": (address, True)}


def _float16(d: int) -> Any:
    return faiss.IndexScalarQuantizer(d, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)


def _trained_codes(vectors: Float32, kind: Kind) -> Any:
    n, d = vectors.shape
    width = next(width for width in range(kind.width, 0, -1) if d % width == 0)
    codes = faiss.index_factory(d, f"IVF{kind.lists},PQ{d // width}x4fs", faiss.METRIC_INNER_PRODUCT)
    codes.nprobe = kind.probes
    sample = np.linspace(0, n - 1, min(n, TRAINING_ROWS)).astype(np.int64)
    codes.train(np.ascontiguousarray(vectors[sample], np.float32))
    return codes


def _ties_by_row(rows: Int64, cosine: Float32) -> tuple[Int64, Float32]:
    """The same, best first, with the smaller row first of equally near ones; there rarely are such."""
    if (cosine[:, 1:] < cosine[:, :-1]).all():
        return rows, cosine
    order = np.lexsort((rows, -cosine), axis=1)
    return np.take_along_axis(rows, order, 1), np.take_along_axis(cosine, order, 1)


def _count(allowed: Mask, n: int) -> int:
    if len(allowed) != (n + 7) // 8:
        raise ValueError(f"allowed has {len(allowed)} bytes, expected {(n + 7) // 8} for {n} rows")
    if n % 8 and allowed[-1] >> (n % 8):
        raise ValueError(f"allowed has bits set past its {n} rows")
    return int(np.bitwise_count(allowed).sum())


def _positions(allowed: Mask, n: int) -> Int64:
    return np.flatnonzero(np.unpackbits(allowed, count=n, bitorder="little").view(np.bool_))
