"""Who may be shown at all. Deny always wins, and each denial has a name.

Retrieval searches only what this lets through: `retrieval.availability` says the same of a whole segment, in packed
masks, and a test holds the two together.
"""

from enum import IntEnum

import numpy as np

from ranking.candidates import Candidates
from ranking.columns import Bool, Int64, Rows, UInt8
from ranking.compiled import column, compiled, part
from ranking.context import Context
from ranking.hints import country_bit
from ranking.rulebook import Plan

_BOOL, _INT64, _UINT8 = column("boolean"), column("int64"), column("uint8")


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


def eligible(candidates: Candidates, plan: Plan, context: Context, max_age: int) -> UInt8:
    """Return uint8[n] of `Removed`: what keeps each candidate from being shown to this user now; 0 = nothing.

    The maturity ceiling is the lower of `max_age` (the policy's) and the request's. Where the country is unknown, only
    items without country limits are shown.
    """
    byte, shift = country_bit(context.country)
    return _removed(
        candidates.live,
        candidates.available_from_s,
        candidates.available_until_s,
        candidates.countries[:, byte],
        candidates.min_age,
        candidates.targets,
        candidates.rejected,
        candidates.seen,
        context.now_s,
        1 << shift,
        min(max_age, context.max_age),
        np.array(plan.block, np.intp),
        np.array(plan.require, np.intp),
    )


@part()
def _aims_at(targets: Bool, rules: Rows) -> int:
    """How many of `rules` aim at a row."""
    count = 0
    for rule in rules:
        count += targets[rule]
    return count


@compiled(
    f"uint8[:]({_BOOL}, {_INT64}, {_INT64}, {_UINT8}, {_UINT8}, {column('boolean', 2)}, {_BOOL}, {_BOOL},"
    "int64, int64, int64, intp[:], intp[:])"
)
def _removed(
    live: Bool,
    from_s: Int64,
    until_s: Int64,
    countries: UInt8,
    min_age: UInt8,
    targets: Bool,
    rejected: Bool,
    seen: Bool,
    now_s: int,
    country: int,
    ceiling: int,
    block: Rows,
    require: Rows,
) -> UInt8:
    removed = np.empty(len(live), np.uint8)
    for row in range(len(live)):
        if not live[row]:
            why = Removed.NOT_LIVE
        elif from_s[row] > now_s:
            why = Removed.NOT_YET
        elif until_s[row] <= now_s:
            why = Removed.EXPIRED
        elif not countries[row] & country:
            why = Removed.COUNTRY
        elif min_age[row] > ceiling:
            why = Removed.MATURITY
        elif _aims_at(targets[row], block):
            why = Removed.BLOCKED
        elif _aims_at(targets[row], require) < len(require):
            why = Removed.NOT_REQUIRED
        elif rejected[row]:
            why = Removed.REJECTED
        elif seen[row]:
            why = Removed.SEEN
        else:
            why = Removed.KEPT
        removed[row] = why.value
    return removed
