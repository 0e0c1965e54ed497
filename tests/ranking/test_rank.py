"""Laws of rank() over random catalogues, requests and rule sets."""

from collections import Counter
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ranking.candidates import SOURCE, Candidates
from ranking.context import Context
from ranking.eligibility import Removed, eligible
from ranking.policy import Layer, Policy, resolve
from ranking.rank import REASONS, Ranking, rank
from ranking.rules import Pin
from ranking.slate import PlacedBy
from tests.ranking.cases import NOW_S, random_candidates, random_context, random_policy, seeds, with_columns

many = settings(max_examples=300, deadline=None)
Case = tuple[Candidates, Policy, Context, Ranking, int]


def case(seed: int, n: int, size: int, page: int | None = None) -> Case:
    """Draw one case and rank it."""
    rng = np.random.default_rng(seed)
    policy, context = random_policy(rng), random_context(rng)
    candidates = random_candidates(rng, n, len(policy.rules))
    return candidates, policy, context, rank(candidates, policy, context, size, page=page), size


cases = st.builds(case, seeds, st.integers(0, 60), st.integers(0, 70), st.none() | st.integers(0, 20))


@many
@given(cases)
def test_nobody_is_lost_and_nobody_comes_twice(drawn: Case) -> None:
    """Ranked + removed = input: each candidate has a slot, or a reason not to have one."""
    candidates, _, _, ranking, size = drawn
    assert len(ranking.rows) == len(set(ranking.rows.tolist())) <= size
    kept = np.flatnonzero(ranking.removed == Removed.KEPT)
    assert sorted(ranking.rows.tolist()) == kept.tolist()
    assert len(ranking.removed) == len(candidates)
    assert len(ranking.rows) == len(ranking.reason) == len(ranking.placed_by) == len(ranking.rule)


@many
@given(cases)
def test_nothing_ineligible_is_ever_shown(drawn: Case) -> None:
    """Neither to fill a page, nor because it is pinned or promoted. Written out again, independently."""
    candidates, policy, context, ranking, _ = drawn
    shown = candidates.take(ranking.rows)
    assert shown.live.all()
    assert not shown.seen.any()
    assert not shown.rejected.any()
    assert (shown.available_from_s <= NOW_S).all()
    assert (shown.available_until_s > NOW_S).all()
    assert (shown.min_age <= context.max_age).all()
    bit = context.country if context.country >= 0 else 255
    assert np.unpackbits(shown.countries, axis=1, bitorder="little")[:, bit].all()
    for i, rule in enumerate(policy.rules):
        if rule.enabled and context.surface in rule.when.get("surface", {context.surface}):
            assert rule.kind != "block" or not shown.targets[:, i].any()
            assert rule.kind != "require" or shown.targets[:, i].all()


@many
@given(cases)
def test_nothing_eligible_is_left_out_of_a_short_page(drawn: Case) -> None:
    """Without the wish for more than one page, a short page means that there is nothing more."""
    candidates, policy, context, ranking, size = drawn
    can = np.count_nonzero(eligible(candidates, policy.book.plan(context), context, 18) == 0)
    if Removed.CAPPED not in ranking.removed:
        assert len(ranking.rows) == min(can, size)


@many
@given(cases)
def test_contributions_sum_to_the_score(drawn: Case) -> None:
    """Sum to the base score, which boosts and buries make the score; above 0 a boost lifts, below 0 as well."""
    _, _, _, ranking, _ = drawn
    np.testing.assert_allclose(ranking.contributions.sum(axis=1), ranking.base, rtol=1e-5, atol=1e-6)
    lifted = ranking.factor >= 1
    assert (ranking.score[lifted] >= ranking.base[lifted]).all()
    assert (ranking.score[~lifted] <= ranking.base[~lifted]).all()


@many
@given(cases)
def test_pins_stand_where_they_belong(drawn: Case) -> None:
    """At their position or, if stronger pins took it, after it without a gap; at the end of a list that is shorter."""
    candidates, policy, _, ranking, _ = drawn
    pinned = [slot for slot, by in enumerate(ranking.placed_by) if by == PlacedBy.PIN]
    for slot in pinned:
        effect = policy.rules[ranking.rule[slot]].effect
        assert isinstance(effect, Pin)
        assert candidates.targets[ranking.rows[slot], ranking.rule[slot]]
        if slot < effect.position:
            assert all(by == PlacedBy.PIN for by in ranking.placed_by[slot:])
        else:
            assert set(range(effect.position, slot)) <= set(pinned)


@many
@given(cases)
def test_an_acting_pin_is_kept_whenever_it_can_be(drawn: Case) -> None:
    """If it is not on the page, nothing it aims at was free, or there was no slot from its position on."""
    candidates, policy, context, ranking, size = drawn
    acted = set(ranking.rule)
    pinned = {row for row, by in zip(ranking.rows.tolist(), ranking.placed_by, strict=True) if by == PlacedBy.PIN}
    can = set(ranking.order.tolist())
    for rule, position in policy.book.plan(context).pins:
        if rule not in acted:
            free = can - pinned
            full = position + len(pinned) >= size
            assert full or not any(candidates.targets[row, rule] for row in free)


@many
@given(cases)
def test_caps_hold_for_every_row_that_is_not_pinned_unless_said_so(drawn: Case) -> None:
    """Counted by brute force over the window that ends at the row."""
    candidates, policy, context, ranking, _ = drawn
    rows = ranking.rows.tolist()
    for name, cap, rule in policy.book.plan(context).caps:
        if name in ranking.relaxed:
            continue
        for slot, row in enumerate(rows):
            if ranking.placed_by[slot] == PlacedBy.PIN or not (rule < 0 or candidates.targets[row, rule]):
                continue
            window = [
                r for r in rows[max(slot - cap.window + 1, 0) : slot + 1] if rule < 0 or candidates.targets[r, rule]
            ]
            values = candidates.creator[:, None] if cap.per == "creator" else candidates.categories
            counts = Counter(key for r in window for key in values[r].tolist() if key)
            assert all(counts[key] <= cap.max for key in values[row].tolist() if key)


@many
@given(cases)
def test_promotions_and_explore_keep_to_their_share_of_every_beginning(drawn: Case) -> None:
    """Promoted rows fill at most 40 % of the first p slots, explore slots at most their share and one more."""
    _, policy, _, ranking, _ = drawn
    promoted = explored = 0
    for p, placed_by in enumerate(ranking.placed_by, start=1):
        promoted += placed_by == PlacedBy.PROMOTION
        explored += placed_by == PlacedBy.EXPLORE
        assert promoted <= policy.limits.promoted_percent / 100 * p + 1e-6
        assert explored <= policy.explore.share * p + 1


@many
@given(cases, seeds)
def test_the_same_input_gives_the_same_page_in_any_order(drawn: Case, seed: int) -> None:
    """Permuting the candidates permutes everything said about them and changes nothing else."""
    candidates, policy, context, _, size = drawn
    order = np.random.default_rng(seed).permutation(len(candidates))
    # Dot products of the same vectors may differ in the last bit by position, so compare without near-ties from them.
    again = rank(with_columns(candidates.take(order), vectors=None), policy, context, size)
    once = rank(with_columns(candidates, vectors=None), policy, context, size)
    assert order[again.rows].tolist() == once.rows.tolist()
    assert again.placed_by.tolist() == once.placed_by.tolist()
    assert again.relaxed == once.relaxed
    assert np.array_equal(again.removed, once.removed[order])
    assert np.array_equal(again.contributions, once.contributions[order])
    assert (
        rank(candidates, policy, context, size).rows.tolist() == rank(candidates, policy, context, size).rows.tolist()
    )


@given(seeds)
@settings(max_examples=50, deadline=None)
def test_the_order_is_by_score_and_then_by_item_number(seed: int) -> None:
    """Best first; equal scores by the smaller item number."""
    candidates, _, _, ranking, _ = case(seed, 40, 40)
    for a, b in pairwise(ranking.order.tolist()):
        assert (-ranking.score[a], candidates.item[a]) < (-ranking.score[b], candidates.item[b])


@given(cases)
@settings(max_examples=100, deadline=None)
def test_the_reason_follows_the_slot_and_then_the_source(drawn: Case) -> None:
    """Editors' slots say "editor", explore slots "explore", what is near the taste "for_you"."""
    candidates, _, _, ranking, _ = drawn
    for row, reason, by in zip(ranking.rows, ranking.reason, ranking.placed_by, strict=True):
        if by in (PlacedBy.PIN, PlacedBy.PROMOTION):
            assert REASONS[reason] == "editor"
        elif by == PlacedBy.EXPLORE:
            assert REASONS[reason] == "explore"
        elif candidates.source[row] & SOURCE["near"]:
            assert REASONS[reason] == "for_you"


@given(seeds)
@settings(max_examples=20)
def test_equal_scores_are_ordered_by_item_number(seed: int) -> None:
    """So the page does not depend on the order in which candidates arrive, even if nothing tells them apart."""
    order = np.random.default_rng(seed).permutation(30)
    policy = resolve([Layer("tenant", {"weights": {"exploration": 0}})])
    ranking = rank(Candidates.empty(30).take(order), policy, Context(now_s=NOW_S), 30)
    assert order[ranking.rows].tolist() == list(range(30))


def test_a_score_that_is_not_a_number_sinks() -> None:
    """A NaN from a broken measurement costs the item its place, not the page its order."""
    candidates = with_columns(Candidates.empty(4), similarity=np.array([0.1, np.nan, 0.9, 0.5], np.float32))
    ranking = rank(candidates, resolve(), Context(now_s=NOW_S), 4)
    assert ranking.rows.tolist() == [2, 3, 0, 1]
    assert ranking.score[1] == -np.inf
