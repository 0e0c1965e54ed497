"""What is compared in benchmarks/peers.py. Foreign libraries are imported where they are used: none is needed for ours.

Each is set up as its manual advises for catalogues of this size, tuned to a recall near one: k = 200 is much for a
graph index, whose default beam is 40 to 100.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.peers_work import MAX_AGE, TOP, WEIGHTS, Bool, Float32, Int64, K, Peer, Question, Shelf
from ranking.context import Context
from service.ranked import Ranked, ranked
from tests.support.postgres import postgres_server

INDEXED_FROM: Final = 5_000
"""Rows of a tenant from which LanceDB gets an index; below, its scan is faster and exact."""


class Ours(Peer):
    """The service's own function. A row is an item number here: every snapshot is one segment without gaps."""

    edition = "ours: service.ranked.ranked, in process"

    def near(self, question: Question) -> tuple[Int64, Float32]:
        """The candidates that are ranked."""
        found = self._ranked(question).candidates
        rows: Int64 = found.item.astype(np.int64)
        return rows, found.similarity

    def top(self, question: Question) -> Int64:
        """The page."""
        page: Int64 = self._ranked(question).page.astype(np.int64)
        return page

    def allowed(self, question: Question) -> Bool:
        """Of age, available, not seen."""
        n = len(self.shelves[question.tenant].vectors)
        mask: npt.NDArray[np.uint8] = self._ranked(question).ask.allowed
        return np.unpackbits(mask, count=n, bitorder="little").astype(bool)

    def _ranked(self, question: Question) -> Ranked:
        context = Context(now_s=question.now_s, max_age=MAX_AGE)
        return ranked(self.shelves[question.tenant].view, question.memory, context, TOP)


class OurSearch(Peer):
    """The search that `ranked` does, and then no more than the others."""

    edition = "ours: the search alone (retrieval, faiss), in process; the last step as for the others"

    def near(self, question: Question) -> tuple[Int64, Float32]:
        snapshot = self.shelves[question.tenant].view.snapshot
        rows, cosine = snapshot.search(question.query[None], K, self._mask(question))
        return rows[0][rows[0] >= 0], cosine[0][rows[0] >= 0]

    def allowed(self, question: Question) -> Bool:
        """Of age, available."""
        n = len(self.shelves[question.tenant].vectors)
        return np.unpackbits(self._mask(question), count=n, bitorder="little").astype(bool)

    def _mask(self, question: Question) -> npt.NDArray[np.uint8]:
        view, context = self.shelves[question.tenant].view, Context(now_s=question.now_s, max_age=MAX_AGE)
        return view.allowed(view.policy.book.plan(context), context)


class Numpy(Peer):
    """One product over all vectors of the tenant."""

    edition = "numpy, in process: exact, every vector read each time"

    def near(self, question: Question) -> tuple[Int64, Float32]:
        shelf = self.shelves[question.tenant]
        cosine = np.where(self.allowed(question), shelf.vectors @ question.query, np.float32(-np.inf))
        rows = np.argpartition(-cosine, min(K, len(cosine) - 1))[:K]
        rows = rows[np.isfinite(cosine[rows])]
        return rows, cosine[rows]


class PgVector(Peer):
    """A list partition and an HNSW index per tenant, iterative scan for the filter."""

    edition = "pgvector on PostgreSQL: a real server, over a local socket; the whole work in one SQL statement"
    TABLE = """
        CREATE EXTENSION vector;
        CREATE TABLE items (tenant text, item int, min_age smallint, popularity real, freshness real,
                            embedding vector({dim})) PARTITION BY LIST (tenant);
    """
    NEAR = """
        SELECT item, popularity, freshness, 1 - (embedding <=> $2) AS cosine FROM items
        WHERE tenant = $1 AND min_age <= {max_age} ORDER BY embedding <=> $2 LIMIT {k}
    """
    BEST = (
        "SELECT item FROM ({near}) AS near ORDER BY {a} * cosine + {b} * popularity + {c} * freshness DESC LIMIT {top}"
    )

    def __init__(self, shelves: Mapping[str, Shelf], folder: Path) -> None:
        super().__init__(shelves, folder)
        self._driver = import_module("asyncpg")
        self._loop = asyncio.new_event_loop()
        self._server = ExitStack()
        url = self._server.enter_context(postgres_server(shared_buffers="2GB"))
        self._near = self.NEAR.format(max_age=MAX_AGE, k=K)
        a, b, c = WEIGHTS.values()
        self._best = self.BEST.format(near=self._near, a=a, b=b, c=c, top=TOP)
        self._connection = self._loop.run_until_complete(self._filled(url))

    def near(self, question: Question) -> tuple[Int64, Float32]:
        rows = self._fetch(self._near, question)
        return np.array([row[0] for row in rows], np.int64), np.array([row[3] for row in rows], np.float32)

    def top(self, question: Question) -> Int64:
        return np.array([row[0] for row in self._fetch(self._best, question)], np.int64)

    def close(self) -> None:
        self._loop.run_until_complete(self._connection.close())
        self._loop.close()
        self._server.close()

    def _fetch(self, statement: str, question: Question) -> Any:
        asked = self._connection.fetch(statement, question.tenant, question.query)
        return self._loop.run_until_complete(asked)

    async def _filled(self, url: str) -> Any:
        connection = await self._driver.connect(url)
        dim = next(iter(self.shelves.values())).vectors.shape[1]
        await connection.execute(self.TABLE.format(dim=dim))
        await connection.set_type_codec("vector", encoder=_as_vector, decoder=bytes, format="binary")
        await connection.execute("SET maintenance_work_mem = '1GB'; SET max_parallel_maintenance_workers = 0")
        for number, (tenant, shelf) in enumerate(self.shelves.items()):
            await connection.execute(f"CREATE TABLE items_{number} PARTITION OF items FOR VALUES IN ('{tenant}')")
            columns = (shelf.min_age, shelf.popularity, shelf.freshness)
            facts = zip(*(column.tolist() for column in columns), shelf.vectors, strict=True)
            rows = [(tenant, item, *row) for item, row in enumerate(facts)]
            await connection.copy_records_to_table(f"items_{number}", records=rows)
            await connection.execute(f"CREATE INDEX ON items_{number} USING hnsw (embedding vector_cosine_ops)")
        await connection.execute("ANALYZE items")
        await connection.execute(f"SET hnsw.ef_search = {K}; SET hnsw.iterative_scan = strict_order")
        return connection


class Lance(Peer):
    """A table per tenant; IVF with HNSW and scalar codes on the larger ones."""

    edition = "LanceDB: embedded, in process, files on disk"

    def __init__(self, shelves: Mapping[str, Shelf], folder: Path) -> None:
        super().__init__(shelves, folder)
        arrow, database = import_module("pyarrow"), import_module("lancedb").connect(folder)
        self._tables: dict[str, Any] = {}
        for tenant, shelf in shelves.items():
            n, dim = shelf.vectors.shape
            vectors = arrow.FixedSizeListArray.from_arrays(arrow.array(shelf.vectors.reshape(-1)), dim)
            columns = {"item": arrow.array(np.arange(n)), "min_age": arrow.array(shelf.min_age), "vector": vectors}
            table = database.create_table(tenant, arrow.table(columns))
            if n >= INDEXED_FROM:
                table.create_index(metric="cosine", index_type="IVF_HNSW_SQ", num_partitions=1, ef_construction=150)
            self._tables[tenant] = table

    def near(self, question: Question) -> tuple[Int64, Float32]:
        asked = self._tables[question.tenant].search(question.query).distance_type("cosine").ef(2 * K).refine_factor(1)
        asked = asked.where(f"min_age <= {MAX_AGE}", prefilter=True).select(["item", "_distance"]).limit(K)
        found = asked.to_arrow()
        return found["item"].to_numpy(), 1 - found["_distance"].to_numpy()


class MilvusLite(Peer):
    """A collection per tenant."""

    edition = "Milvus Lite: the embedded edition of Milvus, in process behind gRPC"

    def __init__(self, shelves: Mapping[str, Shelf], folder: Path) -> None:
        super().__init__(shelves, folder)
        milvus = import_module("pymilvus")
        self._client: Any = milvus.MilvusClient(str(folder / "milvus.db"))
        for tenant, shelf in shelves.items():
            schema = self._client.create_schema()
            schema.add_field("id", milvus.DataType.INT64, is_primary=True)
            schema.add_field("min_age", milvus.DataType.INT16)
            schema.add_field("vector", milvus.DataType.FLOAT_VECTOR, dim=shelf.vectors.shape[1])
            index = self._client.prepare_index_params()
            index.add_index("vector", index_type="FLAT", metric_type="COSINE")
            self._client.create_collection(_named(tenant), schema=schema, index_params=index)
            facts = zip(shelf.min_age.tolist(), shelf.vectors, strict=True)
            rows = [{"id": item, "min_age": age, "vector": vector} for item, (age, vector) in enumerate(facts)]
            for start in range(0, len(rows), 1000):
                self._client.insert(_named(tenant), rows[start : start + 1000])
            self._client.load_collection(_named(tenant))

    def near(self, question: Question) -> tuple[Int64, Float32]:
        asked = {"data": [question.query.tolist()], "limit": K, "filter": f"min_age <= {MAX_AGE}"}
        [found] = self._client.search(_named(question.tenant), **asked)
        rows = np.array([hit["id"] for hit in found], np.int64)
        return rows, np.array([hit["distance"] for hit in found], np.float32)

    def close(self) -> None:
        self._client.close()


class Qdrant(Peer):
    """A collection per tenant."""

    edition = "qdrant-client's local mode: embedded, in process; numpy and Python, made for tests"

    def __init__(self, shelves: Mapping[str, Shelf], folder: Path) -> None:
        super().__init__(shelves, folder)
        self._client: Any = import_module("qdrant_client").QdrantClient(":memory:")
        models = import_module("qdrant_client.models")
        self._filter = models.Filter(must=[models.FieldCondition(key="min_age", range=models.Range(lte=MAX_AGE))])
        for tenant, shelf in shelves.items():
            sized = models.VectorParams(size=shelf.vectors.shape[1], distance=models.Distance.COSINE)
            self._client.create_collection(tenant, vectors_config=sized)
            payload = [{"min_age": age} for age in shelf.min_age.tolist()]
            self._client.upload_collection(tenant, shelf.vectors, payload, ids=range(len(payload)))

    def near(self, question: Question) -> tuple[Int64, Float32]:
        asked = self._client.query_points(
            question.tenant, query=question.query, query_filter=self._filter, limit=K, with_payload=False
        )
        rows = np.array([hit.id for hit in asked.points], np.int64)
        return rows, np.array([hit.score for hit in asked.points], np.float32)


PEERS: Final[Mapping[str, type[Peer]]] = MappingProxyType(
    {
        "ours": Ours,
        "our-search": OurSearch,
        "numpy": Numpy,
        "pgvector": PgVector,
        "lancedb": Lance,
        "milvus-lite": MilvusLite,
        "qdrant-local": Qdrant,
    }
)


def _as_vector(vector: Float32) -> bytes:
    """pgvector's binary form: dimensions, a zero, big-endian floats."""
    return len(vector).to_bytes(2, "big") + b"\0\0" + vector.astype(">f4").tobytes()


def _named(tenant: str) -> str:
    return tenant.replace("-", "_")
