"""Progress of long work: bars where a person watches, nothing otherwise (the log lines say it there)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from indexer.rebuild import Progress as OnProgress

WORTH_SHOWING = 200
"""Videos in one catch-up below which a bar would only flicker."""


@contextmanager
def showing_progress() -> Iterator[OnProgress]:
    """A callback that moves one bar per tenant at work."""
    if not sys.stderr.isatty():
        yield lambda _tenant, _done, _total: None
        return
    columns = (TextColumn("embedding {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def on_progress(tenant: str, done: int, total: int) -> None:
            if total < WORTH_SHOWING:
                return
            if tenant not in tasks:
                tasks[tenant] = bars.add_task(tenant, total=total)
            bars.update(tasks[tenant], completed=done, total=total)
            if done >= total:
                bars.remove_task(tasks.pop(tenant))

        yield on_progress
