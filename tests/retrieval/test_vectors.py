"""Vectors are computed once per text and model, on both databases."""

import asyncio

import numpy as np
from sqlalchemy.ext.asyncio import AsyncEngine

from retrieval.vectors import VectorCache
from retrieval.videos import text_hash


async def test_vectors_come_back_exactly(engine: AsyncEngine) -> None:
    """The same 32 bits, for the texts that are known; the others are left out."""
    cache = VectorCache(engine)
    rng = np.random.default_rng(1)
    vectors = {text_hash(str(number)): rng.standard_normal(384).astype(np.float32) for number in range(5)}
    await cache.put("minilm", vectors)
    found = await cache.get("minilm", [*vectors, text_hash("unknown")])
    assert set(found) == set(vectors)
    for name, vector in found.items():
        assert vector.dtype == np.float32 and np.array_equal(vector, vectors[name])


async def test_models_are_apart(engine: AsyncEngine) -> None:
    """Another model's vector of the same text is another vector, of another length."""
    cache = VectorCache(engine)
    name = text_hash("a")
    await cache.put("one", {name: np.ones(3, np.float32)})
    assert await cache.get("two", [name]) == {}
    await cache.put("two", {name: np.ones(4, np.float32)})
    assert [len((await cache.get(model, [name]))[name]) for model in ("one", "two")] == [3, 4]


async def test_more_texts_than_a_statement_takes(engine: AsyncEngine) -> None:
    """Reading is cut into statements that both databases accept; copies in the request do not matter."""
    cache = VectorCache(engine)
    names = [text_hash(str(number)) for number in range(2_500)]
    await cache.put("m", {name: np.full(2, number, np.float32) for number, name in enumerate(names)})
    found = await cache.get("m", names + names)
    assert [found[name][0] for name in names] == list(range(2_500))


async def test_two_daemons_may_store_the_same(engine: AsyncEngine) -> None:
    """Who comes second changes nothing and fails nothing."""
    cache = VectorCache(engine)
    vectors = [{text_hash(str(number)): np.full(3, side, np.float32) for number in range(50)} for side in range(2)]
    await asyncio.gather(*(cache.put("m", side) for side in vectors))
    first = await cache.get("m", vectors[0])
    await cache.put("m", vectors[1])
    again = await cache.get("m", vectors[0])
    assert len(first) == 50 and all(np.array_equal(first[name], again[name]) for name in first)


async def test_nothing_is_nothing(engine: AsyncEngine) -> None:
    """Empty in, empty out."""
    cache = VectorCache(engine)
    await cache.put("m", {})
    assert await cache.get("m", []) == {}
