"""Packed by hiredis, a command is the same bytes as packed by the client library."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Connection, Redis

from retrieval.packed import PackedConnection

ARGUMENTS = st.lists(st.one_of(st.binary(), st.text(), st.integers(), st.floats(allow_nan=False)))


@given(st.sampled_from(["GET", "SCRIPT LOAD", "evalsha"]), ARGUMENTS)
def test_the_bytes_are_the_librarys(name: str, arguments: list[bytes | str | int | float]) -> None:
    """Names of one and two words, and every type of argument that we send."""
    try:
        expected = b"".join(Connection().pack_command(name, *arguments))
    except UnicodeEncodeError:
        with pytest.raises(UnicodeEncodeError):
            PackedConnection().pack_command(name, *arguments)
        return
    assert b"".join(PackedConnection().pack_command(name, *arguments)) == expected


async def test_a_server_understands_it(redis_url: str) -> None:
    """Scripts, pipelines and large values arrive; TLS and sockets keep the library's own connection."""
    async with Redis.from_url(redis_url, protocol=2, connection_class=PackedConnection) as redis:
        name = await redis.script_load("return redis.call('STRLEN', KEYS[1]) + ARGV[1]")
        pipeline = redis.pipeline(transaction=False)
        pipeline.set("packed", b"\x00" * 300_000)
        pipeline.evalsha(name, 1, "packed", 7)
        pipeline.delete("packed")
        assert await pipeline.execute() == [True, 300_007, 1]
    secure = Redis.from_url("rediss://127.0.0.1:1", connection_class=PackedConnection)
    assert secure.connection_pool.connection_class.__name__ == "SSLConnection"
