"""The past: the view and the context that a logged page was made from, out of what is kept for a day."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ranking.context import Context
from ranking.hints import country_code, language_code
from ranking.policy import Policy
from retrieval.counters import Popularity, popularity
from retrieval.errors import FeedError, NotFound
from retrieval.flags import cohort
from retrieval.journal import EMPTY, Journal, Journals, position
from retrieval.policies import Policies
from retrieval.popularity_log import PopularityLog
from retrieval.serve_log import ServeLog
from retrieval.serves import MOST_DOWN, Serve
from retrieval.snapshot import Snapshot
from retrieval.store import Store
from retrieval.view import View
from service.governor import Effort
from service.page import CAUSE_OF
from service.ranked import layers, under


class Gone(FeedError):
    """Something a page was made from is no longer there. `what` says which thing, in words."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the page cannot be made again: {what}")
        self.what = what


@dataclass(frozen=True)
class Past:
    """What is kept of the last day. `now` gives a tenant's view as it is now: what has not changed since is taken over
    from it. Raises NotFound."""

    serves: ServeLog
    journals: Journals
    policies: Policies
    store: Store
    popularity: PopularityLog
    now: Callable[[str], View]

    async def view(self, serve: Serve, policy: Policy | None = None) -> View:
        """The view a page was served from; with `policy`, that policy in place of its own.

        Raises Gone, NotFound (the tenant), StoreUnavailable.
        """
        now = self.now(serve.tenant)
        now = {one.policy_version: one for one in now.arms.values()}.get(serve.policy_version, now)
        given = now.given or now.policy
        own = given if serve.policy_version == now.policy_version else await self.policy(serve)
        view = await asyncio.to_thread(self._view, serve, now, own)
        return view if policy is None else await asyncio.to_thread(under, view, policy, "other")

    async def policy(self, serve: Serve, own: Mapping[str, Any] | None = None) -> Policy:
        """The policy a page was made under, out of the history, where no version ever goes; with `own`, that document
        in place of the tenant's, and the same arm if it has that. Raises Gone, StoreUnavailable, PolicyError."""
        global_version, own_version, *arm = serve.policy_version.split(".")
        if own is None:
            own = await self._body(serve.tenant, int(own_version))
        policy = layers(await self._body(None, int(global_version)), own)
        return policy.arms.get(arm[-1], policy) if arm else policy

    async def journal(self, serve: Serve) -> Journal:
        """The user's journal as it is now, empty for nobody in particular. Raises StoreUnavailable."""
        if serve.user_key is None:
            return EMPTY
        return await self.journals.read(serve.tenant, serve.user_key)

    def _view(self, serve: Serve, now: View, policy: Policy) -> View:
        if len(serve.down) > MOST_DOWN:
            raise Gone(f"more than {MOST_DOWN} videos had been taken down within moments; only so many are logged")
        same = now.snapshot.generation == serve.generation
        return View.of(
            now.tenant,
            policy,
            serve.policy_version,
            now.snapshot if same else self._snapshot(serve, now.snapshot),
            self._popularity(serve, now),
            now,
            np.array(serve.down, np.uint32),
        )

    def _snapshot(self, serve: Serve, now: Snapshot) -> Snapshot:
        if serve.generation == 0:
            return Snapshot.empty(serve.tenant, now.dim)
        for pointer in self.store.kept(serve.tenant):
            if pointer[0] == serve.generation:
                return self.store.open(self.store.manifest(serve.tenant, pointer), now)
        raise Gone(f"generation {serve.generation} of the index is no longer kept (FEED_KEPT_MB)")

    def _popularity(self, serve: Serve, now: View) -> Popularity:
        if serve.popularity == now.popularity.version:
            return now.popularity
        try:
            return popularity(self.popularity.find(serve.tenant, serve.popularity))
        except NotFound as error:
            raise Gone(f"version {serve.popularity} of the popularity is no longer kept") from error

    async def _body(self, tenant: str | None, version: int) -> dict[str, Any]:
        try:
            return (await self.policies.get(tenant, version)).body if version else {}
        except NotFound as error:
            raise Gone(f"version {version} of the {tenant or 'global'} policy is not in this database") from error


def effort_of(serve: Serve) -> Effort:
    """How much was done for a page."""
    return next((effort for effort, cause in CAUSE_OF.items() if cause in serve.degraded), "whole")


def context_of(serve: Serve) -> Context:
    """Who asked, when and where, as far as ranking may know."""
    return Context(
        now_s=serve.at_s,
        surface=serve.surface,
        language=language_code(serve.language),
        country=country_code(serve.country),
        age_band=serve.age_band,
        max_age=serve.max_age,
        cohort=cohort(serve.tenant, serve.user_key),
        seed=serve.seed,
    )


def journal_at(journal: Journal, at: int) -> Journal:
    """The beginning of a journal that was all of it when its `retrieval.journal.position` was `at`. Raises Gone."""
    beginning = journal[: at & 0xFFFF]
    if position(beginning) != at:
        raise Gone("the user's journal no longer holds what it began with then: it was trimmed, lost or made anew")
    return beginning
