"""Rows of float16 against three queries: `retrieval.half` beside numpy's astype and matrix product, in one run.

python -m benchmarks.half
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import json
import statistics
import time
from collections.abc import Callable

import numpy as np

from retrieval.half import cosines, widened

STORED, WANTED, DIM, QUERIES, ROUNDS = 10_000, 220, 384, 3, 15


def cpu_us(call: Callable[[], object], times: int = 300) -> float:
    began = time.process_time()
    for _ in range(times):
        call()
    return 1e6 * (time.process_time() - began) / times


def main() -> None:
    chance = np.random.default_rng(0)
    halves = chance.standard_normal((STORED, DIM)).astype(np.float16)
    queries = chance.standard_normal((QUERIES, DIM)).astype(np.float32)
    rows = chance.choice(STORED, WANTED, replace=False)
    calls: dict[str, Callable[[], object]] = {
        "widened_us": lambda: widened(halves, rows),
        "astype_us": lambda: halves.take(rows, 0).astype(np.float32),
        "cosines_us": lambda: cosines(queries, halves, rows),
        "astype_product_us": lambda: queries @ halves.take(rows, 0).astype(np.float32).T,
    }
    took: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):  # in turn, so that all meet the same noise
        for name, call in calls.items():
            took[name].append(cpu_us(call))
    result = {name: statistics.median(each) for name, each in took.items()}
    print(f"{WANTED} of {STORED} rows x {DIM} values, {QUERIES} queries, median CPU of {ROUNDS} rounds")
    for name, value in result.items():
        print(f"  {name:18} {value:8.2f}")
    print(json.dumps({name: round(value, 3) for name, value in result.items()}))


if __name__ == "__main__":
    main()
