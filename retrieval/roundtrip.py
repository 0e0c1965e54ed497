"""Commands sent and answered in one round trip, over connections that stay open.

The client library's own pipeline does the same for three times the CPU: each time it takes a connection from its pool
and gives it back, and it starts one timer per answer. Here connections are kept by those who use them, and one timer is
for all answers together. Connecting, authentication, TLS and reading answers are the library's.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from retrieval.errors import StoreUnavailable

LOOKS: Final = 2
"""Turns of the event loop in which an answer may still be found after its time is up: one may be over its sockets
already, the next reads them and wakes whoever waits."""


class Patience:
    """`asyncio.timeout(limit_s)` for what is answered from outside: TimeoutError, but not while the answer is there.

    A loop that was held up for longer than the limit (a page, a snapshot being opened, another process) comes to its
    timers first and to its sockets afterwards, and would take every answer of that time for late.
    """

    def __init__(self, limit_s: float | None) -> None:
        self._limit_s = limit_s
        self._timeout = asyncio.timeout(None)
        self._waiting: asyncio.Handle | None = None

    async def __aenter__(self) -> None:
        if self._limit_s is not None:
            self._waiting = asyncio.get_running_loop().call_later(self._limit_s, self._look, LOOKS)
        await self._timeout.__aenter__()

    async def __aexit__(self, *raised: Any) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
        await self._timeout.__aexit__(*raised)

    def _look(self, more: int) -> None:
        loop = asyncio.get_running_loop()
        if more:
            self._waiting = loop.call_soon(self._look, more - 1)
        else:
            self._timeout.reschedule(loop.time())


class RoundTrips:
    """Round trips to the server of a client, as many at a time as are asked for, within its `socket_timeout` each.

    The connections are of the client's pool and are closed with it.
    """

    def __init__(self, redis: Redis) -> None:
        self._pool = redis.connection_pool
        self._limit_s: float | None = self._pool.connection_kwargs.get("socket_timeout")
        self._free: list[AbstractConnection] = []

    async def send(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """One answer per command; an answer may be a ResponseError. Raises RedisError, OSError, TimeoutError.

        After an error it is unknown which of the commands were carried out.
        """
        connection = self._free.pop() if self._free else self._new()
        try:
            if not connection.is_connected or await connection.can_read():  # closed by the server, or out of step
                await self._connect(connection)
            async with Patience(self._limit_s):
                await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
                return [await _answer(connection) for _ in commands]
        finally:
            self._free.append(connection)  # the library has closed it if anything went wrong

    def _new(self) -> AbstractConnection:
        connection: AbstractConnection = self._pool.get_available_connection()  # type: ignore[no-untyped-call]
        connection.socket_timeout = None  # a timer of its own for each read and write: ours is for all of them
        return connection

    async def _connect(self, connection: AbstractConnection) -> None:
        await connection.disconnect(nowait=True)
        async with Patience(self._limit_s):
            await connection.connect()  # type: ignore[no-untyped-call]


def failure(store: str, error: Exception) -> Exception:
    """What everybody hears who shared a round trip that failed: StoreUnavailable for what Redis did, or the way to it;
    a mistake of ours as it is. Nobody is left waiting for either."""
    if isinstance(error, (RedisError, OSError, TimeoutError)):
        return StoreUnavailable(f"{store}: {type(error).__name__}")
    return error


async def _answer(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response(timeout=math.inf)
    except ResponseError as error:
        return error
