"""The load generator: what it counts, from when, and what it does with answers that come in pieces or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import load
from benchmarks.load import Request, Run, Session
from benchmarks.load_observed import NO_ANSWER, Observed, percentile_ms

ASK = Request("page", b"GET / HTTP/1.1\r\n\r\n")
IDLE = b"HTTP/1.1 408 \r\ncontent-length: 4\r\n\r\nidle"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"


class Server(asyncio.Protocol):
    """Answers every request with five bytes; `stalls` says of the nth request how long it takes, in seconds."""

    asked = 0
    stalls: dict[int, float] = {}  # noqa: RUF012 - set by each test
    pieces = False
    impatient = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self.impatient:
            asyncio.get_running_loop().call_later(0.2, self.give_up)

    def give_up(self) -> None:
        self.transport.write(IDLE)
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        Server.asked += 1
        if (stall_s := self.stalls.get(Server.asked, 0.0)) < 0:
            self.transport.close()
        else:
            asyncio.get_running_loop().call_later(stall_s, self.answer)

    def answer(self) -> None:
        content = HEAD + b"hello"
        if not self.pieces:
            self.transport.write(content)
            return
        loop = asyncio.get_running_loop()
        for place, start in enumerate(range(0, len(content), 7)):
            loop.call_later(0.002 * place, self.transport.write, content[start : start + 7])


def observed(
    *steps: tuple[float, float | None],
    connections: int = 4,
    stalls: dict[int, float] | None = None,
    pieces: bool = False,
    impatient: bool = False,
    most: int | None = None,
) -> Observed:
    """A run against the server above."""

    async def both() -> Observed:
        Server.asked, Server.stalls, Server.pieces, Server.impatient = 0, stalls or {}, pieces, impatient
        server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            return await Run(port, endless(), connections=connections, steps=steps, most=most)()
        finally:
            server.close()

    return asyncio.run(both())


def endless() -> Iterator[Session]:
    while True:
        yield one()


def one() -> Session:
    answer = yield ASK
    assert answer.status in (200, NO_ANSWER)
    assert answer.body == (b"hello" if answer.status else b"")


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 100), st.floats(0.01, 100))
def test_percentile(latencies: list[float], one: float, other: float) -> None:
    """A percentile is one of the values, so many of all are not above it, and a higher one is not smaller."""
    values = np.array(latencies)
    found = percentile_ms(values, one)
    assert found in latencies
    assert (values <= found).mean() >= one / 100 - 1e-9
    assert percentile_ms(values, min(one, other)) <= percentile_ms(values, max(one, other))
    assert np.isnan(percentile_ms(values[:0], one))


def test_open_loop_counts_from_when_a_request_was_due() -> None:
    """A service that stands still for half a second is seen by all who would have come meanwhile."""
    stalls = dict.fromkeys(range(51, 53), 0.5)
    seen = observed((1.5, 200.0), connections=2, stalls=stalls).latency_ms
    # 200 a second for half a second, the last of them hardly waiting.
    assert 60 <= (seen > 100).sum() <= 140
    assert 350 <= seen.max() <= 900
    assert percentile_ms(seen, 90) > 200


def test_closed_loop_sees_a_stall_once_per_connection() -> None:
    """That is why the closed loop says how much is possible and not how it feels."""
    seen = observed((1.0, None), connections=2, stalls=dict.fromkeys(range(51, 53), 0.5)).latency_ms
    assert (seen > 100).sum() == 2


def test_offers_the_rate_of_each_step() -> None:
    """Steps follow one another without a pause, and what was due in one is told apart afterwards."""
    seen = observed((0.5, 100.0), (0.5, 400.0))
    assert len(seen.between(0.0, 0.5)) == pytest.approx(50, abs=2)
    assert len(seen.between(0.5, 1.0)) == pytest.approx(200, abs=4)
    assert seen.between(0.5, 1.0).due_s.min() == pytest.approx(0.0, abs=0.01)


def test_puts_an_answer_in_pieces_together() -> None:
    """Wherever the network cuts."""
    seen = observed((5.0, None), connections=2, pieces=True, most=10)
    assert len(seen) == 10
    assert set(seen.status) == {200}


def test_opens_a_lost_connection_again() -> None:
    """A request that met the end of a used connection is sent again; one that fails twice is counted."""
    seen = observed((0.5, 100.0), connections=1, stalls={10: -1})
    assert set(seen.status) == {200}
    assert Server.asked == len(seen) + 1
    seen = observed((0.5, 100.0), connections=1, stalls={10: -1, 11: -1})
    assert (seen.status == NO_ANSWER).sum() == 1
    assert (seen.status == 200).sum() == pytest.approx(49, abs=3)


def test_opens_a_connection_again_that_was_idle_too_long() -> None:
    """A server says 408 to whoever asks nothing, which is no answer to anything."""
    seen = observed((0.8, 50.0), connections=8, impatient=True)
    assert set(seen.status) == {200}
    assert len(seen) == pytest.approx(40, abs=2)


def test_survives_connections_that_end_all_the_time() -> None:
    """Every third request meets the end of its connection: what was answered is counted, the rest is not invented."""
    seen = observed((1.0, 300.0), connections=8, stalls=dict.fromkeys(range(3, 600, 3), -1))
    assert len(seen) == pytest.approx(300, abs=6)
    assert set(seen.status) <= {200, NO_ANSWER}
    assert (seen.status == 200).sum() == Server.asked - Server.asked // 3
    assert Server.asked > len(seen), "none was sent again"


def test_counts_what_never_was_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what could not even be sent, because every connection waited."""
    monkeypatch.setattr(load, "LAST_ANSWERS_S", 1.0)
    seen = observed((0.3, 20.0), connections=1, stalls={1: 60.0})
    assert set(seen.status) == {NO_ANSWER}
    assert len(seen) == pytest.approx(6, abs=1)
    assert seen.latency_ms.min() > 900
