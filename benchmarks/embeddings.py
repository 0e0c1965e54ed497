"""Real embeddings for the measurements: the texts of a catalogue through the project's own encoder, kept in var/bench/.

    python -m benchmarks.embeddings                       # deploy/local/videos.jsonl.gz, minutes the first time
    python -m benchmarks.embeddings --texts FILE          # .jsonl.gz, or .parquet where pyarrow happens to be installed

A catalogue of a million real videos is not to be had, so `extended` grows a larger one out of the real vectors. Each new
vector is a real one moved by the difference of two of its own neighbours: the move has the direction and the length by which
real videos of that topic differ, so that the local intrinsic dimension, which is what makes a search hard, stays near the
real one (`benchmarks.index_kinds` prints both, and the recall of the same index on real and on grown vectors).
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

TEXTS = Path("deploy/local/videos.jsonl.gz")
CACHE = Path("var/bench")
NEIGHBOURS = 32  # how far around a real vector its differences are taken from


def texts(path: Path) -> list[str]:
    """What is embedded of each video in `path`: title, description and tags, as far as it has them."""
    return ["\n".join(part for part in _parts(row) if part) for row in _rows(path)]


def _parts(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["title"], row.get("description") or "", ", ".join(row.get("tags") or ())


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".parquet":
        yield from importlib.import_module("pyarrow.parquet").read_table(path).to_pylist()
        return
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def embeddings(path: Path = TEXTS, cache: Path = CACHE) -> Float32:
    """float32[n, d], unit rows, of the texts in `path`; computed once per content of the file, then read from `cache`."""
    digest = hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
    kept = cache / f"embeddings-{digest}.npy"
    if not kept.exists():
        encoder = importlib.import_module("indexer.encoder").default_encoder()
        kept.parent.mkdir(parents=True, exist_ok=True)
        unfinished = kept.with_suffix(".part.npy")
        np.save(unfinished, np.asarray(encoder.encode(texts(path)), np.float32))
        unfinished.rename(kept)
    vectors: Float32 = np.load(kept)
    return vectors


def neighbours(vectors: Float32, k: int) -> npt.NDArray[np.int64]:
    """int64[n, k]: the k other rows nearest to each row, nearest first; exact, by blocks."""
    found = np.empty((len(vectors), k), np.int64)
    for start in range(0, len(vectors), 1024):
        cosine = vectors[start : start + 1024] @ vectors.T
        cosine[np.arange(len(cosine)), np.arange(start, start + len(cosine))] = -np.inf
        top = np.argpartition(-cosine, k, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(cosine, top, 1), axis=1, kind="stable")
        found[start : start + 1024] = np.take_along_axis(top, order, 1)
    return found


def extended(real: Float32, n: int, rng: np.random.Generator) -> Float32:
    """float32[n, d], unit rows: `real` in random order, cut to n or followed by vectors grown out of it (see the module)."""
    if n <= len(real):
        return real[rng.permutation(len(real))[:n]]
    near = neighbours(real, NEIGHBOURS)
    grown = np.empty((n, real.shape[1]), np.float32)
    grown[: len(real)] = real
    for start in range(len(real), n, 65_536):
        part = grown[start : start + 65_536]
        seed = rng.integers(len(real), size=len(part))
        pair = near[seed[:, None], rng.integers(NEIGHBOURS, size=(len(part), 2))]
        # Two points of one cloud differ by sqrt(2) times its spread: the root makes the child as far as a neighbour is.
        part[:] = real[seed] + (real[pair[:, 0]] - real[pair[:, 1]]) * np.float32(2**-0.5)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return grown[rng.permutation(n)]


def intrinsic_dimension(vectors: Float32, sample: npt.NDArray[np.int64], k: int = 100) -> float:
    """Median over the sampled rows of the local intrinsic dimension: the maximum-likelihood estimate over k neighbours
    (Levina and Bickel, 2004) of Euclidean distances."""
    cosine = vectors[sample] @ vectors.T
    cosine[np.arange(len(sample)), sample] = -np.inf
    nearest = np.partition(cosine, -k, axis=1)[:, -k:]
    distance = np.sqrt(np.maximum(2 - 2 * nearest, 1e-12))
    return float(np.median(-1 / np.mean(np.log(distance / distance.max(axis=1, keepdims=True)), axis=1)))


def main() -> None:
    """Embed and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, default=TEXTS)
    vectors = embeddings(parser.parse_args().texts)
    print(f"{len(vectors)} vectors of {vectors.shape[1]} dimensions in {CACHE}/")


if __name__ == "__main__":
    main()
