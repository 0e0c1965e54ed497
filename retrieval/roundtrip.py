"""Commands sent and answered in one round trip, over connections that stay open.

The client library's own pipeline does the same for three times the CPU: each time it takes a connection from its pool
and gives it back, and it starts one timer per answer. Here connections are kept by those who use them, and one timer is
for all answers together. Connecting, authentication, TLS and reading answers are the library's.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from retrieval.errors import StoreUnavailable


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
            async with asyncio.timeout(self._limit_s):
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
        async with asyncio.timeout(self._limit_s):
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
