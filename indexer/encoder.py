"""Text to vectors: what an encoder is, and what it may raise. Which ones there are: `indexer/encoders.py`.

EncoderError
├── ModelError       the model cannot be used: missing, altered, of another dimension, its library not installed
└── EncodingError    some texts got no vector; `.positions` says which
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

DEFAULT_MODEL = "all-MiniLM-L6-v2"

# float32 sums of 384..4096 squares stay far inside this; a zero, infinite or NaN row does not.
UNIT_TOLERANCE = 1e-3


class EncoderError(Exception):
    """Anything an encoder raises on purpose."""


class ModelError(EncoderError):
    """The model cannot be used at all: trying again without an operator is pointless."""


class EncodingError(EncoderError):
    """Some texts of a call got no usable vector; a call without them may succeed.

    positions: indices into the `texts` of that call, ascending.
    """

    def __init__(self, positions: Sequence[int], reason: str) -> None:
        self.positions = tuple(sorted(positions))
        self.reason = reason
        super().__init__(f"no vector for the texts at {list(self.positions)}: {reason}")


class Encoder(Protocol):
    """Turns texts into unit vectors. Safe to call from several threads at once."""

    @property
    def model_id(self) -> str:
        """Name and content checksum, `name@12 hex digits`: other weights are another model, their vectors never mix."""

    @property
    def dim(self) -> int:
        """Length of every vector."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32[n, dim], finite unit rows, row i for texts[i]; n = 0 and empty texts are fine.

        A row depends on its text alone (to 1e-5, whatever the rest of the call holds).
        Raises EncodingError naming positions.
        """


def well_formed(text: str) -> str:
    """`text` with lone surrogates, which no tokenizer accepts, as question marks: one bad text must not fail a call."""
    return text.encode("utf-8", "replace").decode("utf-8")


def checked_rows(rows: NDArray[np.float32], n: int, dim: int) -> NDArray[np.float32]:
    """`rows` if they are what `Encoder.encode` promises: float32[n, dim] with finite unit rows.

    Raises ModelError for another shape, EncodingError for rows that are not unit vectors.
    """
    if rows.shape != (n, dim):
        raise ModelError(f"the model gave vectors of shape {rows.shape}, expected {(n, dim)}")
    # Written so that NaN counts as bad: every comparison with it is false.
    good = np.abs(np.linalg.norm(rows, axis=1) - 1.0) <= UNIT_TOLERANCE
    if not good.all():
        raise EncodingError(np.flatnonzero(~good).tolist(), "the model gave no unit vector")
    return rows
