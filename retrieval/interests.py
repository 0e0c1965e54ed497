"""Directions of a taste: a few unit vectors in the middle of what was liked, and one of what was rejected."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from ranking.compiled import column, compiled, part

Float32 = npt.NDArray[np.float32]

FAINT: Final = 1e-6
"""A pull below this share of the strongest is none: too old to say anything, too small to be scaled to length 1."""


@part(any_order=True)
def _dot(one: Float32, other: Float32) -> float:
    total = np.float32(0)
    for at in range(len(one)):
        total += one[at] * other[at]
    return float(total)


@part(any_order=True)
def _add(total: Float32, share: float, vector: Float32) -> None:
    for at in range(len(total)):
        total[at] += np.float32(share) * vector[at]


@part()
def _make_unit(vector: Float32) -> None:
    """Scale to length 1; zero stays zero."""
    vector /= np.float32(max(_dot(vector, vector) ** 0.5, 1e-9))


@part()
def _seeds(vectors: Float32, liked: Float32, most: int, same: float) -> npt.NDArray[np.intp]:
    """The strongest item, then each time the item that is strong and unlike all seeds so far."""
    seeds = np.zeros(most, np.intp)
    if most == 1:
        return seeds
    closest = np.full(len(vectors), np.float32(-1))
    candidate = int(np.argmax(liked))
    for count in range(most):
        seeds[count] = candidate
        candidate, best = 0, 0.0
        for row in range(len(vectors)):
            closest[row] = max(closest[row], _dot(vectors[row], vectors[seeds[count]]))
            unlike = liked[row] * (1 - closest[row])
            if closest[row] < same and unlike > best:
                candidate, best = row, unlike
        if best == 0:
            return seeds[: count + 1]
    return seeds


@compiled(f"Tuple((float32[:, ::1], float32[::1]))({column('float32')}, float32[:, ::1], int64, float32, float32)")
def directions(pull: Float32, vectors: Float32, most: int, same: float, push: float) -> tuple[Float32, Float32]:
    """(interests float32[m, d], unit rows, strongest first, m <= most; rejected float32[d], unit, or zeros for none).

    pull float32[n] with the strongest at -1 or 1; vectors float32[n, d], unit rows. Seeds far apart, each drawn to the
    middle of the liked items near it, which is one round of weighted spherical k-means: one interest, if items are as
    near as `same`. `push` is how much of an interest's overlap with what is rejected is taken out of it.
    """
    liked = np.where(pull > FAINT, pull, np.float32(0))
    rejected = np.zeros(vectors.shape[1], np.float32)
    if (pull < -FAINT).any():
        for row in range(len(vectors)):
            _add(rejected, max(-pull[row], 0.0), vectors[row])
        _make_unit(rejected)
    if not liked.any():
        return np.zeros((0, vectors.shape[1]), np.float32), rejected
    seeds = _seeds(vectors, liked, most, same)
    sums, strength = np.zeros((len(seeds), vectors.shape[1]), np.float32), np.zeros(len(seeds), np.float32)
    for kept in np.flatnonzero(liked):
        nearest, near = 0, -2.0
        for seed in range(len(seeds)):
            cosine = _dot(vectors[kept], vectors[seeds[seed]])
            if cosine > near:
                nearest, near = seed, cosine
        strength[nearest] += liked[kept]
        _add(sums[nearest], liked[kept], vectors[kept])
    interests = np.empty((np.count_nonzero(strength), vectors.shape[1]), np.float32)
    for interest in interests:
        strongest = np.argmax(strength)
        interest[:] = sums[strongest]
        strength[strongest] = 0
        _make_unit(interest)
        _add(interest, -push * max(_dot(interest, rejected), 0.0), rejected)
        _make_unit(interest)
    return interests, rejected
