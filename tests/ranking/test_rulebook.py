"""Which rules act on a request, until when, and what conflicts between them come to."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ranking.context import Context
from ranking.hints import country_code, language_code
from ranking.policy import Layer, resolve
from ranking.rulebook import RuleBook
from ranking.windows import utc_s

OPENS_S = utc_s(datetime(2026, 7, 1), ZoneInfo("UTC"))
CLOSES_S = utc_s(datetime(2026, 7, 2), ZoneInfo("UTC"))
DAY = {"from": "2026-07-01T00:00", "until": "2026-07-02T00:00", "zone": "UTC"}


def rule(id_: str, kind: str = "block", **more: Any) -> dict[str, Any]:
    """Return a rule document about item "a"."""
    return {"id": id_, "kind": kind, "target": {"items": ["a"]}} | more


def book(*rules: dict[str, Any], **document: Any) -> RuleBook:
    """Compile a tenant's rules."""
    return resolve([Layer("tenant", {"rules": list(rules)} | document)]).book


def test_all_conditions_must_hold() -> None:
    """Any of a condition's values will do; what the request does not say, it does not fulfil."""
    when = {
        "surface": ["home", "search"],
        "country": ["DE"],
        "language": ["de", "en"],
        "cohort": ["x"],
        "age_band": ["18+"],
    }
    rules = book(rule("a", when=when), rule("b"))
    asked: dict[str, Any] = {
        "surface": "search",
        "country": country_code("DE"),
        "language": language_code("en"),
        "cohort": "x",
        "age_band": "18+",
    }
    assert rules.plan(Context(now_s=0, **asked)).active == (0, 1)
    for name in asked:
        rest = {key: value for key, value in asked.items() if key != name}
        assert rules.plan(Context(now_s=0, **rest)).active == (1,)


@pytest.mark.parametrize(
    ("now_s", "active", "epoch", "boundary_s"),
    [
        (OPENS_S - 1, (1,), 0, OPENS_S),
        (OPENS_S, (0, 1), 1, CLOSES_S),
        (CLOSES_S - 1, (0, 1), 1, CLOSES_S),
        (CLOSES_S, (1,), 2, None),
    ],
)
def test_a_window_is_half_open_and_its_edges_are_announced(
    now_s: int, active: tuple[int, ...], epoch: int, boundary_s: int | None
) -> None:
    """The epoch moves at each edge, the next edge is known before; a disabled rule has none."""
    rules = book(rule("a", window=DAY), rule("b"), rule("c", window=DAY | {"until": "2026-07-09T00:00"}, enabled=False))
    assert rules.plan(Context(now_s=now_s)).active == active
    assert rules.epoch(now_s) == epoch
    assert rules.next_boundary_s(now_s) == boundary_s


def pin(id_: str, **more: Any) -> dict[str, Any]:
    """Return a pin of the first slot."""
    return rule(id_, "pin", effect={"position": 0}, **more)


def test_pins_have_a_total_order() -> None:
    """Priority, then more conditions, then temporary over permanent, then the newer, then the smaller id."""
    rules = [
        pin("weak", priority=1),
        pin("b", version=1, when={"surface": ["home"]}),
        pin("a", version=1, when={"surface": ["home", "x"]}),
        pin("newer", version=2, when={"surface": ["home", "y"]}),
        pin("temporary", when={"surface": ["home"]}, window=DAY),
        pin("precise", when={"surface": ["home"], "cohort": ["x"]}),
        pin("strong", priority=999),
    ]
    policy = resolve([Layer("tenant", {"rules": rules})])
    plan = policy.book.plan(Context(now_s=OPENS_S, surface="home", cohort="x"))
    assert [policy.rules[i].id for i, _ in plan.pins] == [
        "strong", "precise", "temporary", "newer", "a", "b", "weak",
    ]  # fmt: skip


def test_promotions_are_served_by_priority_until_the_total_is_reached() -> None:
    """30 % and 20 % of at most 40 %: the second gets what is left, the third nothing."""
    promotions = [
        rule("low", "promote", priority=1, effect={"percent": 20}),
        rule("high", "promote", priority=9, effect={"percent": 30}),
        rule("late", "promote", priority=0, effect={"percent": 5}),
    ]
    granted = book(*promotions).plan(Context(now_s=0)).promotions
    assert [(i, round(share, 6)) for i, share in granted] == [(1, 0.3), (0, 0.1)]


def cap(id_: str, most: int, window: int, **more: Any) -> dict[str, Any]:
    """Return a cap per creator; about everything unless it has a target."""
    return {"id": id_, "kind": "cap", "effect": {"max": most, "per": "creator", "window": window}} | more


def test_the_strictest_cap_makes_the_others_redundant() -> None:
    """One creator in ten implies two in ten; a cap about some items only never replaces one about all."""
    plan = book(cap("loose", 5, 5), cap("strict", 1, 12)).plan(Context(now_s=0))
    assert [active.name for active in plan.caps] == ["category", "strict"]
    plan = book(cap("partial", 1, 12, target={"items": ["a"]})).plan(Context(now_s=0))
    assert [active.name for active in plan.caps] == ["category", "creator", "partial"]


def test_caps_of_a_lower_priority_give_way_first() -> None:
    """After the policy's own diversity, of which "soft" makes the creator cap redundant."""
    plan = book(cap("firm", 1, 5, priority=9), cap("soft", 2, 50, priority=1)).plan(Context(now_s=0))
    assert [active.name for active in plan.caps] == ["category", "soft", "firm"]


def test_plans_of_many_combinations_stay_right() -> None:
    """More different requests than plans are remembered: the answers do not change."""
    rules = book(*[rule(f"r{i}", when={"surface": [f"s{i % 50}"], "cohort": [f"c{i}"]}) for i in range(100)])
    for _ in range(2):
        for i in range(100):
            assert rules.plan(Context(now_s=0, surface=f"s{i % 50}", cohort=f"c{i}")).active == (i,)
