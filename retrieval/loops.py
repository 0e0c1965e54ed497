"""What a loop that runs until it is cancelled must ask at each turn."""

from __future__ import annotations

import asyncio


def uncancelled() -> bool:
    """Whether the task this runs in still has to go on.

    Not `while True`: an awaited thing that ends just as the task is cancelled can swallow the cancellation (up to
    Python 3.11 `asyncio.wait_for` does), and there is but one: whoever waits for the task's end then waits for ever.
    """
    task = asyncio.current_task()
    return task is not None and not task.cancelling()
