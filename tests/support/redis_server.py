"""Real Redis-protocol servers for tests: one for running systems, and one that is emptied before each test.

Each running system has a database of its own. With one between them, each indexer would archive and then drop from the
stream what the other has not read yet.

    pytest_plugins = ["tests.support.redis_server"]

A machine without a server skips these tests; in CI (environment variable CI) it fails them.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from deploy.local import valkey
from deploy.local.errors import StartError
from deploy.local.processes import Child, ended_error, spawn

DATABASES = 64


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind((valkey.HOST, 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def redis_databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Iterator[str]]:
    """URLs of empty databases, one for each whole running system, which outlives a test: nobody empties them."""
    with own_redis(tmp_path_factory.mktemp("redis")) as (url, _):
        yield (f"{url.removesuffix('/0')}/{number}" for number in range(DATABASES))


@pytest.fixture(scope="module")
def redis_database(redis_databases: Iterator[str]) -> str:
    """The URL of one for the running system of a module."""
    return next(redis_databases)


@pytest.fixture(scope="session")
def scratch_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that any test may empty."""
    with own_redis(tmp_path_factory.mktemp("scratch-redis")) as (url, _):
        yield url


@pytest.fixture
def redis_url(scratch_redis: str) -> str:
    """The URL of a server that holds nothing when the test begins and that nothing else talks to."""
    with redis.Redis.from_url(scratch_redis, protocol=2) as client:
        client.flushall()
    return scratch_redis


@contextmanager
def own_redis(folder: Path) -> Iterator[tuple[str, Child]]:
    """A server that keeps nothing: its URL and its process. SIGSTOP makes it a black hole that keeps its data."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        command = valkey.server_command(port, folder, {**valkey.FLEETING, "databases": str(DATABASES)})
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
        yield f"redis://{valkey.HOST}:{port}/0", server
    finally:
        if not server.ended:
            server.process.send_signal(signal.SIGCONT)
        server.stop()
