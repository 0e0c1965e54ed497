"""Batches of an Arrow stream: what was sent, and nobody else stands still while one is waited for."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from arro3.core import Array, DataType, Field, RecordBatch, RecordBatchReader, Schema
from deltalake import QueryBuilder

from retrieval.arrow_stream import batches

SCHEMA = Schema([Field("n", DataType.int64()), Field("text", DataType.string())])


def a_batch(n: int) -> RecordBatch:
    """n rows."""
    return RecordBatch.from_arrays(
        [Array(np.arange(n, dtype=np.int64)), Array([f"row {k}" for k in range(n)], type=DataType.string())],
        schema=SCHEMA,
    )


@pytest.mark.parametrize("lengths", [[], [0], [3], [1, 0, 5000]])
def test_every_batch_comes_as_it_was_sent(lengths: list[int]) -> None:
    """In order, with all columns, also empty ones; and each stays whole when the stream has gone."""
    found = list(batches(RecordBatchReader.from_batches(SCHEMA, [a_batch(n) for n in lengths])))
    assert [one.num_rows for one in found] == lengths
    for one in found:
        assert one.schema.names == ["n", "text"]
        assert one.column("text").to_pylist() == [f"row {k}" for k in range(one.num_rows)]


def test_a_stream_that_breaks_says_why() -> None:
    """An error of a query on its way is an OSError with the query's own words."""
    reader = QueryBuilder().execute("SELECT 1 / (value - 9000) AS n FROM generate_series(1, 10000)")
    with pytest.raises(OSError, match=r"(?i)divide by zero"):
        list(batches(reader))


def test_a_slow_query_keeps_no_other_thread_waiting() -> None:
    """Another thread goes on in the middle of a batch that takes long to come."""
    series = "generate_series(1, 4000)"
    heavy = f"SELECT count(DISTINCT a.value * b.value % 100003) AS n FROM {series} a, {series} b"  # noqa: S608
    beats: list[float] = []
    over = threading.Event()

    def beat() -> None:
        while not over.wait(0.005):
            beats.append(time.monotonic())

    other = threading.Thread(target=beat)
    other.start()
    began_s = time.monotonic()
    (found,) = batches(QueryBuilder().execute(heavy))
    took_s = time.monotonic() - began_s
    over.set()
    other.join()
    assert found.num_rows == 1
    assert took_s > 0.1
    assert max(np.diff([began_s, *beats]), default=took_s) < took_s / 2
