"""Arranging ranks: bounded moves, even spreading, caps, relaxation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranking.slate import KeyCap, PlacedBy, Special, arrange, reserve, spread
from tests.ranking.cases import seeds


def by_creator(text: str, most: int, window: int, name: str = "creator") -> KeyCap:
    """Write keys by rank as letters; "." has none."""
    return KeyCap(name, most, window, np.array([[0 if letter == "." else ord(letter)] for letter in text], np.uint64))


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
    """And none at the end of the list."""
    specials: dict[int, Special] = {}
    special = Special(PlacedBy.PIN, (0,))
    assert reserve(specials, 1, 3, special)
    assert reserve(specials, 1, 3, special)
    assert not reserve(specials, 1, 3, special)
    assert sorted(specials) == [1, 2]


@pytest.mark.parametrize(
    ("creators", "size", "page", "ranks", "relaxed"),
    [
        ("aaabbb", 6, 0, [0, 3, 1, 4, 2, 5], []),  # one of a creator among two neighbours
        ("aab...", 6, 0, [0, 2, 1, 3, 4, 5], []),  # only as far back as needed
        ("aaaa.", 5, 0, [0, 4, 1], []),  # beyond the page nothing is relaxed
        ("aaaa.", 5, 5, [0, 4, 1, 2, 3], ["creator"]),  # a short page is worse than a neighbour of one's own
        ("aaaa.", 5, 4, [0, 4, 1, 2], ["creator"]),
    ],
)
def test_caps_make_rows_wait(creators: str, size: int, page: int, ranks: list[int], relaxed: list[str]) -> None:
    """The best that fits takes the slot; who waits comes as soon as it fits."""
    slate = arrange(range(len(creators)), len(creators), [by_creator(creators, 1, 2)], {}, size, page)
    assert slate.ranks == ranks
    assert sorted(slate.relaxed) == relaxed


def test_caps_are_relaxed_one_after_the_other() -> None:
    """First the soft one alone: rank 2 breaks only that; rank 1 breaks the firm one too and comes last."""
    soft, firm = by_creator("aaa", 1, 3, "soft"), by_creator("xxy", 1, 3, "firm")
    slate = arrange(range(3), 3, [soft, firm], {}, 3, 2)
    assert (slate.ranks, slate.relaxed) == ([0, 2], {"soft"})
    slate = arrange(range(3), 3, [soft, firm], {}, 3, 3)
    assert (slate.ranks, slate.relaxed) == ([0, 2, 1], {"soft", "firm"})


def test_a_pinned_row_leaves_its_organic_place_and_counts_for_the_caps() -> None:
    """The best row pinned third: the others move up, and its creator's next row waits behind it."""
    pin = {2: Special(PlacedBy.PIN, (0,), 7)}
    slate = arrange(range(5), 5, [by_creator("a..a.", 1, 2)], pin, 5, 5)
    assert slate.ranks == [1, 2, 0, 4, 3]
    assert slate.rule == [-1, -1, 7, -1, -1]


def test_a_pin_beyond_a_short_list_stands_at_its_end() -> None:
    """It is an explicit wish, so it is better early than lost."""
    slate = arrange(range(3), 3, [], {8: Special(PlacedBy.PIN, (1,), 0)}, 10, 10)
    assert slate.ranks == [0, 2, 1]


def test_a_cap_counts_only_the_rows_it_is_about() -> None:
    """Three rows of one creator, the cap is about the first and the last."""
    cap = by_creator("a.a.", 1, 3)
    assert arrange(range(4), 4, [cap], {}, 4, 0).ranks == [0, 1, 3, 2]


def test_caps_give_way_so_that_a_pin_stands_in_its_slot() -> None:
    """Even where the page would not need the rows before it."""
    pin = {3: Special(PlacedBy.PIN, (3,), 0)}
    slate = arrange(range(4), 4, [by_creator("aaa.", 1, 9)], pin, 4, 0)
    assert (slate.ranks, slate.relaxed) == ([0, 1, 2, 3], {"creator"})


def test_a_promotion_acts_only_if_the_score_did_not() -> None:
    """Half of the page from ranks 0, 4 and 5: rank 0 came by itself, the second slot due is forced."""
    pool = [0, 4, 5]
    specials = {1: Special(PlacedBy.PROMOTION, pool, 3, 1), 3: Special(PlacedBy.PROMOTION, pool, 3, 2)}
    slate = arrange(range(6), 6, [], specials, 6, 6)
    assert slate.ranks == [0, 1, 2, 4, 3, 5]
    assert slate.placed_by[3] is PlacedBy.PROMOTION


def test_many_waiting_rows_do_not_make_it_slow_or_wrong() -> None:
    """200 rows of one creator under a cap: only as many as fit, each at the first slot it may take."""
    slate = arrange(range(200), 200, [by_creator("a" * 190 + "." * 10, 1, 2)], {}, 200, 0)
    assert slate.ranks == [rank for i in range(10) for rank in (i, 190 + i)] + [10]


@given(
    seeds, st.integers(1, 40), st.integers(1, 45), st.lists(st.tuples(st.integers(1, 3), st.integers(1, 8)), max_size=3)
)
def test_each_slot_gets_the_best_row_that_no_cap_forbids(
    seed: int, n: int, size: int, wanted: list[tuple[int, int]]
) -> None:
    """As if all rows were tried anew for every slot, with several keys per row and several caps."""
    rng = np.random.default_rng(seed)
    caps = [KeyCap(str(at), *cap, rng.integers(0, 5, (n, 2), np.uint64)) for at, cap in enumerate(wanted)]
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
    assert arrange(range(n), n, caps, {}, size, 0).ranks == placed
