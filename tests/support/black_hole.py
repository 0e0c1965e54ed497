"""A server that takes connections and, for a while, answers nothing: a TCP proxy in front of a real one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from tests.support.redis_server import free_port
from tests.support.running import HOST

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Proxy:
    """Passes everything on to what `connect` opens, in a thread of its own; in a `hole`, not what is `swallowed`."""

    def __init__(
        self, connect: Callable[[], Awaitable[Streams]], swallowed: Callable[[bytes], bool] = lambda data: True
    ) -> None:
        self.port = free_port()
        self.silent = False
        self._connect = connect
        self._swallowed = swallowed
        self._over = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self._loop.close()

    @contextmanager
    def hole(self) -> Iterator[None]:
        """While inside, what is sent arrives nowhere until afterwards."""
        self.silent = True
        try:
            yield
        finally:
            self.silent = False

    async def _serve(self) -> None:
        async with await asyncio.start_server(self._connection, HOST, self.port):
            await self._over.wait()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await self._connect()
        await asyncio.gather(self._pipe(reader, back), self._pipe(there, writer))

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                while self.silent and self._swallowed(data):  # noqa: ASYNC110 - set from another thread
                    await asyncio.sleep(0.02)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()
