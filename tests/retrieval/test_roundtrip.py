"""Round trips over kept connections: every command gets its own answer, whatever happened before."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvloop
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from retrieval.packed import PackedConnection
from retrieval.roundtrip import RoundTrips

LIMIT_S = 0.2


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client with a time limit, as the service has one."""
    async with Redis.from_url(
        redis_url, protocol=2, connection_class=PackedConnection, socket_timeout=LIMIT_S
    ) as client:
        yield client


async def echoed(trips: RoundTrips, *words: bytes) -> list[bytes]:
    """What the server says to these words."""
    answers: list[bytes] = await trips.send([("ECHO", word) for word in words])
    return answers


async def test_an_error_is_the_answer_to_its_own_command(redis: Redis) -> None:
    """The commands around it are carried out and answered, and the connection stays in use."""
    trips = RoundTrips(redis)
    before, wrong, after = await trips.send([("SET", "a", 1), ("INCRBY", "a", "nothing"), ("MGET", "a", "missing")])
    assert (before, after) == (b"OK", [b"1", None])
    assert isinstance(wrong, ResponseError)
    (name,), (same,) = await trips.send([("CLIENT", "ID")]), await trips.send([("CLIENT", "ID")])
    assert name == same


async def test_many_at_a_time_do_not_mix(redis: Redis) -> None:
    """Each has a connection to itself; later ones use the same connections again."""
    trips = RoundTrips(redis)
    for _ in range(3):
        words = [[b"%d.%d" % (n, m) for m in range(5)] for n in range(10)]
        assert await asyncio.gather(*(echoed(trips, *each) for each in words)) == words
    assert len(await redis.client_list()) <= 11


async def test_a_connection_that_the_server_closed_is_made_anew(redis: Redis) -> None:
    """As after a restart: nobody who asks later notices."""
    trips = RoundTrips(redis)
    (name,) = await trips.send([("CLIENT", "ID")])
    await redis.client_kill_filter(_id=str(name))
    assert await echoed(trips, b"a") == [b"a"]


async def test_who_gives_up_leaves_no_answer_behind(redis: Redis) -> None:
    """After a time limit and after a cancelled caller the next one hears what was said to it, not to them."""
    trips = RoundTrips(redis)
    with pytest.raises(TimeoutError):
        await trips.send([("BLPOP", "nothing", 2 * LIMIT_S), ("ECHO", b"late")])
    assert await echoed(trips, b"a") == [b"a"]
    waiting = asyncio.create_task(trips.send([("BLPOP", "nothing", LIMIT_S / 2), ("ECHO", b"late")]))
    await asyncio.sleep(LIMIT_S / 10)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.sleep(LIMIT_S)
    assert await echoed(trips, b"b") == [b"b"]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("size", [1, 50_000])
def test_an_answer_that_is_there_is_not_late(redis_url: str, run: Callable[[Any], object], size: int) -> None:
    """The loop was held up for longer than the limit, and the server was not: its answer lies in the socket."""

    async def held_up() -> None:
        options: dict[str, Any] = {"protocol": 2, "connection_class": PackedConnection, "socket_timeout": LIMIT_S}
        async with Redis.from_url(redis_url, **options) as redis:
            trips = RoundTrips(redis)
            await trips.send([("SET", "long", b"x" * size)])
            asked = asyncio.create_task(trips.send([("BLPOP", "nothing", LIMIT_S / 2), ("GET", "long")]))
            await asyncio.sleep(LIMIT_S / 10)  # by then it is sent, and not yet answered
            time.sleep(2 * LIMIT_S)  # noqa: ASYNC251 - that is what is tried
            assert await asked == [None, b"x" * size]

    run(held_up())


async def test_nobody_there_is_an_error_within_the_limit() -> None:
    """One that says nothing, like one that is not there: neither keeps anybody longer than twice the limit."""
    hung_up = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        hung_up.set()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        for address in (f"redis://127.0.0.1:{port}/0", "redis://127.0.0.1:1/0"):
            nobody = Redis.from_url(address, protocol=2, socket_timeout=LIMIT_S)
            with pytest.raises((RedisError, OSError)):
                async with asyncio.timeout(2 * LIMIT_S):
                    await RoundTrips(nobody).send([("PING",)])
            await nobody.aclose()
        await hung_up.wait()
