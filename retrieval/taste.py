"""Taste: what a user likes and rejects, as vectors. Pure functions of (journal, item vectors, policy).

Each journal entry has a pull: the weight of its signal in the policy, times its strength, times a decay with two
half-lives, one of days for the long term and one of minutes for the session. An item's pull is the sum over its
entries, so a second watch adds to the first. An `unlike` takes back a `like` and no more: being newer it would outweigh
it, but who unlikes has not said `not_interested`. Items with positive pull make the interests (one to three directions,
because the average of cooking and chess is neither), items with negative pull the rejected direction. The sum with
exponential decay is the classic implicit-feedback profile; splitting it into a few medoid-seeded clusters follows the
idea of PinnerSage (Pal et al., KDD 2020).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from ranking.sections import Taste as TastePolicy
from retrieval import recalled
from retrieval.behaviour import HALF, query, text_of
from retrieval.interests import FAINT, directions
from retrieval.journal import EMPTY, Journal, Signal

Float32 = npt.NDArray[np.float32]
Items = npt.NDArray[np.uint32]


DAY_S = 86_400
MINUTE_S = 60


@dataclass(frozen=True)
class Memory:
    """What a journal says about items, before any vector is looked up.

    `items` and `pull` (float32): the newest items with a signal that weighs, oldest first. What was seen before
    `seen_since_s` may come again.
    """

    journal: Journal
    items: Items
    pull: Float32
    seen_since_s: float = 0.0
    session: float = 1.0
    """1 just after their last signal, a half after each half-life of a session."""
    long_term: float = 1.0
    """The same with the half-life of the long term."""

    @cached_property
    def seen(self) -> Items:
        """Items the user's app reported anything about: they were on the screen. Possibly repeated."""
        entries = self.journal
        return recalled.seen(entries["item"], entries["at_s"], entries["signal"], self.seen_since_s)

    @cached_property
    def rejected(self) -> Items:
        """Items the user said not to want."""
        return recalled.rejected(self.journal["item"], self.journal["signal"])

    def last_served_s(self, items: Items) -> npt.NDArray[np.int64]:
        """int64[n]: the unix second each of `items` (all different) was last put into this user's feeds, 0 if never."""
        entries = self.journal
        return recalled.last_served_s(items, entries["item"], entries["at_s"], entries["signal"])


NOBODY = Memory(EMPTY, np.zeros(0, np.uint32), np.zeros(0, np.float32))
"""What is known about nobody in particular."""


@dataclass(frozen=True)
class Taste:
    """interests float32[m, d] unit rows, strongest first, m = 0 for a cold user; rejected float32[d] or None, whose
    product with a row is the cosine of the texts."""

    interests: Float32
    rejected: Float32 | None
    certainty: float = 1.0
    """How much nearness to the interests says, above 0 to 1: little when they were made of few items."""


def remember(journal: Journal, policy: TastePolicy, *, now_s: float) -> Memory:
    """Weigh a journal by a policy. Entries from the future count as new."""
    items, pull, since_s = recalled.pulls(
        journal["item"],
        journal["at_s"],
        journal["signal"],
        journal["strength"],
        _weights(policy),
        policy.recent_signals,
        now_s,
        policy.half_life_days * DAY_S,
        policy.session,
        policy.session_half_life_minutes * MINUTE_S,
    )
    session, long_term = lasting(since_s, policy)
    if policy.newer_half:
        pull *= np.exp2(np.arange(1 - len(items), 1) * (session / policy.newer_half)).astype(np.float32)
    return Memory(journal, items, pull, now_s - policy.seen_days * DAY_S, session, long_term)


def seen_by(journal: Journal, policy: TastePolicy, *, now_s: float) -> Memory:
    """What a journal says was seen, served and rejected, and nothing of what its user likes."""
    return replace(NOBODY, journal=journal, seen_since_s=now_s - policy.seen_days * DAY_S)


@lru_cache(maxsize=1024)
def _weights(policy: TastePolicy) -> Float32:
    """float32[len(Signal)]; being served is no signal of the user's."""
    return np.array([0.0 if s is Signal.SERVED else getattr(policy, s.name.lower()) for s in Signal], np.float32)


def taste(memory: Memory, vectors: Float32, policy: TastePolicy, text_dim: int | None = None) -> Taste:
    """Directions from weighed items; vectors float32[len(memory.items), d], a zero row for an item nobody knows.

    text_dim: where rows are joined with behaviour (`retrieval.behaviour`), how much of them is the text's. Interests
    and what is rejected are found in texts; each interest then gets the one direction of the user's behaviour.
    """
    pull = memory.pull / np.maximum(np.abs(memory.pull).max(initial=0.0), np.finfo(np.float32).tiny)
    pull *= np.einsum("ij,ij->i", vectors, vectors) > 0
    liked = pull > FAINT
    sure = certainty(int(np.count_nonzero(liked)), memory.session, memory.long_term, policy.doubt, policy.stale)
    text_dim = text_dim or vectors.shape[1]
    interests, rejected = directions(
        pull, text_of(vectors, text_dim), policy.interests, policy.same_interest, policy.push
    )
    away = rejected if rejected.any() else None
    if text_dim == vectors.shape[1]:
        return Taste(interests, away, sure)
    if away is not None:
        away = np.append(away / HALF, np.zeros(vectors.shape[1] - text_dim, np.float32))
    interests = query(interests, np.where(liked, pull, np.float32(0)) @ vectors[:, text_dim:-1], policy.behaviour)
    return Taste(interests, away, sure)


def lasting(since_s: float, policy: TastePolicy) -> tuple[float, float]:
    """What is left of the session and of the long term so many seconds after the last signal, each in 0..1."""
    session = np.exp2(-since_s / (policy.session_half_life_minutes * MINUTE_S))
    return float(session), float(np.exp2(-since_s / (policy.half_life_days * DAY_S)))


def certainty(n_liked: float, session: float, long_term: float, doubt: float, stale: float) -> float:
    """How much a taste made of so many liked items says; `session`, `long_term`: see `Memory`."""
    return n_liked / (n_liked + doubt) * (session + (1 - session) * stale * long_term) if n_liked else 1.0
