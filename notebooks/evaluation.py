"""Pages that were served, to be made again under something else and held against what their users took afterwards.

What somebody took was on a page that some policy had made: a policy that shows other things gets no credit for them.
So the figures compare policies that are alike; for others there is `notebooks/5-off-policy.ipynb`, or an experiment.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import ir_measures
import numpy as np
import polars as pl
from ir_measures import nDCG

from notebooks.off_policy import Float64
from ranking.policy import Policy
from retrieval.journal import EMPTY, Journal, Signal
from retrieval.serves import Serve
from retrieval.taste import remember
from retrieval.view import View
from service.operator.console import Desk
from service.operator.intervals import Estimate, drawn_again
from service.past import context_of, effort_of, journal_at
from service.ranked import BREADTH, Ranked, ranked, under

TAKEN = (Signal.LIKE, Signal.BOOKMARK, Signal.FOLLOW, Signal.SHARE, Signal.COMPLETE)
DEPTH = 20


@dataclass(frozen=True)
class Case:
    """One first page: what it was made from, and `taken`, the items its user took later and had not seen before."""

    served: Serve
    view: View
    journal: Journal
    taken: frozenset[int]

    def under(self, view: View) -> Ranked:
        """The page from another view."""
        served = self.served
        memory = remember(self.journal, view.policy.taste, now_s=served.at_s)
        return ranked(view, memory, context_of(served), served.wanted, breadth=BREADTH[effort_of(served)])


async def cases(desk: Desk, tenant: str, most: int) -> list[Case]:
    """The newest `most` first pages of the last day after which their users took something new."""
    archive, mine = desk.settings.archive_url, pl.col("tenant") == tenant
    pages = (
        pl.scan_delta(f"{archive}/serves")
        .filter(mine, pl.col("user_key") != "-", pl.col("mode").is_in(["personalised", "cold_start"]))
        .filter(pl.col("items").list.first().struct.field("position") == 0)
        .sort("at_s", descending=True)
        .select("request_id", "user_key", "at_s")
        .collect()
    )
    events = (
        pl.scan_delta(f"{archive}/events")
        .filter(mine, pl.col("signal").is_in(TAKEN))
        .select("user_key", "item", "at_s")
        .collect()
    )
    past = await desk.past(tenant)
    found: list[Case] = []
    for request_id, user_key, at_s in pages.iter_rows():
        later = events.filter(pl.col("user_key") == user_key, pl.col("at_s") >= at_s)["item"]
        if len(found) < most and len(later):
            served = await desk.serves.find(request_id, now_s=int(time.time()), tenant=tenant)
            journal = journal_at(await past.journal(served), served.journal_position) if user_key else EMPTY
            seen = journal["item"][journal["signal"] != Signal.SERVED].tolist()
            if taken := frozenset(later.to_list()) - frozenset(seen):
                found.append(Case(served, await past.view(served), journal, taken))
    return found


@dataclass
class Arm:
    """One way to make the pages of all cases: `view_of` a case; and how good those pages are."""

    cases: Sequence[Case]
    view_of: Callable[[Case], View]
    pages: list[Ranked] = field(init=False)

    def __post_init__(self) -> None:
        self.pages = [case.under(self.view_of(case)) for case in self.cases]

    def quality(self) -> Float64:
        """float64[cases]: NDCG@20 of each page against what was taken."""
        wanted = [ir_measures.Qrel(str(n), str(item), 1) for n, case in enumerate(self.cases) for item in case.taken]
        given = [
            ir_measures.ScoredDoc(str(n), str(item), float(-rank))
            for n, page in enumerate(self.pages)
            for rank, item in enumerate(page.page.tolist())
        ]
        scores = np.zeros(len(self.cases))
        for one in ir_measures.iter_calc([nDCG @ DEPTH], wanted, given):
            scores[int(one.query_id)] = one.value
        return scores

    def diversity(self) -> Float64:
        """float64[cases]: 1 - the mean cosine of two items of a page; 0 is all the same."""
        return np.array([_unlike(page) for page in self.pages])


def under_policy(policy: Policy, version: str = "other") -> Callable[[Case], View]:
    """Each case's own index and popularity under another policy; views are made once."""
    known: dict[int, View] = {}

    def view_of(case: Case) -> View:
        if id(case.view) not in known:
            known[id(case.view)] = under(case.view, policy, version)
        return known[id(case.view)]

    return view_of


def as_served(case: Case) -> View:
    """The view a page was served from."""
    return case.view


def mean_difference(cases: Sequence[Case], one: Float64, other: Float64, rng: np.random.Generator) -> Estimate:
    """Mean of `one` - `other` (float64[cases]) with its 95 % interval, drawing users again with all their pages."""
    by_user: dict[str, list[int]] = {}
    for place, case in enumerate(cases):
        by_user.setdefault(case.served.user_key or "", []).append(place)
    groups, gain = [np.array(places) for places in by_user.values()], one - other
    return drawn_again(
        lambda users: float(gain[np.concatenate([groups[user] for user in users])].mean()), len(groups), len(cases), rng
    )


def _unlike(run: Ranked) -> float:
    snapshot = run.view.snapshot
    vectors = snapshot.vectors(snapshot.rows(run.page))
    n = len(vectors)
    return 1.0 - float((np.square(vectors.sum(axis=0)).sum() - n) / (n * (n - 1))) if n > 1 else 0.0
