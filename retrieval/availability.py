"""Who may see which rows of a segment, and when: what `ranking.eligibility` says to anybody, as packed masks.

Each of its questions (open at this time? shown in this country? fit for this age?) is asked of all rows when it is
first put, and its mask kept; an answer is the AND of three. So another minute or another country costs one column, and
what was worked out before a policy was published serves after it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ranking.columns import OPEN_UNTIL_S
from ranking.context import Context
from ranking.hints import country_bit
from retrieval.masks import KeptMasks, Mask


class PackedAvailability:
    """Of the n rows of one segment; any thread may ask."""

    def __init__(self, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        """`columns` of `retrieval.rows.COLUMNS`, each with n rows."""
        self._columns = columns
        self._edges = _edges(columns["available_from_s"], columns["available_until_s"])
        self._masks = KeptMasks()

    def epoch(self, now_s: int) -> int:
        """Openings and endings of items that have passed."""
        return bisect_right(self._edges, now_s)

    def next_boundary_s(self, now_s: int) -> int:
        """The first second after `now_s` at which an item opens or ends, OPEN_UNTIL_S if never."""
        epoch = self.epoch(now_s)
        return self._edges[epoch] if epoch < len(self._edges) else OPEN_UNTIL_S

    def mask(self, context: Context, max_age: int) -> Mask:
        """Rows that are open at the request's time, in its country, up to its age ceiling or the lower `max_age`."""
        ceiling, now_s, column = min(max_age, context.max_age), context.now_s, self._columns
        byte, shift = country_bit(context.country)
        in_time = self._masks.of(
            ("epoch", self.epoch(now_s)),
            lambda: (column["available_from_s"] <= now_s) & (now_s < column["available_until_s"]),
        )
        in_country = self._masks.of(
            ("country", context.country), lambda: column["countries"][:, byte] & np.uint8(1 << shift)
        )
        return in_time & in_country & self._masks.of(("age", ceiling), lambda: column["min_age"] <= ceiling)


def _edges(opens_s: npt.NDArray[np.int64], ends_s: npt.NDArray[np.int64]) -> list[int]:
    """Every second at which an item opens or ends, in order."""
    ever = opens_s < ends_s  # what has left the catalogue never opens, and its end is no event
    edges = np.concatenate([opens_s[ever & (opens_s > 0)], ends_s[ever & (ends_s < OPEN_UNTIL_S)]])
    known: list[int] = np.unique(edges).tolist()
    return known
