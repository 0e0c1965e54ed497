"""What another policy would have earned, from the log of this one: three estimators and their intervals.

Each logged decision has its reward, the propensity with which it was taken, and the probability with which the other
policy takes it; `weight` is the second by the first. Where the log never explores, no estimator knows anything: the
serve log's explored items are the part that was drawn by lot.

Sources: D. G. Horvitz and D. J. Thompson, JASA 47 (1952), for IPS; J. Hájek (1971) and A. Swaminathan and T. Joachims,
NeurIPS 2015, for SNIPS; M. Dudík, J. Langford and L. Li, ICML 2011, for the doubly robust estimator; L. Kish, Survey
Sampling (1965), for the effective size. Pure: chance is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from service.operator.intervals import Estimate, drawn_again

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Logged:
    """n logged decisions. `user`: int[n], whose they are; what one user does is not independent.

    weight, reward: float64[n]. `predicted`: what a model expects of the logged action, `expected`: what it expects of
    the other policy there; both 0 without a model, float64[n].
    """

    user: npt.NDArray[np.int64]
    weight: Float64
    reward: Float64
    predicted: Float64
    expected: Float64

    def at(self, places: npt.NDArray[np.int64]) -> Logged:
        """The decisions at these places, repeats allowed."""
        return Logged(
            self.user[places], self.weight[places], self.reward[places], self.predicted[places], self.expected[places]
        )


def ips(logged: Logged) -> float:
    """Inverse propensity: unbiased, and as uncertain as the largest weights make it."""
    return float((logged.weight * logged.reward).mean())


def snips(logged: Logged) -> float:
    """Self-normalised: divides by the weights there were instead of those expected; 0 when all are 0."""
    total = float(logged.weight.sum())
    return float((logged.weight * logged.reward).sum()) / total if total else 0.0


def doubly_robust(logged: Logged) -> float:
    """A model's answer, and the weighted error it made on what was logged: right if either of the two is."""
    return float((logged.expected + logged.weight * (logged.reward - logged.predicted)).mean())


ESTIMATORS: Final[Mapping[str, Callable[[Logged], float]]] = {"IPS": ips, "SNIPS": snips, "DR": doubly_robust}


def effective_size(logged: Logged) -> float:
    """How many unweighted decisions would be as certain: (sum w)^2 / sum w^2."""
    squares = float((logged.weight**2).sum())
    return float(logged.weight.sum()) ** 2 / squares if squares else 0.0


def estimates(logged: Logged, rng: np.random.Generator) -> dict[str, Estimate]:
    """Every estimator with its 95 % interval: the users are drawn again, each with all their decisions."""
    order = np.argsort(logged.user, kind="stable")
    _, starts = np.unique(logged.user[order], return_index=True)
    of_user = np.split(order, starts[1:]) if len(order) else []

    def drawn(estimator: Callable[[Logged], float]) -> Callable[[npt.NDArray[np.int64]], float]:
        return lambda users: estimator(logged.at(np.concatenate([of_user[user] for user in users])))

    return {
        name: drawn_again(drawn(estimator), len(of_user), len(logged.reward), rng)
        for name, estimator in ESTIMATORS.items()
    }
