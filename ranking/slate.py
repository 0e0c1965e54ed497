"""From an order to a page: caps, semantic diversity, promotions, pins, explore slots. Knows only ranks and arrays.

A *rank* is a place in the order by score, 0 the best. Everything here is a function of ranks, so the page depends on
the scores and not on the order in which the candidates happened to arrive.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from math import ceil
from typing import Final, NamedTuple

import numpy as np

from ranking.columns import Float32, Rows

_NEVER: Final = 1 << 30


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
    width: int
    """Keys per row."""
    keys: Sequence[int]
    """The keys of rank 0, then those of rank 1, ...; 0 = none. Flat: lists of lists would keep the garbage collector
    busier than all the rest of a request."""
    counted: Set[int] | None = None
    """The ranks it is about; None = all."""


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
    filling = _Filling(stream, n, caps)
    pinned = [slot for slot, special in specials.items() if special.placed_by is PlacedBy.PIN]
    for slot in pinned:
        filling.withhold(specials[slot].pool[0])
    must_fill = max(page, *pinned, 0)
    for slot in sorted(specials):
        filling.fill(slot, must_fill)
        filling.fill_special(specials[slot], slot)
    filling.fill(size, must_fill)
    return filling.slate


class _Quota:
    """How often one key was placed, and from which slot on its cap allows it once more."""

    __slots__ = ("cap", "free_from", "most", "slots", "window")

    def __init__(self, cap: int, most: int, window: int) -> None:
        self.cap = cap
        self.most = most
        self.window = window
        self.slots: list[int] = []
        self.free_from = 0

    def use(self, slot: int) -> None:
        slots = self.slots
        slots.append(slot)
        if len(slots) >= self.most:
            self.free_from = slots[-self.most] + self.window


class _Quotas(dict[int, _Quota]):
    """The quotas of one cap by key, made when first asked for."""

    def __init__(self, cap: int, most: int, window: int) -> None:
        super().__init__()
        self._made_of = cap, most, window

    def __missing__(self, key: int) -> _Quota:
        quota = self[key] = _Quota(*self._made_of)
        return quota


class _Filling:
    """The state of one arrangement: which rows wait, which keys are used up, what is placed so far."""

    def __init__(self, stream: Iterable[int], n: int, caps: Sequence[KeyCap]) -> None:
        self.slate = Slate()
        self._stream = iter(stream)
        self._caps = caps
        self._quotas = [(_Quotas(i, cap.most, cap.window), cap) for i, cap in enumerate(caps)]
        self._gone = bytearray(n)  # by rank: placed, or withheld for a pin
        self._waiting: list[int] = []  # passed over because of a cap, best first
        self._retry_slot = _NEVER  # before this slot none of the waiting can fit
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
        ranks, gone = self.slate.ranks, self._gone
        start = slot = len(ranks)
        for rank in self._stream:
            if gone[rank]:
                continue
            quotas = self._quotas_of(rank)
            for quota in quotas:
                if quota.free_from > slot:
                    self._waiting.append(rank)
                    self._retry_slot = min(self._retry_slot, quota.free_from)
                    break
            else:
                for quota in quotas:
                    quota.use(slot)
                ranks.append(rank)
                gone[rank] = 1
                slot += 1
                if slot == stop or slot >= self._retry_slot:
                    break
        self.slate.placed_by += [PlacedBy.SCORE] * (slot - start)
        self.slate.rule += [-1] * (slot - start)
        return slot > start

    def _fill_from_waiting(self) -> bool:
        """Place the best waiting row that fits by now."""
        slot = len(self.slate.ranks)
        if slot < self._retry_slot:
            return False
        retry_slot = _NEVER
        for i, rank in enumerate(self._waiting):
            if self._gone[rank]:
                continue
            blocked_until = self._blocked_until(rank)
            if blocked_until <= slot:
                del self._waiting[i]
                self._place(rank, PlacedBy.SCORE, -1)
                return True
            retry_slot = min(retry_slot, blocked_until)
        self._retry_slot = retry_slot
        return False

    def _fill_relaxed(self) -> bool:
        """Place the best waiting row that breaks only the first cap; else only the first two; and so on."""
        slot = len(self.slate.ranks)
        self._waiting = [rank for rank in self._waiting if not self._gone[rank]]
        for relaxed in range(1, len(self._caps) + 1):
            for i, rank in enumerate(self._waiting):
                if self._blocked_until(rank, relaxed) <= slot:
                    broken = {quota.cap for quota in self._quotas_of(rank) if quota.free_from > slot}
                    self.slate.relaxed |= {self._caps[cap].name for cap in broken}
                    del self._waiting[i]
                    self._place(rank, PlacedBy.SCORE, -1)
                    return True
        return False

    def _quotas_of(self, rank: int) -> list[_Quota]:
        return [
            quotas[key]
            for quotas, (_, _, _, width, keys, counted) in self._quotas
            if counted is None or rank in counted
            for key in keys[rank * width : (rank + 1) * width]
            if key
        ]

    def _blocked_until(self, rank: int, relaxed: int = 0) -> int:
        """Return the first slot at which all caps but the first `relaxed` allow the row."""
        return max([quota.free_from for quota in self._quotas_of(rank) if quota.cap >= relaxed], default=0)

    def _place(self, rank: int, placed_by: PlacedBy, rule: int) -> None:
        slot = len(self.slate.ranks)
        for quota in self._quotas_of(rank):
            quota.use(slot)
        self._gone[rank] = 1
        self.slate.ranks.append(rank)
        self.slate.placed_by.append(placed_by)
        self.slate.rule.append(rule)
