"""FEATURES: name -> pure function (candidates, context, half_lives) -> float32[n] in [0, 1].

The score of a candidate is the sum of weight x feature. A weight may be negative (`negative`, `served`); a feature
never is. Adding one: a function, a line in FEATURES, a line in DEFAULT_WEIGHTS.
Every function treats rows alone and by value only, so a permutation of the candidates permutes its answer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np

from ranking.candidates import Candidates
from ranking.columns import Float32, Int64, UInt32, UInt64
from ranking.context import Context
from ranking.hints import AGE_BANDS, UNKNOWN
from ranking.schema import whole

_YEAR_S: Final = 366 * 86_400


@dataclass(frozen=True, slots=True)
class HalfLives:
    """After how many seconds a value that fades is down to a half."""

    freshness_s: int = whole(3 * 86_400, 60, _YEAR_S)
    served_s: int = whole(6 * 3_600, 60, _YEAR_S)


Feature = Callable[[Candidates, Context, HalfLives], Float32]


def similarity(candidates: Candidates, context: Context, half_lives: HalfLives) -> Float32:
    """How near it is to the nearest interest; what points away from all of them is 0, not less."""
    return _unit(candidates.similarity)


def freshness(candidates: Candidates, context: Context, half_lives: HalfLives) -> Float32:
    """1 at publication, a half after each half-life; something published "in the future" is 1."""
    return _fading(candidates.published_s, context.now_s, half_lives.freshness_s)


def popularity(candidates: Candidates, context: Context, half_lives: HalfLives) -> Float32:
    """Engagement of about a week, as retrieval smoothed it."""
    return _unit(candidates.popularity)


def rising(candidates: Candidates, context: Context, half_lives: HalfLives) -> Float32:
    """Engagement of about an hour, as retrieval smoothed it. For news; without weight by default."""
    return _unit(candidates.rising)


def trending(candidates: Candidates, context: Context, half_lives: HalfLives) -> Float32:
    """Engagement of about a day, as retrieval smoothed it."""
    return _unit(candidates.trending)


def evergreen(candidates: Candidates, context: Context, half_lives: HalfLives) -> Float32:
    """Engagement of about half a year, as retrieval smoothed it."""
    return _unit(candidates.evergreen)


def affinity_creator(candidates: Candidates, context: Context, half_lives: HalfLives) -> Float32:
    """How much the user likes the creator: 1 for the favourite, in proportion for the others."""
    return _affinity(candidates.creator[:, None], context.liked_creators, context.liked_creator_weights)


def affinity_category(candidates: Candidates, context: Context, half_lives: HalfLives) -> Float32:
    """How much the user likes the categories together: 1 for the favourite, at most 1 for a sum."""
    return _affinity(candidates.categories, context.liked_categories, context.liked_category_weights)


def hint_match(candidates: Candidates, context: Context, half_lives: HalfLives) -> Float32:
    """How well the item fits what the host app said; the mean over the hints it gave, 0 when it gave none.

    language: same 1, unknown 0.5, another 0. country: meant for some countries (and, being eligible, for this one) 1,
    for everywhere 0.5. age band under 18: 1 at the band's own step of the ladder, less for much younger content;
    adults get no such preference.
    """
    halves = np.zeros(len(candidates), np.uint8)  # half points, in whole numbers because those are cheap
    fits = np.float32(0)
    hints = 0
    if context.language != UNKNOWN:
        hints += 1
        halves += (candidates.language == context.language) * np.uint8(2) + (candidates.language == UNKNOWN)
    if context.country != UNKNOWN:
        hints += 1
        halves += np.uint8(2) - (candidates.countries[:, 31] >> 7)  # the bit "unknown country"
    ceiling = AGE_BANDS.get(context.age_band, 18)
    if ceiling < 18:
        hints += 1
        fits = np.float32(1) - np.abs(candidates.min_age.astype(np.float32) - np.float32(ceiling)) / np.float32(18)
    return (halves * np.float32(0.5) + fits) / np.float32(max(hints, 1))


def negative(candidates: Candidates, context: Context, half_lives: HalfLives) -> Float32:
    """How close it is to what the user rejected. Its weight is meant to be negative."""
    return _unit(candidates.negative)


def served(candidates: Candidates, context: Context, half_lives: HalfLives) -> Float32:
    """1 just after it was served to this user, half of that per half-life. Its weight is meant to be negative."""
    return _fading(candidates.served_s, context.now_s, half_lives.served_s) * (candidates.served_s > 0)


def exploration(candidates: Candidates, context: Context, half_lives: HalfLives) -> Float32:
    """Even noise from (seed, item): another seed is another mix, the same seed the same order for ever."""
    return lots(candidates.item, context.seed)


def lots(items: UInt32, seed: int) -> Float32:
    """Return float32[n] in [0, 1): what each item draws under a seed.

    Integer hashing by multiply and shift, as in the finaliser of MurmurHash3 (Appleby, public domain).
    """
    bits = (items ^ np.uint32(seed * 0x9E37_79B9 & 0xFFFF_FFFF)) * np.uint32(0x85EB_CA6B)
    bits ^= bits >> np.uint32(13)
    bits *= np.uint32(0xC2B2_AE35)
    bits ^= bits >> np.uint32(16)
    return (bits >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


FEATURES: Final[Mapping[str, Feature]] = MappingProxyType(
    {
        "similarity": similarity,
        "freshness": freshness,
        "popularity": popularity,
        "rising": rising,
        "trending": trending,
        "evergreen": evergreen,
        "affinity_creator": affinity_creator,
        "affinity_category": affinity_category,
        "hint_match": hint_match,
        "negative": negative,
        "served": served,
        "exploration": exploration,
    }
)

DEFAULT_WEIGHTS: Final[Mapping[str, float]] = MappingProxyType(
    {
        "similarity": 1.0,
        "freshness": 0.2,
        "popularity": 0.3,
        "rising": 0.0,
        "trending": 0.15,
        "evergreen": 0.1,
        "affinity_creator": 0.2,
        "affinity_category": 0.15,
        "hint_match": 0.15,
        "negative": -0.6,
        "served": -0.5,
        "exploration": 0.05,
    }
)


def _unit(values: Float32) -> Float32:
    """Clip to [0, 1]; NaN stays NaN and sinks later. Two calls, because np.clip costs twice as much."""
    return np.minimum(np.maximum(values, np.float32(0)), np.float32(1))


def _fading(since_s: Int64, now_s: int, half_life_s: int) -> Float32:
    # In float64: int64 could overflow for an "open" time, float32 is minutes wrong for seconds since 1970.
    age_s = np.maximum(np.subtract(float(now_s), since_s), 0.0)
    return np.exp2(age_s * (-1.0 / half_life_s)).astype(np.float32)


def _affinity(keys: UInt64, liked: UInt64, weights: Float32) -> Float32:
    """keys uint64[n, k] (0 = pad) -> float32[n]: summed weight of the liked keys, the heaviest being 1."""
    heaviest = max(weights.tolist(), default=0)
    if heaviest <= 0:
        return np.zeros(len(keys), np.float32)
    # Rows along the inner axis: the comparison then runs over long, contiguous stretches.
    held = (weights / np.float32(heaviest)) @ (liked[:, None] == keys.T.reshape(-1))
    return _unit(held.reshape(keys.shape[1], -1).sum(axis=0))
