"""`python benchmarks/half.py`: float16 -> float32 by `retrieval.half.widened` against numpy's astype, in one run."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import numpy as np

from retrieval.half import widened

ROWS, DIM, ROUNDS = 220, 384, 15


def cpu_us(call: Callable[[], object], times: int = 300) -> float:
    began = time.process_time()
    for _ in range(times):
        call()
    return 1e6 * (time.process_time() - began) / times


def main() -> None:
    halves = np.random.default_rng(0).standard_normal((ROWS, DIM)).astype(np.float16)
    ours, numpys = [], []
    for _ in range(ROUNDS):  # in turn, so that both meet the same noise
        ours.append(cpu_us(lambda: widened(halves)))
        numpys.append(cpu_us(lambda: halves.astype(np.float32)))
    result = {"widened_us": statistics.median(ours), "astype_us": statistics.median(numpys)}
    result["ratio"] = result["widened_us"] / result["astype_us"]
    print(f"{ROWS} x {DIM} values, median CPU of {ROUNDS} rounds")
    for name, value in result.items():
        print(f"  {name:12} {value:8.2f}")
    print(json.dumps({name: round(value, 3) for name, value in result.items()}))


if __name__ == "__main__":
    main()
