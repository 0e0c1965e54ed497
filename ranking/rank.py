"""rank(): candidates in, a ranking with reasons out. The order of the steps is the order of power:

    1 eligible   2 score   3 boost and bury   4 caps, diversity   5 promotions   6 pins   7 eligible again   8 back-fill

Rows that step 1 removed never enter an order, so a pin of an ineligible item vanishes and the next item moves up (7),
and nothing ineligible can fill a page (8).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from ranking.alike import step_back
from ranking.candidates import SOURCE, Candidates
from ranking.columns import Bool, Float32, Rows, UInt8
from ranking.context import Context
from ranking.eligibility import Removed, eligible
from ranking.features import FEATURES, lots
from ranking.policy import Policy
from ranking.rulebook import Plan
from ranking.slate import KeyCap, PlacedBy, Slate, Special, arrange, reserve, spread

REASONS: Final = ("for_you", "new", "popular", "editor", "explore")
"""What the app may tell the user about an item. `Ranking.reason` holds positions in this list."""

_FOR_YOU, _NEW, _POPULAR, _EDITOR, _EXPLORE = range(5)
_REASON_OF_SOURCE: Final = ((SOURCE["near"], _FOR_YOU), (SOURCE["fresh"], _NEW), (SOURCE["popular"], _POPULAR),
                            (SOURCE["explore"], _EXPLORE), (SOURCE["editor"], _EDITOR))  # fmt: skip
"""The most personal source wins; what none brought counts as popular."""
_REASON_TABLE: Final = np.array(
    [next((reason for bit, reason in _REASON_OF_SOURCE if bits & bit), _POPULAR) for bits in range(256)], np.uint8
)
_GOLDEN_RATIO: Final = 0x9E37_79B9  # multiplicative hashing: neighbouring seeds end up far apart
_REASON_OF_SLOT: Final = {PlacedBy.PROMOTION: _EDITOR, PlacedBy.PIN: _EDITOR, PlacedBy.EXPLORE: _EXPLORE}


@dataclass(frozen=True, slots=True)
class Ranking:
    """The answer. `rows`, `reason`, `placed_by`, `rule` have one entry per slot; all others one per candidate.

    Nobody is lost: every candidate is either in `rows` or has a `removed` other than KEPT.
    """

    rows: Rows
    """intp[k]: candidates in page order."""
    reason: UInt8
    """uint8[k]: position in REASONS."""
    placed_by: tuple[PlacedBy, ...]
    rule: tuple[int, ...]
    """Index in `Policy.rules` of the promotion or pin that placed the row, -1 = none."""
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

    rows = order_for_page[np.array(slate.ranks, np.intp)]
    left = removed == 0
    left[rows] = False
    removed[left] = int(Removed.NO_ROOM if len(rows) >= size else Removed.CAPPED)
    return Ranking(
        rows=rows,
        reason=_reasons(candidates.source[rows], slate),
        placed_by=tuple(slate.placed_by),
        rule=tuple(slate.rule),
        relaxed=tuple(sorted(slate.relaxed)),
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
    if not len(plan.scaling):
        return np.ones(len(candidates), np.float32)
    factors = np.where(candidates.targets.T[plan.scaling], plan.factors, np.float32(1))
    strongest: Float32 = factors[: plan.boosts].max(axis=0, initial=1) * factors[plan.boosts :].min(axis=0, initial=1)
    return strongest


def boosted(base: Float32, factor: Float32) -> Float32:
    """Return the score: base x factor, or base / factor below zero, so that a boost never hurts. NaN sinks to -inf."""
    score = base * np.where(base < 0, np.float32(1) / factor, factor)
    np.copyto(score, np.float32(-np.inf), where=np.isnan(score))
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
    aimed = candidates.targets.take(order, 0)
    unknown = candidates.source[order] == SOURCE["explore"]
    stream = unknown.argsort(kind="stable").tolist()  # what only exploring brought comes last, as back-fill
    explore = stream[len(order) - np.count_nonzero(unknown) :]
    # By lot and not by score: each has the same chance of a slot, which is what its propensity says.
    explore = [explore[at] for at in lots(candidates.item[order[explore]], context.seed).argsort().tolist()]
    specials: dict[int, Special] = {}
    _reserve_pins(specials, plan, aimed, size)
    for rule, share in plan.promotions:
        pool = _ranks(aimed[:, rule])
        for quota, slot in enumerate(spread(share, size), start=1):
            reserve(specials, slot, size, Special(PlacedBy.PROMOTION, pool, rule, quota))
    if explore:
        phase = (context.seed * _GOLDEN_RATIO >> 28 & 15) / 16  # which slots: another seed, others
        for slot in spread(policy.explore.share, size, phase):
            reserve(specials, slot, size, Special(PlacedBy.EXPLORE, explore))
    return arrange(stream, len(order), _key_caps(order, candidates, plan, aimed), specials, size, page)


def _reserve_pins(specials: dict[int, Special], plan: Plan, aimed: Bool, size: int) -> None:
    """Give each pin, winners first, its slot and the best row it aims at that no stronger pin took."""
    free = np.ones(len(aimed), np.bool_)
    for rule, position in plan.pins:
        pool = aimed[:, rule] & free
        best = int(pool.argmax()) if len(pool) else 0
        if len(pool) and pool[best] and reserve(specials, position, size, Special(PlacedBy.PIN, (best,), rule)):
            free[best] = False


def _key_caps(order: Rows, candidates: Candidates, plan: Plan, aimed: Bool) -> list[KeyCap]:
    """Return the caps in force with the keys they count, by rank."""
    categories = candidates.categories
    if not categories[:, 2:].any():  # most have one or two: half the work
        categories = categories[:, :2]
    by_rank = {"creator": candidates.creator[order][:, None], "category": categories[order]}
    return [
        KeyCap(name, cap.max, cap.window, keys if rule < 0 else keys * aimed[:, rule, None])
        for name, cap, rule in plan.caps
        for keys in [by_rank[cap.per]]
    ]


def _ranks(mask: Bool) -> list[int]:
    (ranks,) = np.nonzero(mask)
    return ranks.tolist()


def _reasons(source: UInt8, slate: Slate) -> UInt8:
    reason = _REASON_TABLE[source]
    for slot, placed_by in enumerate(slate.placed_by):
        if placed_by:
            reason[slot] = _REASON_OF_SLOT[placed_by]
    return reason
