"""SOURCES: where candidates come from. Each is a function from what is asked to rows, best first.

What may not be shown to this user (unavailable here and now, blocked, rejected, seen) is not in `Ask.allowed` and so
never comes. The quotas are the policy's; what one source cannot bring, the others fill, until the list is full or
nothing is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from ranking.candidates import SOURCE, Candidates
from ranking.compiled import column, compiled
from ranking.context import Context
from ranking.rulebook import Plan
from retrieval.groups import groups
from retrieval.masks import Mask, clear, is_set
from retrieval.rows import RECORD
from retrieval.snapshot import Snapshot
from retrieval.taste import Memory, Taste
from retrieval.view import Rows, View

EDITORIAL: Final = 10
"""Rows brought for each acting pin or promotion; it takes the best of these and of what the other sources brought."""
DRAWS: Final = 16
"""Draws per explored item, so that enough of them hit something allowed; if not, what is allowed is listed first."""
NOTHING: Final[Rows] = np.zeros(0, np.int64)
_ALL: Final[Mask] = np.zeros(0, np.uint8)


@dataclass(frozen=True)
class Ask:
    """What candidates are wanted.

    `allowed` is packed rows that may be shown to this user, here and now; `share` of each quota is asked for.
    """

    view: View
    plan: Plan
    context: Context
    memory: Memory
    taste: Taste
    allowed: Mask
    share: float = 1.0

    @cached_property
    def n_allowed(self) -> int:
        """How many items may be shown to this user at all."""
        return int(np.bitwise_count(self.allowed).sum())

    def quota(self, source: str) -> int:
        """How many a source is asked for."""
        return ceil(self.share * int(getattr(self.view.policy.sources, source)))

    def only_allowed(self, rows: Rows, most: int) -> Rows:
        return rows[is_set(self.allowed, rows)][:most]


def near(ask: Ask) -> Rows:
    """The nearest to each interest of the user, an equal share for each."""
    interests = ask.taste.interests[: ceil(ask.share * len(ask.taste.interests))]
    if not len(interests):
        return NOTHING
    rows, _ = ask.view.snapshot.search(interests, ceil(ask.quota("near") / len(interests)), ask.allowed)
    # By rank, so that each interest's best come first.
    flat = rows.T.reshape(-1)
    return flat[flat >= 0]


def popular(ask: Ask) -> Rows:
    """Most engaged with in the last days."""
    return ask.only_allowed(ask.view.most_popular, ask.quota("popular"))


def fresh(ask: Ask) -> Rows:
    """Published last."""
    return ask.only_allowed(ask.view.newest, ask.quota("fresh"))


def explore(ask: Ask) -> Rows:
    """An even draw from everything allowed: each item has the same chance, seeded by the request. Nothing for those of
    whom nothing is known: what they see first is what others stayed for."""
    wanted = ask.quota("explore") if len(ask.taste.interests) else 0
    if not wanted or not ask.n_allowed:
        return NOTHING
    drawn = _drawn(ask.context.seed, wanted, 8 * len(ask.allowed), ask.allowed)
    if len(drawn) == wanted:
        return drawn
    rows = np.flatnonzero(np.unpackbits(ask.allowed, bitorder="little"))
    return rows[_drawn(ask.context.seed, wanted, len(rows), _ALL)]


def editor(ask: Ask) -> Rows:
    """What acting pins and promotions aim at: the newest for each, possibly repeated."""
    return _first_of_each(*ask.view.editorial(ask.plan), ask.allowed, EDITORIAL)


SOURCES: Final[Mapping[str, Callable[[Ask], Rows]]] = MappingProxyType(
    {"near": near, "popular": popular, "fresh": fresh, "explore": explore, "editor": editor}
)


_BITS: Final = np.array([SOURCE[name] for name in SOURCES], np.uint8)


def allowed_for(view: View, plan: Plan, context: Context, memory: Memory) -> Mask:
    """Packed rows this user may be shown: available to anybody asking like this, neither seen nor rejected."""
    mask = view.allowed(plan, context).copy()
    clear(mask, view.snapshot.rows(memory.seen))
    clear(mask, view.snapshot.rows(memory.rejected))
    return mask


def gather(ask: Ask, wanted: int) -> Candidates:
    """Candidates of all sources together; at least `wanted` unless fewer are allowed at all."""
    found = {name: source(ask) for name, source in SOURCES.items()}
    rows = np.concatenate(list(found.values()))
    bits = np.repeat(_BITS, [len(each) for each in found.values()])
    order, begins = groups(rows)
    rows, source = rows[order[begins]], np.bitwise_or.reduceat(bits[order], begins)
    if len(rows) < wanted:
        more, more_source = _widen(ask, rows, wanted - len(rows))
        rows, source = np.concatenate([rows, more]), np.concatenate([source, more_source])
    return describe(ask, rows, source)


def describe(ask: Ask, rows: Rows, source: npt.NDArray[np.uint8]) -> Candidates:
    """Everything ranking must know about the given rows, allowed or not."""
    snapshot, memory = ask.view.snapshot, ask.memory
    records = snapshot.records(rows)
    items = records["item"]
    rising, trending, popularity, evergreen = ask.view.popularity.of(items)
    similarity, negative = _cosines(ask, rows)
    allowed = is_set(ask.allowed, rows)
    if allowed.all():  # as everything that `gather` finds: then it lives, and was neither seen nor rejected
        live, seen, rejected = allowed, ~allowed, ~allowed
    else:
        live = is_set(ask.view.live, rows)
        seen, rejected = np.isin(items, memory.seen), np.isin(items, memory.rejected)
    return Candidates(
        **{name: records[name] for name in RECORD.names or ()},
        similarity=similarity,
        negative=negative,
        rising=rising,
        popularity=popularity,
        trending=trending,
        evergreen=evergreen,
        live=live,
        seen=seen,
        rejected=rejected,
        served_s=memory.last_served_s(items),
        source=source,
        targets=ask.view.targets(rows),
        vectors=_VectorsOf(snapshot, rows),
    )


@dataclass(frozen=True, slots=True)
class _VectorsOf:
    snapshot: Snapshot
    rows: Rows

    def __getitem__(self, candidates: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        return self.snapshot.texts(self.rows[candidates])


def _cosines(ask: Ask, rows: Rows) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """float32[n] each: nearness to the nearest interest, and cosine to what was rejected; 0 where there is no such."""
    interests, rejected, snapshot = ask.taste.interests, ask.taste.rejected, ask.view.snapshot
    zeros = np.zeros(len(rows), np.float32)
    queries = interests if rejected is None else np.concatenate([interests, rejected[None]])
    cosines = snapshot.cosines(queries, rows) if len(queries) else zeros[:, None]
    near = cosines[:, : len(interests)].max(axis=1) if len(interests) else zeros
    if snapshot.learned is not None and len(interests):
        near = snapshot.learned.rarity(near)
    if ask.taste.certainty < 1:
        near = near * np.float32(ask.taste.certainty)
    return near, zeros if rejected is None else cosines[:, -1]


@compiled(f"int64[:](uint64, int64, int64, {column('uint8')})")
def _drawn(seed: int, most: int, below: int, allowed: Mask) -> Rows:
    """int64[up to most]: even draws from 0..below-1, all different and allowed. Same arguments, same draws.

    A counter hashed by the finaliser of SplitMix64 (Steele, Lea and Flood, 2014). allowed: empty, then all are.
    """
    drawn = np.empty(most, np.int64)
    count = 0
    for draw in range(1, DRAWS * most + 1):
        mixed = np.uint64(draw) * np.uint64(0x9E37_79B9_7F4A_7C15) + seed
        mixed = (mixed ^ mixed >> np.uint64(30)) * np.uint64(0xBF58_476D_1CE4_E5B9)
        mixed = (mixed ^ mixed >> np.uint64(27)) * np.uint64(0x94D0_49BB_1331_11EB)
        row = np.int64((mixed ^ mixed >> np.uint64(31)) >> np.uint64(32)) * below >> 32
        if (len(allowed) == 0 or allowed[row >> 3] >> (row & 7) & 1) and not (drawn[:count] == row).any():
            drawn[count] = row
            count += 1
            if count == most:
                break
    return drawn[:count]


@compiled(f"int64[:]({column('int64')}, {column('intp')}, {column('uint8')}, int64)")
def _first_of_each(rows: Rows, begins: npt.NDArray[np.intp], allowed: Mask, most: int) -> Rows:
    """The first `most` allowed rows of each group; begins intp[n]: where the group of each row begins."""
    kept = np.empty(len(rows), np.int64)
    count = in_group = 0
    for at in range(len(rows)):
        if begins[at] == at:
            in_group = 0
        if in_group < most and allowed[rows[at] >> 3] >> (rows[at] & 7) & 1:
            kept[count] = rows[at]
            count += 1
            in_group += 1
    return kept[:count]


def _widen(ask: Ask, rows: Rows, wanted: int) -> tuple[Rows, npt.NDArray[np.uint8]]:
    """Up to `wanted` more allowed rows: the popular, then the new, then whatever is allowed, newest first."""
    left = ask.allowed.copy()
    clear(left, rows)
    more, sources = [], []
    for name, order in _orders(ask, left):
        taken = order[is_set(left, order)][:wanted]
        clear(left, taken)
        more.append(taken)
        sources.append(np.full(len(taken), SOURCE[name] | SOURCE["filled"], np.uint8))
        wanted -= len(taken)
        if wanted <= 0:
            break
    return np.concatenate(more), np.concatenate(sources)


def _orders(ask: Ask, left: Mask) -> Iterator[tuple[str, Rows]]:
    yield "popular", ask.view.most_popular
    yield "fresh", ask.view.newest
    rows = np.flatnonzero(np.unpackbits(left, bitorder="little"))
    yield "fresh", rows[np.argsort(-ask.view.snapshot.column("published_s", rows), kind="stable")]
