"""One feed request, start to finish. No HTTP here.

    first page    journal -> memory -> taste -> candidates -> ranking -> a frozen list -> page
    later pages   the frozen list, carried by the cursor -> eligible still? -> page
                  used up: the same as a first page, without what this chain has had

Redis only improves the answer. Without it a first page is the non-personalised one and says `fallback`; a later page
that would need it is empty, says so, and keeps its cursor, because what the chain has had is not known just then.

A flag that flips in the middle of a chain lets the list that is being read go on; the list after it is made under the
new flag, and begins on a page of its own, so that no page is of two modes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from ranking.context import Context
from ranking.rank import REASONS, Ranking
from retrieval.chains import Chains
from retrieval.errors import StoreUnavailable
from retrieval.flags import Mode
from retrieval.journal import EMPTY, Journal, position
from retrieval.limits import LimitedJournals
from retrieval.stream import Serve, ServedItem, Stream
from retrieval.taste import NOBODY, Memory, remember
from retrieval.view import View, is_set
from service import etag
from service.cursor import LIFETIME_S, Frozen
from service.ranked import NO_ITEMS, Items, ranked

MODES: Final = ("personalised", "cold_start", "holdout", "fallback", "killed")
"""What a page is. A cursor holds positions in this list."""
PERSONAL: Final = ("personalised", "cold_start")
UNFLAGGED: Final[Mapping[Mode, tuple[str, tuple[str, ...]]]] = MappingProxyType(
    {
        "holdout": ("holdout", ()),
        "killed": ("killed", ()),
        # Nobody's fault and nothing broken, but the same feed: the app is told why it is not personalised.
        "off": ("fallback", ("personalisation_off",)),
    }
)
"""What a page is for whom the flags do not personalise, and what it says beside."""


@dataclass(frozen=True)
class Asked:
    """What a request asks, checked and stripped of everything that names anybody.

    user_key: None is an anonymous user. key_id: of the key it came with. mode: what the flags say. `refresh` wants
    another order. `if_none_match` are the tags the client has. `dropped`: there was a hint that is on no list.
    """

    view: View
    user_key: str | None
    limit: int
    context: Context
    key_id: str = ""
    mode: Mode = "personalised"
    refresh: bool = False
    if_none_match: str | None = None
    dropped: bool = False


@dataclass
class Page:
    """The answer, before it is JSON. `position` is that of its first item in the chain, `frozen` the list after this
    page, None at the end of everything.

    `unchanged` is a 304: the client's page is still right, and nothing else here is filled. `scores` are the ranker's,
    empty where a frozen list is read on; `propensities` the chance each item had; `journal_position` says from
    which state of the journal the list was made.
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
    scores: Sequence[float | None] = ()
    propensities: Sequence[float] = ()
    journal_position: int = 0


@dataclass(frozen=True)
class Stores:
    """The user state that a feed may read."""

    journals: LimitedJournals
    chains: Chains


async def first_page(asked: Asked, stores: Stores) -> Page:
    """Page 1, always: whatever is wrong with Redis, the answer is a page. Raises RateLimited."""
    clock = Clock()
    if asked.mode != "personalised":
        return default_page(asked, *UNFLAGGED[asked.mode])
    try:
        journal = await _journal(asked, stores)
    except StoreUnavailable:
        return default_page(asked, "fallback", ["user_state_unavailable"])
    clock.lap("state")

    versions = _versions(asked, journal)
    if tag := _still_right(asked, versions):
        return Page(asked.mode, NO_ITEMS, (), tag=tag, unchanged=True, timings_ms=clock.laps_ms)
    memory = remember(journal, asked.view.policy.taste, now_s=asked.context.now_s)
    page = _page(asked, memory, clock, os.urandom(8))
    page.tag = etag.tag(versions, asked.context.seed, asked.context.now_s)
    page.timings_ms = clock.laps_ms
    page.journal_position = position(journal)
    return page


async def next_page(asked: Asked, frozen: Frozen, stores: Stores) -> Page:
    """A later page of the chain a cursor belongs to. Raises RateLimited, once in a list."""
    clock = Clock()
    if asked.context.now_s - frozen.made_s > LIFETIME_S:
        return await _restarted(asked, stores)
    taken, rest = _take(asked, frozen, asked.limit)
    if len(taken.items) == asked.limit or frozen.final:
        return replace(taken, frozen=rest if rest.left or not frozen.final else None, timings_ms=clock.laps_ms)
    mode = _mode_from_here(asked, frozen)
    if len(taken.items) and mode is not None and mode != taken.mode:
        return replace(taken, frozen=rest, degraded=["mode_changed"], timings_ms=clock.laps_ms)
    try:
        journal = EMPTY if mode is not None else await _journal(asked, stores)
        had = np.unique(await stores.chains.had(asked.view.tenant.id, frozen.chain.hex(), frozen.items))
    except StoreUnavailable:
        return replace(taken, frozen=rest, degraded=["user_state_unavailable"])
    clock.lap("state")
    if len(had) < frozen.before + len(frozen.items):
        return await _restarted(asked, stores)  # what the chain has had was lost: going on might repeat it

    memory = remember(journal, asked.view.policy.taste, now_s=asked.context.now_s)
    more = replace(asked, limit=asked.limit - len(taken.items), context=replace(asked.context, seed=frozen.seed))
    before = frozen.before + len(frozen.items)
    page = _page(more, memory, clock, frozen.chain, without=had, before=before, mode=mode)
    return replace(
        page,
        mode=taken.mode if len(taken.items) else page.mode,
        position=taken.position,
        items=np.concatenate([taken.items, page.items]),
        reasons=[*taken.reasons, *page.reasons],
        scores=[*[None] * len(taken.items), *page.scores],
        propensities=[*taken.propensities, *page.propensities],
        timings_ms=clock.laps_ms,
    )


def default_page(asked: Asked, mode: str, degraded: Sequence[str] = ()) -> Page:
    """The non-personalised feed: the same rules, filters and caps, and nobody's taste."""
    clock = Clock()
    anyone = asked if asked.refresh else replace(asked, context=replace(asked.context, seed=0))
    page = _page(anyone, NOBODY, clock, os.urandom(8), mode=mode)
    page.degraded = [*degraded, *page.degraded]
    page.timings_ms = clock.laps_ms
    return page


def public_page(asked: Asked) -> Page:
    """The default feed as anybody may fetch and keep it: with a tag, because nothing about it depends on a user."""
    versions = _versions(asked, EMPTY)
    if tag := _still_right(asked, versions):
        return Page("fallback", NO_ITEMS, (), tag=tag, unchanged=True)
    page = default_page(asked, "fallback")
    page.tag = etag.tag(versions, 0, asked.context.now_s)
    return page


async def remember_served(asked: Asked, page: Page, request_id: str, written: Stream) -> None:
    """After the answer: note what was served, so that it steps back next time, and log it. Best effort."""
    if not len(page.items):
        return
    scores = page.scores or [None] * len(page.items)
    serve = Serve(
        request_id=request_id,
        tenant=asked.view.tenant.id,
        user_key=asked.user_key,
        at_s=asked.context.now_s,
        mode=page.mode,
        surface=asked.context.surface,
        generation=asked.view.snapshot.generation,
        policy_version=asked.view.policy_version,
        seed=asked.context.seed,
        journal_position=page.journal_position,
        items=[
            ServedItem(item, place, reason, score, propensity)
            for place, (item, reason, score, propensity) in enumerate(
                zip(page.items.tolist(), page.reasons, scores, page.propensities, strict=True), start=page.position
            )
        ],
    )
    try:
        await written.served(serve)
    except StoreUnavailable:
        return  # the next first page may repeat an item


async def _restarted(asked: Asked, stores: Stores) -> Page:
    """A first page where a later one was asked for: a new chain, and the page says so."""
    page = await first_page(replace(asked, if_none_match=None), stores)
    page.degraded.append("cursor_restarted")
    return page


def _mode_from_here(asked: Asked, frozen: Frozen) -> str | None:
    """What the next list of a chain is, when it is not made from the user's taste: a flag says so by now, or the chain
    began like that. A fallback stays one: taste that comes back in the middle would reorder what was scrolled past.
    """
    if asked.mode != "personalised":
        return UNFLAGGED[asked.mode][0]
    return None if MODES[frozen.mode] in PERSONAL else MODES[frozen.mode]


def _page(
    asked: Asked,
    memory: Memory,
    clock: Clock,
    chain: bytes,
    *,
    without: Items = NO_ITEMS,
    before: int = 0,
    mode: str | None = None,
) -> Page:
    """The first `limit` items of a new list, and the list frozen behind them. `mode` None: as the taste says."""
    listed = ranked(asked.view, memory, asked.context, asked.limit, without=without, lap=clock.lap)
    mode = mode or ("personalised" if listed.is_personal else "cold_start")
    items, reasons = listed.items, listed.ranking.reason
    frozen = Frozen(
        chain=chain,
        made_s=asked.context.now_s,
        seed=asked.context.seed,
        mode=MODES.index(mode),
        chance=listed.chance,
        before=before,
        offset=min(asked.limit, len(items)),
        final=listed.final,
        items=items,
        reasons=reasons,
    )
    words = _words(reasons[: asked.limit])
    return Page(
        mode=mode,
        items=items[: asked.limit],
        reasons=words,
        frozen=frozen if frozen.left or not frozen.final else None,
        degraded=_shortcomings(listed.ranking, asked, memory),
        scores=listed.ranking.score[listed.ranking.rows[: asked.limit]].tolist(),
        propensities=_propensities(words, listed.chance),
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
    page.propensities = _propensities(reasons, frozen.chance)
    return page, replace(frozen, offset=offset)


class Clock:
    """Wall time of the stages of one request."""

    def __init__(self) -> None:
        self.laps_ms: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.laps_ms[stage] = 1000 * (now - self._since)
        self._since = now


def _versions(asked: Asked, journal: Journal) -> str:
    asks = etag.checksum_of(asked.user_key, asked.mode, asked.limit, asked.context)
    return etag.versions(asked.view, journal, asks, now_s=asked.context.now_s)


def _still_right(asked: Asked, versions: str) -> str | None:
    if asked.refresh:
        return None
    return etag.still_right(asked.if_none_match, versions, now_s=asked.context.now_s)


async def _journal(asked: Asked, stores: Stores) -> Journal:
    """The user's journal, empty for an anonymous user. Raises RateLimited, StoreUnavailable (not for the latter)."""
    try:
        return await stores.journals.read(asked.view.tenant.id, asked.user_key, asked.key_id)
    except StoreUnavailable:
        if asked.user_key is None:
            return EMPTY  # only the rate was asked for
        raise


def _words(reasons: npt.NDArray[np.uint8]) -> list[str]:
    return [REASONS[reason] for reason in reasons.tolist()]


def _propensities(reasons: Sequence[str], chance: float) -> list[float]:
    return [chance if reason == "explore" else 1.0 for reason in reasons]


def _shortcomings(ranking: Ranking, asked: Asked, memory: Memory) -> list[str]:
    """Why the page is not what it should be, if it is not."""
    said = ["caps_relaxed"] if ranking.relaxed else []
    if asked.dropped:
        said.append("hints_dropped")
    if not asked.view.snapshot.n_items:
        return [*said, "empty_catalogue"]
    if len(ranking.rows) < asked.limit:
        said.append("all_seen" if len(memory.seen) else "few_eligible")
    return said
