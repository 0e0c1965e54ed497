"""What a run under load says: a table for people, one JSON object for machines, a chart for documents."""

from __future__ import annotations

import importlib
import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.load_mixes import FEED_KINDS, Checks
from benchmarks.load_observed import Observed, percentile_ms
from benchmarks.product import Memory

PERCENTS: Final = (50.0, 95.0, 99.0, 99.9)
GOOD: Final = (200, 207, 304)
CHARTS: Final = Path("docs/performance")


@dataclass(frozen=True)
class Measured:
    """One run: what was answered in `seconds`, what was read of it, CPU seconds by process meanwhile, and memory."""

    observed: Observed
    checks: Checks
    seconds: float
    cpu_s: Mapping[str, float]
    memory: Memory

    @property
    def feeds(self) -> int:
        """Feed answers: 200 and 304 of pages."""
        return int((np.isin(self.observed.kind, FEED_KINDS) & self.is_good).sum())

    @property
    def is_good(self) -> npt.NDArray[np.bool_]:
        """bool[n]: answered, and with a status that is no error."""
        return np.isin(self.observed.status, GOOD)

    def summary(self) -> dict[str, Any]:
        """The facts, as the last line of a run prints them. Latency and CPU are of feed answers."""
        feeds = np.isin(self.observed.kind, FEED_KINDS) & self.is_good
        latency_ms = self.observed.latency_ms[feeds]
        per_feed = {name: round(1e6 * used / max(self.feeds, 1), 1) for name, used in self.cpu_s.items()}
        return {
            "feeds_per_s": round(self.feeds / self.seconds, 1),
            **{f"p{percent:g}_ms": round(percentile_ms(latency_ms, percent), 2) for percent in PERCENTS},
            "errors": int((~self.is_good).sum()),
            "wrong_pages": sum(self.checks.problems.values()),
            "degraded": dict(self.checks.degraded),
            "cpu_us_per_feed": per_feed,
            "private_mb_per_worker": round(self.memory.private_mb_per_worker, 1),
            "shared_mb": round(self.memory.shared_mb, 1),
        }

    def print(self) -> None:
        """The table."""
        kind, status = self.observed.kind, self.observed.status
        print(f"\n{'':14}{'answers':>10}{'per s':>9}" + "".join(f"{f'p{p:g} ms':>10}" for p in PERCENTS))
        for name in self.observed.kinds:
            latency_ms = self.observed.latency_ms[(kind == name) & self.is_good]
            shown = "".join(f"{percentile_ms(latency_ms, p):>10.1f}" for p in PERCENTS)
            print(f"{name:14}{len(latency_ms):>10,}{len(latency_ms) / self.seconds:>9,.0f}{shown}")
        counted = {int(code): int((status == code).sum()) for code in np.unique(status)}
        print("statuses     " + ", ".join(f"{code or 'none'}: {n:,}" for code, n in counted.items()))
        modes = ", ".join(f"{said} {n}" for said, n in (self.checks.modes + self.checks.degraded).most_common())
        wrong = ", ".join(f"{what}: {n}" for what, n in self.checks.problems.items()) or "nothing wrong"
        print(f"pages read   {self.checks.pages:,} ({modes}; {self.checks.short} short ones that say why): {wrong}")
        for name, used_s in self.cpu_s.items():
            per_feed_us = 1e6 * used_s / max(self.feeds, 1)
            print(f"CPU          {name:12}{used_s / self.seconds:>6.2f} cores {per_feed_us:>8.0f} us per feed answer")
        memory = self.memory
        print(
            f"memory       {memory.private_mb_per_worker:.0f} MB private per worker, {memory.shared_mb:.0f} MB shared"
        )


def difference(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What was used meanwhile, by name."""
    return {name: after[name] - before.get(name, 0.0) for name in after}


def finish(benchmark: str, facts: Mapping[str, Any]) -> None:
    """Print the last line."""
    print(json.dumps({"benchmark": benchmark, "python": platform.python_version(), **facts}))


def chart(name: str, draw: Callable[[Any], None]) -> None:
    """Draw into an SVG file in docs/performance. `draw` is given matplotlib's axes; without it nothing is drawn."""
    try:
        pyplot = importlib.import_module("matplotlib.pyplot")
    except ImportError:
        print("no chart: pip install matplotlib")
        return
    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    draw(axes)
    CHARTS.mkdir(parents=True, exist_ok=True)
    figure.savefig(CHARTS / f"{name}.svg", metadata={"Date": None})
    print(f"chart        {CHARTS / f'{name}.svg'}")
