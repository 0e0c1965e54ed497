"""A small process that outlives the supervisor by a moment and ends whatever it left behind.

A supervisor that is killed with SIGKILL can tidy up nothing itself. The guard holds the reading end of a pipe whose
only writing end is in the supervisor: when the supervisor ends, however it ends, the kernel closes the pipe and the
guard ends every process group still on its list, politely first. It also inherits the supervisor's lock file, so
that the next run waits until everything is gone.

Run as a plain file by the standard library alone, so that it starts in a few milliseconds.
Reads lines: `+ GROUP` (a child began, it leads process group GROUP) and `- GROUP` (it ended and was swept).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable

GRACE_S = 8.0
POLL_S = 0.05


def watched_groups(lines: Iterable[str]) -> set[int]:
    """Follow the lines to their end, which is the end of the supervisor. Answers the groups still running then."""
    groups: set[int] = set()
    for line in lines:
        sign, group = line.split()
        if sign == "+":
            groups.add(int(group))
        else:
            groups.discard(int(group))
    return groups


def signalled(group: int, number: int) -> bool:
    """Send signal `number` (0 = only look) to every process of the group. False: nobody is left in it."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS says so of a group that holds only zombies
        return False
    return True


def end_groups(groups: set[int], grace_s: float) -> None:
    """SIGTERM to every group, SIGKILL to those that are still there after `grace_s` seconds."""
    remaining = {group for group in groups if signalled(group, signal.SIGTERM)}
    deadline = time.monotonic() + grace_s
    while remaining and time.monotonic() < deadline:
        time.sleep(POLL_S)
        remaining = {group for group in remaining if signalled(group, 0)}
    for group in remaining:
        signalled(group, signal.SIGKILL)


if __name__ == "__main__":
    end_groups(watched_groups(sys.stdin), GRACE_S)
