"""Packed masks: sets of rows as bits, which is how faiss wants to be told where it may look."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ranking.compiled import column, compiled

Mask = npt.NDArray[np.uint8]
"""Packed rows, little bit order: row r is bit r & 7 of byte r >> 3; 1 = may be returned."""

MAX_KEPT: Final = 256
"""Masks of one `KeptMasks`; then they are made anew."""


@compiled(f"boolean[:]({column('uint8')}, {column('int64')})")
def is_set(mask: Mask, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """bool[n]: the bits of `rows` (in the mask; -1 is not)."""
    found = np.empty(len(rows), np.bool_)
    for at in range(len(rows)):
        found[at] = rows[at] >= 0 and mask[rows[at] >> 3] >> (rows[at] & 7) & 1
    return found


@compiled(f"void(uint8[::1], {column('int64')})")
def clear(mask: Mask, rows: npt.NDArray[np.int64]) -> None:
    """Clear the bits of `rows` (any order, repeats allowed; -1 is ignored), in place."""
    for row in rows:
        if row >= 0:
            mask[row >> 3] &= ~np.uint8(1 << (row & 7))


class KeptMasks:
    """Masks by what they answer, each made once."""

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], Mask] = {}

    def of(self, question: tuple[object, ...], answer: Callable[[], npt.NDArray[Any]]) -> Mask:
        """The kept mask, or that of `answer()`: bool[n] or uint8[n], anything but 0 being a yes. Not to be changed."""
        return self.packed(question, lambda: np.packbits(answer(), bitorder="little"))

    def packed(self, question: tuple[object, ...], answer: Callable[[], Mask]) -> Mask:
        """The same of an answer that is a mask already."""
        mask = self._kept.get(question)
        if mask is None:
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            mask = self._kept[question] = answer()
        return mask
