"""What a model made of a text, kept by text hash and model, so that nothing unchanged is embedded again."""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from retrieval.database import chunks, insert, reading, writing
from retrieval.tables import VECTORS

STORED = np.dtype("<f4")


class VectorCache:
    """Vectors by (model, text hash). A vector never changes once stored: the same text and model give the same."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def get(self, model: str, hashes: Iterable[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """Those of `hashes` (bytes[16]) that are known, as float32[d]; unknown ones are left out."""
        found: dict[bytes, NDArray[np.float32]] = {}
        columns = select(VECTORS.c.text_hash, VECTORS.c.vector).where(VECTORS.c.model == model)
        async with reading(self._engine) as connection:
            for chunk in chunks(list(dict.fromkeys(hashes))):
                rows = await connection.execute(columns.where(VECTORS.c.text_hash.in_(chunk)))
                found |= {text_hash: np.frombuffer(vector, STORED) for text_hash, vector in rows}
        return found

    async def put(self, model: str, vectors: Mapping[bytes, NDArray[np.float32]]) -> None:
        """Remember float32[d] by text hash; what another daemon stored meanwhile stays as it is."""
        rows = [
            {"model": model, "text_hash": text_hash, "vector": np.asarray(vector, STORED).tobytes()}
            for text_hash, vector in vectors.items()
        ]
        if not rows:
            return
        async with writing(self._engine) as connection:
            await connection.execute(insert(connection, VECTORS).on_conflict_do_nothing(), rows)
