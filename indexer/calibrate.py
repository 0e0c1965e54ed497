"""Find the weights that tell best what a tenant's users do next, on that tenant's own past. Pure.

What users did next is held out of the past (`indexer.held_out`). First everybody is asked as a stranger: how trending,
popularity and evergreen are mixed is what serves best those of whom nothing is known. Then, with what is known of each,
one number after the other is moved to the best of a few values: how taste is made, and how much that mix says beside
it. A number leaves the value it begins with only for GAIN more than that brings, so that chance alone does not move it.

What is compared is the order of the catalogue by the features that are learned here: nearness (text and behaviour), and
what everybody does (WINDOWS; whether `rising` counts is for people to say). Noise in the score
is taken out: with weights that fit it costs more than it teaches, and the explore source has slots of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from indexer.held_out import HeldOut, cases
from indexer.learn import Log
from ranking.policy import Policy
from ranking.sections import Taste
from retrieval.behaviour import RARE, VALUES, Behaviour, Float32
from retrieval.taste import Memory, certainty, lasting, remember, taste

MOST_ITEMS: Final = 4000
"""Items that are compared: those with most events."""
SAMPLE: Final = 500_000
"""Pairs of user and item whose nearness says how rare a nearness is."""
PAGE: Final = 20
GAIN: Final = 0.005
ONE_INTEREST: Final = 0.75
"""From this share of behaviour on, the several interests found in texts hardly matter: one query is enough."""
WINDOWS: Final = ("trending", "popularity", "evergreen")
SHARES: Final = (1.0, 0.5, 0.2, 0.1, 0.0)
"""Of the largest weight of a window, what another may have. Every mixture of them is tried."""
MIX: Final = "the largest weight of WINDOWS"
TRIED: Final[Mapping[str, tuple[float, ...]]] = MappingProxyType(
    {
        "/taste/behaviour": (0.9, 0.0, 0.5, 0.75, 1.0),
        "/taste/newer_half": (5.0, 15.0, 0.0),
        "/taste/half_life_days": (14.0, 60.0, 180.0),
        "/taste/doubt": (1.0, 0.0, 3.0, 10.0),
        "/taste/stale": (0.5, 1.0, 0.25, 0.1),
        MIX: (0.3, 0.05, 0.1, 0.6, 1.0, 1.5, 2.5),
    }
)
"""The values that are tried, by JSON pointer, and of the largest weight of a window; the first is where the search
begins and what it returns to without GAIN. The weight of similarity stays: the others are beside it."""
ROUNDS: Final = 2


def calibrated(
    log: Log, behaviour: Behaviour, items: npt.NDArray[np.uint32], text: Float32, policy: Policy
) -> tuple[dict[str, dict[str, float]], Float32]:
    """(what was learned as a policy layer, `Behaviour.near`).

    behaviour: of `without(log, held_out(log))`. items uint32[n] of the catalogue and their unit text float32[n, t].
    """
    kept = _most_active(log, items)
    items, text = items[kept], text[kept]
    rows = behaviour.joined(items, text)
    asked = cases(log, items, WINDOWS)
    mix = mixed(asked)
    search = _Search(asked, np.tensordot(mix, asked.counted, 1), rows, items, behaviour.text_dim, policy)
    chosen = _best(search)
    near = search.near(chosen)
    weights = {name: round(share * chosen[MIX], 4) for name, share in zip(WINDOWS, mix.tolist(), strict=True)}
    of_taste = {pointer.removeprefix("/taste/"): value for pointer, value in chosen.items() if pointer != MIX}
    if of_taste["behaviour"] >= ONE_INTEREST:
        of_taste["interests"] = 1
    return {"weights": {"exploration": 0.0, **weights}, "taste": of_taste}, near


def mixed(asked: HeldOut) -> Float32:
    """float32[w]: the mixture of WINDOWS, 1 the largest, that serves best, if nothing were known of anybody."""
    mixtures = [np.array(one, np.float32) for one in product(SHARES, repeat=len(WINDOWS)) if max(one) == 1]
    return max(mixtures, key=lambda mix: _worth(np.tensordot(mix, asked.counted, 1), asked))


@dataclass(frozen=True)
class _Search:
    """Scores of choices; what was worked out for a choice of taste is kept. everybody float32[c, n]: all, mixed."""

    cases: HeldOut
    everybody: Float32
    rows: Float32
    items: npt.NDArray[np.uint32]
    text_dim: int
    policy: Policy
    queries: dict[tuple[float, ...], Float32] = field(default_factory=dict)
    parts: dict[tuple[float, ...], tuple[Float32, Float32]] = field(default_factory=dict)
    features: dict[tuple[float, ...], Float32] = field(default_factory=dict)

    def worth(self, chosen: Mapping[str, float]) -> float:
        """Recall and NDCG of a page."""
        sure = self.certainties(chosen) * np.float32(self.policy.weights["similarity"])
        return _worth(self.similarity(chosen) * sure[:, None] + np.float32(chosen[MIX]) * self.everybody, self.cases)

    def certainties(self, chosen: Mapping[str, float]) -> Float32:
        """float32[c]: how much each user's taste says."""
        settings = replace(self.policy.taste, half_life_days=chosen["/taste/half_life_days"])
        doubt, stale = chosen["/taste/doubt"], chosen["/taste/stale"]
        known = self.cases.known
        return np.array([certainty(n, *lasting(since_s, settings), doubt, stale) for n, since_s in known], np.float32)

    def similarity(self, chosen: Mapping[str, float]) -> Float32:
        """float32[c, n]: the feature that ranking would see. The last one is kept: the weights beside it vary more."""
        key = (*_ages(chosen), chosen["/taste/behaviour"])
        if key not in self.features:
            self.features.clear()
            nearness = self.nearness(chosen)
            self.features[key] = np.interp(nearness, _rare(nearness), VALUES).astype(np.float32)
        return self.features[key]

    def near(self, chosen: Mapping[str, float]) -> Float32:
        """float32[RARE]: nearness of so rare a pair."""
        return _rare(self.nearness(chosen))

    def nearness(self, chosen: Mapping[str, float]) -> Float32:
        """float32[c, n]: what the search would find."""
        share = chosen["/taste/behaviour"]
        text, watched = self._parts(*_ages(chosen))
        nearness: Float32 = np.float32((1 - share) ** 0.5) * text + np.float32(share**0.5) * watched
        return nearness

    def _parts(self, *ages: float) -> tuple[Float32, Float32]:
        if ages not in self.parts:
            self.parts.clear()
            queries, rows, split = self._queries(*ages), self.rows, self.text_dim
            self.parts[ages] = queries[:, :split] @ rows[:, :split].T, queries[:, split:] @ rows[:, split:].T
        return self.parts[ages]

    def _queries(self, newer_half: float, half_life_days: float) -> Float32:
        """float32[c, d]: what each user's taste asks the index for, each part with its whole weight."""
        ages = newer_half, half_life_days
        if ages not in self.queries:
            settings = replace(
                self.policy.taste, newer_half=newer_half, half_life_days=half_life_days, interests=1, behaviour=0.5
            )
            asked = zip(self.cases.journals, self.cases.now_s.tolist(), strict=True)
            queries = [self._query(remember(journal, settings, now_s=now_s), settings) for journal, now_s in asked]
            self.queries[ages] = np.array(queries, np.float32) * np.float32(2**0.5)  # each part was given a half
        return self.queries[ages]

    def _query(self, memory: Memory, settings: Taste) -> Float32:
        at = np.searchsorted(self.items, memory.items).clip(max=len(self.items) - 1)
        vectors = self.rows[at] * (self.items[at] == memory.items)[:, None]
        interests = taste(memory, vectors, settings, self.text_dim).interests
        return interests[0] if len(interests) else np.zeros(self.rows.shape[1], np.float32)


def _ages(chosen: Mapping[str, float]) -> tuple[float, float]:
    return chosen["/taste/newer_half"], chosen["/taste/half_life_days"]


def _rare(nearness: Float32) -> Float32:
    sample = nearness.reshape(-1)[:: max(nearness.size // SAMPLE, 1)]
    near = np.quantile(sample, 1 - RARE).astype(np.float32)
    rising: Float32 = near + np.arange(len(near), dtype=np.float32) * np.float32(1e-6)  # equal ones would be a jump
    return rising


def _best(search: _Search) -> dict[str, float]:
    chosen = {name: first for name, (first, *_) in TRIED.items()}
    for _ in range(ROUNDS):
        before = dict(chosen)
        for name, (first, *others) in TRIED.items():
            worth = {value: search.worth({**chosen, name: value}) for value in (first, *others)}
            value = max(worth, key=lambda value: worth[value])
            chosen[name] = value if worth[value] > worth[first] * (1 + GAIN) else first
        if chosen == before:
            break
    return chosen


def _worth(score: Float32, cases: HeldOut) -> float:
    """Recall plus NDCG of the first PAGE; equal scores take turns."""
    score = np.where(cases.seen, -np.inf, score)
    own = np.take_along_axis(score, cases.target[:, None], 1)
    place = (score > own).sum(axis=1) + ((score == own).sum(axis=1) - 1) / 2
    gain = np.where(place < PAGE, 1 + 1 / np.log2(place + 2), 0.0)
    return float(gain.mean())


def _most_active(log: Log, items: npt.NDArray[np.uint32]) -> npt.NDArray[np.intp]:
    if len(items) <= MOST_ITEMS:
        return np.arange(len(items))
    events = np.bincount(log.item, minlength=int(items.max()) + 1)[items]
    return np.sort(np.argpartition(-events, MOST_ITEMS)[:MOST_ITEMS])
