"""From an order to a page: caps, promotions, pins, explore slots. Knows only ranks and arrays.

A *rank* is a place in the order by score, 0 the best. Everything here is a function of ranks, so the page depends on
the scores and not on the order in which the candidates happened to arrive.
"""

from enum import IntEnum
from functools import lru_cache
from math import ceil
from typing import Final, NamedTuple

import numpy as np

from ranking.columns import Bool, Int64, Rows, UInt8, UInt64
from ranking.compiled import compiled, part


class PlacedBy(IntEnum):
    """What gave a row its slot."""

    SCORE = 0
    PROMOTION = 1
    PIN = 2
    EXPLORE = 3


_SCORE, _PROMOTION, _PIN, _EXPLORE = (int(kind) for kind in PlacedBy)
_NONE: Final = -1
_FIELDS: Final = 5


class KeyCap(NamedTuple):
    """At most `most` rows with the same key among any `window` neighbours."""

    most: int
    window: int
    begin: int
    end: int
    """The keys counted are those in the columns begin..end-1."""
    pool: int = _NONE
    """Row of `pools`: only these count; -1 = all."""


class Wish(NamedTuple):
    """A slot that is not simply filled by score, but by the best of a pool that may stand there."""

    placed_by: PlacedBy
    slot: int
    """The one wanted; the first free one from here on is given."""
    pool: int = _NONE
    """Row of `pools`; EXPLORE has `explore` instead."""
    quota: int = 0
    """PROMOTION: do nothing if so many of the pool are placed already."""


class Slate(NamedTuple):
    """The page: three arrays of equal length, and which caps were broken to fill it."""

    ranks: Rows
    placed_by: UInt8
    """uint8[k] of `PlacedBy`."""
    pool: Rows
    """intp[k]: of the wish that placed the row, -1 = none."""
    relaxed: Bool
    """bool[c]"""


@lru_cache(maxsize=1024)
def spread(share: float, size: int, phase: float = 0.0) -> tuple[int, ...]:
    """Return the slots at which share x (slots so far) + phase passes the next whole number: evenly spread.

    So in the first p slots there are at most share x p + phase of them, for every p.
    """
    if share <= 0:
        return ()
    slots = (max(ceil((k - phase) / share - 1e-9) - 1, 0) for k in range(1, int(share * size + phase + 1e-9) + 1))
    return tuple(slot for slot in slots if slot < size)


def table(*entries: KeyCap | Wish) -> Int64:
    """Return int64[m, 5], as `arrange` takes caps and wishes."""
    return np.array([(*entry, *[0] * (_FIELDS - len(entry))) for entry in entries], np.int64).reshape(-1, _FIELDS)


class _Filling(NamedTuple):
    """The state of one arrangement: which rows are placed, and which keys are used up."""

    stream: Rows
    numbers: Rows
    """intp[n, v]: number of each key of each rank, counted anew for each cap; 0 = none."""
    cap_of: Rows
    """intp[v]: whose keys stand in each column."""
    caps: Int64
    free_from: Rows
    """intp[keys]: the first slot at which its cap allows each key once more."""
    gone: Bool
    """bool[n]: placed, or withheld for a pin."""
    ranks: Rows
    """intp[size]: what is placed so far."""


@part()
def _numbered(keys: UInt64, pools: Bool, caps: Int64) -> tuple[Rows, Rows, int]:
    """Return what `_Filling` says of `numbers` and `cap_of`, and the first number that no key has.

    A hash table with linear probing; Fibonacci hashing (Knuth), because neighbouring keys shall end up far apart.
    """
    width = (caps[:, 3] - caps[:, 2]).sum()
    numbers, cap_of = np.zeros((len(keys), width), np.intp), np.empty(width, np.intp)
    bits = 4
    while (1 << bits) < 2 * numbers.size:
        bits += 1
    held, number_of = np.zeros(1 << bits, np.uint64), np.zeros(1 << bits, np.intp)
    at, unused = 0, 1
    for cap in range(len(caps)):
        _, _, begin, end, pool = caps[cap]
        for column in range(begin, end):
            cap_of[at] = cap
            for rank in range(len(keys)):
                if keys[rank, column] == 0 or (pool != _NONE and not pools[pool, rank]):
                    continue
                key = keys[rank, column] << np.uint64(8) | np.uint64(cap)
                place = np.intp(key * np.uint64(0x9E37_79B9_7F4A_7C15) >> np.uint64(64 - bits))
                while number_of[place] and held[place] != key:
                    place = (place + 1) & ((1 << bits) - 1)
                if not number_of[place]:
                    held[place], number_of[place] = key, unused
                    unused += 1
                numbers[rank, at] = number_of[place]
            at += 1
    return numbers, cap_of, unused


@part()
def _reserve(wanted: Int64, pools: Bool, gone: Bool, size: int) -> tuple[Rows, Rows]:
    """Return intp[size], which wish has each slot (-1 = none), and intp[m], the row that each pin takes."""
    wish_at, pinned = np.full(size, _NONE, np.intp), np.full(len(wanted), _NONE, np.intp)
    for wish in range(len(wanted)):
        kind, slot, pool = wanted[wish, 0], wanted[wish, 1], wanted[wish, 2]
        best = _NONE
        if kind == _PIN:
            best = _best_of(pools[pool], gone)
            if best == _NONE:
                continue
        while slot < size and wish_at[slot] != _NONE:
            slot += 1
        if slot < size:
            wish_at[slot], pinned[wish] = wish, best
            if kind == _PIN:
                gone[best] = True
    return wish_at, pinned


@part()
def _best_of(pool: Bool, gone: Bool) -> int:
    """Return the first rank of the pool that is not gone; -1 = none."""
    for rank in range(len(pool)):
        if pool[rank] and not gone[rank]:
            return rank
    return _NONE


@part()
def _members(pool: Bool, ranks: Rows) -> int:
    """Return how many of `ranks` are in the pool."""
    count = 0
    for rank in ranks:
        count += pool[rank]
    return count


@part()
def _fill(filling: _Filling, count: int, stop: int, must_fill: int, relaxed: Bool) -> int:
    """Fill by score up to slot `stop`, short of it if nothing fits any more; return how many are placed.

    Where the page must be filled, the best row that breaks only the first cap may stand; else only the first two; and
    so on.
    """
    while count < stop:
        broken = 0
        rank = _first(filling, count, filling.stream, 0)
        while rank == _NONE and count < must_fill and broken < len(filling.caps):
            broken += 1
            rank = _first(filling, count, filling.stream, broken)
        if rank == _NONE:
            break
        for column, key in enumerate(filling.numbers[rank]):
            if broken and filling.free_from[key] > count:
                relaxed[filling.cap_of[column]] = True
        count = _place(filling, count, rank)
    return count


@part()
def _first(filling: _Filling, slot: int, ranks: Rows, broken: int) -> int:
    """Return the first of `ranks` that is not placed and that all caps but the first `broken` allow; -1 = none."""
    for rank in ranks:
        if filling.gone[rank]:
            continue
        for column, key in enumerate(filling.numbers[rank]):
            if filling.free_from[key] > slot and filling.cap_of[column] >= broken:
                break
        else:
            return int(rank)
    return _NONE


@part()
def _has(keys: Rows, key: int) -> bool:
    for each in keys:  # noqa: SIM110 - no generators in compiled code
        if each == key:
            return True
    return False


@part()
def _place(filling: _Filling, slot: int, rank: int) -> int:
    """Put a row into a slot, count its keys, and return the next slot."""
    filling.ranks[slot] = rank
    filling.gone[rank] = True
    for column, key in enumerate(filling.numbers[rank]):
        most, window = filling.caps[filling.cap_of[column], 0], filling.caps[filling.cap_of[column], 1]
        same = 0
        for before in range(slot, max(slot - window, -1), -1):
            same += key != 0 and _has(filling.numbers[filling.ranks[before]], key)
            if same == most:
                filling.free_from[key] = before + window
                break
    return slot + 1


@compiled(
    "Tuple((intp[:], uint8[:], intp[:], boolean[:]))"
    "(intp[::1], uint64[:, ::1], boolean[:, ::1], int64[:, ::1], int64[:, ::1], intp[::1], intp, intp)"
)
def _arrange(
    stream: Rows, keys: UInt64, pools: Bool, caps: Int64, wanted: Int64, explore: Rows, size: int, page: int
) -> tuple[Rows, UInt8, Rows, Bool]:
    numbers, cap_of, n_keys = _numbered(keys, pools, caps)
    gone, ranks, free_from = np.zeros(len(stream), np.bool_), np.empty(size, np.intp), np.zeros(n_keys, np.intp)
    filling = _Filling(stream, numbers, cap_of, caps, free_from, gone, ranks)
    wish_at, pinned = _reserve(wanted, pools, gone, size)
    relaxed = np.zeros(len(caps), np.bool_)
    placed_by, placed_for = np.zeros(size, np.uint8), np.full(size, _NONE, np.intp)
    must_fill = page
    for slot in range(size):
        if wish_at[slot] != _NONE and wanted[wish_at[slot], 0] == _PIN:
            must_fill = max(must_fill, slot)

    count = 0
    for slot in range(size):
        if wish_at[slot] == _NONE:
            continue
        count = _fill(filling, count, slot, must_fill, relaxed)
        kind, pool, quota = wanted[wish_at[slot], 0], wanted[wish_at[slot], 2], wanted[wish_at[slot], 3]
        rank = _NONE
        if kind == _PIN:
            rank = pinned[wish_at[slot]]
        elif count == slot and kind == _EXPLORE:
            rank = _first(filling, count, explore, 0)
        elif count == slot and _members(pools[pool], ranks[:count]) < quota:
            rank = _first(filling, count, np.flatnonzero(pools[pool]), 0)
        if rank != _NONE:
            placed_by[count], placed_for[count] = kind, pool
            count = _place(filling, count, rank)
    count = _fill(filling, count, size, must_fill, relaxed)
    return ranks[:count], placed_by[:count], placed_for[:count], relaxed


def arrange(
    stream: Rows, keys: UInt64, pools: Bool, caps: Int64, wanted: Int64, explore: Rows, size: int, page: int
) -> Slate:
    """Fill up to `size` slots with ranks out of 0..n-1.

    stream: intp[n], all ranks in the order in which they may be placed by score. keys: uint64[n, w], what caps count
    of each rank; 0 = none, and a row without keys is not counted. pools: bool[P, n], what caps and wishes are about.
    explore: intp[e], ranks in the order in which they may be explored.

    caps: `table` of `KeyCap`, the first to be relaxed first. They hold for every row but the pinned (an editor's
    explicit wish), counting all rows placed before it, and are relaxed one after the other only to fill the first
    `page` slots, or the slots before a pin. wanted: `table` of `Wish`, the strongest first. A pin takes the best of its
    pool that no stronger pin took, and one that the list does not reach stands at its end. Rows for which there is no
    slot are simply not in the answer.
    """
    return Slate(*_arrange(stream, keys, pools, caps, wanted, explore, size, page))
