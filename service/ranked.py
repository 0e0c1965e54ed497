"""Retrieve and rank for one user: what a page of the feed is made of, kept whole for those who ask why.

    memory -> taste -> context -> allowed rows -> candidates -> ranking

The feed, the checks before a publish, the preview and explain all call `ranked`, so what they say is what is served.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from ranking.candidates import Candidates
from ranking.context import Context
from ranking.policy import GLOBAL as GLOBAL_LAYER
from ranking.policy import Layer, Policy, resolve
from ranking.rank import Ranking, rank
from ranking.slate import PlacedBy
from retrieval.journal import Journal, Signal, entries
from retrieval.sources import Ask, allowed_for, gather
from retrieval.taste import Memory, remember, taste
from retrieval.view import View, clear

LIST_SIZE: Final = 200
"""Candidates that are ranked at least, and the length of the list that is frozen for scrolling."""

Items = npt.NDArray[np.uint32]

NO_ITEMS: Final[Items] = np.zeros(0, np.uint32)


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
        """The propensity of an explored item: the chance that any one allowed item had of an explore slot. All others
        were put where they are by no chance at all. Off-policy estimates divide by it."""
        slots = self.ranking.placed_by.count(PlacedBy.EXPLORE)
        return min(1.0, slots / max(int(np.bitwise_count(self.ask.allowed).sum()), 1))


def ranked(
    view: View,
    memory: Memory,
    context: Context,
    limit: int,
    *,
    without: Items = NO_ITEMS,
    lap: Callable[[str], None] = lambda _stage: None,
) -> Ranked:
    """Retrieve and rank as the feed does, for whoever this is the memory of, leaving out the items in `without`.

    `lap` is told when a stage ends: retrieve, then rank.
    """
    ask = ask_for(view, memory, context)
    clear(ask.allowed, view.snapshot.rows(without))
    candidates = gather(ask, LIST_SIZE)
    lap("retrieve")
    # The last list holds all that is left: what caps would drop from it would never come.
    final = len(candidates) < LIST_SIZE
    ranking = rank(candidates, view.policy, ask.context, LIST_SIZE, page=LIST_SIZE if final else limit)
    lap("rank")
    return Ranked(ask, ask.context, candidates, ranking, limit, final)


def replayed(view: View, journal: Journal, context: Context, limit: int) -> Ranked:
    """`ranked` for whoever this is the journal of."""
    return ranked(view, remember(journal, view.policy.taste, now_s=context.now_s), context, limit)


def ask_for(view: View, memory: Memory, context: Context) -> Ask:
    """What candidates are wanted for a user."""
    known = taste(memory, _vectors(view, memory), view.policy.taste)
    context = with_liked(context, view, memory)
    plan = view.policy.book.plan(context)
    return Ask(view, plan, context, memory, known, allowed_for(view, plan, context, memory))


def with_liked(context: Context, view: View, memory: Memory) -> Context:
    """The context with the creators and categories of what the user liked, weighted by pull."""
    liked = memory.pull > 0
    rows = view.snapshot.rows(memory.items[liked])
    pull = memory.pull[liked][rows >= 0]
    rows = rows[rows >= 0]
    if not len(rows):
        return context
    creators, creator_weights = _totals(view.snapshot.column("creator", rows), pull)
    categories = view.snapshot.column("categories", rows)
    kinds, kind_weights = _totals(categories.reshape(-1), np.repeat(pull, categories.shape[1]))
    return replace(
        context,
        liked_creators=creators,
        liked_creator_weights=creator_weights,
        liked_categories=kinds,
        liked_category_weights=kind_weights,
    )


def under(view: View, policy: Policy, version: str) -> View:
    """The same tenant, snapshot and popularity under another policy. Up to seconds for a million items."""
    return View.of(view.tenant, policy, version, view.snapshot, view.popularity, down=view.down)


def layers(global_body: Mapping[str, object], own_body: Mapping[str, object], *, rules: bool = True) -> Policy:
    """The policy of a tenant from the documents of its layers. Raises PolicyError."""
    bodies = [dict(global_body), dict(own_body)]
    if not rules:
        bodies = [{name: value for name, value in body.items() if name != "rules"} for body in bodies]
    return resolve([Layer(GLOBAL_LAYER, bodies[0]), Layer("tenant", bodies[1])])


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


def _vectors(view: View, memory: Memory) -> npt.NDArray[np.float32]:
    """Vectors of the remembered items; a zero row for one that has left the catalogue."""
    vectors = np.zeros((len(memory.items), view.snapshot.dim), np.float32)
    rows = view.snapshot.rows(memory.items)
    vectors[rows >= 0] = view.snapshot.vectors(rows[rows >= 0])
    return vectors


def _totals(
    keys: npt.NDArray[np.uint64], pull: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.float32]]:
    known, which = np.unique(keys[keys != 0], return_inverse=True)
    return known, np.bincount(which, pull[keys != 0], minlength=len(known)).astype(np.float32)
