"""From an order to a page: caps, promotions, pins, explore slots. Knows only ranks and arrays.

A *rank* is a place in the order by score, 0 the best. Everything here is a function of ranks, so the page depends on
the scores and not on the order in which the candidates happened to arrive.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from heapq import heappop, heappush
from itertools import chain
from math import ceil
from typing import Final, NamedTuple

import numpy as np

from ranking.columns import UInt64

_CAP: Final = 0xFF  # the lowest byte of a key says whose it is, once all caps are counted in one book
_CAP_BITS: Final = np.uint64(8)
_SPREAD: Final = np.uint64(0x9E37_79B9_7F4A_7C15)  # Fibonacci hashing (Knuth): neighbouring keys end up far apart
_PLACE_SHIFT: Final = np.uint64(64 - 12)


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
        self._keys = _contended(n, caps)
        self._first_keys = _by_row(self._keys[: 2 * size])  # few of the others will be looked at
        self._free_from: dict[int, int] = {}  # key -> first slot at which its cap allows it once more
        self._placed: dict[int, list[int]] = {}  # key -> slots it was placed in
        self._gone = bytearray(n)  # by rank: placed, or withheld for a pin
        # Passed over because of a cap. A row waits in the queue of one key that is in its way; of a queue only the head
        # can be next, so the others cost nothing meanwhile. An entry of the two heaps may be outdated, and then is not
        # the head's: whenever a queue gets another head, it gets another entry.
        self._queues: dict[int, list[tuple[int, int]]] = {}  # key -> heap of (turn, rank)
        self._due: list[tuple[int, int]] = []  # heap of (slot at which its cap allows it once more, key)
        self._ready: list[tuple[int, int]] = []  # heap of (turn of the head, key)
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
        ranks, gone, due = self.slate.ranks, self._gone, self._due
        keys_of, use, free_from = self._keys_of, self._use, self._free_from.get
        start = slot = len(ranks)
        for rank in self._stream:
            if gone[rank]:
                continue
            keys = keys_of(rank)
            for key in keys:
                if free_from(key, 0) > slot:
                    self._turn += 1
                    self._wait(key, self._turn, rank)
                    break
            else:
                use(keys, slot)
                ranks.append(rank)
                gone[rank] = 1
                slot += 1
                if slot == stop or (due and due[0][0] <= slot):
                    break
        self.slate.placed_by += [PlacedBy.SCORE] * (slot - start)
        self.slate.rule += [-1] * (slot - start)
        return slot > start

    def _wait(self, key: int, turn: int, rank: int) -> None:
        """Let a row wait for a key that is in its way."""
        queue = self._queues.setdefault(key, [])
        heappush(queue, (turn, rank))
        if queue[0][0] == turn:
            heappush(self._due, (self._free_from[key], key))

    def _fill_from_waiting(self) -> bool:
        """Place the best waiting row that fits by now."""
        slot = len(self.slate.ranks)
        while self._due and self._due[0][0] <= slot:
            self._offer(heappop(self._due)[1])
        while self._ready:
            turn, key = heappop(self._ready)
            queue = self._queues[key]
            if not queue or queue[0][0] != turn:
                continue
            if self._free_from[key] > slot:
                heappush(self._due, (self._free_from[key], key))
                continue
            _, rank = heappop(queue)
            fits = not self._gone[rank] and self._fits_or_waits(turn, rank, slot)
            if fits:
                self._place(rank, PlacedBy.SCORE, -1)
            self._offer(key)
            if fits:
                return True
        return False

    def _fits_or_waits(self, turn: int, rank: int, slot: int) -> bool:
        """Tell whether no key is in the way of a row; if one is, the row waits for that."""
        for key in self._keys_of(rank):
            if self._free_from.get(key, 0) > slot:
                self._wait(key, turn, rank)
                return False
        return True

    def _offer(self, key: int) -> None:
        """Let the head of a queue be looked at."""
        if self._queues[key]:
            heappush(self._ready, (self._queues[key][0][0], key))

    def _fill_relaxed(self) -> bool:
        """Place the best waiting row that breaks only the first cap; else only the first two; and so on."""
        slot = len(self.slate.ranks)
        waiting = [rank for _, rank in sorted(chain(*self._queues.values())) if not self._gone[rank]]
        for relaxed in range(1, len(self._caps) + 1):
            for rank in waiting:
                if self._blocked_until(rank, relaxed) <= slot:
                    broken = [key for key in self._keys_of(rank) if self._free_from.get(key, 0) > slot]
                    self.slate.relaxed |= {self._caps[key & _CAP].name for key in broken}
                    self._place(rank, PlacedBy.SCORE, -1)
                    return True
        return False

    def _keys_of(self, rank: int) -> list[int]:
        return self._first_keys[rank] if rank < len(self._first_keys) else _by_row(self._keys[rank : rank + 1])[0]

    def _blocked_until(self, rank: int, relaxed: int = 0) -> int:
        """Return the first slot at which all caps but the first `relaxed` allow the row."""
        free_from = self._free_from.get
        return max([free_from(key, 0) for key in self._keys_of(rank) if key & _CAP >= relaxed], default=0)

    def _use(self, keys: list[int], slot: int) -> None:
        """Count the keys of a row that is placed."""
        placed, free_from, caps = self._placed, self._free_from, self._caps
        for key in keys:
            _, most, window, _ = caps[key & _CAP]
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


def _contended(n: int, caps: Sequence[KeyCap]) -> UInt64:
    """Return uint64[n, width]: the keys of all caps that may get in the way, each with the number of its cap; else 0.

    A key that no more rows have than its cap allows is never in the way. Keys are counted by a hash of a few bits, so
    of two that fall together both stay.
    """
    if not caps:
        return np.zeros((n, 0), np.uint64)
    width = [cap.keys.shape[1] for cap in caps]
    plain = np.concatenate([cap.keys for cap in caps], axis=1)
    keys: UInt64 = (plain << _CAP_BITS | np.arange(len(caps), dtype=np.uint64).repeat(width)) * (plain != 0)
    places = (keys * _SPREAD >> _PLACE_SHIFT).astype(np.intp)
    keys *= np.bincount(places.reshape(-1)).take(places) > np.repeat([cap.most for cap in caps], width)
    return keys


def _by_row(keys: UInt64) -> list[list[int]]:
    """Return the keys of each row, without the zeros."""
    held = keys != 0
    flat, ends = keys[held].tolist(), held.sum(axis=1).cumsum().tolist()
    return [flat[begin:end] for begin, end in zip([0, *ends], ends)]  # noqa: B905 - one more begins than ends
