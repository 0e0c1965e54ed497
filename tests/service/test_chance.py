"""The propensity in the serve log is true: so often does an explored item really get a slot, whatever it scores."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from ranking.context import Context
from ranking.policy import resolve
from ranking.slate import PlacedBy
from retrieval.counters import Popularity
from retrieval.journal import Signal, entries
from retrieval.rows import Rows
from retrieval.view import View
from service.ranked import Ranked, replayed
from tests.retrieval.test_view import TENANT
from tests.support.content import NOW_S, a_video, memory_folder, snapshot_of, unit_vectors

N = 900
LISTS = 2000
JOURNAL = entries([(item, NOW_S - 60, Signal.LIKE, 1.0) for item in (5, 17, 400)])


@cache
def lists() -> list[Ranked]:
    """Lists of one user, who likes something, under many seeds."""
    with memory_folder() as folder:
        videos = [a_video(item, creator=f"creator {item}") for item in range(N)]  # no cap ever passes one over
        snapshot = snapshot_of(folder, Rows.from_videos(videos, unit_vectors(N)))
    view = View.of(TENANT, resolve(), "0.0", snapshot, Popularity.alike(np.zeros(N, np.float32)))
    return [replayed(view, JOURNAL, Context(now_s=NOW_S, seed=seed), limit=20) for seed in range(LISTS)]


def explored(run: Ranked) -> list[int]:
    """Items that stand in explore slots."""
    slots = zip(run.ranking.rows.tolist(), run.ranking.placed_by, strict=True)
    return [int(run.candidates.item[row]) for row, placed in slots if placed == PlacedBy.EXPLORE]


def test_an_items_chance_is_how_often_it_gets_a_slot() -> None:
    """Summed over lists the chances of all that could be drawn are the slots there were; and no item of them comes
    more or less often than that, beyond what chance does."""
    runs = lists()
    counts = np.bincount([item for run in runs for item in explored(run)], minlength=N)
    expected = sum(run.chance for run in runs)
    assert sum(run.chance * run.n_unknown for run in runs) == pytest.approx(counts.sum())
    n = runs[0].n_unknown
    assert np.count_nonzero(counts) >= 0.98 * n
    counts = np.sort(counts)[-n:]  # the others could not be drawn: they were brought, or seen
    spread = float(((counts - expected) ** 2).sum() / expected)  # chi-square with as many degrees of freedom as items
    assert abs(spread - n) < 4 * np.sqrt(2 * n)


def test_what_would_score_well_is_drawn_no_more_often() -> None:
    """Of what could be drawn, the half that is nearer to the taste has half of the slots."""
    runs = lists()
    view, interests = runs[0].view, runs[0].ask.taste.interests
    items = np.array(sorted({item for run in runs for item in explored(run)}), np.uint32)
    near = (view.snapshot.vectors(view.snapshot.rows(items)) @ interests.T).max(axis=1)
    nearer = set(items[near >= np.median(near)].tolist())
    slots = [item in nearer for run in runs for item in explored(run)]
    assert abs(np.mean(slots) - 0.5) < 4 * 0.5 / np.sqrt(len(slots))
