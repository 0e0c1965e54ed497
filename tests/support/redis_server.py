"""A real Redis-protocol server for tests: one per session, emptied before each test that uses it.

    pytest_plugins = ["tests.support.redis_server"]

A machine without a server skips these tests; in CI (environment variable CI) it fails them.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

import pytest
import redis

from deploy.local import valkey
from deploy.local.errors import StartError
from deploy.local.processes import ended_error, spawn


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind((valkey.HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that keeps nothing, on a free port, stopped at the end of the session."""
    folder = tmp_path_factory.mktemp("redis")
    port = free_port()
    try:
        command = valkey.server_command(port, folder, valkey.FLEETING)
    except StartError as problem:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(problem))
    server = spawn("redis", command, folder / "redis.log", env=os.environ, grace_s=5.0)
    try:
        while not valkey.answers(port):
            if server.ended:
                raise ended_error(server)
            time.sleep(0.02)
        yield f"redis://{valkey.HOST}:{port}/0"
    finally:
        server.stop()


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The URL of the session's server, which holds nothing when the test begins."""
    with redis.Redis.from_url(redis_server, protocol=2) as client:
        client.flushall()
    return redis_server
