"""How many feeds a machine gives that also runs Redis and the load: `make bench-first`, `make bench-scroll`.

    python -m benchmarks.bench_feeds first
    python -m benchmarks.bench_feeds scroll --seconds 30 --workers 2 --connections 32
    python -m benchmarks.bench_feeds scroll --rate 1500         # at a fixed rate: the open loop of benchmarks/load.py

A closed loop unless a rate is given. The mixes are in benchmarks/load_mixes.py, the world in benchmarks/world.py. The
first seconds are not measured. The service has the settings it ships with, its rates per user and key included.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.load import Run, Session
from benchmarks.load_mixes import FEED_KINDS, Checks, Mixes
from benchmarks.load_observed import Observed, percentile_ms
from benchmarks.load_report import Measured, chart, difference, finish
from benchmarks.product import Product, running
from benchmarks.world import FOLDER, SCALES, opened

CONNECTIONS = {"first": 16, "scroll": 32}
"""Enough to keep two workers busy; with more, answers only wait longer."""
TARGETS = {"first": "1,500 feeds/s, p99 < 150 ms", "scroll": "3,000 feeds/s, p99 < 100 ms"}


@dataclass(frozen=True)
class Offered:
    """How load is offered: see `benchmarks.load.Run`. The `warm_up_s` before are not measured."""

    connections: int
    seconds: float
    rate: float | None = None
    warm_up_s: float = 5.0


def measured(product: Product, sessions: Iterator[Session], checks: Checks, offered: Offered) -> Measured:
    """One run. Its beginning is left out: every session begins there with a first page, the dearest."""
    gc.collect()
    gc.freeze()  # a collection over all users would be the generator's, and look like the service's
    from_s, until_s = offered.warm_up_s, offered.warm_up_s + offered.seconds
    run = Run(product.port, sessions, connections=offered.connections, steps=[(until_s, offered.rate)])
    observed, used = watched(product, run, [from_s, until_s])
    return Measured(observed.between(from_s, until_s), checks, offered.seconds, difference(*used), product.memory())


def watched(product: Product, run: Run, moments_s: Sequence[float]) -> tuple[Observed, list[dict[str, float]]]:
    """What a run observed, and `product.cpu_s()` at moments, seconds after it began."""

    async def used_at(moment_s: float) -> dict[str, float]:
        await asyncio.sleep(moment_s)
        return product.cpu_s()

    async def whole() -> tuple[Observed, list[dict[str, float]]]:
        return await asyncio.gather(run(), asyncio.gather(*map(used_at, moments_s)))

    return uvloop.run(whole())


def arguments(description: str | None, *, seconds: float, connections: int | None = None) -> argparse.ArgumentParser:
    """The options that all benchmarks under load have, with these defaults."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", choices=tuple(SCALES), default="full")
    parser.add_argument("--worlds", type=Path, default=FOLDER, help="the folder worlds are kept in")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--connections", type=int, default=connections)
    parser.add_argument("--seconds", type=float, default=seconds)
    parser.add_argument("--chart", action="store_true", help="draw into docs/performance")
    return parser


def main() -> None:
    """Run one mix."""
    parser = arguments(__doc__, seconds=30.0)
    parser.add_argument("mix", choices=tuple(TARGETS))
    parser.add_argument("--rate", type=float, default=None, help="requests per second; left out: a closed loop")
    given = parser.parse_args()
    connections = given.connections or CONNECTIONS[given.mix]
    world = opened(given.world, given.worlds)
    with running(world, given.workers) as product:
        loop = f"{given.rate:g} requests/s" if given.rate else "closed loop"
        print(f"{given.mix}: {given.workers} workers, {connections} connections, {loop}, {given.seconds:g} s")
        print(f"world {given.world}: {len(world.tenants)} tenants, {world.items:,} videos, {world.scale.users:,} users")
        checks = Checks()
        mixes = Mixes(product.users, checks)
        sessions = mixes.first() if given.mix == "first" else mixes.scroll()
        result = measured(product, sessions, checks, Offered(connections, given.seconds, given.rate))
        result.print()
        print(f"target       {TARGETS[given.mix]}")
        facts = {
            "mix": given.mix,
            "workers": given.workers,
            "world": given.world,
            "rate": given.rate,
            **result.summary(),
        }
        if given.chart:
            chart(given.mix, lambda axes: _draw(axes, result, f"{given.mix}: {facts['feeds_per_s']:,.0f} feeds/s"))
        finish("feeds", facts)


def _draw(axes: Any, result: Measured, title: str) -> None:
    """Latency by percentile, one line per kind of answer."""
    percents = [50, 75, 90, 95, 99, 99.5, 99.9]
    for kind in FEED_KINDS:
        latency_ms = result.observed.latency_ms[result.observed.kind == kind]
        if len(latency_ms):
            axes.plot(range(len(percents)), [percentile_ms(latency_ms, p) for p in percents], marker="o", label=kind)
    axes.set(title=title, xlabel="percentile", ylabel="ms", yscale="log")
    axes.set_xticks(range(len(percents)), [f"{p:g}" for p in percents])
    axes.grid(alpha=0.3)
    axes.legend()


if __name__ == "__main__":
    main()
