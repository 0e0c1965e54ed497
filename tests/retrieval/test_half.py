"""`widened` is `astype`, only faster."""

import numpy as np

from retrieval.half import widened


def test_every_finite_half_is_widened_exactly() -> None:
    """All 63,488 finite float16 values, subnormal ones and both zeros included."""
    every = np.arange(65536, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)]
    assert (widened(finite).view(np.uint32) == finite.astype(np.float32).view(np.uint32)).all()


def test_shapes_are_kept() -> None:
    """Rows, no rows, and rows gathered from a read-only array."""
    rows = np.zeros((3, 4), np.float16)
    rows.flags.writeable = False
    assert widened(rows).shape == (3, 4)
    assert widened(rows[:0]).shape == (0, 4)
    assert widened(rows[np.array([2, 0])]).shape == (2, 4)
