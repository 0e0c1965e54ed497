"""Retrieve and rank for one user: what a page of the feed is made of, kept whole for those who ask why.

    memory -> taste -> context -> allowed rows -> candidates -> ranking

The feed, the checks before a publish, the preview and explain all call `ranked`, so what they say is what is served.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ranking.candidates import SOURCE, Candidates
from ranking.compiled import column, compiled
from ranking.context import Context
from ranking.policy import GLOBAL as GLOBAL_LAYER
from ranking.policy import TENANT as TENANT_LAYER
from ranking.policy import Layer, Policy, resolve
from ranking.rank import Ranking, rank
from ranking.slate import PlacedBy
from retrieval.journal import Journal, Signal, entries
from retrieval.masks import clear
from retrieval.sources import Ask, allowed_for, gather
from retrieval.taste import Memory, remember, taste
from retrieval.view import Rows, View
from service.governor import Effort


class Breadth(NamedTuple):
    """How much is done for one list.

    candidates: ranked at least, while there are as many. frozen: length of the list that is frozen for scrolling; most
    users never get to its end. share: of the policy's quotas of each source, and of the user's interests.
    """

    candidates: int
    frozen: int
    share: float


WHOLE: Final = Breadth(candidates=200, frozen=100, share=1.0)
NARROW: Final = Breadth(candidates=80, frozen=60, share=0.4)
"""When there is more to do than time for it."""
BREADTH: Final[Mapping[Effort, Breadth]] = MappingProxyType({"whole": WHOLE, "narrow": NARROW, "plain": NARROW})

Float32 = npt.NDArray[np.float32]
Items = npt.NDArray[np.uint32]

NO_ITEMS: Final[Items] = np.zeros(0, np.uint32)
_EXPLORE: Final = int(PlacedBy.EXPLORE)  # numpy asks a member of an enumeration what it is each time they meet
_BROUGHT: Final = np.uint8(SOURCE["near"] | SOURCE["popular"] | SOURCE["fresh"] | SOURCE["editor"])


@dataclass(frozen=True)
class Ranked:
    """`candidates` and `ranking` of one request; `ask` and `context` are what they were made from.

    `final`: every item that may be shown is among the candidates; there is no next list.
    """

    ask: Ask
    context: Context
    candidates: Candidates
    ranking: Ranking
    limit: int
    final: bool

    @property
    def view(self) -> View:
        return self.ask.view

    @property
    def items(self) -> Items:
        """uint32[k]: the whole list, in order."""
        return self.candidates.item[self.ranking.rows]

    @property
    def page(self) -> Items:
        """The items of the first page, in order."""
        return self.items[: self.limit]

    @property
    def is_personal(self) -> bool:
        """Whether anything is known of the user's taste."""
        return bool(len(self.ask.taste.interests)) or self.ask.taste.rejected is not None

    @property
    def chance(self) -> float:
        """The propensity of an explored item: the chance that any one allowed item had of an explore slot, if no other
        source brought it and no cap passes it over. All others were put where they are by no chance at all. Off-policy
        estimates divide by it."""
        slots = int(np.count_nonzero(self.ranking.placed_by == _EXPLORE))
        return min(1.0, slots / max(self.n_unknown, 1))

    @property
    def n_unknown(self) -> int:
        """Allowed items that no source brought but the draw: each could have been drawn."""
        source = self.candidates.source
        return self.ask.n_allowed - int(np.count_nonzero((source & _BROUGHT != 0) & (source & SOURCE["filled"] == 0)))


def ranked(
    view: View,
    memory: Memory,
    context: Context,
    limit: int,
    *,
    without: Items = NO_ITEMS,
    breadth: Breadth = WHOLE,
    lap: Callable[[str], None] = lambda _stage: None,
) -> Ranked:
    """Retrieve and rank as the feed does, for whoever this is the memory of, leaving out the items in `without`.

    `lap` is told when a stage ends: retrieve, then rank.
    """
    ask = ask_for(view, memory, context, breadth.share)
    clear(ask.allowed, view.snapshot.rows(without))
    candidates = gather(ask, breadth.candidates)
    lap("retrieve")
    # The last list holds all that is left: what caps would drop from it would never come.
    final = len(candidates) < breadth.candidates
    size, must_fill = (len(candidates), len(candidates)) if final else (breadth.frozen, limit)
    ranking = rank(candidates, view.policy, ask.context, size, page=must_fill)
    lap("rank")
    return Ranked(ask, ask.context, candidates, ranking, limit, final)


def replayed(view: View, journal: Journal, context: Context, limit: int) -> Ranked:
    """`ranked` for whoever this is the journal of."""
    return ranked(view, remember(journal, view.policy.taste, now_s=context.now_s), context, limit)


def ask_for(view: View, memory: Memory, context: Context, share: float = WHOLE.share) -> Ask:
    """What candidates are wanted for a user; `share` of the policy's quotas."""
    rows = view.snapshot.rows(memory.items)
    known = taste(memory, _vectors(view, rows), view.policy.taste, view.snapshot.text_dim)
    context = with_liked(context, view, rows, memory.pull)
    plan = view.policy.book.plan(context)
    return Ask(view, plan, context, memory, known, allowed_for(view, plan, context, memory), share)


def with_liked(context: Context, view: View, rows: Rows, pull: Float32) -> Context:
    """The context with the creators and categories of what the user liked, weighted by pull.

    rows (-1: it has left the catalogue) and pull of the remembered items.
    """
    liked = (pull > 0) & (rows >= 0)
    if not liked.any():
        return context
    records, pull = view.snapshot.records(rows[liked]), pull[liked]
    creators, creator_weights = _totals(records["creator"].reshape(-1, 1), pull)
    kinds, kind_weights = _totals(records["categories"], pull)
    return replace(
        context,
        liked_creators=creators,
        liked_creator_weights=creator_weights,
        liked_categories=kinds,
        liked_category_weights=kind_weights,
    )


def under(view: View, policy: Policy, version: str) -> View:
    """The same tenant, snapshot and popularity under another policy. Up to seconds for a million items, when its rules
    are others."""
    return View.of(view.tenant, policy, version, view.snapshot, view.popularity, view, view.down)


def layers(global_body: Mapping[str, object], own_body: Mapping[str, object]) -> Policy:
    """The policy of a tenant from the documents of its layers. Raises PolicyError."""
    return resolve([Layer(GLOBAL_LAYER, global_body), Layer(TENANT_LAYER, own_body)])


def samples(view: View, *, now_s: int, most: int = 3) -> Sequence[Journal]:
    """Journals of made-up users for a dry run: each likes one item of the catalogue and the two nearest to it.

    The liked items are spread evenly over the newest ones; the same view gives the same users.
    """
    rows = view.newest
    if len(rows) < 3:
        return []
    seeds = rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]
    found, _ = view.snapshot.search(view.snapshot.vectors(seeds), 3, view.snapshot.live)
    liked = [view.snapshot.column("item", near[near >= 0]).tolist() for near in found]
    return [entries([(item, now_s - 60, Signal.LIKE, 1.0) for item in items]) for items in liked]


def _vectors(view: View, rows: Rows) -> Float32:
    """float32[n, d]; a zero row for an item that has left the catalogue (-1)."""
    here = rows >= 0
    if here.all():
        return view.snapshot.vectors(rows)
    vectors = np.zeros((len(rows), view.snapshot.dim), np.float32)
    vectors[here] = view.snapshot.vectors(rows[here])
    return vectors


@compiled(f"Tuple((uint64[:], float32[:]))({column('uint64', 2)}, {column('float32')})")
def _totals(keys: npt.NDArray[np.uint64], pull: Float32) -> tuple[npt.NDArray[np.uint64], Float32]:
    """(different keys but 0 of uint64[n, k], the sum of pull of each)."""
    known, sums = np.empty(keys.size, np.uint64), np.zeros(keys.size, np.float32)
    count = 0
    for row in range(keys.shape[0]):
        for key in keys[row]:
            at = 0
            while at < count and known[at] != key:
                at += 1
            if at == count and key:
                known[count] = key
                count += 1
            if key:
                sums[at] += pull[row]
    return known[:count], sums[:count]
