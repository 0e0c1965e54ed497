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

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from ranking.policy import Taste as TastePolicy
from retrieval.journal import EMPTY, Journal, Signal

Float32 = npt.NDArray[np.float32]
Items = npt.NDArray[np.uint32]


DAY_S = 86_400
MINUTE_S = 60
FAINT = 1e-6
"""A pull below this share of the strongest is none: too old to say anything, too small to be scaled to length 1."""


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

    @cached_property
    def seen(self) -> Items:
        """Items the user's app reported anything about: they were on the screen. Possibly repeated."""
        seen = (self.journal["signal"] != Signal.SERVED) & (self.journal["at_s"] >= self.seen_since_s)
        items: Items = self.journal["item"][seen]
        return items

    @cached_property
    def rejected(self) -> Items:
        """Items the user said not to want."""
        signal = self.journal["signal"]
        items: Items = self.journal["item"][(signal == Signal.NOT_INTERESTED) | (signal == Signal.REPORT)]
        return items

    @cached_property
    def served(self) -> tuple[Items, npt.NDArray[np.int64]]:
        """(items, unix seconds) put into this user's feeds, oldest first, possibly repeated."""
        entries = self.journal[self.journal["signal"] == Signal.SERVED]
        return entries["item"], entries["at_s"].astype(np.int64)


NOBODY = Memory(EMPTY, np.zeros(0, np.uint32), np.zeros(0, np.float32))
"""What is known about nobody in particular."""


@dataclass(frozen=True)
class Taste:
    """interests float32[m, d] unit rows, strongest first, m = 0 for a cold user; rejected float32[d] unit or None."""

    interests: Float32
    rejected: Float32 | None


def remember(journal: Journal, policy: TastePolicy, *, now_s: float) -> Memory:
    """Weigh a journal by a policy. Entries from the future count as new."""
    weights = _weights(policy)
    strong = journal[weights[journal["signal"]] != 0][-4 * policy.recent_signals :]
    age_s = np.maximum(now_s - strong["at_s"].astype(np.float64), 0.0)
    decay = np.exp2(-age_s / (policy.half_life_days * DAY_S))
    decay += policy.session * np.exp2(-age_s / (policy.session_half_life_minutes * MINUTE_S))
    pull = weights[strong["signal"]] * (strong["strength"] / 255.0) * decay
    items, which = np.unique(strong["item"], return_inverse=True)
    last = np.zeros(len(items), np.int64)
    last[which] = np.arange(len(strong))  # of several entries, the last one stays
    newest = np.argsort(last)[-policy.recent_signals :]
    opinion = (strong["signal"] == Signal.LIKE) | (strong["signal"] == Signal.UNLIKE)
    sums = np.maximum(np.bincount(which, pull * opinion, minlength=len(items)), 0.0)
    sums = (sums + np.bincount(which, pull * ~opinion, minlength=len(items))).astype(np.float32)
    return Memory(journal, items[newest], sums[newest], now_s - policy.seen_days * DAY_S)


@lru_cache(maxsize=1024)
def _weights(policy: TastePolicy) -> Float32:
    """float32[len(Signal)]; being served is no signal of the user's."""
    return np.array([0.0 if s is Signal.SERVED else getattr(policy, s.name.lower()) for s in Signal], np.float32)


def taste(memory: Memory, vectors: Float32, policy: TastePolicy) -> Taste:
    """Directions from weighed items; vectors float32[len(memory.items), d], a zero row for an item nobody knows."""
    pull = memory.pull / np.maximum(np.abs(memory.pull).max(initial=0.0), np.finfo(np.float32).tiny)
    liked, rejected = pull > FAINT, pull < -FAINT
    away = _unit(-pull[rejected] @ vectors[rejected]) if rejected.any() else None
    interests = _interests(vectors[liked], pull[liked], policy)
    if away is not None and not away.any():
        away = None
    if away is not None and len(interests):
        interests = _unit(interests - np.float32(policy.push) * np.maximum(interests @ away, 0)[:, None] * away)
    return Taste(interests, away)


def _interests(vectors: Float32, pull: Float32, policy: TastePolicy) -> Float32:
    """Up to `max_interests` unit directions: seeds far apart, then two rounds of weighted spherical k-means."""
    known = vectors.any(axis=1)
    vectors, pull = vectors[known], pull[known]
    if not len(vectors):
        return np.zeros((0, vectors.shape[1]), np.float32)
    if policy.interests == 1 or len(vectors) == 1:
        return _unit(pull @ vectors)[None]
    centres = _seeds(vectors, pull, policy)
    for _ in range(2):
        centres = _unit(_shares(vectors, pull, centres) @ vectors)
    strength = _shares(vectors, pull, centres).sum(axis=1)
    return centres[np.argsort(-strength, kind="stable")][: np.count_nonzero(strength)]


def _shares(vectors: Float32, pull: Float32, centres: Float32) -> Float32:
    """float32[m, n]: the pull of each vector in the row of its nearest centre."""
    nearest = np.argmax(vectors @ centres.T, axis=1)
    shares: Float32 = np.where(nearest == np.arange(len(centres))[:, None], pull, np.float32(0))
    return shares


def _seeds(vectors: Float32, pull: Float32, policy: TastePolicy) -> Float32:
    """The strongest item, then each time the item that is strong and unlike all seeds so far."""
    seeds = [int(np.argmax(pull))]
    closest = vectors @ vectors[seeds[0]]
    while len(seeds) < policy.interests:
        candidate = int(np.argmax(pull * (1 - closest) * (closest < policy.same_interest)))
        if closest[candidate] >= policy.same_interest:
            break
        seeds.append(candidate)
        closest = np.maximum(closest, vectors @ vectors[candidate])
    return vectors[seeds]


def _unit(vectors: Float32) -> Float32:
    """Rows (or one vector) scaled to length 1; zero stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: Float32 = (vectors / np.maximum(lengths, np.float32(1e-9))).astype(np.float32)
    return unit
