"""One page a turn of the event loop.

A worker that made all the pages it has the data for in one go would not read a socket meanwhile: answers of Redis would
be taken for late, and who should be refused at once would wait with the others. So whoever is about to keep the thread
busy waits for a turn, first come, first served; between two turns the loop does everything else.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """The turns of one event loop. Costs nothing to speak of while nobody else wants one."""

    def __init__(self) -> None:
        self._taken = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for a turn."""
        return bool(self._waiting)

    async def __call__(self) -> None:
        """Come back when it is the caller's turn, which lasts until it awaits something."""
        loop = asyncio.get_running_loop()
        if self._taken:
            mine = loop.create_future()
            self._waiting.append(mine)
            await mine
        else:
            self._taken = True
            loop.call_soon(self._next)

    def _next(self) -> None:
        """Let the next one begin; it does so before this is called again."""
        while self._waiting:
            mine = self._waiting.popleft()
            if not mine.done():  # else its client has gone away
                mine.set_result(None)
                asyncio.get_running_loop().call_soon(self._next)
                return
        self._taken = False
