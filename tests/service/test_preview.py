"""The preview: both pages are those that would be served, and the second says what became of each item of the first."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ranking.context import Context
from retrieval.counters import Popularity
from retrieval.journal import Journal, Signal, entries
from retrieval.view import View
from service.explain import video_ids
from service.preview import as_json, compare
from service.ranked import layers, replayed, under
from tests.retrieval.test_view import TENANT, varied_snapshot
from tests.support.content import NOW_S, memory_folder

N = 120
LIVE = {"rules": [{"id": "stop", "kind": "block", "target": {"items": ["video-3"]}}]}

weights = st.fixed_dictionaries(
    {},
    optional={
        name: st.floats(0, 3, allow_nan=False) for name in ("similarity", "popularity", "freshness", "affinity_creator")
    },
)
blocks = st.lists(st.integers(0, N - 1).map(lambda item: f"video-{item}"), max_size=30, unique=True)
liked = st.lists(st.integers(0, N - 1), max_size=6, unique=True)


@cache
def live() -> View:
    """A tenant under LIVE."""
    scores = np.linspace(0, 1, N, dtype=np.float32)
    with memory_folder() as folder:
        snapshot = varied_snapshot(folder, N)
    return View.of(TENANT, layers({}, LIVE), "0.1", snapshot, Popularity.alike(scores))


def journal_of(items: list[int]) -> Journal:
    """Somebody who liked these."""
    return entries([(item, NOW_S - 60, Signal.LIKE, 1.0) for item in items])


def draft_of(weighed: dict[str, float], blocked: list[str]) -> View:
    """The tenant under a draft."""
    rule: dict[str, Any] = {"id": "no", "kind": "block", "target": {"items": blocked or ["nothing"]}}
    return under(live(), layers({}, {"weights": weighed, "rules": [rule]}), "draft")


@given(weighed=weights, blocked=blocks, items=liked, limit=st.integers(1, 30), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_a_preview_is_what_would_be_served(
    weighed: dict[str, float], blocked: list[str], items: list[int], limit: int, seed: int
) -> None:
    """Both pages are the ranker's own; `was` and `left` account for every item of the page that is live."""
    drafted, context = draft_of(weighed, blocked), Context(now_s=NOW_S, seed=seed)
    users = {"cold": journal_of([]), "user 1": journal_of(items)}
    for compared in compare(live(), drafted, users, context, limit):
        said, journal = as_json(compared), users[compared.user]
        pages = {
            name: video_ids(view, replayed(view, journal, context, limit).page.tolist())
            for name, view in (("live", live()), ("draft", drafted))
        }
        for name, page in pages.items():
            assert [one["id"] for one in said[name]] == page
            assert [one["position"] for one in said[name]] == list(range(len(page)))
        was = {name: position for position, name in enumerate(pages["live"])}
        assert [one["was"] for one in said["draft"]] == [was.get(name) for name in pages["draft"]]
        left = [one["id"] for one in said["left"]]
        assert left == [name for name in pages["live"] if name not in pages["draft"]]
        for one in said["left"]:
            code = one.get("missing", {}).get("code")
            assert (code == "blocked") == (one["id"] in blocked)


def test_a_draft_like_what_is_live_changes_nothing() -> None:
    """Every item stands where it was, and none has left."""
    drafted = under(live(), layers({}, LIVE), "draft")
    [compared] = compare(live(), drafted, {"cold": journal_of([1, 8])}, Context(now_s=NOW_S), 20)
    said = as_json(compared)
    assert [one["was"] for one in said["draft"]] == list(range(20))
    assert said["left"] == []
    assert [one["features"] for one in said["draft"]] == [one["features"] for one in said["live"]]


def test_an_item_that_a_draft_lets_in_has_no_place_before() -> None:
    """The best of all was blocked: it comes first, and everything else moves one place down."""
    free = under(live(), layers({}, {}), "draft")
    [best] = video_ids(free, replayed(free, journal_of([]), Context(now_s=NOW_S), 10).page.tolist()[:1])
    blocking = under(live(), layers({}, {"rules": [{"id": "no", "kind": "block", "target": {"items": [best]}}]}), "0.2")
    [compared] = compare(blocking, free, {"cold": journal_of([])}, Context(now_s=NOW_S), 10)
    page = as_json(compared)["draft"]
    assert (page[0]["id"], page[0]["was"], page[0]["rules"]) == (best, None, [])
    assert page[1]["was"] == 0
