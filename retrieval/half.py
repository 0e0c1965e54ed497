"""float16 to float32, five times faster than numpy's `astype`, which converts one number at a time.

The exponent and fraction of a half are moved to where a single keeps them, and the missing exponent offset (127 - 15 =
112) is made up by one multiplication, which is exact, also for subnormal halves. Measured: `python benchmarks/half.py`.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

_KEPT: Final = np.int32(-0x70002000)  # 0x8FFFE000: sign, five bits of exponent, ten of fraction
_OFFSET: Final = np.float32(2.0**112)


def widened(halves: npt.NDArray[np.float16]) -> npt.NDArray[np.float32]:
    """float32 copy of finite float16 values of any shape; bit for bit what `astype` gives.

    Infinities and NaN come out as large finite numbers: stored vectors have none.
    """
    bits = halves.view(np.int16).astype(np.int32)
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, _KEPT, out=bits)
    singles: npt.NDArray[np.float32] = bits.view(np.float32)
    singles *= _OFFSET
    return singles
