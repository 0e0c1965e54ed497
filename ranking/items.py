"""What editorial rules may look at: the items of one segment as equal-length columns.

Names (ids, creators, tags, ...) are 64-bit hashes. A segment of a million rows then compares integers, and two
segments built on different days agree on what "music" is without sharing a dictionary.
"""

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from ranking.columns import Bool, Int16, Int32, Int64, UInt8, UInt64, check_columns, spec


def key_hash(text: str) -> int:
    """Return the 64-bit name of `text`, stable for ever and never 0 (0 stands for "none").

    Exact: no case folding and no trimming, because item ids are case-sensitive.
    """
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little") or 1


@dataclass(frozen=True, slots=True)
class Facet:
    """A field with any number of values per row, such as tags.

    offsets: int64[n + 1], rising from 0; hashes: uint64[total]. Row i holds hashes[offsets[i]:offsets[i + 1]].
    """

    offsets: Int64
    hashes: UInt64

    def __post_init__(self) -> None:
        if self.offsets.dtype != np.int64 or self.hashes.dtype != np.uint64:
            raise ValueError(
                f"Facet needs int64 offsets and uint64 hashes, got {self.offsets.dtype}, {self.hashes.dtype}"
            )
        if not len(self.offsets) or self.offsets[0] != 0 or self.offsets[-1] != len(self.hashes):
            raise ValueError(f"Facet.offsets must run from 0 to the number of hashes, {len(self.hashes)}")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def has(self, wanted: UInt64) -> Bool:
        """Return bool[n]: the row holds at least one of `wanted` (uint64[m])."""
        found = np.zeros(len(self), np.bool_)
        # "sort" compares name by name where they are few; a table, the default for one name, takes three times as long.
        hits = np.flatnonzero(np.isin(self.hashes, wanted, kind="sort"))
        found[np.searchsorted(self.offsets, hits, side="right") - 1] = True
        return found


COLUMNS = spec(
    id_hash=(np.uint64, ()),
    creator=(np.uint64, ()),
    language=(np.int16, ()),
    min_age=(np.uint8, ()),
    duration_s=(np.int32, ()),
    published_s=(np.int64, ()),
)
FACETS = ("tags", "categories", "playlists")


@dataclass(frozen=True, slots=True)
class Items:
    """n items as read-only columns; row order is the segment's.

    `language` is a code of `hints.LANGUAGES` (-1 unknown), `creator` is 0 when there is none.
    Construction raises ValueError naming the first column of a wrong dtype or length.
    """

    id_hash: UInt64
    creator: UInt64
    language: Int16
    min_age: UInt8
    duration_s: Int32
    published_s: Int64
    tags: Facet
    categories: Facet
    playlists: Facet

    def __post_init__(self) -> None:
        check_columns(self, COLUMNS, len(self))
        for name in FACETS:
            if len(getattr(self, name)) != len(self):
                raise ValueError(f"Items.{name} has {len(getattr(self, name))} rows, expected {len(self)}")

    def __len__(self) -> int:
        return len(self.id_hash)
