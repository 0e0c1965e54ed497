"""Packed masks: together they say of every row what `ranking.eligibility.eligible` says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ranking.candidates import Candidates
from ranking.columns import OPEN_UNTIL_S
from ranking.context import Context
from ranking.eligibility import eligible
from ranking.hints import COUNTRIES, country_code
from ranking.policy import Layer, resolve
from retrieval.rows import Rows
from retrieval.videos import Video
from retrieval.view import SegmentUnderPolicy
from tests.support.content import NOW_S, TOPICS, drawn_videos, memory_folder, snapshot_of, unit_vectors
from tests.support.content import a_video as plain

RULES = [{"id": topic, "kind": "block", "effect": {}, "target": {"filter": {"tag": [topic]}}} for topic in TOPICS]


def candidates_of(part: SegmentUnderPolicy) -> Candidates:
    """Every row of a segment as a candidate of which no user has said anything."""
    columns, anything = part.segment.rows.columns, Candidates.empty(len(part.segment))
    return replace(
        anything,
        **{name: columns[name] for name in ("available_from_s", "available_until_s", "min_age", "countries")},
        targets=np.unpackbits(part.targets, axis=1, count=len(RULES), bitorder="little").astype(np.bool_),
    )


def part_of(videos: Sequence[Video]) -> SegmentUnderPolicy:
    """A segment of `videos` under RULES."""
    with memory_folder() as folder:
        snapshot = snapshot_of(folder, Rows.from_videos(videos, unit_vectors(len(videos))))
    return SegmentUnderPolicy(snapshot.segments[0], resolve([Layer("tenant", {"rules": RULES})]))


@cache
def scheduled() -> SegmentUnderPolicy:
    """Sixty videos that open and end one after the other, in other countries and for other ages."""
    return part_of(
        [
            plain(
                item,
                countries=(("DE",), ("FR", "US"), ())[item % 3],
                available_from_s=NOW_S + item if item % 2 else 0,
                available_until_s=NOW_S + 2 * item if item % 5 else OPEN_UNTIL_S,
            )
            for item in range(60)
        ]
    )


contexts = st.builds(
    Context,
    now_s=st.integers(NOW_S - 5, NOW_S + 125) | st.integers(0, 253_402_300_800),
    country=st.sampled_from([-1, *map(country_code, ("DE", "FR", "US", "JP"))]) | st.integers(0, len(COUNTRIES) - 1),
    max_age=st.integers(0, 18),
)
some_rules = st.lists(st.integers(0, len(RULES) - 1), max_size=3, unique=True).map(tuple)


@settings(max_examples=60, deadline=None)
@given(
    part=drawn_videos(20).filter(len).map(part_of) | st.builds(scheduled),
    asked=st.lists(st.tuples(contexts, some_rules, some_rules), min_size=1, max_size=6),
)
def test_masks_are_what_eligibility_says_of_every_row(
    part: SegmentUnderPolicy, asked: list[tuple[Context, tuple[int, ...], tuple[int, ...]]]
) -> None:
    """Any time, country, age and rules, whatever was asked of the same segment before."""
    for context, block, require in asked:
        plan = replace(part.policy.book.plan(context), block=block, require=require)
        expected = eligible(candidates_of(part), plan, context, part.policy.limits.max_age) == 0
        assert np.array_equal(part.allowed(plan, context), np.packbits(expected, bitorder="little"))


def test_the_age_ceiling_is_the_lower_of_policy_and_request() -> None:
    """Neither can lift what the other says."""
    grown = part_of([plain(0, ratings=())])
    ceilings = [(12, 18), (18, 12), (18, 18)]
    shown = [int(grown.availability.mask(Context(now_s=NOW_S, max_age=asked), most)[0]) for asked, most in ceilings]
    assert shown == [0, 0, 1]


def test_what_was_kept_is_not_what_is_given_out() -> None:
    """Who clears bits in a mask takes nothing from the next."""
    asked = Context(now_s=NOW_S)
    before = scheduled().availability.mask(asked, 18).copy()
    scheduled().availability.mask(asked, 18)[:] = 0
    assert np.array_equal(scheduled().availability.mask(asked, 18), before)
