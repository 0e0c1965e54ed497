"""Equal keys brought together, for sums and other reductions over what belongs to one key."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.intp]


def groups(keys: npt.NDArray[Any]) -> tuple[Places, Places]:
    """(order intp[n], begins intp[g]): `keys[order]` is ascending, equal keys as they came; group i of g begins there.

    So `keys[order[begins]]` are the different keys, and `np.add.reduceat(values[order], begins)` is the sum of each.
    """
    order = keys.argsort(kind="stable")
    ordered = keys[order]
    is_first = np.ones(len(keys), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:])
    return order, np.flatnonzero(is_first)
