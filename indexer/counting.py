"""What of the archived events counts for popularity: engagement with items that were really served to that user.

Each (user, item, signal) counts once an hour, and a user no more than ALLOWANCE of each measure in an hour, so that
ten thousand likes of one account are a like. Whether something was served is asked of the user's journal; for somebody
anonymous, of the serves that passed by lately. Pure: journals come in as arguments.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from retrieval.counters import COUNTED_AS, HOUR_S, MEASURES
from retrieval.journal import Signal
from retrieval.keys import ANONYMOUS
from retrieval.tail import Event, Row

ALLOWANCE: Final = (500, 500, 20, 100)
"""Events of each of MEASURES that count per user and hour: a page of fifteen-second videos a minute, and more likes
than anybody means."""
ANONYMOUS_SERVES: Final = 100_000
"""Pages of anonymous users that are remembered, to recognise events about them."""

User = tuple[str, str]
Sums = dict[tuple[str, int], tuple[npt.NDArray[np.uint32], npt.NDArray[np.float32]]]
"""(tenant, hour) -> items uint32[n] and sums float32[n, MEASURES]."""


@dataclass
class _Hour:
    """What a user has used up in one hour."""

    counted: set[tuple[int, int]] = field(default_factory=set)
    used: list[int] = field(default_factory=lambda: [0] * len(MEASURES))


@dataclass
class Counting:
    """Remembers the allowances of the running hour. `events`: how many were looked at; `unserved`: how many of them
    were about an item nobody had served to that user; `over`: how many were more than counts."""

    events: int = 0
    unserved: int = 0
    over: int = 0
    _hours: dict[int, dict[str, _Hour]] = field(default_factory=lambda: defaultdict(dict))
    _anonymous: OrderedDict[str, frozenset[int]] = field(default_factory=OrderedDict)

    def note(self, serves: Iterable[Row]) -> None:
        """Remember which items anonymous pages held."""
        for _, user_key, request_id, *_, items in serves:
            if user_key == ANONYMOUS:
                self._anonymous[request_id] = frozenset(item for item, *_ in items)
        while len(self._anonymous) > ANONYMOUS_SERVES:
            self._anonymous.popitem(last=False)

    def counted(self, events: Sequence[Event], served: Mapping[User, frozenset[int]]) -> Sums:
        """Sums per (tenant, hour of arrival) of the events that count. `served`: what each user was served."""
        totals: dict[tuple[str, int], dict[int, list[float]]] = defaultdict(dict)
        for event in events:
            if event.signal not in _COUNTED:
                continue
            self.events += 1
            hour = event.received_s // HOUR_S
            if not self._was_served(event, served):
                self.unserved += 1
            elif not self._within_allowance(event, hour):
                self.over += 1
            else:
                measure, amount = _COUNTED[event.signal]
                sums = totals[event.tenant, hour].setdefault(event.item, [0.0] * len(MEASURES))
                sums[measure] += amount * event.strength
        for old in [hour for hour in self._hours if hour < max(self._hours) - 1]:
            del self._hours[old]
        return {
            key: (np.array(list(items), np.uint32), np.array(list(items.values()), np.float32))
            for key, items in totals.items()
        }

    def _was_served(self, event: Event, served: Mapping[User, frozenset[int]]) -> bool:
        if event.user_key == ANONYMOUS:
            return event.item in self._anonymous.get(event.request_id, ())
        return event.item in served.get((event.tenant, event.user_key), ())

    def _within_allowance(self, event: Event, hour: int) -> bool:
        who = event.request_id if event.user_key == ANONYMOUS else f"{event.tenant}:{event.user_key}"
        mine = self._hours[hour].setdefault(who, _Hour())
        what, measure = (event.item, event.signal), _COUNTED[event.signal][0]
        if what in mine.counted or mine.used[measure] >= ALLOWANCE[measure]:
            return False
        mine.counted.add(what)
        mine.used[measure] += 1
        return True


_COUNTED: Final = {int(signal): (measure, amount) for signal, (measure, amount) in COUNTED_AS.items()}


def users_of(events: Iterable[Event]) -> list[User]:
    """The users whose journals must be asked about these events."""
    return list({(event.tenant, event.user_key) for event in events if event.user_key != ANONYMOUS})


def served_items(journal: npt.NDArray[np.void]) -> frozenset[int]:
    """Items a journal says were served."""
    return frozenset(journal["item"][journal["signal"] == Signal.SERVED].tolist())
