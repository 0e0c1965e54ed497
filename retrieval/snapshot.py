"""A snapshot: one generation of a tenant's content, whole and unchanging, as a request sees it.

    segments    a large base, and a small fresh one with what changed since
    dead        items of the base that were changed (they live on in the fresh segment) or taken down

A video that left the catalogue lately stays as a row whose window is empty: it is found by its number, so that who
liked it keeps that part of their taste, and it does not live.

A *row* is a position in the concatenation of the segments. Each segment starts at a multiple of eight rows, so that one
packed mask covers the snapshot and each segment searches its own slice of it; the few rows between are never allowed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import orjson

from ranking.items import key_hash
from retrieval import half
from retrieval.behaviour import Behaviour, text_of
from retrieval.masks import Mask
from retrieval.rows import COLUMNS, RECORD, Array, Rows
from retrieval.segment import Segment


@dataclass(frozen=True)
class Snapshot:
    """Everything retrieval needs of one tenant; shared by all requests that began while it was the newest.

    `version` is the catalogue version it covers: every change up to and including it is in here. `learned` is what the
    rows are joined with, None: they are of texts alone.
    """

    tenant: str
    generation: int
    version: int
    model: str
    dim: int
    segments: tuple[Segment, ...]
    dead: npt.NDArray[np.uint32]
    learned: Behaviour | None = None

    @staticmethod
    def empty(tenant: str, dim: int) -> Snapshot:
        """What is served of a tenant that was never published: nothing."""
        return Snapshot(tenant, 0, 0, "", dim, (), np.zeros(0, np.uint32))

    @property
    def text_dim(self) -> int:
        """Numbers of a vector that are the text's."""
        return self.dim if self.learned is None else self.learned.text_dim

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The first row of each segment, and the end: int[len(segments) + 1]."""
        starts = [0]
        for segment in self.segments:
            starts.append(starts[-1] + -(-len(segment) // 8) * 8)
        return tuple(starts)

    @cached_property
    def _later_starts(self) -> npt.NDArray[np.int64]:
        return np.array(self.starts[1:-1], np.int64)

    @property
    def n_rows(self) -> int:
        """Rows including the gaps between segments: the length of every mask, in bits."""
        return self.starts[-1]

    @cached_property
    def n_items(self) -> int:
        """Videos that can be served."""
        return int(np.bitwise_count(self.live).sum())

    @cached_property
    def row_of(self) -> npt.NDArray[np.int32]:
        """int32[largest item + 2]: the row of an item's newest state, -1 if it has none here, as the last entry, which
        stands for all items that are larger."""
        items = [segment.rows.columns["item"] for segment in self.segments]
        rows = np.full(2 + max((int(each[-1]) for each in items if len(each)), default=-1), -1, np.int32)
        for number, (start, each) in enumerate(zip(self.starts, items, strict=False)):
            rows[each] = start + np.arange(len(each), dtype=np.int32)
            if number == 0:
                rows[self.dead] = -1
        return rows

    @cached_property
    def live(self) -> Mask:
        """uint8[n_rows / 8]: rows that hold the newest state of an item that has not left."""
        mask = self._current.copy()
        for start, segment in zip(self.starts, self.segments, strict=False):
            columns = segment.rows.columns
            mask[start : start + len(segment)] &= columns["available_from_s"] < columns["available_until_s"]
        return np.packbits(mask, bitorder="little")

    @cached_property
    def _current(self) -> npt.NDArray[np.bool_]:
        """bool[n_rows]: rows that hold the newest state of an item, departed ones too."""
        mask = np.zeros(self.n_rows, bool)
        mask[self.row_of[self.row_of >= 0]] = True
        return mask

    def rows(self, items: Array) -> npt.NDArray[np.int64]:
        """Rows of item numbers (any unsigned integers), int64[n]; -1 where an item is not (or no longer) here."""
        return self.row_of.take(items, mode="clip").astype(np.int64)

    def column(self, name: str, rows: Array) -> Array:
        """Values of a column of `retrieval.rows.COLUMNS` at the given rows."""
        dtype, width = COLUMNS[name]
        nothing = np.zeros((0, width) if width else 0, dtype)
        return self.taken(rows, lambda part, local: self.segments[part].rows.columns[name][local], nothing)

    def records(self, rows: Array) -> Array:
        """RECORD[n] of the given rows: all that ranking asks of them, for the price of one column."""
        nothing = np.zeros((0, RECORD.itemsize), np.uint8)
        return self.taken(rows, lambda part, local: self.segments[part].records.take(local, 0), nothing).view(RECORD)[
            :, 0
        ]

    def vectors(self, rows: Array) -> npt.NDArray[np.float32]:
        """float32[n, d] of the given rows."""
        nothing = np.zeros((0, self.dim), np.float32)
        return self.taken(rows, lambda part, local: half.widened(self.segments[part].rows.vectors, local), nothing)

    def texts(self, rows: Array) -> npt.NDArray[np.float32]:
        """float32[n, text_dim] of the given rows: unit vectors of the texts alone."""
        return text_of(self.vectors(rows), self.text_dim)

    def cosines(self, queries: npt.NDArray[np.float32], rows: Array) -> npt.NDArray[np.float32]:
        """float32[n, q]: cosine of each of the given rows to each query (float32[q, d], unit rows)."""
        nothing = np.zeros((0, len(queries)), np.float32)
        return self.taken(
            rows, lambda part, local: half.cosines(queries, self.segments[part].rows.vectors, local), nothing
        )

    def cards(self, rows: Array) -> list[bytes]:
        """The open JSON object of each row, in order."""
        cards = []
        for row in rows.tolist():
            number = bisect_right(self.starts, row) - 1
            cards.append(self.segments[number].card(row - self.starts[number]))
        return cards

    def split(self, rows: Array) -> list[tuple[int, npt.NDArray[np.int64], Array]]:
        """Which of `rows` are in which segment: (its number, positions in `rows`, local rows)."""
        if len(self.segments) == 1:
            return [(0, np.arange(len(rows)), rows)]
        which = np.searchsorted(self._later_starts, rows, "right")
        parts = []
        for number, start in enumerate(self.starts[:-1]):
            inside = np.flatnonzero(which == number)
            if len(inside):
                parts.append((number, inside, rows[inside] - start))
        return parts

    def taken(self, rows: Array, take: Callable[[int, Array], Array], nothing: Array) -> Array:
        """What `take` (number of a segment, local rows) finds for each row, in the order of `rows`.

        `nothing` is what it finds of no rows.
        """
        if len(self.segments) == 1:
            return take(0, rows)
        parts = self.split(rows)
        found = np.concatenate([nothing, *(take(number, local) for number, _, local in parts)])
        order = np.concatenate([inside for _, inside, _ in parts]) if len(parts) > 1 else None
        if order is None or (order[1:] > order[:-1]).all():
            return found
        ordered = np.empty_like(found)
        ordered[order] = found
        return ordered

    def search(
        self, queries: npt.NDArray[np.float32], k: int, allowed: Mask
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """The k nearest allowed rows to each query.

        queries float32[q, d] unit rows -> (rows int64[q, <= k], cosine float32[q, <= k]), best first; a query with
        fewer than k allowed rows ends in -1 and -inf.
        """
        found_rows, found_cosine = [], []
        for segment, start, end in zip(self.segments, self.starts, self.starts[1:], strict=False):
            rows, cosine = segment.index.search(queries, k, allowed[start // 8 : end // 8])
            found_rows.append(np.where(rows >= 0, rows + start, -1))
            found_cosine.append(cosine)
        if len(found_rows) == 1:
            return found_rows[0], found_cosine[0]
        if not found_rows:
            return np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0), np.float32)
        rows, cosine = np.concatenate(found_rows, axis=1), np.concatenate(found_cosine, axis=1)
        best = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(rows, best, 1), np.take_along_axis(cosine, best, 1)

    def find(self, video_id: str) -> int | None:
        """The item number of a video id, None if it is not here. Compares the id itself, not only its hash."""
        wanted, opening = key_hash(video_id), b'{"id":' + orjson.dumps(video_id) + b","
        for segment, start in zip(reversed(self.segments), reversed(self.starts[:-1]), strict=True):
            for row in segment.with_hash(wanted):
                item = int(segment.rows.columns["item"][row])
                if self.row_of[item] == start + row and segment.is_card_of(row, opening):
                    return item
        return None

    def current_rows(self, of: Sequence[Segment] | None = None) -> Rows:
        """The newest states in the given segments (default: all) as one table; for building the next generation."""
        parts = [Rows.empty(self.dim)]
        for segment, start in zip(self.segments, self.starts, strict=False):
            if of is None or segment in of:
                parts.append(segment.rows.take(self._current[start : start + len(segment)]))
        return Rows.concat(parts)
