"""From an order to a page: caps, semantic diversity, promotions, pins, explore slots. Knows only ranks and arrays.

A *rank* is a place in the order by score, 0 the best. Everything here is a function of ranks, so the page depends on
the scores and not on the order in which the candidates happened to arrive.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from heapq import heappop, heappush
from math import ceil
from typing import Final, NamedTuple

import numpy as np

from ranking.columns import Float32, Rows, UInt64

_64_BITS: Final = (1 << 64) - 1
_SPREAD: Final = 0x9E37_79B9_7F4A_7C15  # multiples of it differ in all bits (Fibonacci hashing)


class PlacedBy(IntEnum):
    """What gave a row its slot."""

    SCORE = 0
    PROMOTION = 1
    PIN = 2
    EXPLORE = 3


class KeyCap(NamedTuple):
    """At most `most` rows with the same key among any `window` neighbours."""

    name: str
    """What is reported when it had to be relaxed."""
    most: int
    window: int
    keys: UInt64
    """uint64[n, width]: the keys of each rank; 0 = none. A row without keys is not counted."""


class Special(NamedTuple):
    """A slot that is not simply filled by score: the first of `pool` (ranks, best first) that may stand there."""

    placed_by: PlacedBy
    pool: Sequence[int]
    rule: int = -1
    quota: int = 0
    """PROMOTION: do nothing if so many of the pool are placed already."""


@dataclass(slots=True)
class Slate:
    """The page. Three lists of equal length, and what did not go as wanted."""

    ranks: list[int] = field(default_factory=list)
    placed_by: list[PlacedBy] = field(default_factory=list)
    rule: list[int] = field(default_factory=list)
    """Index of the rule that placed the row, -1 = none."""
    relaxed: set[str] = field(default_factory=set)
    """Names of caps that were broken to fill the page."""


def step_back(vectors: Float32, above: float, step: float, most: int) -> Rows:
    """Return intp[d]: the new order of d rows so that those alike something just before them step back.

    vectors: float32[d, k], unit rows, best first. A row steps back `step` places per fully alike row among the `most`
    before it, `most` at most. It follows that no row moves more than `most` places in either direction: a row is
    overtaken only by rows that stood at most `most` places behind it. In the spirit of maximal marginal relevance
    (Carbonell and Goldstein, 1998), but without its greedy loop.
    """
    # Of a copy: with itself, BLAS takes a symmetric routine that is twice as slow at this size.
    alike = vectors @ vectors.copy().T
    alike -= above
    np.maximum(alike, 0, out=alike)
    steps = np.einsum("ij,ij->i", alike, _just_before(len(vectors), most)) * (step / (1 - above))
    return np.argsort(np.arange(len(vectors)) + np.minimum(steps, most), kind="stable")


@lru_cache(maxsize=64)
def _just_before(n: int, most: int) -> Float32:
    """Return float32[n, n]: 1 where column j is one of the `most` rows before row i."""
    back = np.arange(n)[:, None] - np.arange(n)
    return ((back > 0) & (back <= most)).astype(np.float32)


@lru_cache(maxsize=1024)
def spread(share: float, size: int, phase: float = 0.0) -> tuple[int, ...]:
    """Return the slots at which share x (slots so far) + phase passes the next whole number: evenly spread.

    So in the first p slots there are at most share x p + phase of them, for every p.
    """
    if share <= 0:
        return ()
    slots = (max(ceil((k - phase) / share - 1e-9) - 1, 0) for k in range(1, int(share * size + phase + 1e-9) + 1))
    return tuple(slot for slot in slots if slot < size)


def reserve(specials: dict[int, Special], slot: int, size: int, special: Special) -> bool:
    """Give `special` the first free slot from `slot` on; False if there is none."""
    while slot in specials:
        slot += 1
    if slot < size:
        specials[slot] = special
    return slot < size


def arrange(
    stream: Iterable[int], n: int, caps: Sequence[KeyCap], specials: Mapping[int, Special], size: int, page: int
) -> Slate:
    """Fill up to `size` slots with ranks out of 0..n-1.

    stream: the ranks that may be placed by score, in the wanted order. caps: the first to be relaxed first; they hold
    for every row but the pinned (an editor's explicit wish), counting all rows placed before it. They are relaxed one
    after the other only to fill the first `page` slots, or the slots before a pin. A pin that the list does not reach
    stands at its end. Rows for which there is no slot are simply not in the answer.
    """
    filling = _Filling(stream, n, caps, size)
    pinned = [slot for slot, special in specials.items() if special.placed_by is PlacedBy.PIN]
    for slot in pinned:
        filling.withhold(specials[slot].pool[0])
    must_fill = max(page, *pinned, 0)
    for slot in sorted(specials):
        filling.fill(slot, must_fill)
        filling.fill_special(specials[slot], slot)
    filling.fill(size, must_fill)
    return filling.slate


class _Filling:
    """The state of one arrangement: which rows wait, which keys are used up, what is placed so far."""

    def __init__(self, stream: Iterable[int], n: int, caps: Sequence[KeyCap], size: int) -> None:
        self.slate = Slate()
        self._stream = iter(stream)
        self._caps = caps
        # One column per key of a row. One book for all caps: each cap's keys are made different from the others'.
        self._cap_of_column = [number for number, cap in enumerate(caps) for _ in range(cap.keys.shape[1])]
        self._most = [caps[number].most for number in self._cap_of_column]
        self._window = [caps[number].window for number in self._cap_of_column]
        self._keys = np.concatenate([np.zeros((n, 0), np.uint64), *map(_apart, range(len(caps)), caps)], axis=1)
        self._first_keys: list[list[int]] = self._keys[: 2 * size].tolist()  # few of the others will be looked at
        self._free_from: dict[int, int] = {}  # key -> first slot at which its cap allows it once more
        self._placed: dict[int, list[int]] = {}  # key -> slots it was placed in
        self._gone = bytearray(n)  # by rank: placed, or withheld for a pin
        # Passed over because of a cap. A row waits until the slot at which it might fit, then until one is filled.
        self._waiting: list[tuple[int, int, int]] = []  # heap of (slot, turn, rank)
        self._ready: list[tuple[int, int]] = []  # heap of (turn, rank)
        self._turn = 0
        self._promoted: dict[int, tuple[frozenset[int], list[int]]] = {}  # rule -> pool, [placed, looked at]

    def withhold(self, rank: int) -> None:
        """Keep a row for its pin."""
        self._gone[rank] = 1

    def fill(self, stop: int, must_fill: int) -> None:
        """Fill by score up to slot `stop`; stop short if nothing fits any more."""
        ranks = self.slate.ranks
        while len(ranks) < stop:
            placed = self._fill_from_waiting() or self._fill_from_stream(stop)
            if not placed and not (len(ranks) < must_fill and self._fill_relaxed()):
                return

    def fill_special(self, special: Special, slot: int) -> None:
        """Place what the slot is meant for, if there is such a row."""
        if special.placed_by is PlacedBy.PIN:
            self._place(special.pool[0], special.placed_by, special.rule)
            return
        if len(self.slate.ranks) < slot or self._is_satisfied(special):
            return
        for rank in special.pool:
            if not self._gone[rank] and self._blocked_until(rank) <= slot:
                self._place(rank, special.placed_by, special.rule)
                return

    def _is_satisfied(self, special: Special) -> bool:
        """Tell whether rows placed by score have done what this promotion is for."""
        if special.placed_by is not PlacedBy.PROMOTION:
            return False
        if special.rule not in self._promoted:
            self._promoted[special.rule] = frozenset(special.pool), [0, 0]
        pool, counted = self._promoted[special.rule]
        ranks = self.slate.ranks
        counted[0] += sum(rank in pool for rank in ranks[counted[1] :])
        counted[1] = len(ranks)
        return counted[0] >= special.quota

    def _fill_from_stream(self, stop: int) -> bool:
        """Place rows of the stream until `stop`, or until a waiting row may fit. The hot loop."""
        ranks, gone, waiting, turn = self.slate.ranks, self._gone, self._waiting, self._turn
        keys_of, use, free_from = self._keys_of, self._use, self._free_from.get
        start = slot = len(ranks)
        for rank in self._stream:
            if gone[rank]:
                continue
            keys = keys_of(rank)
            for key in keys:
                if free_from(key, 0) > slot:
                    turn += 1
                    heappush(waiting, (free_from(key, 0), turn, rank))
                    break
            else:
                use(keys, slot)
                ranks.append(rank)
                gone[rank] = 1
                slot += 1
                if slot == stop or (waiting and waiting[0][0] <= slot):
                    break
        self._turn = turn
        self.slate.placed_by += [PlacedBy.SCORE] * (slot - start)
        self.slate.rule += [-1] * (slot - start)
        return slot > start

    def _fill_from_waiting(self) -> bool:
        """Place the best waiting row that fits by now."""
        slot = len(self.slate.ranks)
        while self._waiting and self._waiting[0][0] <= slot:
            _, turn, rank = heappop(self._waiting)
            heappush(self._ready, (turn, rank))
        while self._ready:
            turn, rank = heappop(self._ready)
            if self._gone[rank]:
                continue
            blocked_until = self._blocked_until(rank)
            if blocked_until <= slot:
                self._place(rank, PlacedBy.SCORE, -1)
                return True
            heappush(self._waiting, (blocked_until, turn, rank))
        return False

    def _fill_relaxed(self) -> bool:
        """Place the best waiting row that breaks only the first cap; else only the first two; and so on."""
        slot = len(self.slate.ranks)
        waiting = [rank for _, rank in sorted((turn, rank) for _, turn, rank in self._waiting) if not self._gone[rank]]
        for relaxed in range(1, len(self._caps) + 1):
            for rank in waiting:
                if self._blocked_until(rank, relaxed) <= slot:
                    columns = zip(self._cap_of_column, self._keys_of(rank), strict=True)
                    broken = {cap for cap, key in columns if self._free_from.get(key, 0) > slot}
                    self.slate.relaxed |= {self._caps[cap].name for cap in broken}
                    self._place(rank, PlacedBy.SCORE, -1)
                    return True
        return False

    def _keys_of(self, rank: int) -> list[int]:
        return self._first_keys[rank] if rank < len(self._first_keys) else self._keys[rank].tolist()

    def _blocked_until(self, rank: int, relaxed: int = 0) -> int:
        """Return the first slot at which all caps but the first `relaxed` allow the row."""
        keys, free_from = self._keys_of(rank), self._free_from.get
        if relaxed:
            keys = [key for cap, key in zip(self._cap_of_column, keys, strict=True) if cap >= relaxed]
        return max([free_from(key, 0) for key in keys], default=0)

    def _use(self, keys: list[int], slot: int) -> None:
        """Count the keys of a row that is placed."""
        placed, free_from = self._placed, self._free_from
        for key, most, window in zip(keys, self._most, self._window):  # noqa: B905 - `strict` costs as much as the rest
            if not key:
                continue
            if most == 1:
                free_from[key] = slot + window
            elif key in placed:
                slots = placed[key]
                slots.append(slot)
                if len(slots) >= most:
                    free_from[key] = slots[-most] + window
            else:
                placed[key] = [slot]

    def _place(self, rank: int, placed_by: PlacedBy, rule: int) -> None:
        self._use(self._keys_of(rank), len(self.slate.ranks))
        self._gone[rank] = 1
        self.slate.ranks.append(rank)
        self.slate.placed_by.append(placed_by)
        self.slate.rule.append(rule)


def _apart(number: int, cap: KeyCap) -> UInt64:
    """Return the keys of a cap so that the same key under another cap is another one; 0 stays 0."""
    return np.where(cap.keys, cap.keys ^ np.uint64(number * _SPREAD & _64_BITS), np.uint64(0))
