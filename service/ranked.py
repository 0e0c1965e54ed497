"""One ranking with everything that went into it, for those who ask why: checks, preview and explain.

It is what a first page of the feed is made of (`service.feed`), step by step and kept whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ranking.candidates import Candidates
from ranking.context import Context
from ranking.policy import GLOBAL as GLOBAL_LAYER
from ranking.policy import Layer, Policy, resolve
from ranking.rank import Ranking, rank
from retrieval.journal import Journal, Signal, entries
from retrieval.sources import Ask, allowed_for, gather
from retrieval.taste import Memory, Taste, remember, taste
from retrieval.view import View
from service.feed import LIST_SIZE, with_liked


@dataclass(frozen=True)
class Ranked:
    """`candidates` and `ranking` of one request; `ask` and `context` are what they were made from."""

    ask: Ask
    context: Context
    candidates: Candidates
    ranking: Ranking
    limit: int

    @property
    def view(self) -> View:
        return self.ask.view

    @property
    def page(self) -> npt.NDArray[np.uint32]:
        """The items of the first page, in order."""
        return self.candidates.item[self.ranking.rows[: self.limit]]


def ranked(view: View, journal: Journal, context: Context, limit: int) -> Ranked:
    """Retrieve and rank as the feed does, for whoever this is the journal of."""
    policy = view.policy
    memory = remember(journal, policy.taste, now_s=context.now_s)
    known = taste(memory, _vectors(view, memory), policy.taste)
    context = with_liked(context, view, memory)
    ask = ask_for(view, context, memory, known)
    candidates = gather(ask, LIST_SIZE)
    final = len(candidates) < LIST_SIZE
    ranking = rank(candidates, policy, context, LIST_SIZE, page=LIST_SIZE if final else limit)
    return Ranked(ask, context, candidates, ranking, limit)


def ask_for(view: View, context: Context, memory: Memory, known: Taste) -> Ask:
    """What candidates are wanted for a user."""
    plan = view.policy.book.plan(context)
    return Ask(view, plan, context, memory, known, allowed_for(view, plan, context, memory))


def under(view: View, policy: Policy, version: str) -> View:
    """The same tenant, snapshot and popularity under another policy. Up to seconds for a million items."""
    return View.of(view.tenant, policy, version, view.snapshot, view.popularity)


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
    vectors = np.zeros((len(memory.items), view.snapshot.dim), np.float32)
    rows = view.snapshot.rows(memory.items)
    vectors[rows >= 0] = view.snapshot.vectors(rows[rows >= 0])
    return vectors
