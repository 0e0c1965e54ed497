"""What was answered under load, and when: one row per request, kept in plain arrays so that noting costs little."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

NO_ANSWER: Final = 0
"""In place of a status: the connection ended, or nothing came in time."""


@dataclass
class Observed:
    """Every answer of a run, in the order they came. Times in seconds since the run began."""

    kinds: list[str] = field(default_factory=list)
    _kind: array[int] = field(default_factory=lambda: array("B"))
    _status: array[int] = field(default_factory=lambda: array("H"))
    _due_s: array[float] = field(default_factory=lambda: array("d"))
    _end_s: array[float] = field(default_factory=lambda: array("d"))

    def add(self, kind: str, status: int, due_s: float, end_s: float) -> None:
        if kind not in self.kinds:
            self.kinds.append(kind)
        self._kind.append(self.kinds.index(kind))
        self._status.append(status)
        self._due_s.append(due_s)
        self._end_s.append(end_s)

    def __len__(self) -> int:
        return len(self._kind)

    @property
    def kind(self) -> npt.NDArray[np.str_]:
        """str[n]."""
        return np.array(self.kinds or [""])[np.frombuffer(self._kind, np.uint8)]

    @property
    def status(self) -> npt.NDArray[np.int64]:
        """int64[n], NO_ANSWER where there was none."""
        return np.array(self._status, np.int64)

    @property
    def due_s(self) -> npt.NDArray[np.float64]:
        """float64[n]: when the request should have been sent."""
        return np.array(self._due_s)

    @property
    def end_s(self) -> npt.NDArray[np.float64]:
        """float64[n]: when its answer was complete."""
        return np.array(self._end_s)

    @property
    def latency_ms(self) -> npt.NDArray[np.float64]:
        """float64[n], from when it was due."""
        return 1000 * (self.end_s - self.due_s)

    def between(self, from_s: float, until_s: float) -> Observed:
        """What was due then, its times counted from then."""
        part = Observed(self.kinds)
        for row in np.flatnonzero((self.due_s >= from_s) & (self.due_s < until_s)).tolist():
            part._kind.append(self._kind[row])
            part._status.append(self._status[row])
            part._due_s.append(self._due_s[row] - from_s)
            part._end_s.append(self._end_s[row] - from_s)
        return part

    def statuses(self) -> Counter[int]:
        """How many answers had which status."""
        return Counter(self._status)


def percentile_ms(latency_ms: npt.NDArray[np.float64], percent: float) -> float:
    """The smallest observed latency that `percent` of all do not exceed (nearest rank); NaN of none."""
    if not len(latency_ms):
        return float("nan")
    return float(np.percentile(latency_ms, percent, method="inverted_cdf"))
