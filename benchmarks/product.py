"""The product running on a world, started as `make run` starts it; and what its processes cost.

Redis with an append-only log, `python -m service serve` with its workers, and where it is asked for the indexer: all
with the settings they ship with, on a copy of the world that the run may change. CPU is what /proc/PID/stat says, user
and system, all threads. Memory is what /proc/PID/smaps_rollup says: private is Private_Dirty, what one more worker
would cost; shared is Pss_File and Pss_Shmem of all workers together, so a page of a snapshot that all of them have
mapped counts once.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from sys import executable
from types import MappingProxyType
from typing import Final

import httpx

from benchmarks.world import World
from benchmarks.world_users import User, load, users
from deploy.local import valkey
from deploy.local.errors import StartError
from deploy.local.processes import Child, answering, last_lines, spawn
from deploy.local.up import Options
from tests.support.redis_server import free_port

READY_LIMIT_S: Final = 120.0
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
WORKER: Final = b"spawn_main"
"""In the command line of a worker process."""
ALIVE: Final = "feed_worker_refreshed_timestamp_seconds{"


@dataclass(frozen=True)
class Memory:
    """Megabytes (10^6 bytes). `shared_mb` is counted once for all workers together."""

    private_mb_per_worker: float
    shared_mb: float


@dataclass
class Product:
    """A running product; `users` are those whose journals are in its Redis."""

    world: World
    options: Options
    users: list[User]
    ready_s: float = 0.0
    """From the start of the service until all its workers could answer."""
    children: dict[str, Child] = field(default_factory=dict)
    asking: httpx.Client = field(default_factory=httpx.Client)
    """Made once: it takes 20 ms of CPU, which each look at workers that are starting would take from them."""

    @property
    def port(self) -> int:
        return self.options.port

    def processes(self) -> dict[str, list[int]]:
        """Process ids by name: workers, redis, indexer, generator (this process)."""
        named = {name: [child.process.pid] for name, child in self.children.items() if name != "service"}
        return {"workers": self.workers(), **named, "generator": [os.getpid()]}

    def workers(self) -> list[int]:
        """The worker processes of the service; a single worker is the service's own process."""
        if "service" not in self.children:
            return []
        parent = self.children["service"].process.pid
        found = (int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split())
        return [pid for pid in found if WORKER in Path(f"/proc/{pid}/cmdline").read_bytes()] or [parent]

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds used so far, by name."""
        return {name: sum(map(cpu_s, pids)) for name, pids in self.processes().items()}

    def memory(self) -> Memory:
        """Of the workers."""
        each = [_rollup_kb(pid) for pid in self.workers()]
        return Memory(
            private_mb_per_worker=sum(one["Private_Dirty"] for one in each) * 1.024e-3 / max(len(each), 1),
            shared_mb=sum(one["Pss_File"] + one["Pss_Shmem"] for one in each) * 1.024e-3,
        )

    def start(self, name: str, *arguments: str, **more: str) -> Child:
        """`python -m ARGUMENTS`, called `name` here; `more` are environment variables."""
        environment = {**self.options.environment, **more}
        child = spawn(name, [executable, "-m", *arguments], self._log(name), env=environment, grace_s=10.0)
        self.children[name] = child
        return child

    def start_redis(self) -> None:
        """With the settings of one machine, as `make run` has them, and what is known of the users in it."""
        folder = self.options.folder / "redis"
        folder.mkdir()
        command = valkey.server_command(self.options.redis_port, folder, valkey.DURABLE)
        child = spawn("redis", command, self._log("redis"), env=os.environ, grace_s=5.0)
        self.children["redis"] = child
        asyncio.run(answering(child, lambda: valkey.answers(self.options.redis_port), valkey.READY_LIMIT_S))
        asyncio.run(load(self.world, self.users, self.options.settings.redis_url, int(time.time())))

    def start_service(self, **more: str) -> None:
        """The service, and wait until every worker can answer."""
        began = time.perf_counter()
        workers, port = str(self.options.workers), str(self.options.port)
        child = self.start("service", "service", "serve", "--port", port, "--workers", workers, **more)
        try:
            asyncio.run(answering(child, lambda: self._alive() >= self.options.workers, READY_LIMIT_S))
        except StartError as error:  # its log goes with the folder of this run
            raise StartError(f"{error}\n{last_lines(child.log, 15)}") from error
        self.ready_s = time.perf_counter() - began

    def stop(self) -> None:
        """End everything, last started first."""
        while self.children:
            self.children.popitem()[1].stop()
        self.asking.close()

    def _alive(self) -> int:
        try:
            answer = self.asking.get(f"http://127.0.0.1:{self.options.health_port}/metrics", timeout=5)
            self.asking.get(f"http://127.0.0.1:{self.port}", timeout=5)  # it says so a moment before it listens
        except httpx.TransportError:
            return 0
        return sum(float(line.split()[-1]) > 0 for line in answer.text.splitlines() if line.startswith(ALIVE))

    def _log(self, name: str) -> Path:
        return self.options.folder / "log" / f"{name}.log"


@contextmanager
def running(
    world: World, workers: int, *, with_indexer: bool = False, env: Mapping[str, str] = MappingProxyType({})
) -> Iterator[Product]:
    """The product on a copy of `world`, beside it on the same disk; everything is stopped and removed on leaving.

    `env` are settings of the service that differ from what it ships with.
    """
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=world.folder.parent)) / "run"
    world.copy_to(folder)
    options = Options(folder.resolve(), free_port(), free_port(), free_port(), workers, videos_per_tenant=0)
    product = Product(world, options, users(world))
    try:
        product.start_redis()
        product.start_service(**env)
        if with_indexer:
            product.start("indexer", "indexer", "run")
        yield product
    finally:
        product.stop()
        shutil.rmtree(folder.parent, ignore_errors=True)


def cpu_s(pid: int) -> float:
    """CPU seconds of a process, user and system, all threads; 0 when it is gone."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(after_name[11]) + int(after_name[12])) / TICKS_PER_S


def _rollup_kb(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) for line in lines}
