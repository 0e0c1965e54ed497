"""What a 304 and a cursor page cost beside a first page, in CPU of the service. Target: at most a third each.

    python -m benchmarks.feed_costs [--videos 5000] [--requests 3000]

The whole product runs as it would: daemon, Redis, two workers of the service. The workers' CPU time, user and system,
is read before and after thousands of requests of one kind; what idle workers use meanwhile (their polling) is measured
first and taken off. Kinds take turns, so that a busy machine is unfair to none of them.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import numpy.typing as npt

from tests.support.redis_server import own_redis
from tests.support.running import System, system, video

DIM: Final = 384
USERS: Final = 200
LIKED: Final = 40
ROUNDS: Final = 5
TARGET: Final = 1 / 3


class RandomEncoder:
    """Unit vectors of the default model's length around a hundred topics, drawn from the text: costs nothing."""

    dim = DIM
    model_id = "random@384"

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """float32[n, 384]."""
        rows = []
        for text in texts:
            number = sum(text.encode())
            centre = np.random.default_rng(number % 100).normal(size=DIM)
            rows.append(centre + np.random.default_rng(hash(text) & 0xFFFF_FFFF).normal(size=DIM))
        vectors = np.array(rows, np.float32).reshape(-1, DIM)
        unit: npt.NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit


class Bench:
    """A running system with users who have a taste."""

    def __init__(self, running: System, client: httpx.Client) -> None:
        self.client = client
        self.workers = running.workers()
        key = {"Authorization": f"Bearer {running.tenants['acme'].publishable}"}
        self.headers = [{**key, "Feed-User": running.user_id(f"user {n}")} for n in range(USERS)]
        shown = running.ids("acme", limit=50)
        for n in range(USERS):
            liked = [(("like", "watch")[at % 2], shown[(n + at) % len(shown)]) for at in range(LIKED)]
            running.events("acme", f"user {n}", *liked, value=0.9)
        answers = [client.get("/v1/feed", headers=headers) for headers in self.headers]
        if any(answer.json()["mode"] != "personalised" for answer in answers):
            raise RuntimeError("every user was to be personalised")
        self.tags = [answer.headers["etag"] for answer in answers]
        self.cursors = [answer.json()["next_cursor"] for answer in answers]

    def first_page(self, n: int) -> httpx.Response:
        return self.client.get("/v1/feed", headers=self.headers[n])

    def unchanged(self, n: int) -> httpx.Response:
        return self.client.get("/v1/feed", headers={**self.headers[n], "If-None-Match": self.tags[n]})

    def cursor_page(self, n: int) -> httpx.Response:
        return self.client.get("/v1/feed", headers=self.headers[n], params={"cursor": self.cursors[n]})

    def cpu_s(self) -> float:
        times = [worker.cpu_times() for worker in self.workers]
        return float(sum(one.user + one.system for one in times))

    def cost_ms(self, ask: Callable[[int], httpx.Response], status: int, requests: int, idle: float) -> float:
        """CPU per request; `idle`: CPU seconds per second that are spent without any request."""
        began_s, before_s = time.perf_counter(), self.cpu_s()
        for number in range(requests):
            answer = ask(number % len(self.tags))
            if answer.status_code != status:
                raise RuntimeError(f"{answer.status_code} where {status} was measured: {answer.text[:200]}")
        used_s = self.cpu_s() - before_s - idle * (time.perf_counter() - began_s)
        return 1000 * used_s / requests

    def idle(self, for_s: float = 3.0) -> float:
        before_s = self.cpu_s()
        time.sleep(for_s)
        return (self.cpu_s() - before_s) / for_s


@contextmanager
def bench(videos: int) -> Any:
    """The system, with that many videos indexed."""
    catalogue = [
        video(f"v{n}", f"talk {n}", creator=f"creator {n % 97}", tags=[f"tag {n % 31}"]) for n in range(videos)
    ]
    model = "python:benchmarks.feed_costs:RandomEncoder"
    with (
        tempfile.TemporaryDirectory() as folder,
        own_redis(Path(folder) / "redis") as (redis_url, _),
        system(Path(folder), redis_url, {"acme": catalogue}, model=model, dim=DIM) as running,
        httpx.Client(base_url=running.base_url, timeout=30) as client,
    ):
        yield Bench(running, client)


def main() -> int:
    """Print CPU per request of each kind; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=5000)
    parser.add_argument("--requests", type=int, default=3000, help="of each kind")
    asked = parser.parse_args()
    with bench(asked.videos) as measured:
        kinds = {
            "first page": (measured.first_page, 200),
            "304": (measured.unchanged, 304),
            "cursor page": (measured.cursor_page, 200),
        }
        idle = measured.idle()
        costs: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(ROUNDS):
            for name, (ask, status) in kinds.items():
                costs[name].append(measured.cost_ms(ask, status, asked.requests // ROUNDS, idle))
    first_ms = float(np.median(costs["first page"]))
    print(f"{asked.videos} videos, {USERS} users, {asked.requests} requests of each kind; idle {100 * idle:.1f} % CPU")
    missed = False
    for name, found in costs.items():
        share = float(np.median(found)) / first_ms
        between = f"{min(found):.2f} to {max(found):.2f}"
        print(f"{name:12} {np.median(found):6.2f} ms CPU ({between}), {share:4.0%} of a first page")
        missed |= name != "first page" and share > TARGET
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
