"""What users did next, held out of a tenant's past, and what was known when they did it. Pure.

Of a third of the users the last item is held out, of a third what came at a place near their beginning, of a third what
came after their last pause, for a feed must be good for newcomers and returners too; each at its own time. What a user
did before is their journal, what everybody did in the hours before is what is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from indexer.learn import Log
from retrieval.behaviour import Float32
from retrieval.counters import (
    COUNTED_AS,
    COUNTS,
    HOUR_S,
    MEASURES,
    NOTHING_BEFORE,
    Before,
    Counts,
    added,
    folded,
    popularity,
    windows_of,
)
from retrieval.journal import ENTRY, Signal
from retrieval.view import WINDOWS

CASES: Final = 2000
KINDS: Final = ("last", "newcomer", "returner")
"""What a user is asked about, by lot: their last item; what came near their beginning; or after their last pause."""
EARLY: Final = 8
"""A newcomer has less than so many items."""
PAUSE_S: Final = 6 * HOUR_S
ANSWERS: Final = 10
"""So many items are the answer for newcomers and returners: half a page. With few, what others watch in the same hour
would decide; with many, those who watch much."""


@dataclass(frozen=True)
class HeldOut:
    """c cases. `target` int64[c]: column of what the user took to. `seen` bool[c, n]: columns that are no answer.
    `counted` float32[w, c, n]: what everybody did until then, in each window asked for. `journals`, `now_s`:
    what the user did, and when. `known`: how many items that is, and seconds since the last of it."""

    target: npt.NDArray[np.int64]
    seen: npt.NDArray[np.bool_]
    counted: Float32
    journals: list[npt.NDArray[np.void]]
    now_s: npt.NDArray[np.int64]
    known: list[tuple[int, float]]


def held_out(log: Log) -> npt.NDArray[np.intp]:
    """Rows of `log.taken_to()` that are held out, ascending: of the users who were asked about last, CASES rows."""
    taken = log.taken_to()
    order = np.argsort(taken.user, kind="stable")
    users, first, counts = np.unique(taken.user[order], return_index=True, return_counts=True)
    rng = np.random.default_rng(0)
    kind = rng.integers(0, len(KINDS), len(users))
    back = _came_back(taken.at_s[order], first, counts)
    early = rng.integers(0, EARLY, len(users)) % np.maximum(counts, 1)
    newcomer, returner = kind == KINDS.index("newcomer"), (kind == KINDS.index("returner")) & (back > 0)
    place = np.where(newcomer, early, np.where(returner, back, counts - 1))
    length = np.where(newcomer | returner, np.minimum(ANSWERS, counts - place), 1)
    asked = newcomer | (counts > 1)
    begins = np.repeat((first + place)[asked], length[asked])
    within = np.arange(len(begins)) - np.repeat(np.cumsum(length[asked]) - length[asked], length[asked])
    return np.sort(np.sort(order[begins + within])[-CASES:])


def _came_back(
    at_s: npt.NDArray[np.int64], first: npt.NDArray[np.intp], counts: npt.NDArray[np.intp]
) -> npt.NDArray[np.int64]:
    """Of each user (events first to first + counts, by time), the place of the last event after a pause; 0: none."""
    places = np.arange(len(at_s)) - np.repeat(first, counts)
    paused = (np.diff(at_s, prepend=0) >= PAUSE_S) & (places > 0)
    return np.maximum.reduceat(np.where(paused, places, 0), first) if len(first) else places


def without(log: Log, rows: npt.NDArray[np.intp]) -> Log:
    """The log as it was before the first of these rows of `log.taken_to()` of each user: without what they did from
    then on."""
    taken = log.taken_to()
    since = _since(taken, rows)
    answers = set(zip(taken.user[rows].tolist(), taken.item[rows].tolist(), strict=True))
    users = zip(log.user.tolist(), log.item.tolist(), log.at_s.tolist(), strict=True)
    kept = [at_s <= since.get(user, at_s) and (user, item) not in answers for user, item, at_s in users]
    return log.take(np.array(kept, bool))


def _since(taken: Log, rows: npt.NDArray[np.intp]) -> dict[int, int]:
    """When each user is asked about: the time of their first row (rows ascend in time)."""
    return dict(zip(taken.user[rows[::-1]].tolist(), taken.at_s[rows[::-1]].tolist(), strict=True))


def cases(log: Log, items: npt.NDArray[np.uint32], windows: Sequence[str]) -> HeldOut:
    """What is held out of a log among these items (ascending), and what was known and counted then."""
    taken, rows = log.taken_to(), held_out(log)
    at = np.searchsorted(items, taken.item[rows]).clip(max=len(items) - 1)
    rows, target = rows[items[at] == taken.item[rows]], at[items[at] == taken.item[rows]]
    past = without(log, rows)
    by_user = journals(past)
    mine = [by_user.get(user, np.zeros(0, ENTRY)) for user in taken.user[rows].tolist()]
    since = _since(taken, rows)
    now_s = np.array([since[user] for user in taken.user[rows].tolist()], np.int64)
    seen = np.zeros((len(rows), len(items)), bool)
    for case, journal in enumerate(mine):
        seen[case, np.searchsorted(items, journal["item"][np.isin(journal["item"], items)])] = True
    known = [
        (len(np.unique(journal["item"])), float(now) - journal["at_s"].max(initial=0))
        for journal, now in zip(mine, now_s.tolist(), strict=True)
    ]
    return HeldOut(target, seen, _counted_until(past, now_s, items, windows), mine, now_s, known)


def _counted_until(
    log: Log, now_s: npt.NDArray[np.int64], items: npt.NDArray[np.uint32], windows: Sequence[str]
) -> Float32:
    """float32[w, c, n]: what was counted in the hours before each of the times."""
    found = np.zeros((len(windows), len(now_s), len(items)), np.float32)
    columns = [WINDOWS.index(name) for name in windows]
    order = np.argsort(now_s, kind="stable")
    hours = until(counted(log), (now_s[order] // HOUR_S).tolist())
    for case, (hour, before) in zip(order.tolist(), hours, strict=True):
        found[:, case] = popularity(windows_of({}, now_hour=hour, before=before)).of(items)[columns]
    return found


def counted(log: Log) -> dict[int, Counts]:
    """Counts per hour, every event as it stands."""
    table = np.zeros((max(Signal) + 1, len(MEASURES)), np.float32)
    for signal, (measure, amount) in COUNTED_AS.items():
        table[signal, measure] = amount
    hours = log.at_s // HOUR_S
    sums = table[log.signal] * log.strength[:, None]
    edges = np.flatnonzero(np.diff(hours, prepend=-1))
    parts = zip(edges.tolist(), [*edges[1:].tolist(), len(log)], strict=True)
    return {int(hours[a]): added(np.zeros(0, COUNTS), log.item[a:b], sums[a:b]) for a, b in parts}


def until(hours: Mapping[int, Counts], at: Iterable[int]) -> Iterator[tuple[int, Before]]:
    """(hour, what was counted in the hours before it) of each of the ascending hours `at`."""
    ordered, before, done = np.array(sorted(hours), np.int64), NOTHING_BEFORE, 0
    for hour in at:
        here = int(np.searchsorted(ordered, hour))
        if here > done:
            before = folded(before, {each: hours[each] for each in ordered[done:here].tolist()}, up_to=hour - 1)
            done = here
        yield hour, before


def journals(log: Log) -> dict[int, npt.NDArray[np.void]]:
    """Each user's journal."""
    order = np.argsort(log.user, kind="stable")
    entries = np.zeros(len(log), ENTRY)
    entries["item"], entries["at_s"], entries["signal"] = log.item[order], log.at_s[order], log.signal[order]
    entries["strength"] = np.rint(255 * log.strength[order])
    users, first = np.unique(log.user[order], return_index=True)
    return dict(zip(users.tolist(), np.split(entries, first[1:]), strict=True))
