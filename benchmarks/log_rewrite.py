"""What it costs Redis to rewrite its append-only log, and to read it at a start: with compression and without.

    python -m benchmarks.log_rewrite

The journals of the world's 50,000 users, in a server with the settings of one machine (`deploy/local/valkey.py`). A
rewrite runs in a child of the server, at its priority: on a machine of two cores, one of them is gone meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final

import orjson
import psutil  # type: ignore[import-untyped]  # ships no types
import redis

from benchmarks.world import FOLDER, World, opened
from benchmarks.world_users import User, load, users
from deploy.local import valkey
from deploy.local.processes import answering, spawn
from tests.support.redis_server import free_port

REWRITES: Final = 5
POLL_S: Final = 0.01


@contextmanager
def server(port: int, folder: Path, settings: dict[str, str]) -> Iterator[psutil.Process]:
    """A server that answers: what is in its folder has been read."""
    child = spawn("redis", valkey.server_command(port, folder, settings), folder / "log", env=os.environ, grace_s=5.0)
    try:
        asyncio.run(answering(child, lambda: valkey.answers(port), valkey.READY_LIMIT_S))
        yield psutil.Process(child.process.pid)
    finally:
        child.stop()


def rewrite_cpu_s(port: int, process: psutil.Process) -> float:
    """CPU seconds of one rewrite, in the child that does it."""
    with redis.Redis(port=port, protocol=2) as client:
        before = process.cpu_times()
        client.bgrewriteaof()
        while client.info("persistence")["aof_rewrite_in_progress"]:
            time.sleep(POLL_S)
        after = process.cpu_times()
    spent_s: float = after.children_user + after.children_system - before.children_user - before.children_system
    return spent_s


def measured(world: World, journals_of: list[User], compressed: bool) -> dict[str, float]:
    """The median CPU seconds of REWRITES, megabytes of the file, and seconds until a server that starts has read it."""
    settings = {**valkey.DURABLE, "rdbcompression": "yes" if compressed else "no"}
    port = free_port()
    with tempfile.TemporaryDirectory() as name:
        with server(port, Path(name), settings) as process:
            asyncio.run(load(world, journals_of, f"redis://{valkey.HOST}:{port}/0", int(time.time())))
            cpu_s = median(rewrite_cpu_s(port, process) for _ in range(REWRITES))
            with redis.Redis(port=port, protocol=2) as client:
                size = client.info("persistence")["aof_base_size"]
        began_s = time.perf_counter()
        with server(port, Path(name), settings):
            read_s = time.perf_counter() - began_s
    return {"rewrite_cpu_s": round(cpu_s, 2), "file_mb": round(size / 1e6), "read_s": round(read_s, 1)}


def main() -> None:
    """Print both, and the same as JSON in the last line."""
    world = opened("full", FOLDER)
    everybody = users(world)
    found = {name: measured(world, everybody, name == "compressed") for name in ("compressed", "plain")}
    for name, facts in found.items():
        print(f"{name:12}" + ", ".join(f"{what} {value}" for what, value in facts.items()))
    print(orjson.dumps(found).decode())


if __name__ == "__main__":
    main()
