"""What an answer costs as tenants grow, and as their number grows: `make bench-growth`.

    python -m benchmarks.bench_growth                                  # 1,000 to 1,000,000 videos, 1 and 120 tenants
    python -m benchmarks.bench_growth --worlds-of 1000 10000 --requests 2000

CPU of one worker process, all in, for a first page, a cursor page and a refresh that finds nothing new (304). The kinds
take turns in five rounds and the median is reported, so that a busy machine is unfair to none; what an idle worker uses
meanwhile, by polling, is measured first and taken off.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import numpy as np
import uvloop

from benchmarks.load import Answer, Request, Run, Session
from benchmarks.load_mixes import CURSOR, FIRST, REFRESH, TAG, cursor_of, head, query
from benchmarks.load_report import chart, finish
from benchmarks.product import Product, running
from benchmarks.world import FOLDER, SCALES, opened
from benchmarks.world_users import User

WORLDS: Final = ("1000", "10000", "100000", "1000000", "120-tenants")
ROUNDS: Final = 5
USERS: Final = 300
CONNECTIONS: Final = 4
"""Few enough that nothing is refused or narrowed, also while something else keeps the machine busy."""
IDLE_S: Final = 3.0
TARGETS_US: Final = {FIRST: 700.0, CURSOR: 250.0, REFRESH: 200.0}
"""At a tenant of 10,000 videos."""


def costs_us(product: Product, requests: int) -> dict[str, float]:
    """Median CPU microseconds of the worker per answer, by kind."""
    users = [user for user in product.users if user.is_known][:USERS]
    pages: dict[int, Answer] = {}
    _run(product, (_kept(user, pages) for user in users), len(users))
    users = [user for user in users if cursor_of(pages[user.number])]
    kinds: dict[str, Callable[[User], bytes]] = {
        FIRST: lambda user: b"GET %b%b\r\n" % (query(user), head(user)),
        CURSOR: lambda user: b"GET %b&cursor=%b%b\r\n" % (query(user), cursor_of(pages[user.number]), head(user)),
        REFRESH: lambda user: (
            b"GET %b%bIf-None-Match: %b\r\n\r\n" % (query(user), head(user), _tag(pages[user.number]))
        ),
    }
    idle = _idle(product)
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(ROUNDS):
        for kind, content in kinds.items():
            asked = cycle([Request(kind, content(user)) for user in users])
            began_s, before_s = time.perf_counter(), product.cpu_s()["workers"]
            answered = _run(product, (_one(request) for request in asked), requests // ROUNDS)
            used_s = product.cpu_s()["workers"] - before_s - idle * (time.perf_counter() - began_s)
            found[kind].append(1e6 * used_s / answered)
    return {kind: float(np.median(each)) for kind, each in found.items()}


def _run(product: Product, sessions: Iterator[Session], most: int) -> int:
    """How many were answered; every one of them must be right."""
    run = Run(product.port, sessions, connections=CONNECTIONS, steps=[(120.0, None)], most=most)
    observed = uvloop.run(run())
    if unexpected := set(observed.statuses()) - {200, 304}:
        raise RuntimeError(f"answers with status {unexpected}")
    return len(observed)


def _kept(user: User, pages: dict[int, Answer]) -> Session:
    pages[user.number] = yield Request(FIRST, b"GET %b%b\r\n" % (query(user), head(user)))


def _one(request: Request) -> Session:
    yield request


def _tag(page: Answer) -> bytes:
    found = TAG.search(page.head)
    return found[1] if found else b""


def _idle(product: Product) -> float:
    before_s = product.cpu_s()["workers"]
    time.sleep(IDLE_S)
    return (product.cpu_s()["workers"] - before_s) / IDLE_S


def main() -> None:
    """Measure every world."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=Path, default=FOLDER, help="the folder worlds are kept in")
    parser.add_argument("--chart", action="store_true", help="draw into docs/performance")
    parser.add_argument("--worlds-of", nargs="+", choices=tuple(SCALES), default=WORLDS, metavar="WORLD")
    parser.add_argument("--requests", type=int, default=5_000, help="of each kind")
    given = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    print(f"{'world':>12}{'tenants':>9}{'videos':>11}" + "".join(f"{kind + ' us':>16}" for kind in TARGETS_US))
    for name in given.worlds_of:
        world = opened(name, given.worlds)
        with running(world, workers=1) as product:
            found[name] = costs_us(product, given.requests)
        shown = "".join(f"{cost:>16,.0f}" for cost in found[name].values())
        print(f"{name:>12}{len(world.tenants):>9}{world.items:>11,}{shown}", flush=True)
    print(f"target at 10,000: {TARGETS_US}; 1,000 to 1,000,000: at most 4x; 120 tenants of 1,000 like one of 1,000")
    if given.chart:
        chart("growth", lambda axes: _draw(axes, found))
    finish("growth", {"cpu_us": {name: {k: round(us) for k, us in costs.items()} for name, costs in found.items()}})


def _draw(axes: Any, found: dict[str, dict[str, float]]) -> None:
    sizes = [name for name in found if name.isdecimal()]
    for kind in TARGETS_US:
        axes.plot([int(name) for name in sizes], [found[name][kind] for name in sizes], marker="o", label=kind)
    axes.set(title="CPU per answer", xlabel="videos of the tenant", ylabel="us", xscale="log", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()


if __name__ == "__main__":
    main()
