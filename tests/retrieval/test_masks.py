"""Packed masks are sets of rows."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retrieval.masks import MAX_KEPT, KeptMasks, clear, is_set

members = st.sets(st.integers(0, 199))


@given(members, st.lists(st.integers(-1, 199), max_size=50))
def test_what_is_cleared_is_taken_out_of_the_set(of: set[int], gone: list[int]) -> None:
    """Repeats and -1 among it: what is left is the difference of the sets."""
    bits = np.zeros(200, bool)
    bits[list(of)] = True
    mask = np.packbits(bits, bitorder="little")
    clear(mask, np.array(gone, np.int64))
    assert np.flatnonzero(is_set(mask, np.arange(200))).tolist() == sorted(of - set(gone))


def test_a_question_is_answered_once_until_there_are_too_many() -> None:
    """The very same mask again; when MAX_KEPT others were asked for, it is made anew."""
    masks, answers = KeptMasks(), iter(np.eye(2 * MAX_KEPT, dtype=np.bool_))
    first = masks.of(("first",), lambda: next(answers))
    assert masks.of(("first",), lambda: next(answers)) is first
    for number in range(MAX_KEPT):
        masks.of((number,), lambda: next(answers))
    assert masks.of(("first",), lambda: next(answers)) is not first
