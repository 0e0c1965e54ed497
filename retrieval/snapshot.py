"""A snapshot: one generation of a tenant's content, whole and unchanging, as a request sees it.

    segments    a large base, and a small fresh one with what changed since
    dead        items of the base that were changed (they live on in the fresh segment) or taken down

A *row* is a position in the concatenation of the segments. Each segment starts at a multiple of eight rows, so that one
packed mask covers the snapshot and each segment searches its own slice of it; the few rows between are never allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import orjson

from ranking.items import key_hash
from retrieval.half import widened
from retrieval.rows import COLUMNS, Array, Rows
from retrieval.segment import Segment

Mask = npt.NDArray[np.uint8]
"""Packed rows, little bit order: row r is bit r & 7 of byte r >> 3; 1 = may be returned."""


@dataclass(frozen=True)
class Snapshot:
    """Everything retrieval needs of one tenant; shared by all requests that began while it was the newest.

    `version` is the catalogue version it covers: every change up to and including it is in here.
    """

    tenant: str
    generation: int
    version: int
    model: str
    dim: int
    segments: tuple[Segment, ...]
    dead: npt.NDArray[np.uint32]

    @staticmethod
    def empty(tenant: str, dim: int) -> Snapshot:
        """What is served of a tenant that was never published: nothing."""
        return Snapshot(tenant, 0, 0, "", dim, (), np.zeros(0, np.uint32))

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The first row of each segment, and the end: int[len(segments) + 1]."""
        starts = [0]
        for segment in self.segments:
            starts.append(starts[-1] + -(-len(segment) // 8) * 8)
        return tuple(starts)

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
        """int32[largest item + 1]: the row in which an item lives, -1 if it does not."""
        items = [segment.rows.columns["item"] for segment in self.segments]
        rows = np.full(1 + max((int(each[-1]) for each in items if len(each)), default=-1), -1, np.int32)
        for number, (start, each) in enumerate(zip(self.starts, items, strict=False)):
            rows[each] = start + np.arange(len(each), dtype=np.int32)
            if number == 0:
                rows[self.dead] = -1
        return rows

    @cached_property
    def live(self) -> Mask:
        """uint8[n_rows / 8]: rows that hold the current state of an item."""
        rows = self.row_of[self.row_of >= 0]
        mask = np.zeros(self.n_rows, bool)
        mask[rows] = True
        return np.packbits(mask, bitorder="little")

    def rows(self, items: Array) -> npt.NDArray[np.int64]:
        """Rows of item numbers (any unsigned integers), int64[n]; -1 where an item is not (or no longer) here."""
        known = items < len(self.row_of)
        found = self.row_of[np.where(known, items, 0)] if len(self.row_of) else np.full(len(items), -1)
        return np.where(known, found, -1).astype(np.int64)

    def column(self, name: str, rows: Array) -> Array:
        """Values of a column of `retrieval.rows.COLUMNS` at the given rows."""
        return self.columns((name,), rows)[name]

    def columns(self, names: Iterable[str], rows: Array) -> dict[str, Array]:
        """Values of several columns at the given rows: finding out where the rows are is paid once."""
        parts = self.split(rows)
        if len(parts) == 1:
            segment, _, local = parts[0]
            return {name: segment.rows.columns[name][local] for name in names}
        taken: dict[str, Array] = {}
        for name in names:
            dtype, width = COLUMNS[name]
            taken[name] = np.empty((len(rows), width) if width else len(rows), dtype)
            for segment, inside, local in parts:
                taken[name][inside] = segment.rows.columns[name][local]
        return taken

    def vectors(self, rows: Array) -> npt.NDArray[np.float32]:
        """float32[n, d] of the given rows."""
        taken = np.empty((len(rows), self.dim), np.float16)
        for segment, inside, local in self.split(rows):
            taken[inside] = segment.rows.vectors[local]
        return widened(taken)

    def cards(self, rows: Array) -> list[bytes]:
        """The open JSON object of each row, in order."""
        cards = [b""] * len(rows)
        for segment, inside, local in self.split(rows):
            for position, card in zip(np.flatnonzero(inside).tolist(), segment.cards(local), strict=True):
                cards[position] = card
        return cards

    def split(self, rows: Array) -> list[tuple[Segment, npt.NDArray[np.bool_], Array]]:
        """Which of `rows` are in which segment: (segment, bool[n] of the rows inside it, their local rows)."""
        parts = []
        for segment, start, end in zip(self.segments, self.starts, self.starts[1:], strict=False):
            inside = (rows >= start) & (rows < end)
            if inside.any():
                parts.append((segment, inside, rows[inside] - start))
        return parts

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
            by_hash, hashes = segment.by_id
            at = int(np.searchsorted(hashes, np.uint64(wanted)))
            while at < len(hashes) and hashes[at] == wanted:
                row = int(by_hash[at])
                item = int(segment.rows.columns["item"][row])
                if self.row_of[item] == start + row and segment.cards(np.array([row]))[0].startswith(opening):
                    return item
                at += 1
        return None

    def live_rows(self, of: Sequence[Segment] | None = None) -> Rows:
        """The current rows of the given segments (default: all) as one table; for building the next generation."""
        parts = [Rows.empty(self.dim)]
        for segment, start in zip(self.segments, self.starts, strict=False):
            if of is None or segment in of:
                alive = np.unpackbits(self.live[start // 8 :], count=len(segment), bitorder="little").astype(bool)
                parts.append(segment.rows.take(alive))
        return Rows.concat(parts)
