"""How soon a new or changed video is in the feed of a running service.

A real indexer with the default model and a real service with two workers. Two tenants, whose videos carry synthetic
vectors of their own so that loading them embeds nothing; the videos that are then put are embedded. A change counts
from before its PUT is sent until every worker shows it. The last line printed is one JSON object.

    python -m benchmarks.freshness
    python -m benchmarks.freshness --sizes 1000 --changes 20
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil  # type: ignore[import-untyped]  # ships no types

from benchmarks.load_report import chart
from deploy.local import valkey
from deploy.local.processes import spawn
from tests.support.redis_server import free_port
from tests.support.running import System, eventually, system, video

TARGET_P99_S = 5.0
DIM = 384
BATCH = 2000
LOOK_EVERY_S = 0.02
GIVE_UP_S = 60.0
DEFAULTS = {"FEED_POLL_S": "0.5", "FEED_SNAPSHOT_POLL_MS": "250", "FEED_CONFIG_POLL_MS": "1000"}
"""The intervals the product ships with; tests use shorter ones."""


def main() -> None:
    """Measure every size and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--sizes", type=int, nargs="+", default=[1000, 100_000])
    arguments.add_argument("--changes", type=int, default=100, help="per size; half are new videos, half edits of them")
    arguments.add_argument("--chart", action="store_true", help="draw into docs/performance")
    given = arguments.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="freshness-"))
    try:
        results = {size: measure(folder / str(size), size, given.changes) for size in given.sizes}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(
        f"\n{'items':>8}  {'changes':>7}  {'p50 s':>6}  {'p99 s':>6}  {'worst s':>7}   target: p99 <= {TARGET_P99_S} s"
    )
    for size, seconds in results.items():
        p50, p99 = np.percentile(seconds, [50, 99])
        print(f"{size:>8,}  {len(seconds):>7}  {p50:>6.2f}  {p99:>6.2f}  {max(seconds):>7.2f}")
    if given.chart:
        chart("freshness", lambda axes: _draw(axes, results))
    report = {
        str(size): {"p50_s": float(np.percentile(s, 50)), "p99_s": float(np.percentile(s, 99)), "worst_s": max(s)}
        for size, s in results.items()
    }
    print(json.dumps({"benchmark": "freshness", "workers": 2, "changes": given.changes, "items": report}))


def _draw(axes: Any, results: dict[int, list[float]]) -> None:
    """The share of changes that were visible by then."""
    for size, seconds in results.items():
        axes.step(sorted(seconds), np.arange(1, len(seconds) + 1) / len(seconds), label=f"{size:,} videos")
    axes.set(title="From a change to every worker's feed", xlabel="s", ylabel="share of the changes", xlim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()


def measure(folder: Path, size: int, changes: int) -> list[float]:
    """Seconds from each PUT until both workers showed it, at a tenant of `size` videos."""
    folder.mkdir(parents=True)
    with redis(folder) as url, running(folder, url, size) as s, ExitStack() as stack:
        began = time.monotonic()
        load(s, size)
        eventually(lambda: bool(s.ids("shop")), within_s=600)
        s.indexed(within_s=900)
        print(f"{size:,} videos loaded and indexed in {time.monotonic() - began:.0f} s")
        workers = [stack.enter_context(closing(client)) for client in one_connection_per_worker(s)]
        rng = np.random.default_rng(1)
        seconds = []
        for number in range(changes):
            # Every second change edits the video before it, so both are among the newest and on the first page.
            title = f"{'edit' if number % 2 else 'new'} {number}: {' '.join(rng.choice(WORDS, 30))}"
            time.sleep(rng.uniform(0, 1))  # so that no interval of a loop is hit in step
            seconds.append(visible_after_s(s, workers, f"put-{number // 2}", title))
        return seconds


WORDS = ("talks", "on", "data", "and", "python", "code", "tests", "models", "learning", "cloud", "packaging")


def visible_after_s(s: System, workers: list[httpx.Client], video_id: str, title: str) -> float:
    """Seconds from before the PUT until the title is in the feed of every worker."""
    began = time.monotonic()
    s.put("shop", video(video_id, title))
    for worker in workers:
        while title not in worker.get("/v1/feed", params={"limit": 50}).raise_for_status().text:
            if time.monotonic() - began > GIVE_UP_S:
                raise TimeoutError(f"not visible after {GIVE_UP_S} s: {title}")
            time.sleep(LOOK_EVERY_S)
    return time.monotonic() - began


def load(s: System, size: int) -> None:
    """Store `size` videos with random vectors, published over the year before yesterday."""
    rng = np.random.default_rng(0)
    for start in range(0, size, BATCH):
        numbers = range(start, min(start + BATCH, size))
        vectors = rng.normal(size=(len(numbers), DIM)).round(4).tolist()
        days = rng.integers(2, 365, len(numbers)).tolist()
        s.place.store_videos(
            "shop",
            [
                video(f"v{n}", f"synthetic {n}", vector=vector, creator=f"c{n % 997}", published_at=ago(day))
                for n, vector, day in zip(numbers, vectors, days, strict=True)
            ],
        )


def ago(days: int) -> str:
    """A time so many days ago, as the API takes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 86_400 * days))


def one_connection_per_worker(s: System) -> list[httpx.Client]:
    """Clients that keep their connection, one to each worker process of the service."""
    found: dict[int, httpx.Client] = {}
    key = s.tenants["shop"].publishable
    while len(found) < len(s.workers()):
        client = httpx.Client(base_url=s.base_url, headers={"Authorization": f"Bearer {key}"}, timeout=30)
        answer = client.get("/v1/feed")
        port = answer.extensions["network_stream"].get_extra_info("client_addr")[1]
        worker = next(w.pid for w in s.workers() if any(c.raddr and c.raddr.port == port for c in w.net_connections()))
        if worker in found:
            client.close()
        else:
            found[worker] = client
    return list(found.values())


@contextmanager
def running(folder: Path, redis_url: str, size: int) -> Iterator[System]:
    """Indexer and service over an empty tenant `shop`."""
    print(f"{size:,} videos: starting")
    with system(folder, redis_url, {"shop": []}, model="all-MiniLM-L6-v2", dim=DIM, env=DEFAULTS) as s:
        yield s


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A server of its own."""
    port = free_port()
    command = valkey.server_command(port, folder, valkey.FLEETING)
    child = spawn("redis", command, folder / "redis.log", env={}, grace_s=5)
    try:
        eventually(lambda: valkey.answers(port))
        yield f"redis://{valkey.HOST}:{port}/0"
    finally:
        child.stop()


if __name__ == "__main__":
    assert psutil.LINUX, "connections are looked up in /proc"
    main()
