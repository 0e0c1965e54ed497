"""Grouping: the different keys, and what belongs to each in the order it came."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retrieval.groups import groups


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(-5, 5))))
def test_sums_are_those_of_a_dictionary(rows: list[tuple[int, int]]) -> None:
    """Every key once, ascending, with the sum of its values; the last place of each group is its last row."""
    keys, values = np.array([row[0] for row in rows], np.uint32), np.array([row[1] for row in rows], np.int64)
    order, begins = groups(keys)
    sums = {key: sum(value for other, value in rows if other == key) for key, _ in sorted(rows)}
    assert dict(zip(keys[order[begins]].tolist(), np.add.reduceat(values[order], begins).tolist(), strict=True)) == sums
    assert keys[order[begins]].tolist() == sorted(sums)
    last = order[np.append(begins, len(rows))[1:] - 1].tolist()
    assert last == [max(at for at, row in enumerate(rows) if row[0] == key) for key in sorted(sums)]
