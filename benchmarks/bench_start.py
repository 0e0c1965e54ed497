"""How long a worker takes until it can answer: `make bench-start`.

    python -m benchmarks.bench_start --starts 5

From `python -m service serve` to the moment when the metrics say that every worker has all tenants open, every byte of
their snapshots verified. The files are in the page cache, as they are on a machine where another worker runs.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from benchmarks.load_report import finish
from benchmarks.product import running
from benchmarks.world import FOLDER, SCALES, opened

TARGET_S = 5.0


def main() -> None:
    """Start a few times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", choices=tuple(SCALES), default="full")
    parser.add_argument("--worlds", type=Path, default=FOLDER, help="the folder worlds are kept in")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--starts", type=int, default=5)
    given = parser.parse_args()
    world = opened(given.world, given.worlds)
    seconds, cpu_s = [], []
    with running(world, given.workers) as product:
        for _ in range(given.starts):
            product.children.pop("service").stop()
            product.start_service()
            seconds.append(product.ready_s)
            cpu_s.append(product.cpu_s()["workers"] / given.workers)
        memory = product.memory()
    print(f"{given.workers} workers, {len(world.tenants)} tenants, {world.items:,} videos; {given.starts} starts")
    print(
        f"ready after  {statistics.median(seconds):.2f} s median, {max(seconds):.2f} s worst; target < {TARGET_S:g} s"
    )
    print(f"CPU          {statistics.median(cpu_s):.2f} s per worker")
    print(f"memory       {memory.private_mb_per_worker:.0f} MB private per worker, {memory.shared_mb:.0f} MB shared")
    facts = {"workers": given.workers, "world": given.world, "ready_s": round(statistics.median(seconds), 2)}
    cost = {"worst_s": round(max(seconds), 2), "cpu_s_per_worker": round(statistics.median(cpu_s), 2)}
    finish("start", {**facts, **cost, "private_mb_per_worker": round(memory.private_mb_per_worker, 1)})


if __name__ == "__main__":
    main()
