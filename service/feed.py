"""One feed request, start to finish. No HTTP here.

    journal -> memory -> taste -> candidates -> ranking -> page

Redis only improves the answer: without it the user is unknown for this one request and the page says `fallback`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import numpy as np

from ranking.context import Context
from ranking.rank import REASONS, Ranking, rank
from retrieval.errors import StoreUnavailable
from retrieval.journal import EMPTY, Journal, Journals, Signal, entries
from retrieval.sources import Ask, allowed_for, gather
from retrieval.taste import Memory, Taste, remember, taste
from retrieval.view import Rows, View

LIST_SIZE = 200
"""Candidates that are ranked, at least; and the longest list that is frozen for scrolling."""


@dataclass(frozen=True)
class Asked:
    """What a request asks, checked and stripped of everything that names anybody.

    `user_key` None is an anonymous user. `context` carries time, hints and seed.
    """

    view: View
    user_key: str | None
    limit: int
    context: Context


@dataclass
class Page:
    """The answer, before it is JSON. `rows` int64[n] of the view's snapshot, `reasons` their words."""

    mode: str
    rows: Rows
    reasons: list[str]
    degraded: list[str] = field(default_factory=list)
    timings_ms: dict[str, float] = field(default_factory=dict)


async def first_page(asked: Asked, journals: Journals) -> Page:
    """Page 1 for a user, always: whatever is wrong with Redis, the answer is a page."""
    began = time.perf_counter()
    journal, degraded = await _journal(asked, journals)
    read = time.perf_counter()

    view, policy = asked.view, asked.view.policy
    memory = remember(journal, policy.taste, now_s=asked.context.now_s)
    known = taste(memory, _vectors(view, memory), policy.taste)
    context = with_liked(asked.context, view, memory)
    plan = policy.book.plan(context)
    allowed = allowed_for(view, plan, context, memory)
    candidates = gather(Ask(view, plan, context, memory, known, allowed), LIST_SIZE)
    gathered = time.perf_counter()

    ranking = rank(candidates, policy, context, asked.limit)
    page = Page(
        mode=_mode(degraded, known),
        rows=view.snapshot.rows(candidates.item[ranking.rows]),
        reasons=[REASONS[reason] for reason in ranking.reason.tolist()],
        degraded=degraded + _shortcomings(ranking, asked, memory),
    )
    ended = time.perf_counter()
    page.timings_ms = {
        "state": 1000 * (read - began),
        "retrieve": 1000 * (gathered - read),
        "rank": 1000 * (ended - gathered),
    }
    return page


async def remember_served(asked: Asked, page: Page, journals: Journals) -> None:
    """After the answer: note what was served, so that it steps back next time. Best effort."""
    if asked.user_key is None or not len(page.rows):
        return
    items = asked.view.snapshot.column("item", page.rows).tolist()
    served = entries([(item, asked.context.now_s, Signal.SERVED, 1.0) for item in items])
    try:
        await journals.append(asked.view.tenant.id, asked.user_key, served)
    except StoreUnavailable:
        return  # the next page may repeat an item; the journal's reader already counts that Redis is away


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


async def _journal(asked: Asked, journals: Journals) -> tuple[Journal, list[str]]:
    if asked.user_key is None:
        return EMPTY, []
    try:
        return await journals.read(asked.view.tenant.id, asked.user_key), []
    except StoreUnavailable:
        return EMPTY, ["user_state_unavailable"]


def _vectors(view: View, memory: Memory) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Vectors of the remembered items; a zero row for one that has left the catalogue."""
    vectors = np.zeros((len(memory.items), view.snapshot.dim), np.float32)
    rows = view.snapshot.rows(memory.items)
    vectors[rows >= 0] = view.snapshot.vectors(rows[rows >= 0])
    return vectors


def _totals(
    keys: np.ndarray[tuple[int], np.dtype[np.uint64]], pull: np.ndarray[tuple[int], np.dtype[np.float32]]
) -> tuple[np.ndarray[tuple[int], np.dtype[np.uint64]], np.ndarray[tuple[int], np.dtype[np.float32]]]:
    known, which = np.unique(keys[keys != 0], return_inverse=True)
    return known, np.bincount(which, pull[keys != 0], minlength=len(known)).astype(np.float32)


def _mode(degraded: list[str], known: Taste) -> str:
    if degraded:
        return "fallback"
    return "personalised" if len(known.interests) or known.rejected is not None else "cold_start"


def _shortcomings(ranking: Ranking, asked: Asked, memory: Memory) -> list[str]:
    """Why the page is not what it should be, if it is not."""
    said = ["caps_relaxed"] if ranking.relaxed else []
    if not asked.view.snapshot.n_items:
        return [*said, "empty_catalogue"]
    if len(ranking.rows) < asked.limit:
        said.append("all_seen" if len(memory.seen) else "few_eligible")
    return said
