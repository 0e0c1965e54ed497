"""A segment: an immutable folder of videos, searchable by vector. Three files.

    rows.bin         the columns of `retrieval/rows.py` and the order of ids, one after the other, 64-byte aligned
    vectors.faiss    the index, which also holds the only copy of the vectors (float16)
    segment.json     what is in the other two, with sizes and checksums

Everything is memory mapped, so all worker processes of a machine share one copy. `Segment.open` reads every byte once
(which warms the page cache as well) and refuses a file that differs from its checksum before faiss sees it: faiss
trusts its input and a flipped byte there is a crash, not an exception.
"""

from __future__ import annotations

import itertools
import mmap
import os
import shutil
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from ranking.items import Items
from retrieval import index
from retrieval.availability import PackedAvailability
from retrieval.errors import SnapshotCorrupt
from retrieval.files import checksum, flush_folder, mapped, write_atomically
from retrieval.index import KINDS, Kind
from retrieval.rows import RECORD, Array, Rows

ALIGNMENT = 64
COMPARED = (KINDS[0]._replace(up_to=np.inf),)
"""For a segment that is written anew with every change: training would take seconds each time, and comparing every
vector takes 1 ms of a search for 20,000 of them."""


@dataclass(frozen=True)
class Segment:
    """n videos and their index, opened read-only. Rows are ordered by item number.

    `records` is what ranking asks of each candidate: RECORD[n] as bytes, uint8[n, RECORD.itemsize], because numpy
    copies those ten times faster. `by_id` uint32[n]: the rows ordered by id hash, to find a video by its id.
    """

    name: str
    rows: Rows
    index: index.Index
    records: Array
    by_id: Array

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def items(self) -> Items:
        return self.rows.items()

    @cached_property
    def availability(self) -> PackedAvailability:
        """Which rows may be shown to whom, and when."""
        return PackedAvailability(self.rows.columns)

    def with_hash(self, id_hash: int) -> list[int]:
        """Local rows of the ids with this hash (`ranking.items.key_hash`): hardly ever more than one."""
        # As memory views: these give Python's own numbers, in half the time.
        rows, hashes = self.by_id.data, self.rows.columns["id_hash"].data
        first = bisect_left(rows, id_hash, key=hashes.__getitem__)
        return list(itertools.takewhile(lambda row: hashes[row] == id_hash, rows[first:]))

    def card(self, row: int) -> bytes:
        """The open JSON object of a local row."""
        return self._cards[self._card_bounds[row] : self._card_bounds[row + 1]].tobytes()

    def is_card_of(self, row: int, opening: bytes) -> bool:
        """Whether the card of a local row begins like this."""
        start = self._card_bounds[row]
        return self._cards[start : start + len(opening)] == opening

    @cached_property
    def _card_bounds(self) -> memoryview:
        return self.rows.ragged["cards"].offsets.data  # gives Python's own numbers

    @cached_property
    def _cards(self) -> memoryview:
        return self.rows.ragged["cards"].values.data

    @staticmethod
    def write(folder: Path, rows: Rows, kinds: tuple[Kind, ...] = KINDS) -> str:
        """Write `rows` as a new segment folder and return the checksum of its segment.json.

        Rows are ordered by item number on the way; their index is one of `kinds`. The folder appears whole or not at
        all.

        Raises OSError (disk full, no permission): nothing is left behind then.
        """
        rows = rows.take(np.argsort(rows.columns["item"], kind="stable"))
        # Before the folder exists: training takes minutes, and `Store.sweep` spares only what is young.
        searchable = index.build(_unit(rows.vectors), kinds)
        beside = folder.with_name(f".{folder.name}.tmp")
        try:
            beside.mkdir(parents=True)
            layout = _write_columns(beside / "rows.bin", rows)
            searchable.write(beside / "vectors.faiss")
            about = orjson.dumps(
                {
                    "rows": len(rows),
                    "dim": rows.vectors.shape[1],
                    "layout": layout,
                    "record": str(RECORD.descr),
                    "checksums": {name: _checksum_of(beside / name) for name in ("rows.bin", "vectors.faiss")},
                }
            )
            write_atomically(beside / "segment.json", about)
            flush_folder(beside)
            beside.rename(folder)
            flush_folder(folder.parent)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        return checksum(about)

    @staticmethod
    def open(folder: Path, expected_checksum: str) -> Segment:
        """Map a segment folder, verified to the last byte.

        Raises SnapshotCorrupt when a file is missing, cut short, or differs from its checksum, and when another version
        of this program wrote it in another form.
        """
        about = _verified(folder / "segment.json", expected_checksum)
        try:
            return Segment._mapped(folder, orjson.loads(about[:]))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise SnapshotCorrupt(f"{folder.name}: not a segment as this program writes it: {error!r}") from error

    @staticmethod
    def _mapped(folder: Path, facts: dict[str, Any]) -> Segment:
        content = {name: _verified(folder / name, facts["checksums"][name]) for name in ("rows.bin", "vectors.faiss")}
        opened = index.read(content["vectors.faiss"])
        for each in content.values():
            # What was read is in the page cache now. This process maps again, a page at a time, what it really uses.
            each.madvise(mmap.MADV_DONTNEED)
        if facts["record"] != str(RECORD.descr):
            raise SnapshotCorrupt(f"{folder.name}: records of another form: {facts['record']}")
        if (opened.n, opened.d) != (facts["rows"], facts["dim"]):
            raise SnapshotCorrupt(f"{folder.name}: index holds {opened.n} x {opened.d}, segment.json says otherwise")
        arrays = {name: _column(content["rows.bin"], *where) for name, where in facts["layout"].items()}
        rows = Rows.of_arrays(arrays, opened.vectors)
        return Segment(folder.name, rows, opened, arrays["records"], arrays["by_id"])


def _unit(vectors: Array) -> npt.NDArray[np.float32]:
    """float32 unit rows from stored float16 ones; an index measures angles and trusts the length."""
    wide: npt.NDArray[np.float32] = vectors.astype(np.float32)
    wide /= np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), np.float32(1e-12))
    return wide


def _write_columns(path: Path, rows: Rows) -> dict[str, tuple[str, list[int], int]]:
    layout = {}
    by_id = np.argsort(rows.columns["id_hash"], kind="stable").astype(np.uint32)
    with path.open("wb") as file:
        for name, array in (*rows.arrays(), ("by_id", by_id)):
            file.write(b"\0" * (-file.tell() % ALIGNMENT))
            layout[name] = (array.dtype.str, list(array.shape), file.tell())
            file.write(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
        # An empty file cannot be mapped.
        file.write(b"\0" * ALIGNMENT)
        file.flush()
        os.fsync(file.fileno())
    return layout


def _checksum_of(path: Path) -> str:
    return checksum(mapped(path))


def _verified(path: Path, expected: str) -> mmap.mmap:
    try:
        content = mapped(path)
    except (OSError, ValueError) as error:
        raise SnapshotCorrupt(f"{path.parent.name}/{path.name}: {error}") from error
    found = checksum(content)
    if found != expected:
        raise SnapshotCorrupt(f"{path.parent.name}/{path.name}: checksum {found}, expected {expected}")
    return content


def _column(content: mmap.mmap, dtype: str, shape: list[int], offset: int) -> Array:
    return np.ndarray(tuple(shape), dtype, content, offset)
