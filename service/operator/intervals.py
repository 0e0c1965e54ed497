"""How sure a figure is: 95 % intervals of shares, of their difference, and of anything that can be drawn again.

What one user does is not independent of what else they do, so shares of shown videos count users, not videos: the
sample is made smaller by the design effect of its users before Wilson's interval is taken. Sources: E. B. Wilson, JASA
22 (1927), for the interval; W. G. Cochran, Sampling Techniques, 3rd ed. (1977), 6.3, for the variance of a ratio over
clusters; E. L. Korn and B. I. Graubard, Survey Methodology 24 (1998), for the smaller sample; R. G. Newcombe,
Statistics in Medicine 17 (1998), method 10, for the difference; B. Efron, Annals of Statistics 7 (1979), for the
bootstrap. Pure: chance is an argument.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Z: Final = 1.959964
"""Of a normal distribution, 95 % lies within so many standard deviations."""
RESAMPLES: Final = 500
SURE: Final = (2.5, 97.5)
"""Percentiles between which 95 % lie."""

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval, out of `n` observations. None: there is nothing to say it of."""

    value: float | None
    low: float | None
    high: float | None
    n: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


NOTHING: Final = Estimate(None, None, None, 0)


def share(part: int, n: int) -> Estimate:
    """How many of n independent observations (users, say). Wilson (1927)."""
    return NOTHING if n == 0 else _wilson(part / n, n, n)


def share_by_user(parts: Float64, wholes: Float64) -> Estimate:
    """sum(parts) of sum(wholes); float64[users] each, 0 <= part <= whole, whole > 0.

    The sample is as many observations as would be as uncertain if they were independent, never more than there are.
    Where users do not differ (one of them, or all at 0 or 1) that cannot be measured, and a user counts once.
    """
    n, users = float(wholes.sum()), len(wholes)
    if not users:
        return NOTHING
    rate = float(parts.sum()) / n
    independent = rate * (1 - rate) / n
    if users < 2 or independent <= 0:
        return _wilson(rate, users, round(n))
    clustered = users / (users - 1) * float(((parts - rate * wholes) ** 2).sum()) / n**2
    return _wilson(rate, n / max(clustered / independent, 1.0), round(n))


def difference(one: Estimate, other: Estimate) -> Estimate:
    """`one` minus `other`, two shares of different users. Newcombe (1998), method 10."""
    ends = one.value, one.low, one.high, other.value, other.low, other.high
    if None in ends:
        return NOTHING
    a, a_low, a_high, b, b_low, b_high = (float(end or 0.0) for end in ends)
    low = a - b - sqrt((a - a_low) ** 2 + (b_high - b) ** 2)
    high = a - b + sqrt((a_high - a) ** 2 + (b - b_low) ** 2)
    return Estimate(a - b, low, high, one.n + other.n)


def drawn_again(
    figure: Callable[[npt.NDArray[np.int64]], float], observations: int, n: int, rng: np.random.Generator
) -> Estimate:
    """`figure` of the observations at the given places, and between which values it lies when they are drawn again.

    Fewer than two observations have no interval. The bootstrap of Efron (1979), percentiles of RESAMPLES draws.
    """
    if not observations:
        return NOTHING
    value = figure(np.arange(observations))
    if observations < 2:
        return Estimate(value, None, None, n)
    drawn = [figure(rng.integers(observations, size=observations)) for _ in range(RESAMPLES)]
    low, high = np.percentile(drawn, SURE)
    return Estimate(value, float(low), float(high), n)


def _wilson(rate: float, effective: float, n: int) -> Estimate:
    """Wilson's interval of a rate seen in `effective` independent observations."""
    middle = (rate + Z**2 / (2 * effective)) / (1 + Z**2 / effective)
    half = Z / (1 + Z**2 / effective) * sqrt(rate * (1 - rate) / effective + Z**2 / (4 * effective**2))
    return Estimate(rate, max(min(middle - half, rate), 0.0), min(max(middle + half, rate), 1.0), n)
