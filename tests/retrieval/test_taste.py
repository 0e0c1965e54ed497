"""Taste: what a journal says about a user, as laws that hold for any journal."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranking.policy import resolve
from ranking.sections import Taste as TastePolicy
from retrieval.journal import Journal, Signal, entries
from retrieval.taste import DAY_S, Memory, remember, taste
from tests.support.content import DIM, unit_vectors

NOW_S = 1_750_000_000
POLICY = resolve().taste
LONG_TERM = replace(POLICY, session=0.0)
"""Without the extra weight of the last minutes, so that numbers can be said."""

Row = tuple[int, int, Signal, float]

rows = st.lists(
    st.tuples(
        st.integers(0, 30),
        st.integers(NOW_S - 60 * DAY_S, NOW_S),
        st.sampled_from(list(Signal)),
        st.sampled_from([0.0, 0.3, 1.0]),
    ),
    max_size=40,
)


def pulls(memory: Memory) -> dict[int, object]:
    """Item -> pull, without those that pull nowhere."""
    found = zip(memory.items.tolist(), memory.pull.tolist(), strict=True)
    return {item: pytest.approx(pull, rel=1e-4, abs=1e-6) for item, pull in found if abs(pull) > 1e-6}


def memory_of(*said: Row, policy: TastePolicy = LONG_TERM, now_s: float = NOW_S) -> Memory:
    return remember(entries(said), policy, now_s=now_s)


def by_time(said: list[Row]) -> Journal:
    return entries(sorted(said, key=lambda row: row[1]))


@given(rows)
def test_an_items_pull_is_the_sum_of_what_was_said_about_it(said: list[Row]) -> None:
    """Weight of the signal, times its strength, times the decay by age; nothing for being served."""
    expected: dict[int, float] = {}
    opinions: dict[int, float] = {}
    for item, at_s, signal, strength in said:
        weight = 0.0 if signal is Signal.SERVED else getattr(POLICY, signal.name.lower())
        pull = weight * round(255 * strength) / 255 * 0.5 ** ((NOW_S - at_s) / (POLICY.half_life_days * DAY_S))
        into = opinions if signal in (Signal.LIKE, Signal.UNLIKE) else expected
        into[item] = into.get(item, 0.0) + pull
    for item, pull in opinions.items():
        expected[item] = expected.get(item, 0.0) + max(pull, 0.0)
    memory = remember(by_time(said), LONG_TERM, now_s=NOW_S)
    assert pulls(memory) == {item: pull for item, pull in expected.items() if abs(pull) > 1e-6}


@given(rows, st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(said: list[Row], random: Random) -> None:
    """Events come late and out of order; their times count."""
    shuffled = list(said)
    random.shuffle(shuffled)
    assert pulls(remember(entries(shuffled), LONG_TERM, now_s=NOW_S)) == pulls(
        remember(entries(said), LONG_TERM, now_s=NOW_S)
    )


@given(st.integers(0, 50 * DAY_S), st.integers(0, 50 * DAY_S))
def test_an_unlike_takes_back_a_like_and_no_more(liked_ago_s: int, later_s: int) -> None:
    """Whenever: the item neither draws nor repels afterwards. Who unlikes has not said `not_interested`."""
    unliked_s = min(NOW_S - liked_ago_s + later_s, NOW_S)
    said = [(5, NOW_S - liked_ago_s, Signal.LIKE, 1.0), (5, unliked_s, Signal.UNLIKE, 1.0)]
    for policy in (POLICY, LONG_TERM):
        assert pulls(memory_of(*said, policy=policy)) == {}
        vectors = unit_vectors(len(memory_of(*said, policy=policy).items))
        known = taste(memory_of(*said, policy=policy), vectors, policy)
        assert not len(known.interests)
        assert known.rejected is None


def test_a_like_after_an_unlike_counts() -> None:
    """Minds change twice."""
    said = [(5, NOW_S - DAY_S, Signal.LIKE, 1.0), (5, NOW_S - 500, Signal.UNLIKE, 1.0), (5, NOW_S, Signal.LIKE, 1.0)]
    assert memory_of(*said).pull[0] > 1.0


@given(st.integers(0, 40))
def test_a_pull_is_halved_at_each_half_life(half_lives: int) -> None:
    """By age at the time of asking; an entry from the future counts as new."""
    half_life_s = int(POLICY.half_life_days * DAY_S)
    said = (1, NOW_S, Signal.LIKE, 1.0)
    fresh = memory_of(said).pull[0]
    old = memory_of(said, now_s=NOW_S + half_lives * half_life_s).pull[0]
    assert old == pytest.approx(fresh / 2**half_lives, rel=1e-5)
    assert memory_of(said, now_s=NOW_S - 1000).pull[0] == fresh


def test_what_happened_just_now_weighs_more() -> None:
    """The session's share fades within minutes, the long term stays."""
    said = (1, NOW_S, Signal.LIKE, 1.0)
    minutes = POLICY.session_half_life_minutes * 60
    now, soon, later = (memory_of(said, policy=POLICY, now_s=NOW_S + after) for after in (0, minutes, 100 * minutes))
    assert now.pull[0] == pytest.approx(POLICY.like * (1 + POLICY.session), rel=1e-3)
    assert soon.pull[0] == pytest.approx(POLICY.like * (1 + POLICY.session / 2), rel=1e-2)
    assert later.pull[0] < POLICY.like


def test_only_the_newest_signals_count() -> None:
    """`recent_signals` items; an old one that was touched again is new."""
    policy = replace(LONG_TERM, recent_signals=4)
    said = [(item, NOW_S - 100 + item, Signal.LIKE, 1.0) for item in range(10)]
    assert sorted(memory_of(*said, policy=policy).items.tolist()) == [6, 7, 8, 9]
    said.append((0, NOW_S, Signal.WATCH, 1.0))
    assert sorted(memory_of(*said, policy=policy).items.tolist()) == [0, 7, 8, 9]


@given(rows)
def test_everything_reported_was_seen_and_everything_refused_is_rejected(said: list[Row]) -> None:
    """Served alone is not seen; served is remembered with its last time."""
    memory = remember(by_time(said), POLICY, now_s=NOW_S)
    assert set(memory.seen.tolist()) == {item for item, _, signal, _ in said if signal is not Signal.SERVED}
    refused = (Signal.NOT_INTERESTED, Signal.REPORT)
    assert set(memory.rejected.tolist()) == {item for item, _, signal, _ in said if signal in refused}
    served: dict[int, int] = {}
    for item, at, signal, _ in by_time(said)[["item", "at_s", "signal", "strength"]].tolist():
        served |= {item: at} if signal == Signal.SERVED else {}
    asked = np.array([2**31, *{item for item, *_ in said}, 2**32 - 1], np.uint32)
    assert memory.last_served_s(asked).tolist() == [served.get(item, 0) for item in asked.tolist()]


@pytest.mark.parametrize(("seen_days", "still_out"), [(90.0, {1, 2}), (7.0, {2}), (0.0, set())])
def test_a_tenant_says_how_long_what_was_seen_stays_out(seen_days: float, still_out: set[int]) -> None:
    """A seen item may come back after `seen_days`; a rejected one stays rejected all the same."""
    policy = replace(LONG_TERM, seen_days=seen_days)
    old, new = NOW_S - 8 * DAY_S, NOW_S - DAY_S
    said = [(1, old, Signal.NOT_INTERESTED, 1.0), (2, new, Signal.IMPRESSION, 1.0), (3, new, Signal.SERVED, 1.0)]
    memory = memory_of(*said, policy=policy)
    assert set(memory.seen.tolist()) == still_out
    assert memory.rejected.tolist() == [1]


def liking(vectors: npt.NDArray[np.float32], pull: list[float]) -> Memory:
    """A memory of the items 0, 1, 2, ... with these pulls."""
    items = np.arange(len(vectors), dtype=np.uint32)
    return Memory(entries([]), items, np.array(pull, np.float32))


@given(st.integers(0, 12), st.integers(0, 1000), st.data())
def test_directions_are_unit_vectors_of_a_fixed_number(n: int, seed: int, data: st.DataObject) -> None:
    """Whatever is liked and rejected, also items that left the catalogue: finite, unit, at most `interests`."""
    vectors = unit_vectors(n, seed=seed)
    gone = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    vectors[np.array(gone, bool)] = 0
    pull = data.draw(st.lists(st.floats(-5, 5, width=32), min_size=n, max_size=n))
    known = taste(liking(vectors, pull), vectors, POLICY)
    assert known.interests.shape[1] == DIM
    assert len(known.interests) <= POLICY.interests
    assert np.allclose(np.linalg.norm(known.interests, axis=1), 1, atol=1e-3)
    if known.rejected is not None:
        assert np.linalg.norm(known.rejected) == pytest.approx(1, abs=1e-3)


def two_topics() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Six items around each of two orthogonal directions, and the two directions."""
    a, b = np.eye(2, DIM, dtype=np.float32)
    near = 0.2 * unit_vectors(12, seed=4)
    vectors = np.repeat(np.array([a, b]), 6, axis=0) + near
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), a, b


def test_two_topics_are_two_interests_and_the_stronger_comes_first() -> None:
    """Not one average that is neither."""
    vectors, a, b = two_topics()
    known = taste(liking(vectors, [1.0] * 6 + [2.0] * 6), vectors, POLICY)
    assert len(known.interests) == 2
    assert known.interests[0] @ b > 0.9
    assert known.interests[1] @ a > 0.9


def test_one_topic_is_one_interest() -> None:
    """However many items; and with `interests` 1 everything is."""
    vectors, a, _ = two_topics()
    assert len(taste(liking(vectors[:6], [1.0] * 6), vectors[:6], POLICY).interests) == 1
    merged = taste(liking(vectors, [1.0] * 12), vectors, replace(POLICY, interests=1))
    assert len(merged.interests) == 1
    assert 0.5 < merged.interests[0] @ a < 0.9


def test_not_interested_pushes_away() -> None:
    """The rejected direction is known, and taken out of an interest that leans towards it."""
    vectors, a, b = two_topics()
    said = [(item, NOW_S, Signal.NOT_INTERESTED, 1.0) for item in range(3)]
    memory = memory_of(*said)
    known = taste(memory, vectors[memory.items], POLICY)
    assert known.rejected is not None
    assert known.rejected @ a > 0.9
    assert not len(known.interests)
    between = (a + b) / np.float32(np.sqrt(2))
    pushed = taste(liking(np.array([between, a]), [1.0, -1.0]), np.array([between, a]), POLICY)
    assert pushed.interests[0] @ a < between @ a - 0.1
    assert pushed.interests[0] @ b > between @ b


@pytest.mark.parametrize("name", ["similar to rejected", "unlike rejected"])
def test_a_rejection_leaves_other_interests_alone(name: str) -> None:
    """What has nothing in common with it is not turned."""
    vectors, a, b = two_topics()
    away = np.float32(-1) * b if name == "unlike rejected" else vectors[6]
    known = taste(liking(np.array([a, away]), [1.0, -1.0]), np.array([a, away]), POLICY)
    assert known.interests[0] @ a > 0.95
