"""Vectors for videos: their own, or cached by text hash and model, or made now. One more video costs one embedding."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from indexer.encoder import Encoder, EncodingError
from retrieval.vectors import VectorCache
from retrieval.videos import Video, embedded_text

Vector = npt.NDArray[np.float32]

BATCH = 64
"""Texts encoded before the results are stored and another tenant gets its turn: about half a second on one core."""


class Embedder:
    """Encodes what no cache has. One encoder for all tenants, taking turns batch by batch."""

    def __init__(self, encoder: Encoder, cache: VectorCache) -> None:
        self.encoder = encoder
        self.cache = cache
        self.model_id = encoder.model_id
        self.dim = encoder.dim
        self._turns = ThreadPoolExecutor(1, "encoder")

    async def embed(self, videos: Sequence[Video]) -> tuple[dict[int, Vector], dict[int, str]]:
        """({item: unit float32[d]}, {item: why it has no vector}); every video is in exactly one of the two.

        Each batch is in the cache before the next begins, so an interrupted run repeats at most one.
        Raises StoreUnavailable, and whatever a broken encoder raises for a text that cannot be at fault.
        """
        own = {video.item: video.vector for video in videos if video.vector is not None}
        vectors = {item: vector for item, vector in own.items() if len(vector) == self.dim}
        failed = {
            item: f"own vector has {len(vector)} numbers, the model's have {self.dim}"
            for item, vector in own.items()
            if len(vector) != self.dim
        }
        texts = [video for video in videos if video.item not in own]
        cached = await self.cache.get(self.model_id, [video.text_hash for video in texts])
        missing = list({video.text_hash: video for video in texts if video.text_hash not in cached}.values())
        poison: dict[bytes, str] = {}
        for start in range(0, len(missing), BATCH):
            batch = missing[start : start + BATCH]
            made, problems = await asyncio.get_running_loop().run_in_executor(self._turns, self._encode, batch)
            await self.cache.put(self.model_id, made)
            cached |= made
            poison |= problems
        vectors |= {video.item: cached[video.text_hash] for video in texts if video.text_hash in cached}
        failed |= {video.item: poison[video.text_hash] for video in texts if video.text_hash in poison}
        return vectors, failed

    async def known(self, videos: Sequence[Video]) -> dict[int, Vector]:
        """{item: unit float32[d]} of those whose vector is at hand; nothing is encoded. Raises StoreUnavailable."""
        own = {video.item: video.vector for video in videos if video.vector is not None}
        texts = [video for video in videos if video.item not in own]
        cached = await self.cache.get(self.model_id, [video.text_hash for video in texts])
        vectors = {item: vector for item, vector in own.items() if len(vector) == self.dim}
        return vectors | {video.item: cached[video.text_hash] for video in texts if video.text_hash in cached}

    def _encode(self, videos: Sequence[Video]) -> tuple[dict[bytes, Vector], dict[bytes, str]]:
        """A batch by text hash; when it fails, each text alone, so that a poison text takes no neighbour with it."""
        try:
            made = self.encoder.encode([embedded_text(video) for video in videos])
        except EncodingError as error:
            if len(videos) == 1:
                return {}, {videos[0].text_hash: error.reason}
            parts = [self._encode([video]) for video in videos]
            return (
                {text_hash: vector for good, _ in parts for text_hash, vector in good.items()},
                {text_hash: reason for _, bad in parts for text_hash, reason in bad.items()},
            )
        return {video.text_hash: vector for video, vector in zip(videos, made, strict=True)}, {}
