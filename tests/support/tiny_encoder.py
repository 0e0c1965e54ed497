"""A fast encoder of small vectors for tests that need an encoder, not a good one."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from indexer.encoder import EncodingError, checked_rows


class TinyEncoder:
    """Bag of hashed words: texts that share words are near each other. Deterministic, microseconds per text.

    texts_encoded: every text that got a vector, in order, so that a test can say what was not encoded again.
    """

    dim = 32

    def __init__(self, name: str = "tiny", *, fails_on: str | None = None) -> None:
        """name: another name is another model, with other vectors. fails_on: texts that contain it get no vector."""
        self.model_id = f"{name}@{hashlib.sha256(name.encode()).hexdigest()[:12]}"
        self.fails_on = fails_on
        self.texts_encoded: list[str] = []

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32[n, 32], unit rows. Raises EncodingError for the texts that contain `fails_on`."""
        if self.fails_on is not None:
            failed = [i for i, text in enumerate(texts) if self.fails_on in text]
            if failed:
                raise EncodingError(failed, f"the text contains {self.fails_on!r}")
        rows = np.array([self._vector(text) for text in texts], dtype=np.float32).reshape(len(texts), self.dim)
        self.texts_encoded.extend(texts)
        return checked_rows(rows, len(texts), self.dim)

    def _vector(self, text: str) -> NDArray[np.float64]:
        total = np.zeros(self.dim)
        for word in text.lower().split() or [""]:
            hashed = hashlib.blake2b(
                word.encode("utf-8", "replace"), digest_size=self.dim, key=self.model_id.encode()
            ).digest()
            total += np.frombuffer(hashed, dtype=np.int8)
        unit: NDArray[np.float64] = total / np.linalg.norm(total)
        return unit
