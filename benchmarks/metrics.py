"""What metrics cost: microseconds of CPU per feed request, and how many series Prometheus has to keep.

    python benchmarks/metrics.py

The cost is that of everything `service/telemetry.py` does for one feed page, in the mode of several worker processes
(each number is in a memory-mapped file). The series are those of a service that has answered pages in every mode for
120 tenants, and errors on every route.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="metrics-")  # must be known before the imports
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from prometheus_client import generate_latest

from service import app, health, telemetry
from service.page import MODES, Page

TENANTS = 120
PAGES = 200_000
ROUNDS = 5
STAGES_MS = {"state": 0.4, "retrieve": 1.1, "rank": 0.6}


def asked(tenant: str) -> Any:
    """As much of an `Asked` as is counted."""
    return SimpleNamespace(view=SimpleNamespace(tenant=SimpleNamespace(id=tenant)), limit=20)


def page(mode: str, items: int = 20) -> Page:
    """A page of so many items."""
    counted = (("retrieve", 200), ("rank", 200))
    return Page(mode, np.zeros(items, np.uint32), [], timings_ms=STAGES_MS, candidates=counted)


def answered(scope: dict[str, Any], tenant: Any, made: Page) -> None:
    """What a request for a page calls."""
    telemetry.observe_feed(scope, tenant, made)
    telemetry.observe_request(scope, 200, 0.004)


def cost_us() -> float:
    """CPU per page, the best of some rounds: the machine may be busy."""
    tenants = [asked(f"tenant-{n}") for n in range(TENANTS)]
    made, best_s = page("personalised"), float("inf")
    for _ in range(ROUNDS):
        began_s = time.process_time()
        for n in range(PAGES):
            answered({"endpoint": None}, tenants[n % TENANTS], made)
        best_s = min(best_s, time.process_time() - began_s)
    return 1e6 * best_s / PAGES


def series() -> int:
    """What one machine exports."""
    routes = sorted({route.path for route in app.ROUTES})
    for route in routes:
        for status in (200, 304, 400, 401, 403, 404, 429, 503):
            telemetry._requests[route, status].inc()
        for mode in (*MODES, "") if "feed" in route else ("",):
            telemetry._durations[route, mode].observe(0.004)
    for n in range(TENANTS):
        tenant = asked(f"tenant-{n}")
        for mode in MODES:
            telemetry.observe_feed({}, tenant, page(mode))
        telemetry.observe_feed({}, tenant, page("personalised", items=3))
        telemetry.observe_feed({}, tenant, page("personalised", items=0))
        for gauge in (telemetry.PERSONALISED, telemetry.POLICY_MIN, telemetry.POLICY_MAX, telemetry.GENERATION):
            gauge.labels(f"tenant-{n}").set(1)
        telemetry.ITEMS.labels(f"tenant-{n}").set(1)
    for store in ("redis", "sql"):
        telemetry.STORE.labels(store).observe(0.001)
        telemetry.STORE_UP.labels(store).set(1)
    text = generate_latest(health.metrics()).decode()
    return sum(not line.startswith("#") for line in text.splitlines())


if __name__ == "__main__":
    print(f"{cost_us():.1f} us of CPU per page, of {PAGES:,} pages")
    print(f"{series():,} series of one machine's service with {TENANTS} tenants, and 3 more per worker")
