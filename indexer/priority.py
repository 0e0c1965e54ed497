"""Stepping back: on a machine that the indexer shares with workers, feeds go first."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

AUTOGROUP: Final = Path("/proc/self/autogroup")
"""Where Linux shares the processor out among sessions first: within each, niceness counts, and for nothing outside
(sched(7), "the autogroup feature"). Control groups go by their own shares instead."""
TASKS: Final = Path("/proc/self/task")
"""The threads there are already: on Linux each has a niceness of its own, which those it starts inherit."""


def step_back(by: int) -> None:
    """Put this process behind others: to a niceness of `by`, 0 to 19, and its session too if it leads one of its own.

    One that stands further back already stays there.
    """
    nice = max(by, os.getpriority(os.PRIO_PROCESS, 0))
    for thread in [int(task.name) for task in TASKS.iterdir()] if TASKS.exists() else [0]:
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.setpriority(os.PRIO_PROCESS, thread, nice)
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):  # no Linux, or none with this feature
            AUTOGROUP.write_text(str(nice))
