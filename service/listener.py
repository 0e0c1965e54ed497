"""Connections shared out evenly among the workers behind one port.

All workers listen on one socket, and what waits there is taken by whoever is awake. Of the connections that a proxy
opens in one go and then keeps, one worker would have most or all, and the other cores nothing to do for as long as they
last. So a worker takes AT_ONCE and then leaves the socket alone for PAUSE_S, in which the others wake up and take
theirs. A socket for each worker (SO_REUSEPORT) would be dealt to by lot, also while its worker is busy or stands still.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final

import structlog
import uvloop

log = structlog.get_logger("service")

AT_ONCE: Final = 2
PAUSE_S: Final = 0.001
"""The shortest a timer of the loop can be. A worker takes 2,000 connections a second at most; more wait their turn."""
REFUSED_S: Final = 0.1
"""Pause after the system would give no connection, as when there are no descriptors left."""
BACKLOG: Final = 2048
Protocols = Callable[[], asyncio.BaseProtocol]


class Loop(uvloop.Loop):
    """The event loop of a worker: as uvloop's, but a socket it is given is listened on with consideration."""

    async def create_server(self, protocol_factory: Protocols, *args: Any, **options: Any) -> Any:
        """A Listener if there is a `sock`; uvloop's own server for a host and port, which nobody else listens on, and
        for TLS, which a Listener does not speak."""
        given = options.get("sock")
        if given is None or options.get("ssl"):
            return await super().create_server(protocol_factory, *args, **options)
        return Listener(self, given, protocol_factory, options.get("backlog", BACKLOG))


class Listener:
    """Takes the connections of a socket that others listen on too; to be closed like an `asyncio.Server`."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, protocols: Protocols, backlog: int = BACKLOG
    ) -> None:
        self._loop = loop
        self._socket = sock
        self._protocols = protocols
        self._pause: asyncio.TimerHandle | None = None
        self._beginning: set[asyncio.Task[Any]] = set()
        sock.setblocking(False)
        sock.listen(backlog)
        self._listen()

    def close(self) -> None:
        """Take no more connections."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()

    async def wait_closed(self) -> None:
        """Nothing is left to wait for."""

    def _listen(self) -> None:
        self._pause = None
        self._loop.add_reader(self._socket, self._take)

    def _take(self) -> None:
        pause_s = PAUSE_S
        try:
            for _ in range(AT_ONCE):
                connection, _ = self._socket.accept()
                self._begin(connection)
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            pass  # another worker was faster, or the client has gone
        except OSError as error:
            log.error("no_connection", error=error.strerror)
            pause_s = REFUSED_S
        self._loop.remove_reader(self._socket)
        self._pause = self._loop.call_later(pause_s, self._listen)

    def _begin(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        begun = self._loop.create_task(self._loop.connect_accepted_socket(self._protocols, connection))
        self._beginning.add(begun)  # the loop itself keeps only a weak reference
        begun.add_done_callback(self._beginning.discard)
