"""Find the weights that tell best what a tenant's users do next, on that tenant's own past. Pure.

Held out of what users took to: of a third of them the last item, of a third what came at a place near their beginning,
of a third what came after their last pause, for a feed must be good for newcomers and returners too; each at its own
time. What a user did before is their journal, what everybody did in the hours before is what is counted. Then one
number after the other is moved to the best of a few values. A number leaves the value it begins with only for GAIN more
than that brings, so that chance alone does not move it.

What is compared is the order of the catalogue by the features that are learned here: nearness (text and behaviour), and
what everybody does (trending, popularity, evergreen). Noise in the score is taken out: with weights that fit it costs
more than it teaches, and the explore source has slots of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from indexer.learn import Log
from ranking.policy import Policy
from retrieval.behaviour import RARE, VALUES, Behaviour, Float32
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
from retrieval.taste import certainty, lasting, remember, taste
from retrieval.view import WINDOWS

CASES: Final = 2000
MOST_ITEMS: Final = 4000
"""Items that are compared: those with most events."""
SAMPLE: Final = 500_000
"""Pairs of user and item whose nearness says how rare a nearness is."""
PAGE: Final = 20
GAIN: Final = 0.005
KINDS: Final = ("last", "newcomer", "returner")
"""What a user is asked about, by lot: their last item; what came near their beginning; or after their last pause."""
EARLY: Final = 8
"""A newcomer has less than so many items."""
PAUSE_S: Final = 6 * HOUR_S
ANSWERS: Final = 5
"""So many items are the answer for newcomers and returners."""
ONE_INTEREST: Final = 0.75
"""From this share of behaviour on, the several interests found in texts hardly matter: one query is enough."""
TRIED: Final[Mapping[str, tuple[float, ...]]] = MappingProxyType(
    {
        "/taste/behaviour": (0.9, 0.0, 0.5, 0.75, 1.0),
        "/taste/newer_half": (5.0, 15.0, 0.0),
        "/taste/doubt": (1.0, 0.0, 3.0, 10.0),
        "/taste/stale": (0.5, 1.0, 0.25, 0.1),
        "/weights/trending": (0.6, 0.0, 0.15, 0.3, 1.0, 1.5, 2.5),
        "/weights/popularity": (0.15, 0.0, 0.3, 0.6, 1.0, 2.0),
        "/weights/evergreen": (0.1, 0.0, 0.05, 0.25, 0.5, 1.0, 2.0),
    }
)
"""The values that are tried, by JSON pointer; the first is where the search begins and what it returns to without
GAIN. The weight of similarity stays: the others are beside it."""
ROUNDS: Final = 2


@dataclass(frozen=True)
class HeldOut:
    """c cases. `target` int64[c]: column of what the user took to. `seen` bool[c, n]: columns that are no answer.
    `counted` float32[3, c, n]: what everybody did until then. `journals`, `now_s`: what the user did, and when.
    `known`: how many items that is, and what is left of session and long term (`retrieval.taste.lasting`)."""

    target: npt.NDArray[np.int64]
    seen: npt.NDArray[np.bool_]
    counted: Float32
    journals: list[npt.NDArray[np.void]]
    now_s: npt.NDArray[np.int64]
    known: list[tuple[int, float, float]]


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


def calibrated(
    log: Log, behaviour: Behaviour, items: npt.NDArray[np.uint32], text: Float32, policy: Policy
) -> tuple[dict[str, dict[str, float]], Float32]:
    """(what was learned as a policy layer, `Behaviour.near`).

    behaviour: of `without(log, held_out(log))`. items uint32[n] of the catalogue and their unit text float32[n, t].
    """
    kept = _most_active(log, items)
    items, text = items[kept], text[kept]
    cases = _cases(log, items, policy)
    rows = behaviour.joined(items, text)
    search = _Search(cases, rows, items, behaviour.text_dim, policy)
    chosen = _best(search)
    near = search.near(chosen)
    if chosen["/taste/behaviour"] >= ONE_INTEREST:
        chosen["/taste/interests"] = 1
    document: dict[str, dict[str, float]] = {"weights": {"exploration": 0.0}, "taste": {}}
    for pointer, value in chosen.items():
        _, section, key = pointer.split("/")
        document[section][key] = value
    return document, near


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


@dataclass(frozen=True)
class _Search:
    """Scores of choices; what was worked out for a choice of taste is kept."""

    cases: HeldOut
    rows: Float32
    items: npt.NDArray[np.uint32]
    text_dim: int
    policy: Policy
    parts: dict[float, tuple[Float32, Float32]] = field(default_factory=dict)
    features: dict[tuple[float, float], Float32] = field(default_factory=dict)

    def worth(self, chosen: Mapping[str, float]) -> float:
        """Recall and NDCG of a page."""
        everybody = np.tensordot(
            np.array([chosen[f"/weights/{name}"] for name in WINDOWS], np.float32), self.cases.counted, 1
        )
        cases = self.cases
        doubt, stale = chosen["/taste/doubt"], chosen["/taste/stale"]
        sure = np.array([certainty(*case, doubt, stale) for case in cases.known], np.float32)
        nearness = self.similarity(chosen) * (sure * np.float32(self.policy.weights["similarity"]))[:, None]
        return _worth(nearness + everybody, cases)

    def similarity(self, chosen: Mapping[str, float]) -> Float32:
        """float32[c, n]: the feature that ranking would see. The last one is kept: the weights beside it vary more."""
        key = (chosen["/taste/newer_half"], chosen["/taste/behaviour"])
        if key not in self.features:
            self.features.clear()
            nearness = self.nearness(chosen)
            self.features[key] = np.interp(nearness, _rare(nearness), VALUES).astype(np.float32)
        return self.features[key]

    def near(self, chosen: Mapping[str, float]) -> Float32:
        """float32[RARE]: nearness of so rare a pair."""
        return _rare(self.nearness(chosen))

    def nearness(self, chosen: Mapping[str, float]) -> Float32:
        """float32[c, n]: what the search would find."""
        newer, share = chosen["/taste/newer_half"], chosen["/taste/behaviour"]
        text, watched = self._parts(newer)
        nearness: Float32 = np.float32((1 - share) ** 0.5) * text + np.float32(share**0.5) * watched
        return nearness

    def _parts(self, newer_half: float) -> tuple[Float32, Float32]:
        if newer_half not in self.parts:
            queries: Float32 = self._queries(newer_half) * np.float32(2**0.5)  # each part was given a half
            rows, split = self.rows, self.text_dim
            self.parts[newer_half] = queries[:, :split] @ rows[:, :split].T, queries[:, split:] @ rows[:, split:].T
        return self.parts[newer_half]

    def _queries(self, newer_half: float) -> Float32:
        settings = replace(self.policy.taste, newer_half=newer_half, interests=1, behaviour=0.5)
        queries = np.zeros((len(self.cases.journals), self.rows.shape[1]), np.float32)
        for case, (journal, now_s) in enumerate(zip(self.cases.journals, self.cases.now_s.tolist(), strict=True)):
            memory = remember(journal, settings, now_s=now_s)
            at = np.searchsorted(self.items, memory.items).clip(max=len(self.items) - 1)
            vectors = self.rows[at] * (self.items[at] == memory.items)[:, None]
            found = taste(memory, vectors, settings, self.text_dim)
            if len(found.interests):
                queries[case] = found.interests[0]
        return queries


def _rare(nearness: Float32) -> Float32:
    sample = nearness.reshape(-1)[:: max(nearness.size // SAMPLE, 1)]
    near = np.quantile(sample, 1 - RARE).astype(np.float32)
    rising: Float32 = near + np.arange(len(near), dtype=np.float32) * np.float32(1e-6)  # equal ones would be a jump
    return rising


def _best(search: _Search) -> dict[str, float]:
    chosen = {pointer: first for pointer, (first, *_) in TRIED.items()}
    for _ in range(ROUNDS):
        before = dict(chosen)
        for pointer, (first, *others) in TRIED.items():
            worth = {value: search.worth({**chosen, pointer: value}) for value in (first, *others)}
            value = max(worth, key=lambda value: worth[value])
            chosen[pointer] = value if worth[value] > worth[first] * (1 + GAIN) else first
        if chosen == before:
            break
    return chosen


def _worth(score: Float32, cases: HeldOut) -> float:
    """Recall plus NDCG of the first PAGE; equal scores take turns."""
    score = np.where(cases.seen, -np.inf, score)
    own = np.take_along_axis(score, cases.target[:, None], 1)
    place = (score > own).sum(axis=1) + ((score == own).sum(axis=1) - 1) / 2
    gain = np.where(place < PAGE, 1 + 1 / np.log2(place + 2), 0.0)
    return float(gain.mean())


def _cases(log: Log, items: npt.NDArray[np.uint32], policy: Policy) -> HeldOut:
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
        (len(np.unique(journal["item"])), *lasting(float(now) - journal["at_s"].max(initial=0), policy.taste))
        for journal, now in zip(mine, now_s.tolist(), strict=True)
    ]
    return HeldOut(target, seen, _counted_until(past, now_s, items), mine, now_s, known)


def _counted_until(log: Log, now_s: npt.NDArray[np.int64], items: npt.NDArray[np.uint32]) -> Float32:
    """float32[3, c, n]: what was counted in the hours before each of the times."""
    found = np.zeros((len(WINDOWS), len(now_s), len(items)), np.float32)
    order = np.argsort(now_s, kind="stable")
    hours = until(counted(log), (now_s[order] // HOUR_S).tolist())
    for case, (hour, before) in zip(order.tolist(), hours, strict=True):
        found[:, case] = popularity(windows_of({}, now_hour=hour, before=before)).of(items)
    return found


def _most_active(log: Log, items: npt.NDArray[np.uint32]) -> npt.NDArray[np.intp]:
    if len(items) <= MOST_ITEMS:
        return np.arange(len(items))
    events = np.bincount(log.item, minlength=int(items.max()) + 1)[items]
    return np.sort(np.argpartition(-events, MOST_ITEMS)[:MOST_ITEMS])
