"""The connection itself: how much and how slowly a client may send before anybody looks at its request.

The parser has no limits of its own: a header of a gigabyte, trailers without end or one byte a minute would be
collected for ever. `Bounded` (service/bounds.py) judges requests that are complete; this judges those that never are.
"""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from retrieval.errors import Problem
from service.bounds import MAX_HEADER_BYTES, MAX_URI_BYTES
from service.errors import HeadersTooLarge, InvalidRequest, RequestTimeout, answer

MAX_HEAD_BYTES: Final = 2 * (MAX_URI_BYTES + MAX_HEADER_BYTES)
"""Of a request, all that is not body. Twice what `Bounded` allows, so that an honest client meets that, and one
buffer of the kernel's more, because what comes in one piece is parsed in one piece."""
FRAMING: Final = 8
"""Bytes around each byte of a chunked body, when every chunk has one byte."""
HEAD_S: Final = 10.0
WHOLE_S: Final = 60.0
"""How long a request line with its headers, and a whole request, may take to arrive."""


class Wire(HttpToolsProtocol):
    """uvicorn's protocol with limits of size and time. A request that comes in one piece starts no timer."""

    _body = 0
    _rest = 0
    _received = 0
    _owed_s: float | None = HEAD_S
    _granted_s: float | None = None
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._grant()

    def connection_lost(self, exc: Exception | None) -> None:
        self._owed_s = None
        self._grant()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self._received
        super().data_received(data)
        if self.transport.is_closing():
            return
        self._rest += len(data) - (self._received - before)
        if self._rest > MAX_HEAD_BYTES + FRAMING * self._body:
            self._refuse(HeadersTooLarge(f"more than {MAX_HEAD_BYTES} bytes that are no body"))
        elif self._owed_s != self._granted_s:
            self._grant()

    def on_message_begin(self) -> None:
        self._body = self._rest = 0
        self._owed_s = HEAD_S
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._owed_s = WHOLE_S
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        self._received += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._owed_s = None
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """uvicorn's answer to what is no HTTP, as a problem document like every other."""
        self._refuse(InvalidRequest([Problem("", f"is no HTTP request: {msg}")]))

    def _grant(self) -> None:
        """Start the time for what the client owes now: headers, a body, or nothing."""
        if self._timer is not None:
            self._timer.cancel()
        self._granted_s, self._timer = self._owed_s, None
        if self._owed_s is not None:
            late = RequestTimeout("the request did not arrive in time")
            self._timer = self.loop.call_later(self._owed_s, self._refuse, late)

    def _refuse(self, error: Exception) -> None:
        """Answer, unless an answer was begun, and hang up."""
        cycle: RequestResponseCycle | None = self.cycle  # none before the first request
        if cycle is None or cycle.response_complete or not cycle.response_started:
            self.transport.write(_raw(answer(error)))
        self.transport.close()


def _raw(response: Response) -> bytes:
    """A response as it goes over the wire, the last one of its connection."""
    fields: list[tuple[bytes, bytes]] = [*response.raw_headers, (b"connection", b"close")]
    head = b"".join(b"%b: %b\r\n" % field for field in fields)
    return b"HTTP/1.1 %d \r\n%b\r\n%b" % (response.status_code, head, bytes(response.body))
