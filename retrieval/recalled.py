"""What the entries of a journal say about items: loops over its columns, in whatever state it came from Redis."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ranking.compiled import column, compiled
from retrieval.journal import Signal

Float32 = npt.NDArray[np.float32]
Items = npt.NDArray[np.uint32]
Column = npt.NDArray[Any]

_U4: Final = column("uint32")
_U1: Final = column("uint8")
_SERVED: Final = int(Signal.SERVED)
_LIKE: Final = int(Signal.LIKE)
_NOT_INTERESTED: Final = int(Signal.NOT_INTERESTED)
_REPORT: Final = int(Signal.REPORT)
_UNLIKE: Final = int(Signal.UNLIKE)
_PLACES: Final = 4096


@compiled(f"uint32[:]({_U4}, {_U4}, {_U1}, float64)")
def seen(item: Column, at_s: Column, signal: Column, since_s: float) -> Items:
    """Items with an entry that is not our own, from `since_s` on. Possibly repeated."""
    found = np.empty(len(item), np.uint32)
    count = 0
    for at in range(len(item)):
        if signal[at] != _SERVED and at_s[at] >= since_s:
            found[count] = item[at]
            count += 1
    return found[:count]


@compiled(f"uint32[:]({_U4}, {_U1})")
def rejected(item: Column, signal: Column) -> Items:
    """Items the user said not to want. Possibly repeated."""
    found = np.empty(len(item), np.uint32)
    count = 0
    for at in range(len(item)):
        if signal[at] == _NOT_INTERESTED or signal[at] == _REPORT:
            found[count] = item[at]
            count += 1
    return found[:count]


@compiled(f"int64[:](uint32[:], {_U4}, {_U4}, {_U1})")
def last_served_s(items: Items, item: Column, at_s: Column, signal: Column) -> npt.NDArray[np.int64]:
    """int64[n]: when each of `items` was put into a feed last, by the order of the entries; 0 = never."""
    # A chained hash table of what is asked about, because ten thousand were served and two hundred are asked about.
    first, following = np.full(_PLACES, -1, np.int32), np.empty(len(items), np.int32)
    for at in range(len(items)):
        following[at] = first[items[at] % _PLACES]
        first[items[at] % _PLACES] = at
    last_s = np.zeros(len(items), np.int64)
    for entry in range(len(item)):
        if signal[entry] == _SERVED:
            at = first[item[entry] % _PLACES]
            while at >= 0:
                if items[at] == item[entry]:
                    last_s[at] = at_s[entry]
                at = following[at]
    return last_s


@compiled(
    f"Tuple((uint32[:], float32[:], float64))"
    f"({_U4}, {_U4}, {_U1}, {_U1}, float32[:], int64, float64, float64, float64, float64)"
)
def pulls(
    item: Column,
    at_s: Column,
    signal: Column,
    strength: Column,
    weights: Float32,
    most: int,
    now_s: float,
    half_life_s: float,
    session: float,
    session_half_life_s: float,
) -> tuple[Items, Float32, float]:
    """(the last `most` items with a signal that weighs, oldest first; their pull; seconds since the newest signal).

    Of each item all entries count, but only among the last 4 x most that weigh. Entries from the future count as new. A
    pull is explained in `retrieval.taste`. Seconds are infinite when nothing weighs.
    """
    entries, count = np.empty(4 * most, np.intp), 0
    for entry in range(len(item) - 1, -1, -1):
        if weights[signal[entry]] != 0 and count < len(entries):
            entries[count] = entry
            count += 1
    entries = entries[:count][::-1]
    order = np.argsort(item[entries], kind="mergesort")  # equal items as they came
    lasts, sums, opinions = np.empty(count, np.intp), np.zeros(count), np.zeros(count)
    since_s, n = np.inf, 0
    for at in range(count):
        entry = entries[order[at]]
        n += at == 0 or item[entry] != item[entries[order[at - 1]]]
        age_s = max(now_s - at_s[entry], 0.0)
        since_s = min(since_s, age_s)
        decay = np.exp2(-age_s / half_life_s) + session * np.exp2(-age_s / session_half_life_s)
        pull = weights[signal[entry]] * (strength[entry] / 255.0) * decay
        if signal[entry] == _LIKE or signal[entry] == _UNLIKE:
            opinions[n - 1] += pull
        else:
            sums[n - 1] += pull
        lasts[n - 1] = order[at]
    by_time = np.argsort(lasts[:n])[-most:]
    found, pull_of = np.empty(len(by_time), np.uint32), np.empty(len(by_time), np.float32)
    for at, group in enumerate(by_time):
        found[at] = item[entries[lasts[group]]]
        pull_of[at] = sums[group] + max(opinions[group], 0.0)  # unliking takes back a like and no more
    return found, pull_of, since_s
