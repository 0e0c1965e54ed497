"""Column types, and the one check that a set of columns is what it claims to be."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Int16 = NDArray[np.int16]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Rows = NDArray[np.intp]
UInt8 = NDArray[np.uint8]
UInt32 = NDArray[np.uint32]
UInt64 = NDArray[np.uint64]
Bool = NDArray[np.bool_]

OPEN_UNTIL_S: Final = int(np.iinfo(np.int64).max)
"""The end of an availability window that never ends. Its start is 0."""

Spec = Mapping[str, tuple[np.dtype[Any], tuple[int | None, ...]]]
"""Column name -> (dtype, trailing shape); None in a shape = any length."""


def spec(**columns: tuple[type[np.generic], tuple[int | None, ...]]) -> Spec:
    """Write a `Spec` with scalar types instead of dtype objects."""
    return {name: (np.dtype(scalar), trailing) for name, (scalar, trailing) in columns.items()}


def check_columns(owner: object, columns: Spec, n: int) -> None:
    """Raise ValueError naming the first column of `owner` that is not `dtype[n, *trailing]`."""
    for name, (dtype, trailing) in columns.items():
        column = getattr(owner, name)
        if column.dtype != dtype:
            raise ValueError(f"{type(owner).__name__}.{name} is {column.dtype}, expected {dtype}")
        shape = (n, *trailing)
        if column.shape != shape and not _fits(column.shape, shape):
            raise ValueError(f"{type(owner).__name__}.{name} has shape {column.shape}, expected {shape}")


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(want in (None, got) for want, got in zip(wanted, shape, strict=True))
