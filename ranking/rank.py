"""rank(): candidates in, a ranking with reasons out. The order of the steps is the order of power:

    1 eligible   2 score   3 boost and bury   4 caps, diversity   5 promotions   6 pins   7 eligible again   8 back-fill

Rows that step 1 removed never enter an order, so a pin of an ineligible item vanishes and the next item moves up (7),
and nothing ineligible can fill a page (8).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from ranking.alike import step_back
from ranking.candidates import SOURCE, Candidates
from ranking.columns import Bool, Float32, Int64, Rows, UInt8, UInt64
from ranking.compiled import column, compiled
from ranking.context import Context
from ranking.eligibility import Removed, eligible
from ranking.features import FEATURES, lots
from ranking.policy import Policy
from ranking.rulebook import ActiveCap, Plan
from ranking.slate import KeyCap, PlacedBy, Slate, Wish, arrange, spread, table

REASONS: Final = ("for_you", "new", "popular", "editor", "explore")
"""What the app may tell the user about an item. `Ranking.reason` holds positions in this list."""

_FOR_YOU, _NEW, _POPULAR, _EDITOR, _EXPLORE = range(5)
_REASON_OF_SOURCE: Final = ((SOURCE["near"], _FOR_YOU), (SOURCE["fresh"], _NEW), (SOURCE["popular"], _POPULAR),
                            (SOURCE["explore"], _EXPLORE), (SOURCE["editor"], _EDITOR))  # fmt: skip
"""The most personal source wins; what none brought counts as popular."""
_BY_SOURCE: Final = [next((reason for bit, reason in _REASON_OF_SOURCE if bits & bit), _POPULAR) for bits in range(256)]
_REASON_TABLE: Final = np.array([_BY_SOURCE, [_EDITOR] * 256, [_EDITOR] * 256, [_EXPLORE] * 256], np.uint8)
"""By `PlacedBy` and source; the source matters for what got its slot by its score."""
_COLUMNS_OF: Final = {"creator": (0, 1), "category": (1, 5)}
"""Of the keys by rank: begin and end."""
_GOLDEN_RATIO: Final = 0x9E37_79B9  # multiplicative hashing: neighbouring seeds end up far apart


@dataclass(frozen=True, slots=True)
class Ranking:
    """The answer. `rows`, `reason`, `placed_by`, `rule` have one entry per slot; all others one per candidate.

    Nobody is lost: every candidate is either in `rows` or has a `removed` other than KEPT.
    """

    rows: Rows
    """intp[k]: candidates in page order."""
    reason: UInt8
    """uint8[k]: position in REASONS."""
    placed_by: UInt8
    """uint8[k] of `PlacedBy`."""
    rule: Rows
    """intp[k]: index in `Policy.rules` of the promotion or pin that placed the row, -1 = none."""
    relaxed: tuple[str, ...]
    """Caps that were broken because the page would have been short, sorted."""
    contributions: Float32
    """float32[n, F]: weight x feature, in the order of FEATURES. They sum to `base`."""
    base: Float32
    """float32[n]: score before boost and bury."""
    factor: Float32
    """float32[n]: strongest boost x strongest bury."""
    score: Float32
    """float32[n]: `base` made `factor` times better. Never NaN: what cannot be scored is -inf."""
    order: Rows
    """intp[m]: the eligible candidates by score alone, best first; where a row would stand without steps 4 to 6."""
    removed: UInt8
    """uint8[n] of `Removed`."""


def rank(candidates: Candidates, policy: Policy, context: Context, size: int, *, page: int | None = None) -> Ranking:
    """Return up to `size` candidates in order, and why each one is where it is, or is not there.

    page: how many slots must be filled even if caps have to give way for it; all of `size` if not given. A list that
    is frozen to be read page by page wants the length of one page here.
    """
    plan = policy.book.plan(context)
    removed = eligible(candidates, plan, context, policy.limits.max_age)
    contributions = weighted_features(candidates, policy, context)
    base = contributions.sum(axis=0)
    factor = boosts(candidates, plan)
    score = boosted(base, factor)
    order = by_score(score, candidates, removed)

    order_for_page = diverse(order, candidates, policy)
    slate = _arranged(order_for_page, candidates, policy, plan, context, size, size if page is None else page)

    rows = order_for_page[slate.ranks]
    left = removed == 0
    left[rows] = False
    removed[left] = int(Removed.NO_ROOM if len(rows) >= size else Removed.CAPPED)
    return Ranking(
        rows=rows,
        reason=_REASON_TABLE[slate.placed_by, candidates.source[rows]],
        placed_by=slate.placed_by,
        rule=slate.pool,
        relaxed=tuple(sorted(plan.caps[cap].name for cap in np.flatnonzero(slate.relaxed))),
        contributions=contributions.T,
        base=base,
        factor=factor,
        score=score,
        order=order,
        removed=removed,
    )


def weighted_features(candidates: Candidates, policy: Policy, context: Context) -> Float32:
    """Return float32[F, n]: weight x feature. A feature without weight is not computed."""
    weighted = np.zeros((len(FEATURES), len(candidates)), np.float32)
    for i, (name, feature) in enumerate(FEATURES.items()):
        if policy.weights[name]:
            weighted[i] = feature(candidates, context, policy.half_lives)
    weighted *= policy.weight_row[:, None]
    return weighted


def boosts(candidates: Candidates, plan: Plan) -> Float32:
    """Return float32[n]: the strongest boost x the strongest bury. Not the product of all, which drowns the taste."""
    return _strongest(candidates.targets, plan.scaling, plan.factors)


@compiled(f"float32[:]({column('boolean', 2)}, intp[:], float32[:])")
def _strongest(targets: Bool, rules: Rows, factors: Float32) -> Float32:
    strongest = np.empty(len(targets), np.float32)
    for row in range(len(targets)):
        boost = bury = np.float32(1)
        for at in range(len(rules)):
            if targets[row, rules[at]]:
                boost, bury = max(boost, factors[at]), min(bury, factors[at])
        strongest[row] = boost * bury
    return strongest


@compiled("float32[:](float32[:], float32[:])")
def boosted(base: Float32, factor: Float32) -> Float32:
    """Return the score: base x factor, or base / factor below zero, so that a boost never hurts. NaN sinks to -inf."""
    score = np.empty(len(base), np.float32)
    for row in range(len(base)):
        score[row] = base[row] / factor[row] if base[row] < 0 else base[row] * factor[row]
        if np.isnan(score[row]):
            score[row] = -np.inf
    return score


def by_score(score: Float32, candidates: Candidates, removed: UInt8) -> Rows:
    """Return intp[m]: the rows that are not removed, best score first; ties by the smaller item number."""
    (rows,) = np.nonzero(removed == 0)
    return rows[np.lexsort((candidates.item[rows], -score[rows]))]


def diverse(order: Rows, candidates: Candidates, policy: Policy) -> Rows:
    """Return the order with the top of it loosened up: items alike one just before them step back."""
    wanted = policy.diversity
    depth = min(wanted.alike_depth, len(order))
    if candidates.vectors is None or depth < 2 or not wanted.alike_step or not wanted.alike_max_move:
        return order
    top = step_back(candidates.vectors[order[:depth]], wanted.alike_above, wanted.alike_step, wanted.alike_max_move)
    return np.concatenate((order[top], order[depth:]))


def _arranged(
    order: Rows, candidates: Candidates, policy: Policy, plan: Plan, context: Context, size: int, page: int
) -> Slate:
    """Say by ranks what the policy says by rows, and let it be arranged."""
    aimed = candidates.targets.T.take(order, 1)
    unknown = candidates.source[order] == SOURCE["explore"]
    stream = unknown.argsort(kind="stable")  # what only exploring brought comes last, as back-fill
    explore = stream[len(order) - np.count_nonzero(unknown) :]
    # By lot and not by score: each has the same chance of a slot, which is what its propensity says.
    explore = explore[lots(candidates.item[order[explore]], context.seed).argsort()]
    phase = (context.seed * _GOLDEN_RATIO >> 28 & 15) / 16  # which slots: another seed, others
    wanted = _wanted(plan.pins, plan.promotions, policy.explore.share if len(explore) else 0.0, phase, size)
    return arrange(stream, _keys(order, candidates), aimed, _key_caps(plan.caps), wanted, explore, size, page)


@lru_cache(maxsize=4096)
def _wanted(
    pins: tuple[tuple[int, int], ...],
    promotions: tuple[tuple[int, float], ...],
    explored: float,
    phase: float,
    size: int,
) -> Int64:
    """Return the wishes of a plan for a list of `size`: pins before promotions before exploration."""
    return table(
        *(Wish(PlacedBy.PIN, position, rule) for rule, position in pins),
        *(
            Wish(PlacedBy.PROMOTION, slot, rule, quota)
            for rule, share in promotions
            for quota, slot in enumerate(spread(share, size), start=1)
        ),
        *(Wish(PlacedBy.EXPLORE, slot) for slot in spread(explored, size, phase)),
    )


def _keys(order: Rows, candidates: Candidates) -> UInt64:
    """Return uint64[n, 1 + k], by rank: what caps may count, see `_COLUMNS_OF`."""
    keys = np.empty((len(order), 1 + candidates.categories.shape[1]), np.uint64)
    keys[:, 0], keys[:, 1:] = candidates.creator[order], candidates.categories[order]
    return keys


@lru_cache(maxsize=4096)
def _key_caps(caps: tuple[ActiveCap, ...]) -> Int64:
    return table(*(KeyCap(cap.max, cap.window, *_COLUMNS_OF[cap.per], rule) for _, cap, rule in caps))
