"""How long does one rank() take? `python benchmarks/rank.py`

200 candidates, all features, 30 active rules of every kind, caps and semantic diversity, 384 dimensions, on one core.
Prints a table; the last line is the same as JSON.
"""

import json
import os
import statistics
import sys
from pathlib import Path
from time import perf_counter_ns
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # one core, as one of several worker processes would have it
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from ranking.candidates import SOURCE, Candidates
from ranking.context import Context
from ranking.eligibility import eligible
from ranking.policy import Layer, Policy, resolve
from ranking.rank import boosts, diverse, rank, weighted_features

CANDIDATES, DIMENSIONS, CREATORS, CATEGORIES = 200, 384, 60, 12
NOW_S = 1_800_000_000
TARGET_US = 150.0


def policy() -> Policy:
    """Return the default policy with 30 rules, all of which act on every request."""
    kinds: list[tuple[str, dict[str, Any]]] = [
        *[("block", {})] * 5,
        *[("boost", {"factor": 1.0 + i / 4}) for i in range(8)],
        *[("bury", {"factor": 0.9 - i / 10}) for i in range(8)],
        ("cap", {"max": 3, "per": "category", "window": 10}),
        ("cap", {"max": 1, "per": "creator", "window": 5}),
        *[("promote", {"percent": 5 + 5 * i}) for i in range(2)],
        *[("pin", {"position": 4 * i}) for i in range(5)],
    ]
    rules = [
        {"id": f"r{i}", "kind": kind, "effect": effect, "target": {"filter": {"tag": [f"t{i}"]}}}
        for i, (kind, effect) in enumerate(kinds)
    ]
    return resolve([Layer("tenant", {"rules": rules})])


def candidates(rng: np.random.Generator, rules: int) -> Candidates:
    """Draw candidates as a tenant has them: a few categories, some prolific creators, an occasional near-copy."""
    n = CANDIDATES
    columns = {name: getattr(Candidates.empty(n, rules=rules), name) for name in Candidates.__slots__}
    topics = rng.normal(size=(20, DIMENSIONS))
    vectors = topics[rng.integers(0, 20, n)] + 0.9 * rng.normal(size=(n, DIMENSIONS))
    categories = np.zeros((n, 4), np.uint64)
    categories[:, 0] = rng.integers(1, CATEGORIES, n)
    categories[:, 1] = rng.integers(1, CATEGORIES, n) * (rng.random(n) < 0.6)
    columns |= {
        "item": rng.permutation(10_000)[:n].astype(np.uint32),
        **{name: rng.random(n, np.float32) for name in ("similarity", "negative", "popularity", "trending")},
        "published_s": NOW_S - rng.integers(0, 30 * 86_400, n),
        "served_s": (NOW_S - rng.integers(0, 86_400, n)) * (rng.random(n) < 0.3),
        "language": rng.integers(-1, 3, n).astype(np.int16),
        "creator": rng.integers(1, CREATORS, n).astype(np.uint64),
        "categories": categories,
        "source": np.where(np.arange(n) < 180, SOURCE["near"], SOURCE["explore"]).astype(np.uint8),
        "targets": (rng.random((rules, n)) < 0.05).T,
        "vectors": (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32),
    }
    return Candidates(**columns)


def context(rng: np.random.Generator) -> Context:
    """Return a request with all hints, 8 liked creators and 6 liked categories."""
    return Context(
        now_s=NOW_S,
        surface="home",
        language=1,
        country=40,
        age_band="18+",
        seed=7,
        liked_creators=np.arange(1, 9, dtype=np.uint64),
        liked_creator_weights=rng.random(8, np.float32),
        liked_categories=np.arange(1, 7, dtype=np.uint64),
        liked_category_weights=rng.random(6, np.float32),
    )


def timed_us(call: Any, seconds: float = 1.0) -> tuple[float, float]:
    """Return (median, 95th percentile) of the calls made in that time."""
    samples: list[int] = []
    stop = perf_counter_ns() + int(seconds * 1e9)
    while (start := perf_counter_ns()) < stop:
        call()
        samples.append(perf_counter_ns() - start)
    return statistics.median(samples) / 1e3, statistics.quantiles(samples, n=20)[-1] / 1e3


def main() -> None:
    """Measure the whole and its parts."""
    rng = np.random.default_rng(3)
    tenant, request = policy(), context(rng)
    rows = candidates(rng, len(tenant.rules))
    plan = tenant.book.plan(request)
    order = np.arange(len(rows))
    lines = {
        "rank, page of 20": lambda: rank(rows, tenant, request, 20),
        "rank, page of 50": lambda: rank(rows, tenant, request, 50),
        "rank, frozen list of 200": lambda: rank(rows, tenant, request, 200, page=20),
        "  eligibility": lambda: eligible(rows, plan, request, 18),
        "  features": lambda: weighted_features(rows, tenant, request),
        "  boosts": lambda: boosts(rows, plan),
        "  semantic diversity": lambda: diverse(order, rows, tenant),
        "  acting rules": lambda: tenant.book.plan(request),
    }
    measured = {name: timed_us(call) for name, call in lines.items()}
    print(f"{'':28}{'median':>10}{'p95':>10}   ({len(rows)} candidates, {len(plan.active)} active rules)")
    for name, (median_us, p95_us) in measured.items():
        print(f"{name:28}{median_us:>7.1f} µs{p95_us:>7.1f} µs")
    print(f"target: {TARGET_US:.0f} µs for a page")
    print(
        json.dumps(
            {
                "benchmark": "rank",
                "candidates": len(rows),
                "active_rules": len(plan.active),
                "target_us": TARGET_US,
                "median_us": {name.strip(): round(median_us, 1) for name, (median_us, _) in measured.items()},
                "p95_us": {name.strip(): round(p95_us, 1) for name, (_, p95_us) in measured.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
