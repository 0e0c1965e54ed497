"""A view: masks and orders worked out before a request comes are what looking at every video would give."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranking.context import Context
from ranking.hints import country_code
from ranking.maturity import minimum_age
from ranking.policy import Layer, Policy, resolve
from retrieval import view as view_module
from retrieval.counters import Popularity
from retrieval.rows import Rows
from retrieval.snapshot import Snapshot
from retrieval.sources import allowed_for
from retrieval.taste import NOBODY
from retrieval.tenants import Tenant
from retrieval.videos import OPEN_END_S, Rating, Video
from retrieval.view import WINDOWS, View
from tests.support.content import NOW_S, TOPICS, a_video, memory_folder, snapshot_of, unit_vectors

TENANT = Tenant("acme", "acme", "active", b"", 1, 0)
RULES = [
    {"id": "no-chess", "kind": "block", "effect": {}, "target": {"filter": {"tag": ["chess"]}}},
    {"id": "more-bread", "kind": "boost", "effect": {"factor": 2.0}, "target": {"filter": {"tag": ["bread"]}}},
    {"id": "pin", "kind": "pin", "effect": {"position": 0}, "target": {"items": ["video-3"]}},
]
AGES = ("0", "6", "12", "16", "18")


def policy_of(rules: list[dict[str, Any]]) -> Policy:
    return resolve([Layer("tenant", {"rules": rules})])


@cache
def varied(item: int) -> Video:
    """Video `item`: some with limits of age, country and time, deterministic by number."""
    rng = np.random.default_rng(item)
    return a_video(
        item,
        ratings=(Rating(system="FSK", value=str(rng.choice(AGES))),),
        countries=tuple(rng.choice(["DE", "FR", "US"], rng.integers(1, 3), replace=False)) if item % 3 == 0 else (),
        available_from_s=int(NOW_S + rng.integers(-100, 100)) if item % 4 == 0 else 0,
        available_until_s=int(NOW_S + rng.integers(101, 300)) if item % 5 == 0 else OPEN_END_S,
        published_s=int(NOW_S - rng.integers(0, 10_000)),
    )


def varied_snapshot(folder: Path, n: int = 120) -> Snapshot:
    """`n` varied videos; the last fifth and some changed ones lie beside the base, some were taken down."""
    cut = n - n // 5
    changed = list(range(0, cut, 11))
    removed = list(range(5, cut, 13))
    beside = [*(item for item in changed if item not in removed), *range(cut, n)]
    base = Rows.from_videos([varied(item) for item in range(cut)], unit_vectors(cut))
    fresh = Rows.from_videos([varied(item) for item in beside], unit_vectors(len(beside), seed=1))
    return snapshot_of(folder, base, fresh, dead={*changed, *removed})


def view_of(snapshot: Snapshot, policy: Policy | None = None, popularity: Popularity | None = None) -> View:
    return View.of(TENANT, policy or policy_of(RULES), "0.1", snapshot, popularity or Popularity.nothing())


def live_items(snapshot: Snapshot) -> list[int]:
    return sorted(snapshot.current_rows().columns["item"].tolist())


@cache
def shared_snapshot() -> Snapshot:
    """One for all tests here; an opened snapshot outlives its files."""
    with memory_folder() as folder:
        return varied_snapshot(folder)


@pytest.fixture
def snapshot() -> Snapshot:
    return shared_snapshot()


@settings(max_examples=50, deadline=None)
@given(
    now_s=st.integers(NOW_S - 150, NOW_S + 350),
    country=st.sampled_from(["", "DE", "FR", "JP"]),
    max_age=st.sampled_from([0, 7, 12, 16, 18]),
)
def test_allowed_is_what_every_single_video_would_say(now_s: int, country: str, max_age: int) -> None:
    """Age, country, schedule, blocking rules and take-downs; whatever was asked before, at whatever time."""
    snapshot = shared_snapshot()
    view = view_of(snapshot)
    code = country_code(country) if country else -1
    for at_s in (now_s, now_s + 1, now_s - 7):
        context = Context(now_s=at_s, country=code, max_age=max_age)
        mask = view.allowed(view.policy.book.plan(context), context)
        rows = np.flatnonzero(np.unpackbits(mask, bitorder="little"))
        expected = [
            item
            for item in live_items(snapshot)
            if (video := varied(item)).available_from_s <= at_s < video.available_until_s
            and minimum_age((one.system, one.value) for one in video.ratings) <= max_age
            and (not video.countries or country in video.countries)
            and "chess" not in video.tags
        ]
        assert sorted(snapshot.column("item", rows).tolist()) == expected


def test_masks_are_kept_and_still_follow_the_clock(snapshot: Snapshot) -> None:
    """One view over a whole schedule, asked every second, forwards: the same as a new view each time."""
    view = view_of(snapshot)
    for at_s in range(NOW_S - 110, NOW_S + 310):
        context = Context(now_s=at_s)
        plan = view.policy.book.plan(context)
        fresh_view = view_of(snapshot, view.policy) if at_s % 40 == 0 else None
        mask = view.allowed(plan, context)
        if fresh_view is not None:
            assert np.array_equal(mask, fresh_view.allowed(plan, context))


def test_asking_about_another_time_does_not_change_the_present(snapshot: Snapshot) -> None:
    """A simulation of tomorrow must not show today what is not yet to be seen."""
    view = view_of(snapshot)
    present, future = Context(now_s=NOW_S), Context(now_s=NOW_S + 250)
    plan = view.policy.book.plan(present)
    expected = view_of(snapshot).allowed(plan, present)
    assert not np.array_equal(view.allowed(plan, future), expected)
    assert np.array_equal(view.allowed(plan, present), expected)


def test_a_mask_given_out_stays_as_it_is(snapshot: Snapshot) -> None:
    """Clearing what one user has seen takes nothing from the next: nobody can clear what is kept."""
    view, context = view_of(snapshot), Context(now_s=NOW_S)
    plan = view.policy.book.plan(context)
    before = view.allowed(plan, context).copy()
    with pytest.raises(ValueError, match="read-only"):
        view.allowed(plan, context)[:] = 0
    own = allowed_for(view, plan, context, NOBODY)
    own[:] = 0
    assert np.array_equal(view.allowed(plan, context), before)


def test_newest_is_the_order_of_publication(snapshot: Snapshot) -> None:
    """Live videos only, the changed ones once, across base and fresh."""
    view = view_of(snapshot)
    items = snapshot.column("item", view.newest).tolist()
    assert sorted(items) == live_items(snapshot)
    published_s = [varied(item).published_s for item in items]
    assert published_s == sorted(published_s, reverse=True)


def test_newest_holds_the_newest_of_a_large_catalogue(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    """When only a head of the order is kept, it is the head."""
    full = snapshot.column("item", view_of(snapshot).newest).tolist()
    monkeypatch.setattr(view_module, "HEAD", 10)
    head = snapshot.column("item", view_of(snapshot).newest).tolist()
    assert head[:10] == full[:10]


def test_most_popular_is_the_order_of_the_counters(snapshot: Snapshot) -> None:
    """Counted videos that are live; items counted long ago may be gone, or beyond the table."""
    scores = np.zeros(500, np.float32)
    scores[[3, 5, 7, 100, 499]] = [0.5, 0.9, 0.7, 0.1, 1.0]  # 5 was taken down, 499 never existed
    view = view_of(snapshot, popularity=Popularity.alike(scores))
    assert snapshot.column("item", view.most_popular).tolist() == [7, 3, 100]


@pytest.mark.parametrize(
    ("weights", "first"), [({"rising": 5}, 7), ({"evergreen": 5}, 3), (dict.fromkeys(WINDOWS, 0), 3)]
)
def test_what_is_popular_is_the_policys_window(snapshot: Snapshot, weights: dict[str, float], first: int) -> None:
    """A news app sees what rises in this hour; where no window has weight, the hour does not decide either."""
    table = np.zeros((500, len(WINDOWS)), np.float32)
    table[7] = [1.0, 0.1, 0.1, 0.1]
    table[3] = [0.0, 0.2, 0.2, 1.0]
    view = view_of(snapshot, resolve([Layer("tenant", {"weights": weights})]), Popularity(table))
    assert snapshot.column("item", view.most_popular).tolist()[0] == first


def test_targets_are_what_each_rule_aims_at(snapshot: Snapshot) -> None:
    """For any rows, across segments."""
    view = view_of(snapshot)
    rows = snapshot.rows(np.array(live_items(snapshot), np.uint32))[::-1]
    items = snapshot.column("item", rows).tolist()
    targets = view.targets(rows)
    order = [rule.id for rule in view.policy.rules]
    expected: dict[str, Callable[[int], bool]] = {
        "no-chess": lambda item: TOPICS[item % 5] == "chess",
        "more-bread": lambda item: TOPICS[item % 5] == "bread",
        "pin": lambda item: item == 3,
    }
    for rule, column in zip(order, targets.T, strict=True):
        assert column.tolist() == [expected[rule](item) for item in items]


def test_editorial_rows_are_what_pins_aim_at(snapshot: Snapshot) -> None:
    """Acting pins and promotions only; a boost brings nothing by itself."""
    view, context = view_of(snapshot), Context(now_s=NOW_S)
    rows, _ = view.editorial(view.policy.book.plan(context))
    assert snapshot.column("item", rows).tolist() == [3]


def test_the_work_done_for_a_base_is_taken_over() -> None:
    """A publish that changes the fresh segment costs the fresh segment; a new policy costs everything."""
    with memory_folder() as folder:
        one = snapshot_of(folder, Rows.from_videos([varied(n) for n in range(40)], unit_vectors(40)))
        first = view_of(one)
        again = View.of(TENANT, first.policy, "0.1", one, Popularity.nothing(), first)
        assert again.parts[0] is first.parts[0]
        other = View.of(TENANT, policy_of([]), "0.2", one, Popularity.nothing(), first)
        assert other.parts[0] is not first.parts[0]
