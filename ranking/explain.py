"""Which rules acted on a ranking, on which items, and what that changed. Worked out only when somebody asks."""

from typing import NamedTuple

import numpy as np

from ranking.candidates import Candidates
from ranking.context import Context
from ranking.eligibility import Removed
from ranking.policy import Policy
from ranking.rank import Ranking
from ranking.rules import Boost, Bury
from ranking.slate import PlacedBy


class Act(NamedTuple):
    """One rule acted on one candidate."""

    rule: int
    """Index in `Policy.rules`."""
    row: int
    """The candidate."""
    before: float | None
    """Boost and bury: the score before both. Pin and promotion: the place by score alone, from 0."""
    after: float | None
    """The score, or the slot. None: not shown (block, require)."""


def acts(ranking: Ranking, candidates: Candidates, policy: Policy, context: Context) -> list[Act]:
    """Return what every acting rule did, by rule and row. The arguments are those `rank` was called with.

    Caps are not listed: what they did is in `Ranking.relaxed` and in the rows removed as CAPPED. Of several boosts (or
    buries) of one row only the strongest acts.
    """
    plan = policy.book.plan(context)
    done = [
        Act(rule, row, None, None)
        for reason, rules, aims in ((Removed.BLOCKED, plan.block, True), (Removed.NOT_REQUIRED, plan.require, False))
        for rule in rules
        for row in np.flatnonzero((ranking.removed == int(reason)) & (candidates.targets[:, rule] == aims)).tolist()
    ]
    for kind, strongest in ((Boost, max), (Bury, min)):
        scaling = [(r, e.factor) for r in plan.scaling.tolist() if isinstance(e := policy.rules[r].effect, kind)]
        for row in range(len(candidates)):
            aiming = [(factor, -rule) for rule, factor in scaling if candidates.targets[row, rule] and factor != 1]
            if aiming:
                rule = -strongest(aiming)[1]
                done.append(Act(rule, row, float(ranking.base[row]), float(ranking.score[row])))
    organic = {row: slot for slot, row in enumerate(ranking.order.tolist())}
    done += [
        Act(rule, row, organic[row], slot)
        for slot, (row, rule) in enumerate(zip(ranking.rows.tolist(), ranking.rule.tolist(), strict=True))
        if ranking.placed_by[slot] in (PlacedBy.PIN, PlacedBy.PROMOTION)
    ]
    return sorted(done, key=lambda act: (act.rule, act.row))
