"""Tags by themselves: what moves them, what does not, and what a client may present."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranking.context import Context
from retrieval.journal import EMPTY, Journal, Signal, entries
from service import etag

NOW_S = 1_800_000_000
CONTEXT = Context(now_s=NOW_S, surface="home", language=3, country=5, age_band="16")
LIKED = entries([(7, NOW_S, Signal.LIKE, 1.0)])


def versions(journal: Journal = EMPTY, asked: str = "a", **view: Any) -> str:
    """The versions of a view with these properties."""
    facts = {"content": "3.0", "policy_version": "1.2", "epoch": 4} | view
    stand_in: Any = SimpleNamespace(
        content=facts["content"],
        policy_version=facts["policy_version"],
        epoch=lambda now_s: facts["epoch"],
    )
    return etag.versions(stand_in, journal, asked, now_s=NOW_S)


@pytest.mark.parametrize(
    "moved",
    [
        {"content": "4.0"},
        {"content": "3.1f"},
        {"policy_version": "1.3"},
        {"epoch": 5},
        {"journal": LIKED},
        {"asked": "b"},
    ],
)
def test_every_input_moves_it(moved: dict[str, Any]) -> None:
    """Content, policy, schedule, engagement and what is asked: each by itself makes another tag."""
    assert versions(**moved) != versions()


def test_being_served_does_not_move_it() -> None:
    """Otherwise every answer would make itself outdated; the same engagement around it is the same tag."""
    served = entries([(9, NOW_S, Signal.SERVED, 1.0)])
    assert versions(served) == versions()
    assert versions(np.concatenate([served, LIKED, served])) == versions(LIKED)


def test_the_clock_of_the_hint_does_not_matter_but_each_hint_does() -> None:
    """Who asks, how many, where and with which hints is in the tag; the moment is not."""
    same = etag.checksum_of("u", "personalised", 20, replace(CONTEXT, now_s=NOW_S + 5, seed=99))
    assert same == etag.checksum_of("u", "personalised", 20, CONTEXT)
    hints = ({"surface": "search"}, {"language": 4}, {"country": 6}, {"age_band": "18+"})
    asked: list[tuple[str | None, str, int, Context]] = [
        (None, "personalised", 20, CONTEXT),
        ("u", "holdout", 20, CONTEXT),
        ("u", "personalised", 21, CONTEXT),
        *(("u", "personalised", 20, replace(CONTEXT, **hint)) for hint in hints),
    ]
    others = [etag.checksum_of(*one) for one in asked]
    assert len({same, *others}) == 8


def test_a_page_is_confirmed_with_its_own_seed() -> None:
    """The tag that comes back is the one presented: its order is still right, whatever seed is due now."""
    presented = etag.tag(versions(), 0xABC, NOW_S)
    assert etag.still_right(presented, versions(), now_s=NOW_S + 60) == presented
    assert etag.still_right(presented.removeprefix("W/"), versions(), now_s=NOW_S) == presented
    assert etag.still_right(f'"x", W/"y", {presented}', versions(), now_s=NOW_S) == presented


def test_a_page_is_not_confirmed_for_ever() -> None:
    """Its cursor would be dead: after half a cursor's life the client gets a new page."""
    presented = etag.tag(versions(), 1, NOW_S)
    assert etag.still_right(presented, versions(), now_s=NOW_S + etag.LIFETIME_S - 1)
    assert etag.still_right(presented, versions(), now_s=NOW_S + etag.LIFETIME_S) is None
    assert etag.still_right(presented, versions(), now_s=NOW_S - 1) is None


@given(st.none() | st.text(max_size=400))
def test_other_texts_confirm_nothing(presented: str | None) -> None:
    """Whatever stands in If-None-Match, nothing breaks and nothing is confirmed."""
    assert etag.still_right(presented, versions(), now_s=NOW_S) is None
