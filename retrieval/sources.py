"""SOURCES: where candidates come from. Each is a function from what is asked to rows, best first.

What may not be shown to this user (unavailable here and now, blocked, rejected, seen) is not in `Ask.allowed` and so
never comes. The quotas are the policy's; what one source cannot bring, the others fill, until the list is full or
nothing is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from ranking.candidates import SOURCE, Candidates
from ranking.context import Context
from ranking.rulebook import Plan
from retrieval.snapshot import Mask
from retrieval.taste import Memory, Taste
from retrieval.view import Rows, View, clear, is_set

COLUMNS: Final = (
    "item", "published_s", "available_from_s", "available_until_s", "min_age", "language", "countries", "creator",
    "categories",
)  # fmt: skip
"""What ranking knows of a candidate as it lies in the snapshot."""

NOTHING: Final[Rows] = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Ask:
    """What candidates are wanted. `allowed` is packed rows that may be shown to this user, here and now."""

    view: View
    plan: Plan
    context: Context
    memory: Memory
    taste: Taste
    allowed: Mask

    def only_allowed(self, rows: Rows, most: int) -> Rows:
        return rows[is_set(self.allowed, rows)][:most]


def near(ask: Ask) -> Rows:
    """The nearest to each interest of the user, an equal share for each."""
    interests = ask.taste.interests
    if not len(interests):
        return NOTHING
    share = -(-ask.view.policy.sources.near // len(interests))
    rows, _ = ask.view.snapshot.search(interests, share, ask.allowed)
    # By rank, so that each interest's best come first.
    flat = rows.T.reshape(-1)
    return flat[flat >= 0]


def popular(ask: Ask) -> Rows:
    """Most engaged with in the last days."""
    return ask.only_allowed(ask.view.most_popular, ask.view.policy.sources.popular)


def fresh(ask: Ask) -> Rows:
    """Published last."""
    return ask.only_allowed(ask.view.newest, ask.view.policy.sources.fresh)


def explore(ask: Ask) -> Rows:
    """An even draw from everything allowed: each item has the same chance, seeded by the request."""
    wanted, n_rows = ask.view.policy.sources.explore, ask.view.snapshot.n_rows
    n_allowed = int(np.bitwise_count(ask.allowed).sum())
    if not wanted or not n_allowed:
        return NOTHING
    rng = np.random.default_rng(ask.context.seed)
    if n_allowed * 8 > n_rows and n_rows > 4096:  # most draws hit: no need to list what is allowed
        drawn = np.unique(rng.integers(0, n_rows, 16 * wanted))
        rng.shuffle(drawn)  # `unique` has sorted them: the first would always be the oldest
        return ask.only_allowed(drawn, wanted)
    rows = np.flatnonzero(np.unpackbits(ask.allowed, bitorder="little"))
    return rng.choice(rows, min(wanted, len(rows)), replace=False)


def editor(ask: Ask) -> Rows:
    """What acting pins and promotions aim at."""
    rows = ask.view.editorial(ask.plan)
    return ask.only_allowed(rows, len(rows))


SOURCES: Final[Mapping[str, Callable[[Ask], Rows]]] = MappingProxyType(
    {"near": near, "popular": popular, "fresh": fresh, "explore": explore, "editor": editor}
)


def allowed_for(view: View, plan: Plan, context: Context, memory: Memory) -> Mask:
    """Packed rows this user may be shown: available to anybody asking like this, neither seen nor rejected."""
    mask = view.allowed(plan, context)
    clear(mask, view.snapshot.rows(memory.seen))
    clear(mask, view.snapshot.rows(memory.rejected))
    return mask


def gather(ask: Ask, wanted: int) -> Candidates:
    """Candidates of all sources together; at least `wanted` unless fewer are allowed at all."""
    found = {name: source(ask) for name, source in SOURCES.items()}
    rows, inverse = np.unique(np.concatenate(list(found.values())), return_inverse=True)
    bits = np.repeat([SOURCE[name] for name in found], [len(each) for each in found.values()]).astype(np.uint8)
    source = np.zeros(len(rows), np.uint8)
    np.bitwise_or.at(source, inverse, bits)
    if len(rows) < wanted:
        more, more_source = _widen(ask, rows, wanted - len(rows))
        rows, source = np.concatenate([rows, more]), np.concatenate([source, more_source])
    return describe(ask, rows, source)


def describe(ask: Ask, rows: Rows, source: npt.NDArray[np.uint8]) -> Candidates:
    """Everything ranking must know about the given rows."""
    snapshot, memory, taste = ask.view.snapshot, ask.memory, ask.taste
    columns = snapshot.columns(COLUMNS, rows)
    items = columns["item"]
    popularity, trending = ask.view.popularity.of(items)
    vectors = snapshot.vectors(rows)
    zeros = np.zeros(len(rows), np.float32)
    return Candidates(
        **columns,
        similarity=(vectors @ taste.interests.T).max(axis=1) if len(taste.interests) else zeros,
        negative=vectors @ taste.rejected if taste.rejected is not None else zeros,
        popularity=popularity,
        trending=trending,
        live=is_set(ask.view.live, rows),
        seen=np.isin(items, memory.seen),
        rejected=np.isin(items, memory.rejected),
        served_s=_last_served(items, memory),
        source=source,
        targets=ask.view.targets(rows),
        vectors=vectors,
    )


def _widen(ask: Ask, rows: Rows, wanted: int) -> tuple[Rows, npt.NDArray[np.uint8]]:
    """Up to `wanted` more allowed rows: the popular, then the new, then whatever is allowed, newest first."""
    left = ask.allowed.copy()
    clear(left, rows)
    more, sources = [], []
    for name, order in _orders(ask, left):
        taken = order[is_set(left, order)][:wanted]
        clear(left, taken)
        more.append(taken)
        sources.append(np.full(len(taken), SOURCE[name], np.uint8))
        wanted -= len(taken)
        if wanted <= 0:
            break
    return np.concatenate(more), np.concatenate(sources)


def _orders(ask: Ask, left: Mask) -> Iterator[tuple[str, Rows]]:
    yield "popular", ask.view.most_popular
    yield "fresh", ask.view.newest
    rows = np.flatnonzero(np.unpackbits(left, bitorder="little"))
    yield "fresh", rows[np.argsort(-ask.view.snapshot.column("published_s", rows), kind="stable")]


def _last_served(items: npt.NDArray[np.uint32], memory: Memory) -> npt.NDArray[np.int64]:
    served, at_s = memory.served
    if not len(served):
        return np.zeros(len(items), np.int64)
    known, position = np.unique(served[::-1], return_index=True)  # reversed: the first occurrence is the last one
    last_s = at_s[::-1][position]
    at = np.minimum(np.searchsorted(known, items), len(known) - 1)
    return np.where(known[at] == items, last_s[at], 0)
