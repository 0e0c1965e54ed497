"""What it costs a worker to open a snapshot: time and private memory, verification and the view included.

The snapshot is written once; each measurement is a process of its own, as a worker is. Private memory is what no other
process can share (RssAnon); the mapped files are in the page cache once for all workers. The last line printed is one
JSON object.

    python -m benchmarks.open_snapshot
    python -m benchmarks.open_snapshot --items 1000000
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

TARGET_MS, TARGET_MB = 100.0, 30.0
DIM = 384
ROUNDS = 7


def main() -> None:
    """Write, measure, print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--items", type=int, default=100_000)
    arguments.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure)))
        return
    with tempfile.TemporaryDirectory(prefix="open-snapshot-") as folder:
        on_disk_mb = write(Path(folder), given.items)
        rounds = [in_a_process(Path(folder)) for _ in range(ROUNDS)]
    steps = {step: statistics.median(one[step] for one in rounds) for step in rounds[0]}
    print(f"{given.items:,} items, {on_disk_mb:.0f} MB on disk; median of {ROUNDS} processes\n")
    print(f"open and verify   {steps['open_ms']:8.1f} ms")
    print(f"view and lookups  {steps['view_ms']:8.1f} ms")
    print(f"together          {steps['total_ms']:8.1f} ms   target: < {TARGET_MS:.0f} ms")
    print(f"private memory    {steps['private_mb']:8.1f} MB   target: < {TARGET_MB:.0f} MB")
    print(json.dumps({"benchmark": "open_snapshot", "items": given.items, "on_disk_mb": on_disk_mb, **steps}))


def write(folder: Path, items: int) -> float:
    """Publish one generation of synthetic videos; its size on disk in MB."""
    from retrieval.rows import Rows
    from retrieval.store import Store
    from tests.support.content import a_video, published

    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(items, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    words = ("python", "data", "testing", "cloud", "packaging", "community", "notebooks", "async")
    videos = [
        a_video(
            n,
            title=f"A talk about {words[n % 8]} and {words[n // 8 % 8]}, number {n}",
            tags=(words[n % 8], words[n // 8 % 8], words[n // 64 % 8]),
            categories=(words[n % 5],),
            creator=f"speaker {n % 9973}",
        )
        for n in range(items)
    ]
    published(Store(folder), "shop", 1, Rows.from_videos(videos, vectors))
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def in_a_process(folder: Path) -> dict[str, float]:
    """One measurement by a process that has done nothing else."""
    command = [sys.executable, "-m", "benchmarks.open_snapshot", "--measure", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def measure(folder: Path) -> dict[str, float]:
    """Open the snapshot as `retrieval.live` does, with the default policy and rules aimed at tags."""
    from ranking.compiled import compile_all
    from ranking.policy import Layer, resolve
    from retrieval.counters import Popularity
    from retrieval.store import Store
    from retrieval.tenants import Tenant
    from retrieval.view import View

    rules = [
        {"id": f"r{n}", "kind": kind, "effect": effect, "target": {"filter": {"tag": [tag]}}}
        for n, (kind, effect, tag) in enumerate(
            [("boost", {"factor": 1.5}, "data"), ("bury", {"factor": 0.5}, "cloud"), ("block", {}, "nothing")]
        )
    ]
    policy = resolve([Layer("tenant", {"rules": rules})])
    tenant = Tenant("shop", "shop", "active", b"", 1, 0)
    # What is imported, compiled and opened once per process is not the snapshot's cost.
    compile_all()
    Store(folder).pointer("nobody")
    before_mb, began = private_mb(), time.perf_counter()
    store = Store(folder)
    manifest = store.current("shop")
    if manifest is None:
        raise FileNotFoundError(f"no snapshot in {folder}")
    snapshot = store.open(manifest)
    opened = time.perf_counter()
    view = View.of(tenant, policy, "0.1", snapshot, Popularity.nothing())
    ended = time.perf_counter()
    found, _ = view.snapshot.search(np.eye(1, DIM, dtype=np.float32), 200, view.snapshot.live)
    if (found < 0).any():
        raise ValueError("the opened snapshot does not find 200 items")
    return {
        "open_ms": 1000 * (opened - began),
        "view_ms": 1000 * (ended - opened),
        "total_ms": 1000 * (ended - began),
        "private_mb": private_mb() - before_mb,
    }


def private_mb() -> float:
    """Memory of this process that is its own, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("RssAnon"))) / 1024


if __name__ == "__main__":
    main()
