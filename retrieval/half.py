"""Rows of float16 as float32, and their cosines, in one pass over the rows that are wanted.

numpy's `astype` converts one number at a time, and makes a copy to gather rows and another to widen them. Here the
exponent and fraction of a half are moved to where a single keeps them, and the missing exponent offset (127 - 15 = 112)
is made up by one multiplication, which is exact, also for subnormal halves. Measured: `python -m benchmarks.half`.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from ranking.compiled import column, compiled, part

Float32 = npt.NDArray[np.float32]
Halves = npt.NDArray[np.float16]
Places = npt.NDArray[np.int64]

_KEPT: Final = np.int32(-0x70002000)  # 0x8FFFE000: sign, five bits of exponent, ten of fraction
_OFFSET: Final = np.float32(2.0**112)
_ROWS: Final = column("int16", 2, "C")


def widened(halves: Halves, rows: Places) -> Float32:
    """float32[m, d]: the given rows of finite float16[n, d], bit for bit what `astype` gives.

    Infinities and NaN come out as large finite numbers: stored vectors have none.
    """
    return _widened(halves.view(np.int16), rows)


def cosines(queries: Float32, halves: Halves, rows: Places) -> Float32:
    """float32[m, q]: each of the given rows of float16[n, d] times each of float32[q, d]; cosines if all are unit."""
    return _products(queries, halves.view(np.int16), rows)


@part()
def _single(half: np.int16) -> np.float32:
    bits = np.int32(np.int32(half) << np.int32(13) & _KEPT)
    return bits.view(np.float32) * _OFFSET


@compiled(f"float32[:, ::1]({_ROWS}, {column('int64')})")
def _widened(halves: npt.NDArray[np.int16], rows: Places) -> Float32:
    wide = np.empty((len(rows), halves.shape[1]), np.float32)
    for at in range(len(rows)):
        row = halves[rows[at]]
        for i in range(len(row)):
            wide[at, i] = _single(row[i])
    return wide


@compiled(f"float32[:, ::1]({column('float32', 2, 'C')}, {_ROWS}, {column('int64')})", any_order=True)
def _products(queries: Float32, halves: npt.NDArray[np.int16], rows: Places) -> Float32:
    products, wide = np.empty((len(rows), len(queries)), np.float32), np.empty(halves.shape[1], np.float32)
    for at in range(len(rows)):
        row = halves[rows[at]]
        for i in range(len(wide)):
            wide[i] = _single(row[i])
        for query in range(len(queries)):
            total = np.float32(0)
            for i in range(len(wide)):
                total += queries[query, i] * wide[i]
            products[at, query] = total
    return products
