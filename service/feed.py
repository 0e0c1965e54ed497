"""One feed request, start to finish. No HTTP here.

    first page    journal -> memory -> taste -> candidates -> ranking -> a frozen list -> page
    later pages   the frozen list, carried by the cursor -> eligible still? -> page
                  used up: the same as a first page, without what this chain has had

Redis only improves the answer. Without it a first page is the non-personalised one and says `fallback`; so is one for
whose taste there is no time, though it leaves out what its user has seen. A later page that would need a user's taste
is empty, says so, and keeps its cursor; one that needs none goes on from what its cursor holds, and when that is not
all the chain has had, begins a new chain and says so: no scroll stands still for nothing.

A flag that flips in the middle of a chain lets the list that is being read go on; the list after it is made under the
new flag, and begins on a page of its own, so that no page is of two modes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Final, Protocol

import numpy as np

from ranking.hints import country_of, language_of
from retrieval.errors import StoreUnavailable
from retrieval.flags import Mode
from retrieval.journal import EMPTY, Journal, position
from retrieval.serves import MOST_DOWN, Serve, ServedItem
from retrieval.stream import Stream
from retrieval.taste import NOBODY, remember, seen_by
from service import etag, lists
from service.cursor import LIFETIME_S, Frozen
from service.page import MODES, PERSONAL, Asked, Page
from service.ranked import NO_ITEMS, Items

UNFLAGGED: Final[Mapping[Mode, tuple[str, tuple[str, ...]]]] = MappingProxyType(
    {
        "holdout": ("holdout", ()),
        "killed": ("killed", ()),
        # Nobody's fault and nothing broken, but the same feed: the app is told why it is not personalised.
        "off": ("fallback", ("personalisation_off",)),
    }
)
"""What a page is for whom the flags do not personalise, and what it says beside."""


_SERVED_ITEM: Final = partial(tuple.__new__, ServedItem)  # its own constructor is a function of Python's


class ReadsJournals(Protocol):
    """See `retrieval.limits.LimitedJournals`."""

    async def read(self, tenant: str, user_key: str | None, key_id: str) -> Journal: ...


class KeepsChains(Protocol):
    """See `retrieval.chains.Chains`."""

    async def had(self, tenant: str, chain: str, delivered: Items) -> Items: ...


async def at_once() -> None:
    """Wait for nothing."""


@dataclass(frozen=True)
class Stores:
    """The user state that a feed may read; `service.replay` brings that of another time.

    `turn` is awaited before a list is made, see `service.turns`.
    """

    journals: ReadsJournals
    chains: KeepsChains
    turn: Callable[[], Awaitable[None]] = at_once


async def first_page(asked: Asked, stores: Stores) -> Page:
    """Page 1, always: whatever is wrong with Redis, the answer is a page. Raises RateLimited."""
    clock = Clock()
    if asked.mode != "personalised":
        await stores.turn()
        return default_page(asked, *UNFLAGGED[asked.mode])
    try:
        journal = await _journal(asked, stores)
    except StoreUnavailable:
        await stores.turn()
        return default_page(asked, "fallback", ["user_state_unavailable"])
    clock.lap("state")

    versions = _versions(asked, journal)
    if tag := _still_right(asked, versions):
        return Page(asked.mode, NO_ITEMS, (), tag=tag, unchanged=True, timings_ms=clock.laps_ms)
    await stores.turn()
    clock.lap("wait")
    plain = asked.effort == "plain"
    memory = (seen_by if plain else remember)(journal, asked.view.policy.taste, now_s=asked.context.now_s)
    page = lists.begin(asked, memory, clock.lap, os.urandom(8), mode="fallback" if plain else None)
    page.tag = None if plain else etag.tag(versions, asked.context.seed, asked.context.now_s)
    page.timings_ms = clock.laps_ms
    page.journal_position = position(journal)
    return page


async def next_page(asked: Asked, frozen: Frozen, stores: Stores) -> Page:
    """A later page of the chain a cursor belongs to. Raises RateLimited, once in a list."""
    clock = Clock()
    if asked.context.now_s - frozen.made_s > LIFETIME_S:
        return await _restarted(asked, stores)
    taken = lists.read_on(asked, frozen)
    taken.timings_ms = clock.laps_ms
    if len(taken.items) == asked.limit or frozen.final:
        return taken
    mode = _mode_from_here(asked, frozen)
    if len(taken.items) and mode is not None and mode != taken.mode:
        taken.degraded = ["mode_changed"]
        return taken
    try:
        journal = EMPTY if mode is not None else await _journal(asked, stores)
        had = np.unique(await stores.chains.had(asked.view.tenant.id, frozen.chain.hex(), frozen.items))
    except StoreUnavailable:
        if mode is None:
            taken.degraded = ["user_state_unavailable"]
            return taken
        journal, had = EMPTY, np.unique(frozen.items)  # nobody's taste is wanted, and a first list is all there was
    clock.lap("state")
    if len(had) < frozen.before + len(frozen.items):
        return await _restarted(asked, stores)  # what the chain has had was lost: going on might repeat it

    await stores.turn()
    clock.lap("wait")
    memory = remember(journal, asked.view.policy.taste, now_s=asked.context.now_s)
    limit, context = asked.limit - len(taken.items), replace(asked.context, seed=frozen.seed)
    more = replace(_narrow_at_most(asked), limit=limit, context=context)
    before = frozen.before + len(frozen.items)
    page = lists.begin(more, memory, clock.lap, frozen.chain, without=had, before=before, mode=mode)
    return replace(
        page,
        mode=taken.mode if len(taken.items) else page.mode,
        position=taken.position,
        items=np.concatenate([taken.items, page.items]),
        reasons=[*taken.reasons, *page.reasons],
        scores=[*[None] * len(taken.items), *page.scores],
        propensities=[*taken.propensities, *page.propensities],
        timings_ms=clock.laps_ms,
        journal_position=position(journal),
    )


def default_page(asked: Asked, mode: str, degraded: Sequence[str] = ()) -> Page:
    """The non-personalised feed: the same rules, filters and caps, and nobody's taste."""
    clock, asked = Clock(), _narrow_at_most(asked)
    anyone = asked if asked.refresh else replace(asked, context=replace(asked.context, seed=0))
    page = lists.begin(anyone, NOBODY, clock.lap, os.urandom(8), mode=mode)
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
    places = range(page.position, page.position + len(page.items))
    view, context = asked.view, asked.context
    serve = Serve(
        tenant=view.tenant.id,
        user_key=asked.user_key,
        request_id=request_id,
        at_s=context.now_s,
        mode=page.mode,
        surface=context.surface,
        generation=view.snapshot.generation,
        policy_version=view.policy_version,
        seed=page.seed,
        journal_position=page.journal_position,
        language=language_of(context.language),
        country=country_of(context.country),
        age_band=context.age_band,
        max_age=context.max_age,
        wanted=asked.limit,
        popularity=view.popularity.version,
        down=view.down[: MOST_DOWN + 1].tolist(),
        chain=page.chain.hex(),
        degraded=page.degraded,
        items=list(
            map(_SERVED_ITEM, zip(page.items.tolist(), places, page.reasons, scores, page.propensities, strict=True))
        ),
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


def _narrow_at_most(asked: Asked) -> Asked:
    """For a page that has no taste to leave out, or that goes on in a chain: that keeps its taste."""
    return replace(asked, effort="narrow") if asked.effort == "plain" else asked


def _mode_from_here(asked: Asked, frozen: Frozen) -> str | None:
    """What the next list of a chain is, when it is not made from the user's taste: a flag says so by now, or the chain
    began like that. A fallback stays one: taste that comes back in the middle would reorder what was scrolled past.
    """
    if asked.mode != "personalised":
        return UNFLAGGED[asked.mode][0]
    return None if MODES[frozen.mode] in PERSONAL else MODES[frozen.mode]


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
