"""Workers behind one port share its connections out, also when all come at once."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial, wraps
from typing import Any

import psutil  # type: ignore[import-untyped]  # ships no types

from service.listener import Listener, Loop
from tests.support.running import HOST, System, eventually


def on_the_loop_of_a_worker(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test that runs on it."""

    @wraps(test)
    def run() -> None:
        with asyncio.Runner(loop_factory=Loop) as runner:
            runner.run(test())

    return run


class Echo(asyncio.Protocol):
    """Sends back what it gets; `made` lists the connections of one worker."""

    def __init__(self, made: list[asyncio.Transport]) -> None:
        self.made = made

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # what it is for TCP
        self.transport = transport
        self.made.append(transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Full(socket.socket):
    """A listening socket of a process that has no descriptors left, for `times` times."""

    times = 1

    def accept(self) -> Any:
        if self.times:
            self.times -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


@contextmanager
def bound(kind: type[socket.socket] = socket.socket) -> Iterator[socket.socket]:
    """A socket on a port of its own, as the parent of the workers has it."""
    with kind() as sock:
        sock.bind((HOST, 0))
        yield sock


@asynccontextmanager
async def clients(sock: socket.socket, count: int) -> AsyncIterator[list[asyncio.StreamWriter]]:
    """So many connections, opened in one go, each of which got back what it sent."""
    async with AsyncExitStack() as stack:
        opened = await asyncio.gather(*[asyncio.open_connection(*sock.getsockname()) for _ in range(count)])
        for _, writer in opened:
            stack.callback(writer.close)
            writer.write(b"x")
        async with asyncio.timeout(10):
            assert await asyncio.gather(*[reader.readexactly(1) for reader, _ in opened]) == [b"x"] * count
        yield [writer for _, writer in opened]


@on_the_loop_of_a_worker
async def test_what_comes_at_once_is_shared_out() -> None:
    """Whoever is first takes a few and leaves the rest to the others."""
    made: tuple[list[asyncio.Transport], ...] = ([], [])
    with bound() as sock:
        listeners = [Listener(asyncio.get_running_loop(), sock.dup(), partial(Echo, mine)) for mine in made]
        async with clients(sock, 40):
            few, many = sorted(map(len, made))
            assert few + many == 40
            assert many - few <= 4
        for listener in listeners:
            listener.close()


@on_the_loop_of_a_worker
async def test_the_loop_of_a_worker_listens_like_that_and_is_closed_like_any_server() -> None:
    """A socket it is given is shared; what is closed takes nothing more, and leaves it to the others."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    made: list[asyncio.Transport] = []
    with bound() as sock:
        first = await loop.create_server(lambda: Echo(made), sock=sock.dup())
        second = await loop.create_server(lambda: Echo([]), sock=sock.dup())
        assert isinstance(first, Listener)
        async with clients(sock, 8):
            pass
        first.close()
        await first.wait_closed()
        before = len(made)
        assert before
        async with clients(sock, 8):
            assert len(made) == before
        second.close()
    own = await loop.create_server(lambda: Echo([]), HOST, 0)
    assert not isinstance(own, Listener)  # nobody else listens there
    own.close()


@on_the_loop_of_a_worker
async def test_without_descriptors_it_waits_and_goes_on() -> None:
    """Nobody is lost: they wait in the queue of the socket."""
    with bound(Full) as sock:
        listener = Listener(asyncio.get_running_loop(), sock, lambda: Echo([]))
        async with clients(sock, 4):
            assert isinstance(sock, Full) and not sock.times
        listener.close()


def test_the_connections_of_a_proxy_are_on_every_worker(running: System) -> None:
    """Thirty-two in one go, of which each of two workers has its share."""
    opened = [socket.create_connection((HOST, running.port)) for _ in range(32)]
    try:
        eventually(lambda: sum(taken(running)) >= 32)
        assert min(taken(running)) >= 8
    finally:
        for one in opened:
            one.close()


def taken(running: System) -> list[int]:
    """How many connections each worker has."""
    found = [psutil.Process(worker.pid).net_connections("tcp") for worker in running.workers()]
    return [sum(one.status == "ESTABLISHED" and one.laddr.port == running.port for one in each) for each in found]
