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
from ranking.columns import Float32, Int16, Int64, UInt8, UInt32, UInt64
from ranking.compiled import column, compiled
from ranking.context import Context
from ranking.hints import AGE_BANDS, UNKNOWN
from ranking.schema import whole

_YEAR_S: Final = 366 * 86_400
_ALWAYS: Final = -1


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
    return _fading(candidates.published_s, context.now_s, half_lives.freshness_s, _ALWAYS)


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
    return _liked(candidates.creator.reshape(-1, 1), context.liked_creators, context.liked_creator_weights)


def affinity_category(candidates: Candidates, context: Context, half_lives: HalfLives) -> Float32:
    """How much the user likes the categories together: 1 for the favourite, at most 1 for a sum."""
    return _liked(candidates.categories, context.liked_categories, context.liked_category_weights)


def hint_match(candidates: Candidates, context: Context, half_lives: HalfLives) -> Float32:
    """How well the item fits what the host app said; the mean over the hints it gave, 0 when it gave none.

    language: same 1, unknown 0.5, another 0. country: meant for some countries (and, being eligible, for this one) 1,
    for everywhere 0.5. age band under 18: 1 at the band's own step of the ladder, less for much younger content;
    adults get no such preference.
    """
    ceiling = AGE_BANDS.get(context.age_band, 18)
    return _fit(
        candidates.language, candidates.countries, candidates.min_age, context.language, context.country, ceiling
    )


def negative(candidates: Candidates, context: Context, half_lives: HalfLives) -> Float32:
    """How close it is to what the user rejected. Its weight is meant to be negative."""
    return _unit(candidates.negative)


def served(candidates: Candidates, context: Context, half_lives: HalfLives) -> Float32:
    """1 just after it was served to this user, half of that per half-life. Its weight is meant to be negative."""
    return _fading(candidates.served_s, context.now_s, half_lives.served_s, 0)


def exploration(candidates: Candidates, context: Context, half_lives: HalfLives) -> Float32:
    """Even noise from (seed, item): another seed is another mix, the same seed the same order for ever."""
    return lots(candidates.item, context.seed)


@compiled(f"float32[:]({column('uint32')}, uint64)")
def lots(items: UInt32, seed: int) -> Float32:
    """Return float32[n] in [0, 1): what each item draws under a seed.

    Integer hashing by multiply and shift, as in the finaliser of MurmurHash3 (Appleby, public domain).
    """
    drawn = np.empty(len(items), np.float32)
    low = np.uint64(0xFFFF_FFFF)
    salt = seed * np.uint64(0x9E37_79B9) & low
    for row in range(len(items)):
        bits = (np.uint64(items[row]) ^ salt) * np.uint64(0x85EB_CA6B) & low
        bits = (bits ^ bits >> np.uint64(13)) * np.uint64(0xC2B2_AE35) & low
        bits ^= bits >> np.uint64(16)
        drawn[row] = np.float32(bits >> np.uint64(8)) * np.float32(2.0**-24)
    return drawn


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


@compiled(f"float32[:]({column('int64')}, int64, int64, int64)")
def _fading(since_s: Int64, now_s: int, half_life_s: int, never_s: int) -> Float32:
    """float32[n]: 1 for now and "in the future", half of that per half-life; 0 for `never_s`."""
    faded = np.zeros(len(since_s), np.float32)
    for row in range(len(since_s)):
        if since_s[row] != never_s:
            # In float64: int64 could overflow for an "open" time, float32 is minutes wrong for seconds since 1970.
            faded[row] = np.exp2(-max(float(now_s) - since_s[row], 0.0) / half_life_s)
    return faded


@compiled(f"float32[:]({column('uint64', 2)}, {column('uint64')}, {column('float32')})")
def _liked(keys: UInt64, liked: UInt64, weights: Float32) -> Float32:
    """keys uint64[n, k] (0 = pad) -> float32[n]: summed weight of the liked keys, the heaviest being 1; at most 1."""
    sums = np.zeros(len(keys), np.float32)
    heaviest = np.float32(0)
    for weight in weights:
        heaviest = max(heaviest, weight)
    for row in range(len(keys) if heaviest > 0 else 0):
        for key in keys[row]:
            for known in range(len(liked) if key else 0):
                if liked[known] == key:
                    sums[row] += weights[known] / heaviest
        sums[row] = min(sums[row], np.float32(1))
    return sums


@compiled(f"float32[:]({column('int16')}, {column('uint8', 2)}, {column('uint8')}, int64, int64, int64)")
def _fit(language: Int16, countries: UInt8, min_age: UInt8, speaks: int, country: int, ceiling: int) -> Float32:
    """float32[n]: the mean over the hints that were given, see `hint_match`."""
    fits = np.zeros(len(language), np.float32)
    hints = (speaks != UNKNOWN) + (country != UNKNOWN) + (ceiling < 18)
    for row in range(len(language) if hints else 0):
        fit = 0.0
        if speaks != UNKNOWN:
            fit += 1.0 if language[row] == speaks else 0.5 if language[row] == UNKNOWN else 0.0
        if country != UNKNOWN:
            fit += 0.5 if countries[row, 31] >> 7 else 1.0  # the bit "unknown country": meant for everywhere
        if ceiling < 18:
            fit += 1.0 - abs(int(min_age[row]) - ceiling) / 18
        fits[row] = fit / hints
    return fits
