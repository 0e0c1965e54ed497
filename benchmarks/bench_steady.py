"""600 feeds a second for minutes while content changes: `make bench-steady DURATION=300`.

    python -m benchmarks.bench_steady --seconds 300 --feeds 600

The open loop, with the indexer running beside (it embeds with the default model, publishes, archives events). Every
second somebody PUTs five videos, new ones and edits of them, to one of the larger tenants; every five seconds a policy
is published. So about one snapshot a second is swapped in each worker.

A swap that hurts shows as a second in which everything is slow: beside the percentiles of the whole run the worst
second is reported, and how far its p99 stands above the usual one (the median of all seconds).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import numpy as np
import numpy.typing as npt
import orjson

from benchmarks.bench_feeds import Offered, arguments, measured
from benchmarks.load_mixes import FEED_KINDS, Checks, Mixes
from benchmarks.load_observed import percentile_ms
from benchmarks.load_report import Measured, chart, finish
from benchmarks.product import Product, running
from benchmarks.world import opened
from benchmarks.world_content import Built

REQUESTS_PER_FEED: Final = 8 / 6
"""Of the scroll mix: six of a session's eight requests are feeds."""
CHANGE_EVERY_S: Final = 1.0
VIDEOS_PER_CHANGE: Final = 5
PUBLISH_EVERY: Final = 5
"""Changes between two policies."""
STEP_MS: Final = 50.0
WORDS: Final = ("talks", "on", "data", "and", "python", "code", "tests", "models", "learning", "cloud", "packaging")


@dataclass
class Editors:
    """People who change content and policies while the feeds are asked for, over HTTP, in a thread of their own."""

    product: Product
    statuses: Counter[str] = field(default_factory=Counter)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def work(self) -> None:
        """Change something every second until `stop`."""
        rng = np.random.default_rng(1)
        tenants = self.product.world.tenants
        weights = np.array([tenant.items for tenant in tenants], float)
        with httpx.Client(base_url=f"http://127.0.0.1:{self.product.port}/v1/admin", timeout=30) as client:
            number = 0
            while not self._stopped.wait(CHANGE_EVERY_S):
                tenant = tenants[int(rng.choice(len(tenants), p=weights / weights.sum()))]
                client.headers["Authorization"] = f"Bearer {tenant.secret}"
                self._put(client, tenant, number, rng)
                if number % PUBLISH_EVERY == 0:
                    self._publish(client, tenant, number)
                number += 1

    def stop(self) -> None:
        self._stopped.set()

    def _put(self, client: httpx.Client, tenant: Built, number: int, rng: np.random.Generator) -> None:
        # Every third change edits what the one before it brought.
        names = [f"{tenant.id}-new-{number - (number % 3 == 2)}-{n}" for n in range(VIDEOS_PER_CHANGE)]
        videos = [
            {"id": name, "title": " ".join(rng.choice(WORDS, 20)), "media_url": f"https://media.example/{name}.m3u8"}
            for name in names
        ]
        answer = client.put("/videos", json={"videos": videos})
        self.statuses[f"PUT videos {answer.status_code}"] += 1

    def _publish(self, client: httpx.Client, tenant: Built, number: int) -> None:
        found = client.get("/policy")
        body = found.json()["live"]["policy"]
        body["weights"]["freshness"] = 0.3 + number % 10 / 50
        tag = {"If-Match": found.headers["etag"]}
        saved = client.put("/policy", json={"policy": body, "author": "editor"}, headers=tag)
        tag = {"If-Match": saved.headers.get("etag", "")}
        answer = client.post("/policy:publish", json={"author": "editor", "reason": "benchmark"}, headers=tag)
        problems = answer.json().get("errors", ()) if answer.status_code == 422 else ()
        why = "".join(f" ({tenant.id}: {problem['detail']})" for problem in problems)
        self.statuses[f"publish policy {answer.status_code}{why}"] += 1


@contextmanager
def editing(product: Product) -> Iterator[Editors]:
    """While inside, content and policies change."""
    editors = Editors(product)
    thread = threading.Thread(target=editors.work)
    thread.start()
    try:
        yield editors
    finally:
        editors.stop()
        thread.join()


def by_second(result: Measured, percent: float) -> npt.NDArray[np.float64]:
    """float64[seconds]: that percentile of the feeds that were due in each second, ms; NaN where there was none."""
    feeds = np.isin(result.observed.kind, FEED_KINDS) & result.is_good
    second = result.observed.due_s[feeds].astype(int)
    latency_ms = result.observed.latency_ms[feeds]
    return np.array([percentile_ms(latency_ms[second == at], percent) for at in range(int(result.seconds))])


def published(product: Product) -> int:
    """How many generations the indexer has published."""
    lines = (product.options.folder / "log" / "indexer.log").read_bytes().splitlines()
    return sum(orjson.loads(line).get("event") == "published" for line in lines if line.startswith(b"{"))


def main() -> None:
    """Run."""
    parser = arguments(__doc__, seconds=300.0, connections=64)
    parser.add_argument("--feeds", type=float, default=600.0, help="feed requests per second")
    given = parser.parse_args()
    world = opened(given.world, given.worlds)
    with running(world, given.workers, with_indexer=True) as product:
        print(f"steady: {given.feeds:g} feeds/s for {given.seconds:g} s, {given.workers} workers, content changes")
        checks = Checks()
        offered = Offered(given.connections, given.seconds, given.feeds * REQUESTS_PER_FEED)
        with editing(product) as editors:
            result = measured(product, Mixes(product.users, checks).scroll(), checks, offered)
        result.print()
        p99_ms = by_second(result, 99)
        usual_ms, worst_ms = float(np.nanmedian(p99_ms)), float(np.nanmax(p99_ms))
        changes = ", ".join(f"{what}: {n}" for what, n in sorted(editors.statuses.items()))
        print(f"changes      {changes}; generations published: {published(product)}")
        print(f"seconds      usual p99 {usual_ms:.1f} ms, worst second's p99 {worst_ms:.1f} ms")
        print(f"target       p99 < 40 ms, no step of more than {STEP_MS:g} ms")
        if given.chart:
            chart("steady", lambda axes: _draw(axes, result))
        facts = {"workers": given.workers, "world": given.world, "seconds": given.seconds, **result.summary()}
        steps = int((p99_ms > usual_ms + STEP_MS).sum())
        seconds = {"worst_second_p99_ms": round(worst_ms, 1), "usual_second_p99_ms": round(usual_ms, 1)}
        finish("steady", {**facts, **seconds, "seconds_above_step": steps, "published": published(product)})


def _draw(axes: Any, result: Measured) -> None:
    for percent in (50.0, 99.0, 100.0):
        axes.plot(by_second(result, percent), label=f"p{percent:g}", linewidth=1)
    axes.set(title="600 feeds/s while content changes", xlabel="second", ylabel="ms", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()


if __name__ == "__main__":
    main()
