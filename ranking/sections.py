"""The sections of a policy document: each number on one line with its default and its bounds."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ranking.features import HalfLives
from ranking.maturity import LADDER
from ranking.rules import MAX_PROMOTED_PERCENT
from ranking.schema import choice, number, whole


@dataclass(frozen=True, slots=True)
class Limits:
    """What nobody may exceed. A lower layer may only tighten these."""

    max_age: int = choice(18, LADDER)
    """Maturity ceiling."""
    promoted_percent: float = number(MAX_PROMOTED_PERCENT, 0.0, MAX_PROMOTED_PERCENT)
    """Most of a page that promotions together may take."""


@dataclass(frozen=True, slots=True)
class Sources:
    """How many candidates each source brings."""

    near: int = whole(120, 0, 1000)
    popular: int = whole(40, 0, 1000)
    fresh: int = whole(20, 0, 1000)
    explore: int = whole(20, 0, 1000)


@dataclass(frozen=True, slots=True)
class Diversity:
    """Sameness that is avoided on every page."""

    creator_max: int = whole(2, 1, 50)
    """Items of one creator among any `creator_window` neighbours."""
    creator_window: int = whole(10, 2, 50)
    category_max: int = whole(5, 1, 50)
    category_window: int = whole(10, 2, 50)
    alike_above: float = number(0.7, 0.0, 0.99)
    """Cosine from which two items begin to count as alike; fully alike at 1."""
    alike_step: float = number(4.0, 0.0, 20.0)
    """Places an item steps back per fully alike item just before it; 0 switches semantic diversity off."""
    alike_max_move: int = whole(10, 0, 50)
    """Places an item may move at most because of that, back or forth."""
    alike_depth: int = whole(30, 0, 200)
    """How far down the list this goes: a page of 20 and what may move into it. Costs grow with the square."""


@dataclass(frozen=True, slots=True)
class Explore:
    """Room for what nobody knows yet."""

    share: float = number(0.02, 0.0, 0.2)
    """Part of the page for items that only the explore source brought; nothing for those of whom nothing is known."""


@dataclass(frozen=True, slots=True)
class Taste:
    """How a user's signals become their taste. Negative weights are rejections."""

    half_life_days: float = number(14.0, 0.1, 366.0)
    session: float = number(1.0, 0.0, 10.0)
    """Extra weight of what happened just now, beside 1 for the long term."""
    session_half_life_minutes: float = number(20.0, 1.0, 1440.0)
    interests: int = whole(3, 1, 3)
    """Separate interests at most."""
    same_interest: float = number(0.45, -1.0, 1.0)
    """Cosine from which two liked items are one interest; talks on one topic are above it with the default model."""
    recent_signals: int = whole(64, 1, 256)
    """The newest signals that count."""
    newer_half: float = number(0.0, 0.0, 1000.0)
    """After so many newer items one counts half, while the session lasts; after it, its age alone counts. 0: always."""
    doubt: float = number(0.0, 0.0, 100.0)
    """So many liked items make a taste half certain, and similarity count half; 0: any taste is certain."""
    stale: float = number(1.0, 0.0, 1.0)
    """What is left of that certainty for somebody who comes back after their session is over."""
    behaviour: float = number(0.5, 0.0, 1.0)
    """Share of what others watched along with an item in what counts as near it, where that was learned; the rest is
    the text's."""
    push: float = number(0.5, 0.0, 1.0)
    """How much of an interest's overlap with what was rejected is taken out of it."""
    seen_days: float = number(90.0, 0.0, 90.0)
    """How long a seen item stays out of the feed; 90 = as long as anything is remembered."""
    impression: float = number(0.0, -10.0, 10.0)
    watch: float = number(1.0, -10.0, 10.0)
    """Times the fraction watched."""
    complete: float = number(1.5, -10.0, 10.0)
    like: float = number(2.0, -10.0, 10.0)
    unlike: float = number(-2.0, -10.0, 10.0)
    """Takes back a like."""
    share: float = number(3.0, -10.0, 10.0)
    bookmark: float = number(2.5, -10.0, 10.0)
    follow: float = number(2.0, -10.0, 10.0)
    skip: float = number(-0.5, -10.0, 10.0)
    not_interested: float = number(-3.0, -10.0, 10.0)
    report: float = number(-5.0, -10.0, 10.0)


SECTIONS: Final[Mapping[str, type]] = MappingProxyType(
    {
        "limits": Limits,
        "half_lives": HalfLives,
        "sources": Sources,
        "diversity": Diversity,
        "explore": Explore,
        "taste": Taste,
    }
)
"""Sections of a policy document beside `weights`, `rules` and `locks`: name -> what it holds."""
