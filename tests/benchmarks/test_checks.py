"""What makes a page wrong, and what makes a machine normal again."""

from __future__ import annotations

import orjson
import pytest

from benchmarks.bench_overload import normal_again_s
from benchmarks.load_mixes import INITIAL, Checks
from benchmarks.load_observed import Observed
from benchmarks.load_report import Measured
from benchmarks.product import Memory
from benchmarks.world_content import Built
from benchmarks.world_users import User

USER = User(1, Built("acme", 100, "pk", "sk", ""), "id", "key", "CH", 10)


def page(ids: list[str], mode: str = "personalised", **more: object) -> bytes:
    return orjson.dumps({"mode": mode, "degraded": [], "items": [{"id": one} for one in ids], **more})


FULL = [f"acme-{n}" for n in range(20)]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (page(FULL), None),
        (page(FULL[:3]), None),
        (page(FULL[:3], degraded=["few_eligible"], next_cursor="c"), None),
        (page(FULL[:3], next_cursor="c"), "not full, and does not say why"),
        (page([*FULL, "acme-20"]), "more items than asked for"),
        (page([*FULL[1:], "other-1"]), "an item of another tenant"),
        (page([*FULL[1:], "acme-1"]), "an item twice"),
        (page([*FULL[1:], "acme-99"]), "an item twice"),
    ],
)
def test_checks_a_page(body: bytes, problem: str | None) -> None:
    """`acme-99` was on the page before."""
    checks = Checks()
    checks.page(USER, body, {"acme-99"})
    assert list(checks.problems) == ([problem] if problem else [])


@pytest.mark.parametrize(
    ("body", "shown", "problem"),
    [
        (page(FULL, mode="fallback"), set[str](), "not personalised"),
        (page(FULL, mode="fallback", degraded=["overloaded"]), set[str](), None),
        (page(FULL, mode="fallback"), {"acme-99"}, None),
    ],
)
def test_checks_that_a_page_is_personal(body: bytes, shown: set[str], problem: str | None) -> None:
    """Unless there was no time for it, or the page goes on in a chain, which may have begun like that."""
    checks = Checks()
    checks.page(USER, body, shown)
    assert list(checks.problems) == ([problem] if problem else [])


def phase(*seconds: tuple[float, int]) -> Measured:
    """A phase of ten answers a second, those of each second with that latency (ms) and status."""
    observed = Observed()
    for second, (latency_ms, status) in enumerate(seconds):
        for n in range(10):
            due_s = second + n / 10
            observed.add(INITIAL, status, due_s, due_s + latency_ms / 1000)
    return Measured(observed, Checks(), len(seconds), {}, Memory(0.0, 0.0))


def test_normal_again() -> None:
    """The first second after which nothing is refused and nothing is slow any more."""
    before = phase((20, 200), (20, 200), (30, 200))
    assert normal_again_s(before, phase((44, 200), (25, 200))) == 0
    assert normal_again_s(before, phase((46, 200), (25, 200))) == 1
    assert normal_again_s(before, phase((900, 200), (25, 503), (25, 200))) == 2
    assert normal_again_s(before, phase((25, 200), (900, 200), (25, 200))) == 2
    assert normal_again_s(before, phase((25, 200), (900, 200))) is None
