"""What a worker gives up first when more is asked of it than it can answer.

A worker is one thread: whoever is admitted now waits until the work admitted before is done. So each admitted request
adds what its kind usually takes to a backlog, in seconds. How much longer the wait then really is than the backlog
ahead of it (refusals, logs and other processes come in between) is measured too, and the two together are the wait that
a newcomer is to expect. That says what may still come in:

    below narrow_s    whole answers
    narrow_s          first pages are made from fewer candidates; they say `narrowed`
    prefetch_s        pages that nobody is waiting for are refused
    plain_s           first pages are made without the user's taste, which is far less work; they say `overloaded`
    most_s            everything is refused

A refusal costs a fraction of an answer, and those who were admitted get theirs in time. The moment the backlog is gone,
whole answers are given again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Literal

from retrieval.errors import FeedError

FIRST: Final = "first"
LATER: Final = "later"
PLAIN: Final = "plain"
"""A first page that is made without a taste."""
NOVELTY: Final = 0.02
"""How much one measurement moves what a kind of request is taken to cost."""
MEASURED_FROM_S: Final = 0.02
"""A shorter backlog says nothing of waiting: a round trip to Redis is as long."""
MOST_STRETCH: Final = 4.0

Effort = Literal["whole", "narrow", "plain"]
"""How much is done for a page: all there is, from fewer candidates, or that and without the user's taste."""


class Overloaded(FeedError):
    """More is asked than this worker can answer in time."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds to wait, see above."""

    narrow_s: float
    prefetch_s: float
    plain_s: float
    most_s: float


@dataclass(slots=True)
class Work:
    """One admitted request. Set `took_s`, the seconds it kept the thread busy, and `waited_s`, those it waited for the
    thread, if it did."""

    effort: Effort
    took_s: float | None = None
    waited_s: float | None = None


@dataclass
class Governor:
    """The backlog of one worker. `usual_s`: what a request of each kind has lately kept the thread busy; `stretch`, 1
    to MOST_STRETCH: how many times as long as the backlog ahead the wait has lately been."""

    limits: Limits
    backlog_s: float = 0.0
    stretch: float = 1.0
    usual_s: dict[str, float] = field(default_factory=lambda: {FIRST: 2e-3, LATER: 5e-4, PLAIN: 1e-3})

    @property
    def wait_s(self) -> float:
        """Seconds that who comes now is to expect."""
        return self.backlog_s * self.stretch

    @contextmanager
    def admitted(self, kind: str, *, prefetch: bool) -> Iterator[Work]:
        """The time in which a request of a kind (FIRST or LATER) is worked on. Raises Overloaded instead."""
        wait_s, limits = self.wait_s, self.limits
        if wait_s >= (limits.prefetch_s if prefetch else limits.most_s):
            raise Overloaded("this worker has more to do than it can answer in time")
        work = Work("plain" if wait_s >= limits.plain_s else "narrow" if wait_s >= limits.narrow_s else "whole")
        kind = PLAIN if kind == FIRST and work.effort == "plain" else kind
        ahead_s, expected_s = self.backlog_s, self.usual_s[kind]
        self.backlog_s += expected_s
        try:
            yield work
        finally:
            self.backlog_s -= expected_s
            if work.took_s is not None:
                self.usual_s[kind] += NOVELTY * (work.took_s - expected_s)
            if work.waited_s is not None and ahead_s >= MEASURED_FROM_S:
                found = min(max(work.waited_s / ahead_s, 1.0), MOST_STRETCH)
                self.stretch += NOVELTY * (found - self.stretch)
