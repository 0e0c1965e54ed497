"""A policy's way from draft to live, start to finish. No HTTP here; the routes and the operator's commands both use it.

document -> schema -> playlists -> dry run -> Verdict -> published, or refused whole with every problem
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ranking.errors import PolicyError
from retrieval.config import Config
from retrieval.errors import InvalidInput, Problem
from retrieval.journal import Journal
from retrieval.playlists import Playlists
from retrieval.policies import Policies
from retrieval.tables import GLOBAL
from retrieval.view import View
from service.checks import Verdict, check, schema_problems
from service.ranked import layers

MAX_TENANTS: Final = 10
"""A global policy is tried on so many tenants, those with the most videos."""


class PolicyRefused(InvalidInput):
    """A policy that may not be published; `verdict` says all there is to say about it."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.errors)
        self.verdict = verdict


class Served(Protocol):
    """The tenants as they are served now: a worker's `Live`, or what an operator's command has opened."""

    @property
    def config(self) -> Config: ...
    def view(self, tenant: str) -> View: ...


@dataclass(frozen=True)
class Publishing:
    """What it takes to judge a policy: the stores, and the tenants as they are served now."""

    policies: Policies
    playlists: Playlists
    live: Served

    async def judged(
        self, tenant_id: str | None, document: object, *, now_s: int, users: Mapping[str, Journal]
    ) -> Verdict:
        """Everything there is to say about a document for a tenant (None: for all). Raises StoreUnavailable."""
        bodies = self.live.config.bodies
        global_body = dict(bodies.get(GLOBAL, (0, {}))[1])
        view = None if tenant_id is None else self.live.view(tenant_id)
        playlists = frozenset[str]() if tenant_id is None else await self.playlists.ids(tenant_id)
        errors = schema_problems(document, global_body, view, playlists)
        if errors or not isinstance(document, dict):
            return Verdict(errors=errors)
        if view is not None:
            return await asyncio.to_thread(check, view, global_body, document, of_all=False, now_s=now_s, users=users)
        return await asyncio.to_thread(self._judged_for_all, document, now_s)

    def _judged_for_all(self, document: dict[str, Any], now_s: int) -> Verdict:
        verdict = Verdict()
        own = {name: self.live.config.bodies.get(name, (0, {}))[1] for name in self.live.config.tenants}
        for name, body in own.items():
            try:
                layers(document, body)
            except PolicyError as error:
                problems = [f"{problem.pointer}: {problem.problem}" for problem in error.problems]
                verdict.errors.append(
                    Problem("", f"does not go with the policy of {name}: {'; '.join(problems)[:300]}")
                )
        if verdict.errors:
            return verdict
        views = sorted((self.live.view(name) for name in own), key=lambda view: -view.snapshot.n_items)
        for view in views[:MAX_TENANTS]:
            of_one = check(view, document, own[view.tenant.id], of_all=True, now_s=now_s, users={})
            verdict.errors += [Problem(one.pointer, f"{view.tenant.id}: {one.message}") for one in of_one.errors]
            verdict.warnings += [Problem(one.pointer, f"{view.tenant.id}: {one.message}") for one in of_one.warnings]
            verdict.runs += of_one.runs
        return verdict

    async def publish(
        self,
        tenant_id: str | None,
        document: dict[str, Any],
        author: str,
        reason: str,
        *,
        if_version: int,
        if_draft: int | None,
        now_s: int,
    ) -> tuple[int, Verdict]:
        """Make a document live if nothing speaks against it: (its version, what it was warned of).

        Raises PolicyRefused, VersionMismatch, NotFound, InvalidInput, StoreUnavailable.
        """
        verdict = await self.judged(tenant_id, document, now_s=now_s, users={})
        if verdict.errors:
            raise PolicyRefused(verdict)
        version = await self.policies.publish(tenant_id, document, author, reason, if_version, now_s, if_draft=if_draft)
        return version, verdict
