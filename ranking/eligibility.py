"""Who may be shown at all. Deny always wins, and each denial has a name.

Retrieval searches only what this lets through: `retrieval.availability` says the same of a whole segment, in packed
masks, and a test holds the two together.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Protocol

import numpy as np

from ranking.candidates import Candidates
from ranking.columns import Bool, Int64, UInt8
from ranking.context import Context
from ranking.hints import country_bit
from ranking.rulebook import Plan


class Removed(IntEnum):
    """Why a candidate is not in the ranking. Of several reasons the smallest number is given."""

    KEPT = 0
    NOT_LIVE = 1
    """Not published, or taken down."""
    NOT_YET = 2
    EXPIRED = 3
    COUNTRY = 4
    MATURITY = 5
    BLOCKED = 6
    """By a rule."""
    NOT_REQUIRED = 7
    """A rule requires something else."""
    REJECTED = 8
    """The user was not interested in it, or reported it."""
    SEEN = 9
    CAPPED = 10
    """Eligible, but no place without breaking a cap."""
    NO_ROOM = 11
    """Eligible, but the list is full."""


class Availability(Protocol):
    """What eligibility asks of any n rows, be they candidates or a segment."""

    @property
    def live(self) -> Bool: ...
    @property
    def available_from_s(self) -> Int64: ...
    @property
    def available_until_s(self) -> Int64: ...
    @property
    def min_age(self) -> UInt8: ...
    @property
    def countries(self) -> UInt8:
        """uint8[n, 32], see `hints.country_set`."""
        ...

    def targeted_by_any(self, rules: Sequence[int]) -> Bool:
        """Return bool[n]: at least one of `rules` (indexes in the policy, not empty) aims at the row."""
        ...

    def targeted_by_all(self, rules: Sequence[int]) -> Bool:
        """Return bool[n]: every one of `rules` (not empty) aims at the row."""
        ...


def available(rows: Availability, plan: Plan, context: Context, max_age: int) -> UInt8:
    """Return uint8[n] of `Removed`: what keeps each row from being shown to anybody asking like this; 0 = nothing.

    The maturity ceiling is the lower of `max_age` (the policy's) and the request's. Where the country is unknown, only
    items without country limits are shown.
    """
    reason = np.zeros(len(rows.live), np.uint8)
    # Weakest first: a stronger reason is written over it.
    if plan.require:
        _deny(reason, ~rows.targeted_by_all(plan.require), Removed.NOT_REQUIRED)
    if plan.block:
        _deny(reason, rows.targeted_by_any(plan.block), Removed.BLOCKED)
    _deny(reason, rows.min_age > min(max_age, context.max_age), Removed.MATURITY)
    byte, shift = country_bit(context.country)
    _deny(reason, (rows.countries[:, byte] & (1 << shift)) == 0, Removed.COUNTRY)
    _deny(reason, rows.available_until_s <= context.now_s, Removed.EXPIRED)
    _deny(reason, rows.available_from_s > context.now_s, Removed.NOT_YET)
    _deny(reason, ~rows.live, Removed.NOT_LIVE)
    return reason


def eligible(candidates: Candidates, plan: Plan, context: Context, max_age: int) -> UInt8:
    """Return uint8[n] of `Removed` for this user: `available`, and neither rejected nor seen."""
    reason = available(candidates, plan, context, max_age)
    otherwise = reason == 0
    _deny(reason, candidates.seen & otherwise, Removed.SEEN)
    _deny(reason, candidates.rejected & otherwise, Removed.REJECTED)
    return reason


def _deny(reason: UInt8, rows: Bool, why: Removed) -> None:
    np.putmask(reason, rows, int(why))  # an enum member as it is would cost numpy a microsecond
