"""Each reason for not being shown, and which of several is given."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given

from ranking.candidates import Candidates
from ranking.context import Context
from ranking.eligibility import Removed, eligible
from ranking.hints import country_set
from ranking.policy import Layer, resolve
from tests.ranking.cases import NOW_S, random_candidates, random_context, random_policy, seeds, with_columns

REQUEST = Context(now_s=NOW_S, country=40, max_age=13)
PLAN = resolve().book.plan(REQUEST)


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({}, Removed.KEPT),
        ({"live": [False]}, Removed.NOT_LIVE),
        ({"available_from_s": [NOW_S]}, Removed.KEPT),
        ({"available_from_s": [NOW_S + 1]}, Removed.NOT_YET),
        ({"available_until_s": [NOW_S + 1]}, Removed.KEPT),
        ({"available_until_s": [NOW_S]}, Removed.EXPIRED),
        ({"countries": country_set([40])[None]}, Removed.KEPT),
        ({"countries": country_set([41])[None]}, Removed.COUNTRY),
        ({"min_age": [13]}, Removed.KEPT),
        ({"min_age": [16]}, Removed.MATURITY),
        ({"seen": [True]}, Removed.SEEN),
        ({"rejected": [True]}, Removed.REJECTED),
        ({"rejected": [True], "seen": [True]}, Removed.REJECTED),
        ({"live": [False], "min_age": [18], "seen": [True]}, Removed.NOT_LIVE),
    ],
)
def test_an_item_is_kept_from_being_shown_for_one_named_reason(columns: dict[str, Any], why: Removed) -> None:
    """Windows are half-open, ceilings inclusive; of several reasons the first of the list is given."""
    one = Candidates.empty(1)
    typed = {name: np.asarray(value, getattr(one, name).dtype) for name, value in columns.items()}
    assert eligible(with_columns(one, **typed), PLAN, REQUEST, 18).tolist() == [why]


def test_the_lower_of_two_ceilings_counts() -> None:
    """The policy's as well as the request's."""
    teen = with_columns(Candidates.empty(1), min_age=np.array([12], np.uint8))
    assert eligible(teen, PLAN, REQUEST, 9).tolist() == [Removed.MATURITY]


def test_where_the_country_is_unknown_only_unlimited_items_are_shown() -> None:
    """The safe side of not knowing."""
    two = with_columns(Candidates.empty(2), countries=np.stack([country_set(range(249)), np.full(32, 255, np.uint8)]))
    assert eligible(two, PLAN, Context(now_s=NOW_S), 18).tolist() == [Removed.COUNTRY, Removed.KEPT]


def test_block_beats_require_and_every_requirement_must_be_met() -> None:
    """Rules of all layers add up: a tenant tightens a global rule and cannot loosen it."""
    layers = [
        Layer("global", {"rules": [{"id": "g", "kind": "require", "target": {"items": ["x"]}}]}),
        Layer("tenant", {"rules": [
            {"id": "t", "kind": "require", "target": {"items": ["x"]}},
            {"id": "b", "kind": "block", "target": {"items": ["x"]}},
        ]}),
    ]  # fmt: skip
    targets = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0], [1, 1, 1]], np.bool_)
    rows = with_columns(Candidates.empty(4, rules=3), targets=targets)
    assert eligible(rows, resolve(layers).book.plan(REQUEST), REQUEST, 18).tolist() == [
        Removed.KEPT, Removed.NOT_REQUIRED, Removed.NOT_REQUIRED, Removed.BLOCKED,
    ]  # fmt: skip


@given(seeds)
def test_what_the_user_did_is_the_reason_only_where_there_is_no_other(seed: int) -> None:
    """ "Not interested" before "seen", and both after all that keeps an item from anybody."""
    rng = np.random.default_rng(seed)
    policy, context = random_policy(rng), random_context(rng)
    rows = random_candidates(rng, 30, len(policy.rules))
    plan, nothing = policy.book.plan(context), np.zeros(30, np.bool_)
    anybody = eligible(with_columns(rows, seen=nothing, rejected=nothing), plan, context, 16)
    theirs = np.select([rows.rejected, rows.seen], [Removed.REJECTED, Removed.SEEN], Removed.KEPT)
    assert np.array_equal(eligible(rows, plan, context, 16), np.where(anybody > 0, anybody, theirs))
