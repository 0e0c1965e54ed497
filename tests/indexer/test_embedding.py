"""Vectors: made once per text and model, and a poison text takes nobody with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy.ext.asyncio import AsyncEngine

from indexer.embedding import BATCH, Embedder
from retrieval.database import connect
from retrieval.vectors import VectorCache
from retrieval.videos import Video, embedded_text, text_hash
from tests.support.content import a_video
from tests.support.running import POISON
from tests.support.tiny_encoder import TinyEncoder


@pytest.fixture
async def engine(sqlite_url: str) -> AsyncIterator[AsyncEngine]:
    engine = connect(sqlite_url)
    yield engine
    await engine.dispose()


def worded(item: int, title: str) -> Video:
    """A video whose text hash is that of its text, as the catalogue keeps it."""
    video = a_video(item, title=title)
    return replace(video, text_hash=text_hash(embedded_text(video)))


async def test_a_text_is_encoded_once_however_often_it_is_asked_for(engine: AsyncEngine) -> None:
    """By this embedder, by the next one, and for two videos with the same words."""
    encoder = TinyEncoder()
    videos = [worded(0, "bread"), worded(5, "bread"), worded(2, "trains")]
    for embedder in (Embedder(encoder, VectorCache(engine)), Embedder(encoder, VectorCache(engine))):
        vectors, failed = await embedder.embed(videos)
        assert sorted(vectors) == [0, 2, 5]
        assert not failed
        assert np.array_equal(vectors[0], vectors[5])
    assert sorted(encoder.texts_encoded) == sorted({embedded_text(video) for video in videos})


async def test_another_model_has_vectors_of_its_own(engine: AsyncEngine) -> None:
    """The cache never gives one model's vector to another."""
    first, second = TinyEncoder("first"), TinyEncoder("second")
    videos = [worded(1, "bread")]
    a, _ = await Embedder(first, VectorCache(engine)).embed(videos)
    b, _ = await Embedder(second, VectorCache(engine)).embed(videos)
    assert not np.allclose(a[1], b[1])
    assert len(second.texts_encoded) == 1


async def test_a_poison_text_fails_alone(engine: AsyncEngine) -> None:
    """In a batch of many, at both ends of batches: the others have vectors, the poison ones a reason."""
    videos = [worded(n, f"bread {POISON if n in (0, 7, BATCH, BATCH + 3) else n}") for n in range(BATCH + 4)]
    vectors, failed = await Embedder(TinyEncoder(fails_on=POISON), VectorCache(engine)).embed(videos)
    assert sorted(failed) == [0, 7, BATCH, BATCH + 3]
    assert sorted({*vectors, *failed}) == list(range(BATCH + 4))
    assert not set(vectors) & set(failed)
    assert all(POISON in reason for reason in failed.values())


async def test_two_videos_with_one_poison_text_both_get_the_reason(engine: AsyncEngine) -> None:
    """The text is tried once; nobody is left without a vector and without a reason."""
    videos = [worded(1, POISON), worded(6, POISON)]
    assert videos[0].text_hash == videos[1].text_hash
    vectors, failed = await Embedder(TinyEncoder(fails_on=POISON), VectorCache(engine)).embed(videos)
    assert not vectors
    assert sorted(failed) == [1, 6]


async def test_an_own_vector_is_taken_as_it_is(engine: AsyncEngine) -> None:
    """The CMS's own embedding is not encoded, not cached, and must have the model's length."""
    encoder = TinyEncoder()
    own = np.eye(TinyEncoder.dim, dtype=np.float32)[3]
    videos = [a_video(1, vector=own), a_video(2, vector=own[:5]), worded(3, "bread")]
    vectors, failed = await Embedder(encoder, VectorCache(engine)).embed(videos)
    assert np.array_equal(vectors[1], own)
    assert failed == {2: "own vector has 5 numbers, the model's have 32"}
    assert len(encoder.texts_encoded) == 1


async def test_each_batch_is_kept_before_the_next_begins(engine: AsyncEngine) -> None:
    """A run that is interrupted repeats at most one batch."""

    class Interrupted(TinyEncoder):
        def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
            if len(self.texts_encoded) >= 2 * BATCH:
                raise KeyboardInterrupt
            return super().encode(texts)

    videos = [worded(n, f"bread {n}") for n in range(3 * BATCH)]
    with pytest.raises(KeyboardInterrupt):
        await Embedder(Interrupted(), VectorCache(engine)).embed(videos)
    again = TinyEncoder()
    vectors, _ = await Embedder(again, VectorCache(engine)).embed(videos)
    assert len(vectors) == 3 * BATCH
    assert len(again.texts_encoded) == BATCH


async def test_nothing_to_embed_is_no_work(engine: AsyncEngine) -> None:
    """An empty list is fine."""
    assert await Embedder(TinyEncoder(), VectorCache(engine)).embed([]) == ({}, {})
