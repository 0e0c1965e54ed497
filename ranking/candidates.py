"""What must be known about a candidate before it can be ranked. Retrieval goes and finds it."""

from dataclasses import dataclass, fields
from typing import Any, Final, Protocol, Self

import numpy as np

from ranking.columns import (
    OPEN_UNTIL_S,
    Bool,
    Float32,
    Int16,
    Int64,
    Rows,
    UInt8,
    UInt32,
    UInt64,
    check_columns,
    spec,
)

SOURCE: Final = {"near": 1, "popular": 2, "fresh": 4, "explore": 8, "editor": 16, "filled": 32}
"""Bits of `Candidates.source`: which sources brought the item. Several may have. "filled": none has, it fills the list;
then it also has the bit of the source in whose order it was taken."""

COLUMNS = spec(
    item=(np.uint32, ()),
    similarity=(np.float32, ()),
    negative=(np.float32, ()),
    popularity=(np.float32, ()),
    rising=(np.float32, ()),
    trending=(np.float32, ()),
    evergreen=(np.float32, ()),
    published_s=(np.int64, ()),
    available_from_s=(np.int64, ()),
    available_until_s=(np.int64, ()),
    live=(np.bool_, ()),
    min_age=(np.uint8, ()),
    language=(np.int16, ()),
    countries=(np.uint8, (32,)),
    creator=(np.uint64, ()),
    categories=(np.uint64, (4,)),
    seen=(np.bool_, ()),
    rejected=(np.bool_, ()),
    served_s=(np.int64, ()),
    source=(np.uint8, ()),
    targets=(np.bool_, (None,)),
)


class Vectors(Protocol):
    """n vectors of which few will be wanted: what looks them up when they are. An array would do as well."""

    def __getitem__(self, rows: Rows, /) -> Float32:
        """float32[m, d], unit rows: those of the candidates `rows` (intp[m])."""
        ...


@dataclass(frozen=True, slots=True)
class Candidates:
    """n candidates as equal-length read-only columns, in any order, each item at most once.

    Construction raises ValueError naming the first column of a wrong dtype or shape.
    """

    item: UInt32
    """The tenant's permanent item number; ties of the score break by it."""
    similarity: Float32
    """How near it is to the nearest interest: the cosine, -1..1, or where a model of behaviour was learned, how rare it
    is to be so near, 0..1. 0 without a taste."""
    negative: Float32
    """Cosine to the rejected taste, -1..1; 0 without one."""
    popularity: Float32
    """Smoothed engagement of about a week, 0..1."""
    rising: Float32
    """The same of about an hour."""
    trending: Float32
    """The same of about a day."""
    evergreen: Float32
    """The same of about half a year."""
    published_s: Int64
    available_from_s: Int64
    """First second it may be shown; 0 = open."""
    available_until_s: Int64
    """First second it may no longer be shown; `OPEN_UNTIL_S` = open."""
    live: Bool
    """Published and not taken down."""
    min_age: UInt8
    """From `maturity.minimum_age`."""
    language: Int16
    """Code of `hints.LANGUAGES`, -1 unknown."""
    countries: UInt8
    """uint8[n, 32], see `hints.country_set`."""
    creator: UInt64
    """`items.key_hash`, 0 = none."""
    categories: UInt64
    """uint64[n, 4], `items.key_hash`, 0 = pad."""
    seen: Bool
    rejected: Bool
    """The user said "not interested", or reported it."""
    served_s: Int64
    """When it was last put into this user's feed; 0 = never."""
    source: UInt8
    """Bit set of `SOURCE`."""
    targets: Bool
    """bool[n, R]: rule r of the policy aims at this item; from `rules.target_masks`. Fastest if it lies rule by rule in
    memory, as the transpose of bool[R, n] does."""
    vectors: Float32 | Vectors | None
    """float32[n, d], unit rows, for semantic diversity; None switches that off."""

    def __post_init__(self) -> None:
        check_columns(self, COLUMNS, len(self))
        vectors = self.vectors
        if isinstance(vectors, np.ndarray) and (vectors.dtype != np.float32 or vectors.shape[:-1] != (len(self),)):
            raise ValueError(f"Candidates.vectors is {vectors.dtype}{vectors.shape}, expected float32[n, d]")

    def __len__(self) -> int:
        return len(self.item)

    def take(self, rows: Rows) -> Self:
        """Return the candidates at `rows` (intp[m], or bool[n]), in that order."""
        columns: dict[str, Any] = {}
        for column in fields(self):
            values = getattr(self, column.name)
            columns[column.name] = None if values is None else values[rows]
        return type(self)(**columns)

    @classmethod
    def empty(cls, n: int = 0, *, rules: int = 0) -> Self:
        """Return n candidates about which nothing is known: live, for everyone, everywhere, item numbers 0..n-1."""
        columns: dict[str, Any] = {
            name: np.zeros((n, *(rules if length is None else length for length in trailing)), dtype)
            for name, (dtype, trailing) in COLUMNS.items()
        }
        columns["vectors"] = None
        columns["item"] = np.arange(n, dtype=np.uint32)
        columns["live"][:] = True
        columns["available_until_s"][:] = OPEN_UNTIL_S
        columns["language"][:] = -1
        columns["countries"][:] = 255
        return cls(**columns)
