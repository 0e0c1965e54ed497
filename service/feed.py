"""One feed request, start to finish. No HTTP here.

    first page    journal -> memory -> taste -> candidates -> ranking -> a frozen list -> page
    later pages   the frozen list, carried by the cursor -> eligible still? -> page
                  used up: the same as a first page, without what this chain has had

Redis only improves the answer. Without it a first page is the non-personalised one and says `fallback`; a later page
that would need it is empty, says so, and keeps its cursor, because what the chain has had is not known just then.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from ranking.context import Context
from ranking.rank import REASONS, Ranking, rank
from retrieval.chains import Chains
from retrieval.errors import StoreUnavailable
from retrieval.journal import EMPTY, Journal, Journals, Signal, entries
from retrieval.sources import Ask, allowed_for, gather
from retrieval.taste import NOBODY, Memory, remember, taste
from retrieval.view import View, clear, is_set
from service import etag
from service.cursor import LIFETIME_S, Frozen

LIST_SIZE: Final = 200
"""Candidates that are ranked at least, and the length of the list that is frozen for scrolling."""

MODES: Final = ("personalised", "cold_start", "holdout", "fallback", "killed")
"""What a page is. A cursor holds positions in this list."""

Items = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Asked:
    """What a request asks, checked and stripped of everything that names anybody.

    user_key: None is an anonymous user. mode: what the flags say: personalised, holdout or killed. `refresh` wants
    another order. `if_none_match` are the tags the client has.
    """

    view: View
    user_key: str | None
    limit: int
    context: Context
    mode: str = "personalised"
    refresh: bool = False
    if_none_match: str | None = None


@dataclass
class Page:
    """The answer, before it is JSON. `position` is that of its first item in the chain, `frozen` the list after this
    page, None at the end of everything.

    `unchanged` is a 304: the client's page is still right, and nothing else here is filled.
    """

    mode: str
    items: Items
    reasons: Sequence[str]
    position: int = 0
    frozen: Frozen | None = None
    tag: str | None = None
    unchanged: bool = False
    degraded: list[str] = field(default_factory=list)
    timings_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Stores:
    """The user state that a feed may read."""

    journals: Journals
    chains: Chains


async def first_page(asked: Asked, stores: Stores) -> Page:
    """Page 1, always: whatever is wrong with Redis, the answer is a page."""
    clock = Clock()
    if asked.mode != "personalised":
        return default_page(asked, asked.mode)
    try:
        journal = await _journal(asked, stores)
    except StoreUnavailable:
        return default_page(asked, "fallback", ["user_state_unavailable"])
    clock.lap("state")

    versions = etag.versions(asked.view, journal, asked.mode, now_s=asked.context.now_s)
    if not asked.refresh and (tag := etag.still_right(asked.if_none_match, versions)):
        return Page(asked.mode, NO_ITEMS, (), tag=tag, unchanged=True, timings_ms=clock.laps_ms)
    memory = remember(journal, asked.view.policy.taste, now_s=asked.context.now_s)
    page = _page(asked, _listed(asked, memory, NO_ITEMS, clock), os.urandom(8), before=0)
    page.tag = etag.tag(versions, asked.context.seed)
    page.timings_ms = clock.laps_ms
    return page


async def next_page(asked: Asked, frozen: Frozen, stores: Stores) -> Page:
    """A later page of the chain a cursor belongs to."""
    clock = Clock()
    if asked.context.now_s - frozen.made_s > LIFETIME_S:
        page = await first_page(asked, stores)
        page.degraded.append("cursor_restarted")
        return page
    taken, rest = _take(asked, frozen, asked.limit)
    if len(taken.items) == asked.limit or frozen.final:
        return replace(taken, frozen=rest if rest.left or not frozen.final else None, timings_ms=clock.laps_ms)
    try:
        journal = await _journal(asked, stores)
        had = await stores.chains.had(asked.view.tenant.id, frozen.chain.hex(), frozen.items)
    except StoreUnavailable:
        return replace(taken, frozen=rest, degraded=["user_state_unavailable"])
    clock.lap("state")

    memory = remember(journal, asked.view.policy.taste, now_s=asked.context.now_s)
    if MODES[frozen.mode] not in ("personalised", "cold_start"):
        memory = NOBODY
    more = replace(asked, limit=asked.limit - len(taken.items), context=replace(asked.context, seed=frozen.seed))
    page = _page(more, _listed(more, memory, had, clock), frozen.chain, before=frozen.before + len(frozen.items))
    return replace(
        page,
        mode=taken.mode,
        position=taken.position,
        items=np.concatenate([taken.items, page.items]),
        reasons=[*taken.reasons, *page.reasons],
        timings_ms=clock.laps_ms,
    )


def default_page(asked: Asked, mode: str, degraded: Sequence[str] = ()) -> Page:
    """The non-personalised feed: the same rules, filters and caps, and nobody's taste."""
    clock = Clock()
    anyone = replace(asked, context=replace(asked.context, seed=0))
    page = _page(anyone, _listed(anyone, NOBODY, NO_ITEMS, clock), os.urandom(8), before=0, mode=mode)
    page.degraded = [*degraded, *page.degraded]
    page.timings_ms = clock.laps_ms
    return page


async def remember_served(asked: Asked, page: Page, journals: Journals) -> None:
    """After the answer: note what was served, so that it steps back next time. Best effort."""
    if asked.user_key is None or not len(page.items):
        return
    served = entries([(item, asked.context.now_s, Signal.SERVED, 1.0) for item in page.items.tolist()])
    try:
        await journals.append(asked.view.tenant.id, asked.user_key, served)
    except StoreUnavailable:
        return  # the next first page may repeat an item


@dataclass(frozen=True)
class Listed:
    """A ranked list, best first: items uint32[n], reasons uint8[n]; `final` if nothing more was to be had."""

    mode: str
    items: Items
    reasons: npt.NDArray[np.uint8]
    final: bool
    degraded: list[str]


def _listed(asked: Asked, memory: Memory, without: Items, clock: Clock) -> Listed:
    """Retrieve and rank for one user, leaving out the items in `without`."""
    view, policy = asked.view, asked.view.policy
    known = taste(memory, _vectors(view, memory), policy.taste)
    context = with_liked(asked.context, view, memory)
    plan = policy.book.plan(context)
    allowed = allowed_for(view, plan, context, memory)
    clear(allowed, view.snapshot.rows(without))
    candidates = gather(Ask(view, plan, context, memory, known, allowed), LIST_SIZE)
    clock.lap("retrieve")

    # The last list holds all that is left: what caps would drop from it would never come.
    final = len(candidates) < LIST_SIZE
    ranking = rank(candidates, policy, context, LIST_SIZE, page=LIST_SIZE if final else asked.limit)
    clock.lap("rank")
    return Listed(
        mode="personalised" if len(known.interests) or known.rejected is not None else "cold_start",
        items=candidates.item[ranking.rows],
        reasons=ranking.reason,
        final=final,
        degraded=_shortcomings(ranking, asked, memory),
    )


def _page(asked: Asked, listed: Listed, chain: bytes, *, before: int, mode: str | None = None) -> Page:
    """The first `limit` items of a new list, and the list frozen behind them."""
    mode = mode or listed.mode
    frozen = Frozen(
        chain=chain,
        made_s=asked.context.now_s,
        seed=asked.context.seed,
        mode=MODES.index(mode),
        before=before,
        offset=min(asked.limit, len(listed.items)),
        final=listed.final,
        items=listed.items,
        reasons=listed.reasons,
    )
    return Page(
        mode=mode,
        items=listed.items[: asked.limit],
        reasons=_words(listed.reasons[: asked.limit]),
        frozen=frozen if frozen.left or not frozen.final else None,
        degraded=listed.degraded,
    )


def _take(asked: Asked, frozen: Frozen, most: int) -> tuple[Page, Frozen]:
    """The next items of a list that may still be shown, and the list after them."""
    items = frozen.items[frozen.offset :]
    rows = asked.view.snapshot.rows(items)
    allowed = asked.view.allowed(asked.view.policy.book.plan(asked.context), asked.context)
    good = np.flatnonzero((rows >= 0) & is_set(allowed, np.maximum(rows, 0)))[:most]
    offset = frozen.offset + (int(good[-1]) + 1 if len(good) == most else len(items))
    reasons = _words(frozen.reasons[frozen.offset :][good])
    page = Page(MODES[frozen.mode], items[good], reasons, position=frozen.before + frozen.offset)
    return page, replace(frozen, offset=offset)


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


class Clock:
    """Wall time of the stages of one request."""

    def __init__(self) -> None:
        self.laps_ms: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.laps_ms[stage] = 1000 * (now - self._since)
        self._since = now


NO_ITEMS: Final[Items] = np.zeros(0, np.uint32)


async def _journal(asked: Asked, stores: Stores) -> Journal:
    """The user's journal, empty for an anonymous user. Raises StoreUnavailable."""
    return EMPTY if asked.user_key is None else await stores.journals.read(asked.view.tenant.id, asked.user_key)


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


def _words(reasons: npt.NDArray[np.uint8]) -> list[str]:
    return [REASONS[reason] for reason in reasons.tolist()]


def _shortcomings(ranking: Ranking, asked: Asked, memory: Memory) -> list[str]:
    """Why the page is not what it should be, if it is not."""
    said = ["caps_relaxed"] if ranking.relaxed else []
    if not asked.view.snapshot.n_items:
        return [*said, "empty_catalogue"]
    if len(ranking.rows) < asked.limit:
        said.append("all_seen" if len(memory.seen) else "few_eligible")
    return said
