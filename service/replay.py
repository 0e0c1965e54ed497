"""Replay: a page that was served, made again from what it was made from; and what it would have been under another
policy.

    serve log -> the pages of its chain, first to last -> view, context and journal of each -> service.feed

The pages are made by the functions that made them the first time, one after the other, because a later page is the
continuation of a list that an earlier one began. What they read from Redis is given as it was then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from ranking.policy import Policy
from retrieval.errors import StoreUnavailable
from retrieval.flags import Mode
from retrieval.journal import Journal
from retrieval.serves import Serve
from retrieval.view import View
from service.feed import Stores, first_page, next_page
from service.page import Asked, Page
from service.past import Gone, Past, context_of, effort_of, journal_at
from service.ranked import NO_ITEMS, Items, Ranked

ASKED_AS: Final[Mapping[str, Mode]] = {
    "personalised": "personalised",
    "cold_start": "personalised",
    "holdout": "holdout",
    "killed": "killed",
    "fallback": "off",
}
"""What the flags must have said for a page of each mode."""


@dataclass(frozen=True)
class Made:
    """A page, and the list it was cut from."""

    page: Page
    listed: Ranked

    @property
    def items(self) -> list[int]:
        """The item numbers of the page, in order."""
        items: list[int] = self.page.items.tolist()
        return items


@dataclass(frozen=True)
class Replay:
    """A page made again. `served` is what the log says, `made` the same page now, `other` the page under another
    policy: None when none was given, or when the chain would have ended before."""

    served: Serve
    made: Made
    other: Made | None = None

    @property
    def identical(self) -> bool:
        """Whether log and page agree, item by item."""
        return [one.item for one in self.served.items] == self.made.items


async def replay(past: Past, served: Serve, policy: Policy | None = None) -> Replay:
    """A logged page (`retrieval.serve_log` finds it by its request id). Raises Gone, NotFound, StoreUnavailable."""
    chain = [served] if served.items[0].position == 0 else await past.serves.chain(served)
    journal = await past.journal(served)
    lanes = [_Lane(past, journal), *([] if policy is None else [_Lane(past, journal, policy)])]
    made, *other = await _replayed(chain, lanes)
    if made is None:
        raise Gone("its chain ends before it when it is replayed")
    return Replay(served, made, *other)


async def _replayed(chain: Sequence[Serve], lanes: Sequence[_Lane]) -> Sequence[Made | None]:
    """The last page of a chain in each lane. Which page continues which is told by where the first lane stands."""
    nothing: Sequence[Made | None] = [None] * len(lanes)
    left, pages = {0: nothing}, nothing
    for serve in chain:
        begins = serve.items[0].position
        if begins in left:
            pages = [await lane.step(serve, before) for lane, before in zip(lanes, left[begins], strict=True)]
            if pages[0] is not None and (frozen := pages[0].page.frozen) is not None:
                left[frozen.before + frozen.offset] = pages
        elif serve is chain[-1]:
            raise Gone(f"no logged page of its chain ends where it begins, at position {begins}")
    return pages


@dataclass
class _Lane:
    """One chain being replayed, under the policies of its pages or under `policy`."""

    past: Past
    journal: Journal
    policy: Policy | None = None
    _had: Items = field(default_factory=lambda: NO_ITEMS)
    _views: dict[tuple[object, ...], View] = field(default_factory=dict)

    async def step(self, serve: Serve, before: Made | None) -> Made | None:
        """The page that was answered as `serve`, behind the page `before`; None behind the end of a chain, which comes
        earlier under some policies."""
        asked = Asked(
            view=await self._view(serve),
            user_key=serve.user_key,
            limit=serve.wanted,
            context=context_of(serve),
            mode=_asked_mode(serve),
            refresh=True,  # so that the seed in the log is taken as it is
            effort=effort_of(serve),
        )
        stores = Stores(_Journals(self.journal, serve), _Chains(self, serve))
        if serve.items[0].position == 0:
            page = await first_page(asked, stores)
        elif before is not None and before.page.frozen is not None:
            page = await next_page(asked, before.page.frozen, stores)
        else:
            return None
        listed = page.listed or (before and before.listed)
        return Made(page, listed) if listed else None

    async def _view(self, serve: Serve) -> View:
        key = (serve.generation, serve.policy_version, serve.popularity, tuple(serve.down))
        if key not in self._views:
            self._views[key] = await self.past.view(serve, self.policy)
        return self._views[key]


@dataclass(frozen=True)
class _Journals:
    """The user's journal as it was."""

    journal: Journal
    serve: Serve

    async def read(self, tenant: str, user_key: str | None, key_id: str) -> Journal:
        return journal_at(self.journal, self.serve.journal_position)


@dataclass(frozen=True)
class _Chains:
    """What the chain had had, gathered on the way; away when it was away."""

    lane: _Lane
    serve: Serve

    async def had(self, tenant: str, chain: str, delivered: Items) -> Items:
        if "user_state_unavailable" in self.serve.degraded:
            raise StoreUnavailable("it was away when the page was made")
        self.lane._had = np.concatenate([self.lane._had, delivered])
        return self.lane._had


def _asked_mode(serve: Serve) -> Mode:
    """What the flags said. A page that ends because they had changed says so; to what, the page after it tells."""
    mode = "personalised" if effort_of(serve) == "plain" else ASKED_AS[serve.mode]
    if "mode_changed" not in serve.degraded:
        return mode
    return "killed" if mode != "killed" else "off"
