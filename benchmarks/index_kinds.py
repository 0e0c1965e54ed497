"""Which kind of index for which number of rows: recall@200, CPU per search, build time and memory on real embeddings.

    python -m benchmarks.index_kinds --quick       # 10 .. 10,000 rows, a minute
    python -m benchmarks.index_kinds               # .. 100,000 rows
    python -m benchmarks.index_kinds --million     # .. 1,000,000 rows

`--texts FILE` takes another catalogue than the demo's (see `benchmarks.embeddings`, also for how it is made larger).

Every search is of one query for k = 200 on one thread (`--k 40`: what a feed asks for each of three interests). CPU
is `time.process_time`, the median over the queries, with all candidates asked the same query in turn, so that what
else the machine does falls on all alike, and none finds the caches warm from its own last search. A query is what a
taste is: the decayed mean of some liked vectors of one to three topics. Recall is the share of the exact (float32)
200 nearest allowed rows that were found. `*` marks the kind that the product takes at that size. "Private" memory is
what no other process can share. The last line is one JSON object."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

# As a worker is started; the libraries read it when they are loaded.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
import numpy.typing as npt
import xxhash

from benchmarks.embeddings import TEXTS, embeddings, extended, intrinsic_dimension
from retrieval import files, index
from retrieval.index import KINDS, Float32, Index, Int64, Kind

if TYPE_CHECKING:
    faiss: Any
else:
    import faiss  # for the candidates that the product did not take

K = 200
SHARES = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99)
Row = dict[str, Any]
Search = Callable[[Float32], Int64]  # one query float32[1, d] -> its rows int64[1, k]


def tastes(vectors: Float32, count: int, rng: np.random.Generator) -> Float32:
    """float32[count, d], unit rows: users who like 3 to 12 of the 200 videos around each of one to three seeds."""
    queries = np.empty((count, vectors.shape[1]), np.float32)
    around = min(200, len(vectors))
    for query in queries:
        query[:] = 0
        for seed in rng.integers(len(vectors), size=rng.integers(1, 4)):
            near = np.argpartition(vectors @ -vectors[seed], around - 1)[:around]
            liked = rng.choice(near, min(around, int(rng.integers(3, 13))), replace=False)
            query += 0.9 ** np.arange(len(liked), dtype=np.float32) @ vectors[liked]
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    return queries


def nearest(vectors: Float32, queries: Float32, mask: npt.NDArray[np.bool_] | None = None) -> list[Int64]:
    """The rows of the exact K nearest allowed vectors of each query."""
    found = []
    for query in queries:
        cosine = vectors @ query
        if mask is not None:
            cosine[~mask] = -np.inf
        k = min(K, len(vectors) if mask is None else int(mask.sum()))
        found.append(np.argpartition(-cosine, k - 1)[:k] if k else np.empty(0, np.int64))
    return found


def recall(truth: list[Int64], found: list[Int64]) -> float:
    """Mean share of the true rows that were found."""
    shares = [np.isin(true, rows).mean() for true, rows in zip(truth, found, strict=True) if len(true)]
    return float(np.mean(shares or 1))


def interleaved(searches: dict[str, Search], queries: Float32) -> dict[str, tuple[float, list[Int64]]]:
    """Median CPU µs per search and the rows found of each search, every query asked of all in turn."""
    cpu_us: dict[str, list[float]] = {name: [] for name in searches}
    found: dict[str, list[Int64]] = {name: [] for name in searches}
    for search in searches.values():
        search(queries[:1])  # touches the pages once
    for query in queries:
        for name, search in searches.items():
            start = time.process_time()
            rows = search(query[None])
            cpu_us[name].append((time.process_time() - start) * 1e6)
            found[name].append(rows[0])
    return {name: (float(np.median(cpu_us[name])), found[name]) for name in searches}


def of_product(kind: Kind) -> Callable[[Float32], Search]:
    """A kind as the product would build it."""

    def make(vectors: Float32) -> Search:
        built = index.build(vectors, (kind._replace(up_to=np.inf),))
        return lambda query: built.search(query, K)[0]

    return make


def of_faiss(factory: str, **settings: float) -> Callable[[Float32], Search]:
    """An index that faiss builds by its factory string, with search settings by their faiss names."""

    def make(vectors: Float32) -> Search:
        engine = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        space = faiss.ParameterSpace()
        for name, value in settings.items():
            space.set_index_parameter(engine, name, value)
        engine.train(vectors[:65_536])
        engine.add(vectors)
        return lambda query: engine.search(query, K)[1]

    return make


def of_numpy(vectors: Float32) -> Search:
    """One matrix product and a partial sort."""

    def search(query: Float32) -> Int64:
        cosine = (vectors @ query.T)[:, 0]
        best = np.argpartition(-cosine, min(K, len(cosine)) - 1)[:K]
        return best[np.argsort(-cosine[best])][None]

    return search


def candidates(n: int) -> Iterator[tuple[str, Callable[[Float32], Search]]]:
    """Name and maker of what is worth trying at `n` rows; the names of KINDS are the product's."""
    if n <= 10_000:
        yield "numpy float32", of_numpy
    if n <= 100_000:
        yield "flat float32", of_faiss("Flat")
    for kind in KINDS:
        if n >= (128 * kind.lists if kind.lists > 1 else 1_000 * kind.lists):
            yield kind.name, of_product(kind)
    if 1_000 <= n <= 100_000:
        yield "HNSW16 float16, ef 400", of_faiss("HNSW16,SQfp16", efConstruction=80, efSearch=400)
    if 10_000 <= n <= 100_000:
        lists = int(2 ** round(np.log2(n**0.5)))
        yield f"IVF{lists} float16, {lists // 4} probes", of_faiss(f"IVF{lists},SQfp16", nprobe=lists // 4)


def compare(vectors: Float32, queries: Float32) -> Iterator[Row]:
    """One row per candidate, all of them over the same vectors."""
    searches, build_s = {}, {}
    for name, make in candidates(len(vectors)):
        start = time.perf_counter()
        searches[name] = make(vectors)
        build_s[name] = time.perf_counter() - start
    truth = nearest(vectors, queries)
    taken = next(kind.name for kind in KINDS if len(vectors) <= kind.up_to)
    for name, (cpu_us, found) in interleaved(searches, queries).items():
        yield {
            "        n": len(vectors),
            "candidate".ljust(28): name + " *" * (name == taken),
            "recall@k": recall(truth, found),
            "  cpu_us": cpu_us,
            "build_s": build_s[name],
        }


def filtered(built: Index, vectors: Float32, queries: Float32, rng: np.random.Generator) -> Iterator[Row]:
    """One row per share of allowed rows, searched by the product's kind for this size.

    The allowed rows are drawn at random, and then by how far they lie in one direction, as a language would.
    """
    n = len(vectors)
    tilt = vectors @ vectors[rng.integers(n)]
    for how, value in (("random", rng.random(n)), ("one side", tilt)):
        for share in SHARES:
            mask = value >= np.quantile(value, 1 - share)
            cpu_us, found = _filtered(built, queries, mask)
            full = all((rows >= 0).sum() == min(K, mask.sum()) and mask[rows[rows >= 0]].all() for rows in found)
            yield {
                "        n": n,
                "kind ": built.kind,
                " allowed": how,
                "share": share,
                "recall@k": recall(nearest(vectors, queries, mask), found),
                "  cpu_us": cpu_us,
                "full": full,
            }


def _filtered(built: Index, queries: Float32, mask: npt.NDArray[np.bool_]) -> tuple[float, list[Int64]]:
    allowed = np.packbits(mask, bitorder="little")
    return interleaved({"": lambda query: built.search(query, K, allowed)[0]}, queries)[""]


def memory(built: Index, queries: Float32) -> Row:
    """What opening the file costs a fresh process that has searched something before: see `_open`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "index.faiss")
        built.write(path)
        np.save(Path(folder, "queries.npy"), queries)
        command = [sys.executable, "-m", "benchmarks.index_kinds", "--open", folder]
        answer = subprocess.run(command, check=True, capture_output=True, text=True)
        return {"        n": built.n, "  file_mb": path.stat().st_size / 1e6, **json.loads(answer.stdout)}


def _open(folder: Path) -> Row:
    """Verify, map and search the index in `folder`; ms of CPU and wall, and MB that no other process can share."""
    queries = np.load(folder / "queries.npy")
    index.build(queries).search(queries, K)
    before, start, start_cpu = _anonymous_mb(), time.perf_counter(), time.process_time()
    checksum = xxhash.xxh3_128()
    with (folder / "index.faiss").open("rb") as file:
        while block := file.read(1 << 20):
            checksum.update(block)
    opened = index.read(files.mapped(folder / "index.faiss"))
    row = {
        "open_ms": (time.perf_counter() - start) * 1e3,
        "open_cpu_ms": (time.process_time() - start_cpu) * 1e3,
        "open_private_mb": _anonymous_mb() - before,
    }
    for query in queries:
        opened.search(query[None], K)
    return {**row, "searched_private_mb": _anonymous_mb() - before}


def _anonymous_mb() -> float:
    """MB of this process that belong to no file: pages of a mapped file are shared by all workers that map it."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) / 1024


def growth(real: Float32, rng: np.random.Generator) -> Iterator[Row]:
    """Real vectors beside as many of which three quarters are grown out of the rest: the two should look alike."""
    n = len(real)
    real = real[rng.permutation(n)]
    for name, vectors in (("real", real), ("grown", extended(real[: n // 4], n, rng))):
        queries = tastes(vectors, 60, rng)
        truth = nearest(vectors, queries)
        row: Row = {"vectors": name, "n": n, "intrinsic_dimension": intrinsic_dimension(vectors, np.arange(500))}
        for kind in (Kind("scan", np.inf, 1, 1, 4, 3), Kind("probe", np.inf, 128, 16, 4, 4)):
            built = index.build(vectors, (kind,))
            row[f"recall_{kind.name}"] = recall(truth, list(built.search(queries, K)[0]))
        yield row


def show(title: str, rows: list[Row]) -> None:
    """Print rows as columns, as wide as their names."""
    print(f"\n{title}")
    print("  ".join(rows[0]))
    for row in rows:
        print("  ".join(f"{_text(value):>{len(name)}}" for name, value in row.items()), flush=True)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}" if value < 1.5 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def main() -> None:
    """Measure, print the tables, and everything again as one line of JSON."""
    global K
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, default=TEXTS)
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--k", type=int, default=K)
    parser.add_argument("--quick", action="store_true", help="up to 10,000 rows")
    parser.add_argument("--million", action="store_true", help="up to 1,000,000 rows; needs 8 GB")
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.open:
        print(json.dumps(_open(options.open)))
        return
    K = options.k
    sizes = [10, 100, 1_000, 3_000, 5_000, 8_000, 10_000]
    if not options.quick:
        sizes += [20_000, 40_000, 100_000, 150_000]
    if options.million:
        sizes += [300_000, 1_000_000]
    real = embeddings(options.texts)
    rng = np.random.default_rng(0)
    tables: dict[str, list[Row]] = {"growth": list(growth(real[:20_000], rng))}
    show("Are the grown vectors like real ones?", tables["growth"])
    for n in sizes:
        vectors = extended(real, n, rng)
        queries = tastes(vectors, options.queries, rng)
        measured = {"kinds": list(compare(vectors, queries))}
        if n >= 10_000:
            built = index.build(vectors)
            measured["filtered"] = list(filtered(built, vectors, queries, rng))
            measured["memory"] = [memory(built, queries)]
        for title, rows in measured.items():
            show(f"{title}, {n:,} rows", rows)
            tables.setdefault(title, []).extend(rows)
    tidy = {title: [{name.strip(): row[name] for name in row} for row in rows] for title, rows in tables.items()}
    print(json.dumps({"benchmark": "index_kinds", "k": K, "real_vectors": len(real), **tidy}))


if __name__ == "__main__":
    main()
