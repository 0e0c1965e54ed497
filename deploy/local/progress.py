"""How far embedding is: a bar for a person at a terminal, a line now and then for a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from deploy.local.words import say

LINE_EVERY_S = 5.0
STUCK_AFTER_S = 15.0


class Embedded(NamedTuple):
    """How many texts have a vector, of how many."""

    done: int
    total: int


class Display:
    """Progress as lines of text; `show` and `waits_for` may be called as often as one likes."""

    def __init__(self, start: Embedded) -> None:
        self._last, self._moved_at = start, time.monotonic()
        self._shown, self._shown_at = start, time.monotonic()

    def show(self, now: Embedded) -> None:
        """Show the newest figures."""
        if now != self._last:
            self._last, self._moved_at = now, time.monotonic()
        self._draw(now)

    def waits_for(self, awaited: list[str]) -> None:
        """Name what is not ready, once nothing has moved for a while."""
        if time.monotonic() > self._moved_at + STUCK_AFTER_S:
            say("waiting    for " + "\n           and ".join(awaited))
            self._moved_at = time.monotonic()

    def _draw(self, now: Embedded) -> None:
        finished = now.done == now.total
        if now == self._shown or (not finished and time.monotonic() < self._shown_at + LINE_EVERY_S):
            return
        say(f"embedding  {now.done:,} of {now.total:,} videos ({100 * now.done // max(1, now.total)} %)")
        self._shown, self._shown_at = now, time.monotonic()


class _Bar(Display):
    """The same as a bar that is drawn over itself."""

    def __init__(self, start: Embedded, bar: Progress) -> None:
        super().__init__(start)
        self._bar = bar
        self._task = bar.add_task("", total=start.total, completed=start.done)

    def _draw(self, now: Embedded) -> None:
        self._bar.update(self._task, completed=now.done, total=now.total, refresh=True)


@contextmanager
def progress_display(start: Embedded) -> Iterator[Display]:
    """A bar if standard output is a terminal and something is left to do, lines otherwise."""
    if not sys.stdout.isatty() or start.done == start.total:
        yield Display(start)
        return
    columns = (TextColumn("embedding "), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    # No refresh thread: `show` is called often enough, and a program that forks should have no threads.
    with Progress(*columns, auto_refresh=False, transient=True) as bar:
        yield _Bar(start, bar)
