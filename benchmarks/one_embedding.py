"""What one more video costs: how many texts are embedded, and how long the pass takes, with the default model.

The indexer's own loop body over a real catalogue in a temporary folder. The last line printed is one JSON object.

    python -m benchmarks.one_embedding
"""

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.encode import generated_texts
from indexer.daemon import Daemon
from indexer.embedding import Embedder
from indexer.encoder import Encoder
from indexer.encoders import default_encoder
from indexer.rebuild import Rebuild
from indexer.settings import IndexerSettings
from retrieval import logs
from retrieval.catalogue import Catalogue
from retrieval.database import connect, migrate
from retrieval.leases import Leases
from retrieval.store import Store
from retrieval.tenants import Tenants
from retrieval.vectors import VectorCache
from retrieval.videos import parse_videos
from tests.support.running import Json, video


class Counting:
    """The default encoder, and how many texts it was given."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.model_id = encoder.model_id
        self.dim = encoder.dim
        self.texts = 0

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """What the encoder gives."""
        self.texts += len(texts)
        return self.encoder.encode(texts)


async def main() -> None:
    """Pass after pass over one tenant, each after another change, and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--videos", type=int, default=300)
    n = arguments.parse_args().videos
    logs.configure(level="WARNING")
    titles = generated_texts(random.Random(1), n + 1)
    videos = [video(f"v{i}", f"{i}: {title}"[:500]) for i, title in enumerate(titles)]
    steps: list[tuple[str, list[Json]]] = [
        (f"first pass over {n} videos", videos[:n]),
        ("nothing changed", videos[:n]),
        ("one more video", [videos[n]]),
        ("one new poster", [videos[3] | {"poster_url": "https://cdn.example/new.jpg"}]),
        ("one new title", [videos[4] | {"title": "something else entirely"}]),
        ("the old title again", [videos[4]]),
    ]
    with tempfile.TemporaryDirectory(prefix="one-embedding-") as folder:
        rows = await passes(Path(folder), steps)
    print(f"\n{'pass':<32}  {'texts embedded':>14}  {'seconds':>8}")
    for name, texts, seconds in rows:
        print(f"{name:<32}  {texts:>14}  {seconds:>8.2f}")
    print(json.dumps({"benchmark": "one_embedding", "videos": n, "texts": {name: texts for name, texts, _ in rows}}))


async def passes(folder: Path, steps: list[tuple[str, list[Json]]]) -> list[tuple[str, int, float]]:
    """(step, texts embedded, seconds of the pass) of each step."""
    url = f"sqlite:///{folder / 'feed.db'}"
    await migrate(url)
    engine, encoder = connect(url), Counting(default_encoder())
    await Tenants(engine).create("shop", "shop", 0)
    settings = IndexerSettings(snapshot_dir=folder / "snapshots")
    rows = []
    for name, videos in steps:
        parsed = parse_videos(videos, encoder.dim)
        await Catalogue(engine).upsert("shop", [one.video for one in parsed.accepted], int(time.time()))
        embedder = Embedder(encoder, VectorCache(engine))
        # A new one each time: what it knows, it knows from disk.
        rebuild = Rebuild(Catalogue(engine), Store(settings.snapshot_dir), embedder, settings)
        before, began = encoder.texts, time.monotonic()
        await Daemon(rebuild, Leases(engine), name).once()
        rows.append((name, encoder.texts - before, time.monotonic() - began))
    await engine.dispose()
    return rows


if __name__ == "__main__":
    asyncio.run(main())
