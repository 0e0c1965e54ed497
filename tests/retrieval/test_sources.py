"""Candidates: never what is not allowed, a full list while enough is allowed, each once and from where it says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranking.candidates import SOURCE, Candidates
from ranking.context import Context
from ranking.eligibility import eligible
from ranking.hints import country_code
from ranking.policy import Policy
from retrieval.counters import Popularity
from retrieval.journal import Signal, entries
from retrieval.rows import Rows
from retrieval.snapshot import Snapshot
from retrieval.sources import SOURCES, Ask, allowed_for, explore, gather, near
from retrieval.taste import Memory, Taste, remember, taste
from retrieval.videos import Rating
from retrieval.view import View
from tests.retrieval.test_view import RULES, TENANT, policy_of, varied, varied_snapshot
from tests.support.content import DIM, NOW_S, a_video, memory_folder, snapshot_of, some_rows, unit_vectors

N = 400


@cache
def catalogue() -> View:
    """400 varied videos, some beside the base, a few of them popular, under rules."""
    scores = np.zeros(N, np.float32)
    scores[::9] = np.linspace(0.1, 1.0, len(scores[::9]))
    with memory_folder() as folder:
        snapshot = varied_snapshot(folder, N)
    return View.of(TENANT, policy_of(RULES), "0.1", snapshot, Popularity.alike(scores))


@dataclass(frozen=True)
class User:
    """Who asks: what they have seen, liked and rejected (item numbers), from where and how old."""

    seen: frozenset[int] = frozenset()
    liked: frozenset[int] = frozenset()
    rejected: frozenset[int] = frozenset()
    country: str = ""
    max_age: int = 18
    seed: int = 0

    def ask(self, view: View) -> Ask:
        said = [
            *((item, NOW_S - 50, Signal.IMPRESSION, 1.0) for item in sorted(self.seen)),
            *((item, NOW_S - 20, Signal.LIKE, 1.0) for item in sorted(self.liked)),
            *((item, NOW_S - 10, Signal.NOT_INTERESTED, 1.0) for item in sorted(self.rejected)),
        ]
        code = country_code(self.country) if self.country else -1
        context = Context(now_s=NOW_S, country=code, max_age=self.max_age, seed=self.seed)
        memory = remember(entries(said), view.policy.taste, now_s=NOW_S)
        plan = view.policy.book.plan(context)
        return Ask(view, plan, context, memory, taste_of(view, memory), allowed_for(view, plan, context, memory))


def taste_of(view: View, memory: Memory) -> Taste:
    vectors = np.zeros((len(memory.items), view.snapshot.dim), np.float32)
    rows = view.snapshot.rows(memory.items)
    vectors[rows >= 0] = view.snapshot.vectors(rows[rows >= 0])
    return taste(memory, vectors, view.policy.taste)


def allowed_items(view: View, user: User) -> set[int]:
    """What this user may be shown, said once more from the videos themselves."""
    return {
        item
        for item in view.snapshot.current_rows().columns["item"].tolist()
        if (video := varied(item)).available_from_s <= NOW_S < video.available_until_s
        and int(video.ratings[0].value) <= user.max_age
        and (not video.countries or user.country in video.countries)
        and "chess" not in video.tags
        and item not in user.seen | user.liked | user.rejected
    }


items = st.integers(0, N - 1)
users = st.builds(
    User,
    seen=st.frozensets(items, max_size=60) | st.integers(0, N).map(lambda most: frozenset(range(most))),
    liked=st.frozensets(items, max_size=6),
    rejected=st.frozensets(items, max_size=4),
    country=st.sampled_from(["", "DE", "JP"]),
    max_age=st.sampled_from([0, 12, 18]),
    seed=st.integers(0, 2**31),
)


@given(user=users, wanted=st.integers(1, 250))
@settings(max_examples=80, deadline=None)
def test_a_list_is_full_while_enough_is_allowed_and_holds_nothing_else(user: User, wanted: int) -> None:
    """Heavy users, country and age limits: every candidate allowed, none twice, and as many as there can be."""
    view = catalogue()
    found = gather(user.ask(view), wanted)
    allowed = allowed_items(view, user)
    got = found.item.tolist()
    assert len(got) == len(set(got))
    assert set(got) <= allowed
    assert len(got) >= min(wanted, len(allowed))
    assert (found.source != 0).all()


@given(user=users)
@settings(max_examples=40, deadline=None)
def test_each_source_bit_is_what_its_source_brought(user: User) -> None:
    """Asked for nothing more, a candidate's bits are exactly the sources that return its row."""
    view = catalogue()
    ask = user.ask(view)
    found = gather(ask, 0)
    for name, source in SOURCES.items():
        rows = source(ask)
        assert len(np.unique(rows)) == len(rows) or name in ("near", "editor")
        brought = set(view.snapshot.column("item", rows).tolist())
        assert {i for i, bits in zip(found.item.tolist(), found.source, strict=True) if bits & SOURCE[name]} == brought


@given(user=users)
@settings(max_examples=30, deadline=None)
def test_ranking_agrees_that_every_candidate_is_eligible(user: User) -> None:
    """Retrieval's packed masks and ranking's own eligibility are one truth."""
    view = catalogue()
    ask = user.ask(view)
    found = gather(ask, 200)
    assert not eligible(found, ask.plan, ask.context, view.policy.limits.max_age).any()


@given(user=users)
@settings(max_examples=20, deadline=None)
def test_a_list_of_the_same_request_is_the_same(user: User) -> None:
    """Chance comes from the seed alone."""
    one, other = (gather(user.ask(catalogue()), 100) for _ in range(2))
    assert np.array_equal(one.item, other.item)
    assert np.array_equal(one.source, other.source)


def test_columns_are_those_of_the_items() -> None:
    """Every candidate is described by its newest state, similarity to the nearest interest included."""
    view = catalogue()
    ask = User(liked=frozenset({1, 2}), rejected=frozenset({7})).ask(view)
    found = gather(ask, 100)
    rows = view.snapshot.rows(found.item)
    vectors = view.snapshot.vectors(rows)
    assert ask.taste.rejected is not None
    assert np.allclose(found.similarity, (vectors @ ask.taste.interests.T).max(axis=1), atol=1e-5)
    assert np.allclose(found.negative, vectors @ ask.taste.rejected, atol=1e-5)
    assert found.published_s.tolist() == [varied(item).published_s for item in found.item.tolist()]
    assert np.array_equal(found.targets, view.targets(rows))
    assert not found.seen.any()
    assert not found.rejected.any()


def test_the_last_time_of_serving_is_known() -> None:
    """Of several, the last; 0 where there was none."""
    view, _ = plain(1000)
    ask = User().ask(view)
    said = [
        (3, NOW_S - 90, Signal.SERVED, 1.0),
        (6, NOW_S - 80, Signal.SERVED, 1.0),
        (3, NOW_S - 70, Signal.SERVED, 1.0),
    ]
    memory = remember(entries(said), view.policy.taste, now_s=NOW_S)
    served = served_by_item(gather(replace(ask, memory=memory), 1000))
    assert served[3] == NOW_S - 70
    assert served[6] == NOW_S - 80
    assert sum(at_s > 0 for at_s in served.values()) == 2


def served_by_item(found: Candidates) -> dict[int, int]:
    return dict(zip(found.item.tolist(), found.served_s.tolist(), strict=True))


def test_each_interest_gets_its_share() -> None:
    """A topic with many close videos does not crowd out another one."""
    a, b = np.eye(2, DIM, dtype=np.float32)
    vectors = np.concatenate([np.repeat(a[None], 280, 0), np.repeat(b[None], 20, 0)]) + 0.1 * unit_vectors(300)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    with memory_folder() as folder:
        snapshot = snapshot_of(folder, Rows.from_videos([a_video(n) for n in range(300)], vectors))
    view = View.of(TENANT, policy_of([]), "0.0", snapshot, Popularity.nothing())
    ask = replace(User().ask(view), taste=Taste(np.array([a, b]), None))
    rows = near(ask)
    share = -(-view.policy.sources.near // 2)
    assert set(range(280, 300)) <= set(rows.tolist()), "all of the small topic"
    assert sum(row < 280 for row in rows[: 2 * 10]) == 10, "and in turns from the beginning"
    assert len(rows) <= 2 * share


@pytest.mark.parametrize("n", [1000, 6000])
def test_exploring_gives_every_video_the_same_chance(n: int) -> None:
    """Small or large, listed or drawn: over many requests no tenth of the catalogue is preferred."""
    view, _ = plain(n)
    counts = np.zeros(10)
    for seed in range(400):
        ask = User(liked=frozenset({5}), seed=seed).ask(view)
        found = view.snapshot.column("item", explore(ask))
        assert len(found) == view.policy.sources.explore
        counts += np.bincount(found * 10 // n, minlength=10)
    expected = counts.sum() / 10
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all(), counts


def test_who_is_new_is_shown_nothing_by_lot() -> None:
    """Whatever was seen or rejected: before something is liked, a page is what others stayed for."""
    view, _ = plain(1000)
    for user in (User(), User(seen=frozenset({1, 2})), User(rejected=frozenset({3}))):
        ask = user.ask(view)
        assert not len(explore(ask))
        assert not (gather(ask, 200).source & SOURCE["explore"]).any()


@cache
def plain(n: int) -> tuple[View, Snapshot]:
    with memory_folder() as folder:
        snapshot = snapshot_of(folder, some_rows(range(n)))
    return View.of(TENANT, policy_of([]), "0.0", snapshot, Popularity.nothing()), snapshot


def test_who_has_seen_almost_everything_gets_the_rest() -> None:
    """Thousands seen, a few left far from any head of any order: they are found."""
    view, _ = plain(6000)
    left = {17, 3333, 5999}
    found = gather(User(seen=frozenset(range(6000)) - left).ask(view), 20)
    assert set(found.item.tolist()) == left


def test_nothing_allowed_is_an_empty_list() -> None:
    """Everything blocked, everything seen, an empty tenant: no candidates, no error."""
    view, _ = plain(1000)
    assert not len(gather(User(seen=frozenset(range(1000))).ask(view), 20).item)
    block = [{"id": "all", "kind": "block", "effect": {}, "target": {"filter": {"language": ["en"]}}}]
    policy: Policy = policy_of(block)
    blocked = View.of(TENANT, policy, "0.1", view.snapshot, Popularity.nothing())
    assert not len(gather(User().ask(blocked), 20).item)
    empty = View.of(TENANT, policy_of([]), "0.0", Snapshot.empty("acme", DIM), Popularity.nothing())
    assert not len(gather(User(liked=frozenset({1})).ask(empty), 20).item)


def test_a_pinned_video_is_a_candidate_only_where_it_is_allowed() -> None:
    """An editor's pin brings it, and does not open it to those too young."""
    rules = [{"id": "pin", "kind": "pin", "effect": {"position": 0}, "target": {"items": ["video-900"]}}]
    videos = [a_video(n, ratings=(Rating(system="FSK", value="16"),)) if n == 900 else a_video(n) for n in range(1000)]
    with memory_folder() as folder:
        snapshot = snapshot_of(folder, Rows.from_videos(videos, unit_vectors(1000)))
    view = View.of(TENANT, policy_of(rules), "0.1", snapshot, Popularity.nothing())
    grown, child = (gather(User(max_age=age).ask(view), 0) for age in (18, 12))
    assert grown.source[grown.item == 900] & SOURCE["editor"]
    assert 900 not in child.item
