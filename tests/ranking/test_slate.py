"""Arranging ranks: bounded moves, even spreading, caps, relaxation."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranking.columns import UInt64
from ranking.slate import KeyCap, PlacedBy, Slate, Wish, arrange, spread, table
from tests.ranking.cases import seeds


class Case(NamedTuple):
    """A cap with keys of its own."""

    most: int
    window: int
    keys: UInt64


def by_creator(text: str, most: int, window: int) -> Case:
    """Write keys by rank as letters; "." has none."""
    return Case(most, window, np.array([[0 if letter == "." else ord(letter)] for letter in text], np.uint64))


def arranged(
    n: int,
    cases: Sequence[Case],
    wanted: Sequence[Wish],
    size: int,
    page: int = 0,
    *,
    pools: Sequence[Sequence[int]] = (),
) -> Slate:
    """Arrange n ranks that may all be placed by score, in their order; nothing is explored."""
    rows = np.zeros((len(pools), n), np.bool_)
    for row, pool in zip(rows, pools, strict=True):
        row[list(pool)] = True
    ends = np.cumsum([case.keys.shape[1] for case in cases]).tolist()
    caps = [
        KeyCap(most, window, end - keys.shape[1], end) for (most, window, keys), end in zip(cases, ends, strict=True)
    ]
    keys = np.concatenate([np.zeros((n, 0), np.uint64), *(case.keys for case in cases)], axis=1)
    return arrange(np.arange(n), keys, rows, table(*caps), table(*wanted), np.zeros(0, np.intp), size, page)


@given(st.floats(0.01, 1), st.integers(0, 200), st.floats(0, 0.99))
def test_spread_keeps_to_its_share_of_every_beginning(share: float, size: int, phase: float) -> None:
    """Never ahead of it, and in the end as much as it may be."""
    slots = spread(share, size, phase)
    for count, slot in enumerate(slots, start=1):
        assert count <= share * (slot + 1) + phase + 1e-6
    assert len(set(slots)) == len(slots)
    assert len(slots) >= int(share * size + phase - 1e-6) - 1


def test_spread_is_even() -> None:
    """A quarter of twelve: every fourth."""
    assert spread(0.25, 12) == (3, 7, 11)
    assert spread(0, 12) == ()


def test_a_taken_slot_gives_the_next_free_one() -> None:
    """And none at the end of the list: the third pin finds no slot, and its row stands where its score puts it."""
    slate = arranged(4, [], [Wish(PlacedBy.PIN, 1, pool) for pool in range(3)], 3, pools=[[1], [3], [2]])
    assert (slate.ranks.tolist(), slate.pool.tolist()) == ([0, 1, 3], [-1, 0, 1])


@pytest.mark.parametrize(
    ("creators", "size", "page", "ranks", "relaxed"),
    [
        ("aaabbb", 6, 0, [0, 3, 1, 4, 2, 5], False),  # one of a creator among two neighbours
        ("aab...", 6, 0, [0, 2, 1, 3, 4, 5], False),  # only as far back as needed
        ("aaaa.", 5, 0, [0, 4, 1], False),  # beyond the page nothing is relaxed
        ("aaaa.", 5, 5, [0, 4, 1, 2, 3], True),  # a short page is worse than a neighbour of one's own
        ("aaaa.", 5, 4, [0, 4, 1, 2], True),
    ],
)
def test_caps_make_rows_wait(creators: str, size: int, page: int, ranks: list[int], relaxed: bool) -> None:
    """The best that fits takes the slot; who waits comes as soon as it fits."""
    slate = arranged(len(creators), [by_creator(creators, 1, 2)], [], size, page)
    assert slate.ranks.tolist() == ranks
    assert slate.relaxed.tolist() == [relaxed]


def test_caps_are_relaxed_one_after_the_other() -> None:
    """First the soft one alone: rank 2 breaks only that; rank 1 breaks the firm one too and comes last."""
    soft, firm = by_creator("aaa", 1, 3), by_creator("xxy", 1, 3)
    slate = arranged(3, [soft, firm], [], 3, 2)
    assert (slate.ranks.tolist(), slate.relaxed.tolist()) == ([0, 2], [True, False])
    slate = arranged(3, [soft, firm], [], 3, 3)
    assert (slate.ranks.tolist(), slate.relaxed.tolist()) == ([0, 2, 1], [True, True])


def test_a_pinned_row_leaves_its_organic_place_and_counts_for_the_caps() -> None:
    """The best row pinned third: the others move up, and its creator's next row waits behind it."""
    pin = Wish(PlacedBy.PIN, slot=2, pool=1)
    slate = arranged(5, [by_creator("a..a.", 1, 2)], [pin], 5, 5, pools=[[], [0]])
    assert slate.ranks.tolist() == [1, 2, 0, 4, 3]
    assert slate.pool.tolist() == [-1, -1, 1, -1, -1]


def test_a_pin_beyond_a_short_list_stands_at_its_end() -> None:
    """It is an explicit wish, so it is better early than lost."""
    slate = arranged(3, [], [Wish(PlacedBy.PIN, slot=8, pool=0)], 10, 10, pools=[[1]])
    assert slate.ranks.tolist() == [0, 2, 1]


def test_a_cap_counts_only_the_rows_it_is_about() -> None:
    """Three rows of one creator, the cap is about the first and the last."""
    cap = by_creator("a.a.", 1, 3)
    assert arranged(4, [cap], [], 4).ranks.tolist() == [0, 1, 3, 2]


def test_caps_give_way_so_that_a_pin_stands_in_its_slot() -> None:
    """Even where the page would not need the rows before it."""
    pin = Wish(PlacedBy.PIN, slot=3, pool=0)
    slate = arranged(4, [by_creator("aaa.", 1, 9)], [pin], 4, pools=[[3]])
    assert (slate.ranks.tolist(), slate.relaxed.tolist()) == ([0, 1, 2, 3], [True])


def test_a_promotion_acts_only_if_the_score_did_not() -> None:
    """Half of the page from ranks 0, 4 and 5: rank 0 came by itself, the second slot due is forced."""
    wanted = [Wish(PlacedBy.PROMOTION, slot, 0, quota) for slot, quota in ((1, 1), (3, 2))]
    slate = arranged(6, [], wanted, 6, 6, pools=[[0, 4, 5]])
    assert slate.ranks.tolist() == [0, 1, 2, 4, 3, 5]
    assert slate.placed_by[3] == PlacedBy.PROMOTION


def test_many_waiting_rows_do_not_make_it_slow_or_wrong() -> None:
    """200 rows of one creator under a cap: only as many as fit, each at the first slot it may take."""
    slate = arranged(200, [by_creator("a" * 190 + "." * 10, 1, 2)], [], 200)
    assert slate.ranks.tolist() == [rank for i in range(10) for rank in (i, 190 + i)] + [10]


@given(
    seeds, st.integers(1, 40), st.integers(1, 45), st.lists(st.tuples(st.integers(1, 3), st.integers(1, 8)), max_size=3)
)
def test_each_slot_gets_the_best_row_that_no_cap_forbids(
    seed: int, n: int, size: int, wanted: list[tuple[int, int]]
) -> None:
    """As if all rows were tried anew for every slot, with several keys per row and several caps."""
    rng = np.random.default_rng(seed)
    caps = [Case(*cap, rng.integers(0, 5, (n, 2), np.uint64)) for cap in wanted]
    for cap in caps:
        cap.keys[:, 1] *= cap.keys[:, 1] != cap.keys[:, 0]  # a row has a key once
    placed: list[int] = []

    def fits(rank: int) -> bool:
        for cap in caps:
            before = cap.keys[placed[max(0, len(placed) - cap.window + 1) :]] if cap.window > 1 else cap.keys[:0]
            if any(key and (before == key).sum() >= cap.most for key in cap.keys[rank]):
                return False
        return True

    while len(placed) < size:
        best = next((rank for rank in range(n) if rank not in placed and fits(rank)), None)
        if best is None:
            break
        placed.append(best)
    assert arranged(n, caps, [], size).ranks.tolist() == placed
