"""Three times as many first pages as the machine can give: `make bench-overload`.

    python -m benchmarks.bench_overload

Capacity is measured first, in a closed loop. Then the open loop offers half of it (what is normal), three times of it,
and half again, which tells how soon things are normal once it is over. Every second request is a prefetch (header
Feed-Reason): nobody looks at that page yet, so it should give way first.

Goodput are the pages that were given while it lasted, those without a taste (`overloaded`) among them; how many these
are is told by the pages that are read, one in CHECK_EVERY. Capacity is measured once more at the end, and goodput held
against the mean of the two: a machine that is a guest among others is not the same a minute later. What a refusal costs
is measured last, by a service that refuses every feed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.bench_feeds import Offered, arguments, measured, watched
from benchmarks.bench_steady import by_second
from benchmarks.load import Run, Session
from benchmarks.load_mixes import CHECK_EVERY, INITIAL, OVERLOADED, PREFETCH, Checks, Mixes
from benchmarks.load_observed import percentile_ms
from benchmarks.load_report import Measured, chart, difference, finish
from benchmarks.product import Product, running
from benchmarks.world import World, opened

PHASES: Final = {"before": 0.5, "overload": 3.0, "after": 0.5}
"""What is offered, as a share of capacity."""
REFUSALS: Final = (429, 503)
BACK_TO_NORMAL: Final = 1.5
"""A second is normal again when nothing is refused and its p99 is at most so many times that of the slowest before."""
FEW: Final = 16
"""Connections of the closed loop: enough to keep two workers busy, and too few for anything to be refused."""
TARGETS: Final = (
    "goodput >= 90 % of capacity, p99 of what is given < 600 ms, prefetch gives way first, < 1 ms CPU a refusal, "
    "normal again <= 10 s after"
)


def both(product: Product, checks: Checks) -> Iterator[Session]:
    """First pages of distinct users, in turn wanted now and for later."""
    initial = Mixes(product.users[::2], checks).first(INITIAL, b"initial")
    prefetch = Mixes(product.users[1::2], checks).first(PREFETCH, b"prefetch")
    for one, other in zip(initial, prefetch, strict=False):
        yield one
        yield other


def main() -> None:
    """Run the four phases."""
    parser = arguments(__doc__, seconds=15.0, connections=1000)
    given = parser.parse_args()
    world = opened(given.world, given.worlds)
    with running(world, given.workers) as product:
        checks = Checks()
        sessions = both(product, checks)

        def closed_loop() -> Measured:
            wanted = Mixes(product.users, Checks()).first(INITIAL, b"initial")  # so that none of it gives way
            return measured(product, wanted, Checks(), Offered(FEW, given.seconds))

        closed = closed_loop()
        capacity = float(_given(closed).sum()) / given.seconds
        print(
            f"overload: capacity {capacity:,.0f} first pages/s; {given.seconds:g} s each at 50 %, 300 % and 50 % of it"
        )
        phases = {"capacity": closed, **_phases(product, sessions, checks, given.connections, given.seconds, capacity)}
        again = float(_given(closed_loop()).sum()) / given.seconds
    refusal_us = _refusal_us(world, given.workers, given.seconds)
    facts = {**_report(phases, capacity, again), "cpu_us_per_refusal": refusal_us}
    print(f"{'cpu_us_per_refusal':24} {refusal_us}")
    print(f"target       {TARGETS}")
    if given.chart:
        chart("overload", lambda axes: _draw(axes, phases))
    finish("overload", {"workers": given.workers, "world": given.world, **facts})


def _refusal_us(world: World, workers: int, seconds: float) -> int:
    """CPU of the workers per refused request."""
    with running(world, workers, env={"FEED_BACKLOG_MS": "0"}) as product:
        wanted = Mixes(product.users, Checks()).first(INITIAL, b"initial")
        refused = measured(product, wanted, Checks(), Offered(FEW, seconds))
    return round(1e6 * refused.cpu_s["workers"] / np.count_nonzero(np.isin(refused.observed.status, REFUSALS)))


def _phases(
    product: Product, sessions: Iterator[Session], checks: Checks, connections: int, seconds: float, capacity: float
) -> dict[str, Measured]:
    """The three phases of the open loop, without a pause between them."""
    steps = [(seconds, times * capacity) for times in PHASES.values()]
    run = Run(product.port, sessions, connections=connections, steps=steps)
    observed, used = watched(product, run, [number * seconds for number in range(len(steps) + 1)])
    return {
        name: Measured(
            observed.between(number * seconds, (number + 1) * seconds),
            checks,
            seconds,
            difference(used[number], used[number + 1]),
            product.memory(),
        )
        for number, name in enumerate(PHASES)
    }


def _report(phases: dict[str, Measured], capacity: float, again: float) -> dict[str, Any]:
    columns = ("offered/s", "given/s", "refused/s", "no answer/s", "p50 ms", "p99 ms")
    print(f"\n{'':10}{'kind':>10}" + "".join(f"{column:>12}" for column in columns))
    for name, phase in phases.items():
        for kind in (INITIAL, PREFETCH):
            of = phase.observed.kind == kind
            refused = np.isin(phase.observed.status, REFUSALS) & of
            latency_ms = phase.observed.latency_ms[_given(phase) & of]
            shown = [of.sum(), len(latency_ms), refused.sum(), of.sum() - len(latency_ms) - refused.sum()]
            per_s = [float(n) / phase.seconds for n in shown]
            slow_ms = [percentile_ms(latency_ms, percent) for percent in (50, 99)]
            print(f"{name:10}{kind:>10}" + "".join(f"{value:>12,.0f}" for value in (*per_s, *slow_ms)))
    over = phases["overload"]
    in_time = _given(over) & (over.observed.end_s <= over.seconds)
    refused = int(np.isin(over.observed.status, REFUSALS).sum())
    facts = {
        "capacity_feeds_per_s": round(capacity, 1),
        "capacity_again_feeds_per_s": round(again, 1),
        "goodput_share": round(float(in_time.sum()) / over.seconds / ((capacity + again) / 2), 3),
        "overloaded_share": round(
            CHECK_EVERY * over.checks.degraded[OVERLOADED] / max(float(_given(over).sum()), 1), 2
        ),
        "p99_ms": round(percentile_ms(over.observed.latency_ms[_given(over)], 99), 1),
        **{f"{kind}_given_share": _share(over, kind) for kind in (INITIAL, PREFETCH)},
        "errors": int((~_given(over)).sum()) - refused,
        "refused": refused,
        "normal_again_s": normal_again_s(phases["before"], phases["after"]),
    }
    for name, value in facts.items():
        print(f"{name:24} {value}")
    return facts


def _given(phase: Measured) -> npt.NDArray[np.bool_]:
    """bool[n]: answered with a page."""
    return np.equal(phase.observed.status, 200)


def _share(phase: Measured, kind: str) -> float:
    of = phase.observed.kind == kind
    return round(float((_given(phase) & of).sum()) / max(float(of.sum()), 1.0), 3)


def normal_again_s(before: Measured, after: Measured) -> int | None:
    """Whole seconds after the overload until every later second was normal; None if the last one was not."""
    usual_ms = float(np.nanmax(by_second(before, 99)))
    seconds = np.arange(int(after.seconds))
    second = after.observed.due_s.astype(int)
    failed = np.array([(~_given(after))[second == at].any() for at in seconds])
    unusual = np.flatnonzero(failed | ~(by_second(after, 99) <= BACK_TO_NORMAL * usual_ms))
    if not len(unusual):
        return 0
    return None if unusual[-1] == seconds[-1] else int(unusual[-1]) + 1


def _draw(axes: Any, phases: dict[str, Measured]) -> None:
    """Given and refused per second, through the three phases of the open loop."""
    began_s = 0
    for name in PHASES:
        phase, seconds = phases[name], np.arange(int(phases[name].seconds) + 1)
        end_s = phase.observed.end_s
        for what, those in (("given", _given(phase)), ("refused", np.isin(phase.observed.status, REFUSALS))):
            counts, _ = np.histogram(end_s[those], seconds)
            colour = {"given": "tab:blue", "refused": "tab:orange"}[what]
            axes.plot(began_s + seconds[:-1], counts, color=colour, label=what if name == "before" else None)
        axes.axvline(began_s, color="grey", linewidth=0.5)
        began_s += int(phase.seconds)
    axes.set(title="50 %, 300 %, 50 % of capacity", xlabel="second", ylabel="answers/s")
    axes.legend()


if __name__ == "__main__":
    main()
