"""The same retrieve-and-rank work on what people would otherwise pick: `make bench-peers`, with the extra `peers`.

    pip install '.[peers]' && python -m benchmarks.peers
    python -m benchmarks.peers --only numpy pgvector ours

The work: of one of 120 tenants (Zipf-Mandelbrot, 240,000 videos in all), the 200 videos nearest to a user's taste among
those a 16-year-old may see; similarity, popularity and freshness weighted; the best 20. Every peer has its tenants
apart (a partition, table or collection each), is given the finished taste vector, and but for PostgreSQL, whose SQL
does all of it, the last step is the same few lines of numpy. Ours is `service.ranked.ranked`, the function that the
service calls: it also works the taste out of the journal, leaves out what was seen, checks country and availability,
and keeps the page from being all of one creator or one topic.

CPU is that of this process and of every process it has started, all threads; one thread per numeric library. Recall is
the share of the exact 200 that were found. What runs inside the process, or as a small edition of a larger product, is
called embedded: its own server would cost a network round trip more and scale further.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # one core per query, as it is served

import numpy as np
import psutil  # type: ignore[import-untyped]  # ships no types

from benchmarks.load_report import chart, finish
from benchmarks.peers_work import K, Peer, Question, Shelf, questions, recall, shelves
from benchmarks.peers_zoo import PEERS
from benchmarks.world import FOLDER, opened

QUERIES: Final = 300
WARM_UP: Final = 20
READ: Final = 100
"""Queries whose recall is worked out."""
ENOUGH_S: Final = 30.0
"""Who needs longer for its queries is asked fewer."""


@dataclass(frozen=True)
class Result:
    """What one peer finds and needs: CPU per query, wall time of half of the queries, wall time to build it."""

    recall: float
    cpu_us: float
    p50_ms: float
    build_s: float


def measure(kind: type[Peer], shelves_: dict[str, Shelf], asked: Sequence[Question], folder: Path) -> Result:
    """Build, ask, and compare with the exact answer."""
    began = time.perf_counter()
    peer = kind(shelves_, folder)
    build_s = time.perf_counter() - began
    try:
        for question in asked[:WARM_UP]:
            peer.top(question)
        before_s, took_s = cpu_s(), list[float]()
        for question in asked:
            began = time.perf_counter()
            peer.top(question)
            took_s.append(time.perf_counter() - began)
            if sum(took_s) > ENOUGH_S:
                break
        used_s = cpu_s() - before_s
        found = [recall(peer, question) for question in asked[: len(took_s)][:READ]]
    finally:
        peer.close()
    return Result(float(np.mean(found)), 1e6 * used_s / len(took_s), 1000 * float(np.median(took_s)), build_s)


def cpu_s() -> float:
    """CPU seconds of this process and all that it has started, so far."""
    started = [one.cpu_times() for one in psutil.Process().children(recursive=True)]
    return time.process_time() + float(sum(each.user + each.system for each in started))


def main() -> None:
    """Measure one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=tuple(PEERS), default=tuple(PEERS), metavar="PEER")
    parser.add_argument("--queries", type=int, default=QUERIES)
    parser.add_argument("--world", default="peers")
    parser.add_argument("--worlds", type=Path, default=FOLDER, help="the folder worlds are kept in")
    parser.add_argument("--chart", action="store_true", help="draw into docs/performance")
    given = parser.parse_args()
    world = opened(given.world, given.worlds)
    shelves_ = shelves(world)
    asked = questions(world, shelves_, given.queries)
    print(f"{len(world.tenants)} tenants, {world.items:,} videos, k = {K}, {len(asked)} queries")
    print(f"{'':18}{'recall':>8}{'CPU us/query':>14}{'p50 ms':>9}{'built in s':>12}   what it is")
    results: dict[str, Result] = {}
    for name in given.only:
        folder = Path(tempfile.mkdtemp(prefix=f"peers-{name}-"))
        try:
            results[name] = measure(PEERS[name], shelves_, asked, folder)
        except ImportError as error:
            sys.stderr.write(f"{name}: {error}; pip install '.[peers]'\n")
            continue
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        of = results[name]
        shown = f"{name:18}{of.recall:>8.3f}{of.cpu_us:>14,.0f}{of.p50_ms:>9.2f}{of.build_s:>12.1f}"
        print(f"{shown}   {PEERS[name].edition}", flush=True)
    if given.chart:
        chart("peers", lambda axes: _draw(axes, results))
    facts = {n: {"recall": round(r.recall, 4), "cpu_us": round(r.cpu_us)} for n, r in results.items()}
    finish("peers", {"tenants": len(world.tenants), "items": world.items, "peers": facts})


def _draw(axes: Any, results: dict[str, Result]) -> None:
    """What a query costs; the recall is written beside."""
    names = sorted(results, key=lambda name: results[name].cpu_us, reverse=True)
    bars = axes.barh(names, [results[name].cpu_us for name in names], log=True)
    axes.bar_label(bars, [f" {results[name].cpu_us:,.0f} us, recall {results[name].recall:.3f}" for name in names])
    axes.set(title="CPU per query", xlabel="us", xlim=(50, 10 * max(result.cpu_us for result in results.values())))


if __name__ == "__main__":
    main()
