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

from ranking.policy import Taste as TastePolicy
from retrieval.behaviour import HALF, query, text_of
from retrieval.groups import groups
from retrieval.journal import EMPTY, Journal, Signal, newest

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
    session: float = 1.0
    """1 just after their last signal, a half after each half-life of a session."""
    long_term: float = 1.0
    """The same with the half-life of the long term."""

    # By column: the fields of whole entries lie apart, and a full journal is looked over many times.
    @cached_property
    def _signal(self) -> npt.NDArray[np.uint8]:
        return np.ascontiguousarray(self.journal["signal"])

    @cached_property
    def _item(self) -> Items:
        return np.ascontiguousarray(self.journal["item"])

    @cached_property
    def seen(self) -> Items:
        """Items the user's app reported anything about: they were on the screen. Possibly repeated."""
        seen = np.flatnonzero(self._signal != Signal.SERVED)
        if len(self.journal) and self.journal["at_s"].min() < self.seen_since_s:
            seen = seen[self.journal["at_s"][seen] >= self.seen_since_s]
        return self._item.take(seen)

    @cached_property
    def rejected(self) -> Items:
        """Items the user said not to want."""
        rejected = (self._signal == Signal.NOT_INTERESTED) | (self._signal == Signal.REPORT)
        return self._item[np.flatnonzero(rejected)]

    def last_served_s(self, items: Items) -> npt.NDArray[np.int64]:
        """int64[n]: the unix second each of `items` (all different) was last put into this user's feeds, 0 if never."""
        last_s = np.zeros(len(items), np.int64)
        if not len(items):
            return last_s
        # Ten thousand were served and two hundred are asked about: what shares no lower half with any of these is out.
        asked = np.zeros(1 << 16, np.bool_)
        asked[items & 0xFFFF] = True
        likely = np.flatnonzero(asked.take(self._item.astype(np.uint16)) & (self._signal == Signal.SERVED))
        served = self._item[likely]
        order = items.argsort()
        ordered = items[order]
        place = ordered.searchsorted(served).clip(max=len(items) - 1)
        known = ordered[place] == served
        last_s[order[place[known]]] = self.journal["at_s"][likely[known]]  # of several, the last one stays
        return last_s


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
    weights = _weights(policy)
    strong = newest(journal, weights != 0, 4 * policy.recent_signals)
    age_s = np.maximum(now_s - strong["at_s"].astype(np.float64), 0.0)
    decay = np.exp2(-age_s / (policy.half_life_days * DAY_S))
    decay += policy.session * np.exp2(-age_s / (policy.session_half_life_minutes * MINUTE_S))
    pull = weights[strong["signal"]] * (strong["strength"] / 255.0) * decay
    order, begins = groups(strong["item"])
    last = order[np.append(begins, len(order))[1:] - 1]  # of each item's entries, the last one
    kept = last.argsort()[-policy.recent_signals :]
    session, long_term = lasting(age_s.min(initial=np.inf), policy)
    newer = np.exp2(np.arange(1 - len(kept), 1) * (session / policy.newer_half)) if policy.newer_half else 1.0
    opinion = (strong["signal"] == Signal.LIKE) | (strong["signal"] == Signal.UNLIKE)
    sums = np.maximum(np.add.reduceat((pull * opinion)[order], begins), 0.0)
    sums += np.add.reduceat((pull * ~opinion)[order], begins)
    items = strong["item"][last]
    seen_since_s = now_s - policy.seen_days * DAY_S
    return Memory(journal, items[kept], (sums[kept] * newer).astype(np.float32), seen_since_s, session, long_term)


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
    liked = np.where(pull > FAINT, pull, np.float32(0))
    sure = certainty(int(np.count_nonzero(liked)), memory.session, memory.long_term, policy.doubt, policy.stale)
    if text_dim is None or text_dim == vectors.shape[1]:
        return replace(_directions(pull, liked, vectors, policy), certainty=sure)
    found = _directions(pull, liked, text_of(vectors, text_dim), policy)
    away = None if found.rejected is None else np.append(found.rejected / HALF, np.zeros(vectors.shape[1] - text_dim))
    interests = query(found.interests, liked @ vectors[:, text_dim:-1], policy.behaviour)
    return Taste(interests, None if away is None else away.astype(np.float32), sure)


def lasting(since_s: float, policy: TastePolicy) -> tuple[float, float]:
    """What is left of the session and of the long term so many seconds after the last signal, each in 0..1."""
    session = np.exp2(-since_s / (policy.session_half_life_minutes * MINUTE_S))
    return float(session), float(np.exp2(-since_s / (policy.half_life_days * DAY_S)))


def certainty(n_liked: float, session: float, long_term: float, doubt: float, stale: float) -> float:
    """How much a taste made of so many liked items says; `session`, `long_term`: see `Memory`."""
    return n_liked / (n_liked + doubt) * (session + (1 - session) * stale * long_term) if n_liked else 1.0


def _directions(pull: Float32, liked: Float32, vectors: Float32, policy: TastePolicy) -> Taste:
    away = _unit(np.minimum(pull, 0) @ -vectors) if (pull < -FAINT).any() else None
    if away is not None and not away.any():
        away = None
    interests = _interests(vectors, liked, policy)
    if away is not None and len(interests):
        interests = _unit(interests - np.float32(policy.push) * np.maximum(interests @ away, 0)[:, None] * away)
    return Taste(interests, away)


def _interests(vectors: Float32, pull: Float32, policy: TastePolicy) -> Float32:
    """Up to `max_interests` unit directions, strongest first: seeds far apart, each drawn to the middle of those near
    it, which is one round of weighted spherical k-means. Rows with a pull of 0 do not count."""
    if not pull.any():
        return np.zeros((0, vectors.shape[1]), np.float32)
    seeds = vectors[:1] if policy.interests == 1 else _seeds(vectors, pull, policy)
    shares = _shares(vectors, pull, seeds)
    strength = shares.sum(axis=1)
    order = np.argsort(-strength, kind="stable")[: np.count_nonzero(strength)]
    return _unit(shares[order] @ vectors)


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
