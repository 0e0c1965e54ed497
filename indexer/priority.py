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
"""The threads there are already: on Linux each has a priority of its own, which those it starts inherit."""
BY_SESSION: Final = Path("/proc/sys/kernel/sched_autogroup_enabled")
MEMBER_OF: Final = Path("/proc/self/cgroup")
GROUPS: Final = Path("/sys/fs/cgroup")


def step_back(by: int) -> None:
    """Put this process behind others: to a niceness of `by`, 0 to 19, and its session too if it leads one of its own.

    Where its session has a share that nobody else can take, it also gives way at once (SCHED_IDLE): a feed that wakes
    up is then put where the indexer runs as if nobody did. One that stands further back already stays there.
    """
    threads = [int(task.name) for task in TASKS.iterdir()] if TASKS.exists() else [0]
    nice = max(by, os.getpriority(os.PRIO_PROCESS, 0))
    for thread in threads:
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.setpriority(os.PRIO_PROCESS, thread, nice)
    if not by or os.getsid(0) != os.getpid():
        return
    try:
        AUTOGROUP.write_text(str(nice))
    except OSError:  # no Linux, or none with this feature
        return
    if shared_by_session():
        for thread in threads:
            with contextlib.suppress(OSError):  # it has ended, or a sandbox allows no such call
                os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))


def shared_by_session(by_session: Path = BY_SESSION, member_of: Path = MEMBER_OF, groups: Path = GROUPS) -> bool:
    """Whether the processor is shared out among sessions here: that is switched on, and this process is in no control
    group with a share of its own, in which it would be idle beside whoever else is there."""
    try:
        if by_session.read_text().strip() != "1":
            return False
        for line in member_of.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if "cpu" in controllers.split(",") and path != "/":  # version 1 of control groups
                return False
            if not controllers and (groups / path.lstrip("/") / "cpu.weight").exists():  # version 2
                return False
    except OSError:
        return False
    return True
