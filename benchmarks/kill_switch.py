"""How soon does a flip reach every worker under load? `python benchmarks/kill_switch.py [flips] [workers]`

A whole system with users who scroll as fast as they are answered. From the flip to the last page, of any worker, that
still says otherwise: with everything there, with SQL gone, with Redis black-holed, with both gone (a file). And from a
publish to the last page without its pin. Prints a table; the last line is the same as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import httpx

from deploy.local import valkey
from deploy.local.processes import Child, spawn
from retrieval.database import connect
from retrieval.flag_stores import FlagMirror, FlagStores, FlagTable, KillFiles
from retrieval.policies import Policies
from retrieval.tables import GLOBAL
from service.resources import _redis
from tests.support.redis_server import free_port
from tests.support.running import System, system, video

TENANT = "bench"
CLIENTS = 8
QUIET_S = 1.0
"""A flip has arrived when no page said otherwise for so long."""
DEFAULTS = {
    "FEED_CONFIG_POLL_MS": "500", "FEED_SNAPSHOT_POLL_MS": "250",  # as shipped; tests look more often
    "FEED_USER_REQUESTS_PER_S": "0",  # each client is one user, who asks as fast as they are answered
}  # fmt: skip
TYPICAL_S, ALWAYS_S, POLICY_S = 1.0, 5.0, 2.0
Page = dict[str, Any]


class Load:
    """Clients that ask for first pages all the time, each on connections of its own: every worker is asked."""

    def __init__(self, s: System) -> None:
        self.s = s
        self.statuses: Counter[int] = Counter()
        self.latest: tuple[float, Callable[[Page], bool]] = (0.0, lambda _page: True)
        self.last_wrong_s = 0.0
        self._clients: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Load:
        self._clients = [asyncio.create_task(self._ask(f"u{n}")) for n in range(CLIENTS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def until_all(self, right: Callable[[Page], bool], change: Callable[[], Awaitable[None]]) -> float:
        """Make a change; seconds from its beginning to the answer of the last page that was not right."""
        began = self.last_wrong_s = time.monotonic()
        self.latest = (began, right)
        await change()
        while (left_s := self.last_wrong_s + QUIET_S - time.monotonic()) > 0:  # noqa: ASYNC110 - for nothing to happen
            await asyncio.sleep(left_s)
        return self.last_wrong_s - began

    async def _ask(self, user: str) -> None:
        key = self.s.tenants[TENANT].publishable
        headers = {"Authorization": f"Bearer {key}", "Feed-User": self.s.user_id(user), "Connection": "close"}
        async with httpx.AsyncClient(base_url=self.s.base_url, timeout=10) as client:
            while True:
                asked_s = time.monotonic()
                answer = await client.get("/v1/feed", params={"limit": 5}, headers=headers)
                self.statuses[answer.status_code] += 1
                since_s, right = self.latest
                if answer.status_code == 200 and asked_s >= since_s and not right(answer.json()):
                    self.last_wrong_s = time.monotonic()


async def flip(s: System, state: str) -> None:
    """Set the global flag in every store that answers."""
    engine, redis = connect(s.place.database_url), _redis(s.place.redis_url, 0.5)
    stores = FlagStores(FlagTable(engine), FlagMirror(redis))
    try:
        now_ms = int(time.time() * 1000)
        change = {"state": state, "reason": "benchmark"}
        await stores.set(GLOBAL, change, author="benchmark", if_version=None, now_ms=now_ms)
    finally:
        await redis.aclose()
        await engine.dispose()


async def publish(s: System, pinned: str) -> None:
    """Publish a policy with one pin."""
    rules = [{"id": "p", "kind": "pin", "target": {"items": [pinned]}, "effect": {"position": 0}}]
    engine = connect(s.place.database_url)
    try:
        policies = Policies(engine)
        live = (await policies.standing(TENANT)).versions[0]
        await policies.publish(TENANT, {"rules": rules}, "benchmark", "benchmark", live, int(time.time()))
    finally:
        await engine.dispose()


@contextlib.contextmanager
def sql_gone(s: System) -> Iterator[None]:
    """The database's file is somewhere else, and nobody has it open."""
    path = s.place.folder / "feed.db"
    path.rename(path.with_suffix(".away"))
    try:
        yield
    finally:
        path.with_suffix(".away").rename(path)


@contextlib.contextmanager
def redis_silent(server: Child) -> Iterator[None]:
    """Redis takes connections and never answers."""
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


async def measured(s: System, server: Child, flips: int) -> tuple[dict[str, list[float]], Counter[int]]:
    """Seconds of every flip by situation, and how many answers had which status."""
    files = KillFiles(s.place.folder / "state")

    async def by_file(state: str) -> None:
        if state == "killed":
            files.kill(GLOBAL, "benchmark")
        else:
            files.lift(GLOBAL)

    situations: dict[str, tuple[list[Any], Callable[[str], Awaitable[None]]]] = {
        "everything there": ([], partial(flip, s)),
        "SQL gone": ([partial(sql_gone, s)], partial(flip, s)),
        "Redis black-holed": ([partial(redis_silent, server)], partial(flip, s)),
        "both gone (file)": ([partial(sql_gone, s), partial(redis_silent, server)], by_file),
    }
    seconds: dict[str, list[float]] = {}
    async with Load(s) as load:
        for name, (faults, change) in situations.items():
            with contextlib.ExitStack() as stack:
                for fault in faults:
                    stack.enter_context(fault())
                seconds[name] = []
                for n in range(flips):
                    state, right = ("on", _not_killed) if n % 2 else ("killed", _killed)
                    seconds[name].append(await load.until_all(right, partial(change, state)))
        seconds["policy publish"] = []
        for n in range(flips):
            right = partial(_begins_with, f"v{n}")
            seconds["policy publish"].append(await load.until_all(right, partial(publish, s, f"v{n}")))
        return seconds, load.statuses


def _begins_with(video_id: str, page: Page) -> bool:
    return bool(page["items"][0]["id"] == video_id)


def _killed(page: Page) -> bool:
    return bool(page["mode"] == "killed")


def _not_killed(page: Page) -> bool:
    return bool(page["mode"] != "killed")


def main() -> None:
    """Measure, and say whether the targets hold."""
    given = [int(word) for word in sys.argv[1:3]]
    flips, workers = [*given, *(10, 2)[len(given) :]]
    videos = [video(f"v{n}", f"{('bread', 'trains')[n % 2]} {n}", creator=f"c{n % 20}") for n in range(500)]
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        command = valkey.server_command(port, Path(folder), valkey.FLEETING)
        server = spawn("redis", command, Path(folder) / "redis.log", env=os.environ, grace_s=5.0)
        try:
            while not valkey.answers(port):
                time.sleep(0.02)
            url = f"redis://{valkey.HOST}:{port}/0"
            with system(Path(folder) / "system", url, {TENANT: videos}, workers=workers, env=DEFAULTS) as s:
                seconds, statuses = asyncio.run(measured(s, server, flips))
        finally:
            server.process.send_signal(signal.SIGCONT)
            server.stop()
    report(seconds, statuses, workers)


def report(seconds: dict[str, list[float]], statuses: Counter[int], workers: int) -> None:
    """The table, and the same as one line of JSON."""
    print(f"seconds until every one of {workers} workers has followed, under the load of {CLIENTS} clients")
    print(f"{'':22}{'flips':>6}{'median':>9}{'worst':>9}{'target':>9}")
    for name, each in seconds.items():
        target = POLICY_S if name == "policy publish" else ALWAYS_S
        print(f"{name:22}{len(each):>6}{statistics.median(each):>9.2f}{max(each):>9.2f}{target:>9.1f}")
    answered = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))
    print(f"answers: {answered}; target for the median of a flip: {TYPICAL_S:.0f} s")
    medians = {name: round(statistics.median(each), 3) for name, each in seconds.items()}
    worst = {name: round(max(each), 3) for name, each in seconds.items()}
    print(json.dumps({"benchmark": "kill_switch", "workers": workers,
                      "statuses": dict(statuses), "median_s": medians, "worst_s": worst}))  # fmt: skip


if __name__ == "__main__":
    main()
