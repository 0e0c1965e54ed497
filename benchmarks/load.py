"""A load generator for a machine that also runs what is measured: HTTP/1.1 over keep-alive connections, loopback.

    closed loop   every connection sends its next request as soon as it has an answer: how much is possible
    open loop     requests are due at a fixed rate, whatever the answers do: how it feels at that rate

In the open loop a request counts from the moment it was due, not from when a connection was free to send it. A service
that stands still for a second is then seen by everybody who would have come in that second, and not by the one request
that happened to be under way ("coordinated omission", Gil Tene).

One process, one thread, no HTTP library: an answer is looked at with a few searches in its bytes. What that costs is
part of every report (`generator`): 2 cores are shared with the service.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from typing import Final, NamedTuple

from benchmarks.load_observed import NO_ANSWER, Observed

HOST: Final = "127.0.0.1"
LAST_ANSWERS_S: Final = 10.0
"""How long answers are waited for when the time is up."""
IDLE_TOO_LONG: Final = 408
"""How a server ends a connection on which nothing came; a request that met it is sent again (RFC 9110, 15.5.9)."""
UNSENT: Final = "unsent"
"""The kind of a request that was due while no connection was free until the end."""
TICK_S: Final = 0.001
"""Requests are handed out so often at most: the event loop's timers are no finer, and shorter waits would be a spin."""


class Request(NamedTuple):
    """`kind` is what it is counted as; `content` the bytes to send, head and body."""

    kind: str
    content: bytes


class Answer(NamedTuple):
    """Status, head and body as they came."""

    status: int
    head: bytes
    body: bytes


Session = Generator[Request, Answer, None]
"""What one user does: yields requests, is sent the answer of each."""


class Run:
    """One run of sessions against a port; each connection works on one session at a time.

    `steps` are (seconds, requests per second) one after the other; a rate of None is the closed loop. `most` ends the
    run after so many requests if that comes first, and so does the end of `sessions`.
    """

    def __init__(
        self,
        port: int,
        sessions: Iterator[Session],
        *,
        connections: int,
        steps: Sequence[tuple[float, float | None]],
        most: int | None = None,
    ) -> None:
        self.observed = Observed()
        self._port = port
        self._sessions = sessions
        self._wanted = connections
        self._steps = steps
        self._seconds = sum(seconds for seconds, _ in steps)
        self._is_open_loop = False
        self._left = most if most is not None else -1
        self._connections: list[_Connection] = []
        self._began_s = 0.0
        self._under_way = 0
        self._free: deque[_Connection] = deque()
        self._due: deque[float] = deque()
        self._ended: asyncio.Future[None]

    async def __call__(self) -> Observed:
        """Run to the end. Raises OSError when nobody listens."""
        self._ended = asyncio.get_running_loop().create_future()
        for _ in range(self._wanted):
            connection = _Connection(self, self._port)
            await connection.open()
            self._connections.append(connection)
        self._free.extend(self._connections)
        self._began_s, until_s = time.perf_counter(), 0.0
        for seconds, rate in self._steps:
            from_s, until_s = until_s, until_s + seconds
            self._is_open_loop = rate is not None
            if rate is None:
                while self._free and not self._is_over:
                    self._next(self._free.popleft(), self._now_s)
                await asyncio.wait([self._ended], timeout=until_s - self._now_s)
            else:
                await self._keep_time(rate, from_s, until_s)
        self._look_for_end()
        await asyncio.wait([self._ended], timeout=self._seconds + LAST_ANSWERS_S - self._now_s)
        self._close()
        return self.observed

    @property
    def _now_s(self) -> float:
        return time.perf_counter() - self._began_s

    @property
    def _is_over(self) -> bool:
        return self._left == 0 or self._now_s >= self._seconds

    def answered(self, connection: _Connection, answer: Answer) -> None:
        """Note an answer and let its connection go on."""
        now_s = self._now_s
        self.observed.add(connection.kind, answer.status, connection.due_s, now_s)
        connection.kind, connection.answer = "", answer
        self._under_way -= 1
        self._continue(connection, now_s)
        self._look_for_end()

    def _continue(self, connection: _Connection, now_s: float) -> None:
        if self._due:
            self._next(connection, self._due.popleft())
        elif self._is_over:
            connection.advance()  # the session hears its last answer; what it would ask next is not sent
        elif self._is_open_loop:
            self._free.append(connection)
        else:
            self._next(connection, now_s)

    def _next(self, connection: _Connection, due_s: float) -> None:
        """Send what this connection's session asks next; of a new session when that one is over."""
        request = connection.advance()
        while request is None:
            connection.session = next(self._sessions, None)
            if connection.session is None:
                self._left = 0
                return
            request = connection.advance()
        self._left -= 1
        self._under_way += 1
        connection.send(request, due_s)

    async def _keep_time(self, rate: float, from_s: float, until_s: float) -> None:
        """Hand out what is due, to whoever is free; who comes free later takes the oldest that is still due.

        Connections take turns, as phones do: were the last one used again and again, so were its worker.
        """
        sent = 0
        while not self._is_over and self._now_s < until_s:
            while from_s + sent / rate <= self._now_s:
                self._due.append(from_s + sent / rate)
                sent += 1
            while self._due and self._free and self._left:
                self._next(self._free.popleft(), self._due.popleft())
            await asyncio.sleep(max(TICK_S, from_s + sent / rate - self._now_s))

    def _look_for_end(self) -> None:
        if self._is_over and not self._under_way and not self._due and not self._ended.done():
            self._ended.set_result(None)

    def _close(self) -> None:
        """Close everything; what has no answer by now will have none."""
        now_s = self._now_s
        for connection in self._connections:
            if connection.kind:
                self.observed.add(connection.kind, NO_ANSWER, connection.due_s, now_s)
            connection.close()
        for due_s in self._due:
            self.observed.add(UNSENT, NO_ANSWER, due_s, now_s)


class _Connection:
    """One keep-alive connection with at most one request under way: `kind` of it, "" for none, and when it was due.

    The other side may end a connection that is idle, so it is opened again when it is needed. A request that met the
    end of a used connection is sent once more on a new one, as every HTTP client does (RFC 9112, 9.3.1).
    """

    def __init__(self, run: Run, port: int) -> None:
        self.run = run
        self.session: Session | None = None
        self.answer: Answer | None = None
        self.kind = ""
        self.due_s = 0.0
        self._port = port
        self._wire: _Wire | None = None
        self._content = b""
        self._sending: asyncio.Task[None] | None = None

    def advance(self) -> Request | None:
        """The next request of the session, None at its end."""
        if self.session is None:
            return None
        try:
            if self.answer is None:
                return next(self.session)
            answer, self.answer = self.answer, None
            return self.session.send(answer)
        except StopIteration:
            self.session = None
            return None

    async def open(self) -> None:
        """Connect. Raises OSError."""
        _, self._wire = await asyncio.get_running_loop().create_connection(lambda: _Wire(self), HOST, self._port)

    def send(self, request: Request, due_s: float) -> None:
        self.kind, self.due_s, self._content = request.kind, due_s, request.content
        if self._wire is None:
            self._send_anew()
        else:
            self._wire.transport.write(self._content)

    def close(self) -> None:
        wire, self._wire, self.kind = self._wire, None, ""
        if self._sending is not None:
            self._sending.cancel()
        if wire is not None:
            wire.transport.close()

    def received(self, answer: Answer) -> None:
        if answer.status != IDLE_TOO_LONG:
            self.run.answered(self, answer)
        elif self._wire is not None:
            wire, self._wire = self._wire, None
            wire.transport.close()
            if self.kind:
                self._send_anew()

    def lost(self, wire: _Wire) -> None:
        """The other side has ended `wire`."""
        if wire is not self._wire:
            return
        self._wire = None
        if self.kind and wire.answers and not wire.is_answering:
            self._send_anew()
        elif self.kind:
            self.run.answered(self, Answer(NO_ANSWER, b"", b""))

    def _send_anew(self) -> None:
        self._sending = asyncio.get_running_loop().create_task(self._open_and_send())

    async def _open_and_send(self) -> None:
        try:
            await self.open()
        except OSError:
            self._wire = None
        if self._wire is None or self._wire.transport.is_closing():
            self._wire = None
            self.run.answered(self, Answer(NO_ANSWER, b"", b""))
        else:
            self._wire.transport.write(self._content)


class _Wire(asyncio.Protocol):
    """One TCP connection. `answers` have come whole; `is_answering`: a part of the next one has."""

    def __init__(self, connection: _Connection) -> None:
        self.transport: asyncio.Transport
        self.answers = 0
        self._connection = connection
        self._received = b""
        self._expected = 0

    @property
    def is_answering(self) -> bool:
        return bool(self._received)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a TCP connection is a Transport

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        if len(received) < self._expected or (end := received.find(b"\r\n\r\n") + 4) < 4:
            self._received = received
            return
        if not self._expected:
            at = received.find(b"ontent-length: ", 0, end) + 15
            self._expected = end + (int(received[at : received.find(b"\r", at)]) if at >= 15 else 0)
            if len(received) < self._expected:
                self._received = received
                return
        self._received, self._expected = b"", 0
        self.answers += 1
        self._connection.received(Answer(int(received[9:12]), received[:end], received[end:]))

    def connection_lost(self, error: Exception | None) -> None:
        self._connection.lost(self)
