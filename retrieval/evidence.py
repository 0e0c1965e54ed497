"""How much a window of few events says by itself: what it should borrow from the next longer one. Pure.

Where a week holds the evening of one viewer, it tells what that viewer saw, not what is popular. Empirical Bayes: the
counts of the shorter window are taken for draws from shares that vary around those of the longer one (a Dirichlet
prior), and by the best guess of the shares the longer window is added as so many events as the prior is worth. How many
that is follows from the counts themselves, by moments: windows that differ by no more than chance would have it share
everything, and a week that is really unlike the half year keeps to itself. The moments of the Dirichlet-multinomial
distribution are Mosimann's (Biometrika 1962); to smooth counts by such a prior is usual in language models (MacKay and
Peto, 1995).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]


def borrowed(shorter: Float64, longer: Float64) -> float:
    """The share of the longer window, in [0, 1], to be added to the shorter: faded sums per item, float64[n] from 0 on.

    What fades exponentially, evenly spread, varies by chance as half as many whole events would. At most the whole of
    the longer window is added: it is no more evidence than it holds.
    """
    rest = np.maximum(longer - shorter, 0.0)  # the longer one holds the shorter
    expected = rest / max(float(rest.sum()), 1e-30)
    events = float(shorter.sum())
    room = 1 - float((expected**2).sum())
    unlike, by_chance = float(((shorter - events * expected) ** 2).sum()), room * events / 2
    if unlike <= by_chance:
        return 1.0
    worth = room * (events**2 - events / 2) / (unlike - by_chance) - 1
    return float(np.clip(worth / longer.sum(), 0.0, 1.0))
