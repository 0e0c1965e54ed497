"""The world that load is measured in: tenants, videos, users. Built once into a folder, then opened in a moment.

    python -m benchmarks.world                      # full: minutes the first time, 5 GB in var/bench/worlds
    python -m benchmarks.world --scale small

A world is a real catalogue in SQLite and real snapshots in a folder, written by the product's own catalogue, policies
and segment builders, so that an ordinary service opens it. Only what lives in Redis is made anew for every run
(`benchmarks/world_users.py`): journals and counters are about the last days, and would be out of date.

Sizes follow the Zipf-Mandelbrot law, C / (rank + q)^s, whose two parameters are solved for the largest tenant, the
smallest and the sum: plain Zipf between 100,000 and 100 over 120 tenants would be 250,000 items and not 1.2 million.
One tenant has the 2,725 real talks of the demo with their real vectors; the vectors of all others are grown out of
these (`benchmarks/embeddings.py`).
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from benchmarks import embeddings, world_content
from benchmarks.world_content import Built, Float32, Seeds
from deploy.local.demo_file import read_videos
from retrieval.files import write_atomically
from retrieval.index import KINDS
from retrieval.rows import Rows
from retrieval.segment import Segment

FOLDER: Final = Path("var/bench/worlds")
FORMAT: Final = 1
"""Moved when what is built here changes: worlds on disk are then built again."""
TALKS: Final = "talks"
"""The tenant with the real videos."""


@dataclass(frozen=True)
class Scale:
    """How large a world is; `items` over all tenants, the real ones beside them not counted. `users` in all."""

    tenants: int
    smallest: int
    largest: int
    items: int
    users: int
    with_talks: bool = False


def _alone(items: int) -> Scale:
    return Scale(1, items, items, items, users=5_000)


SCALES: Final[Mapping[str, Scale]] = MappingProxyType(
    {
        "full": Scale(119, 100, 100_000, 1_200_000, users=50_000, with_talks=True),
        "small": Scale(5, 100, 1_500, 3_000, users=400, with_talks=True),
        "peers": Scale(120, 100, 20_000, 240_000, users=2_000),
        "120-tenants": Scale(120, 1_000, 1_000, 120_000, users=5_000),
        "1000": _alone(1_000),
        "10000": _alone(10_000),
        "100000": _alone(100_000),
        "1000000": _alone(1_000_000),
    }
)


@dataclass(frozen=True)
class World:
    """A world on disk. `parents` by tenant: int16[items], the real talk that each item is or grew out of."""

    folder: Path
    scale: Scale
    tenants: tuple[Built, ...]
    parents: Mapping[str, npt.NDArray[np.int16]]

    @property
    def items(self) -> int:
        """Videos of all tenants."""
        return sum(tenant.items for tenant in self.tenants)

    def copy_to(self, folder: Path) -> None:
        """A copy for one run to change. Snapshot files never change, so they are linked and share the page cache."""
        folder.mkdir(parents=True)
        shutil.copyfile(self.folder / "feed.db", folder / "feed.db")
        shutil.copytree(self.folder / "snapshots", folder / "snapshots", copy_function=os.link)


def opened(name: str, root: Path = FOLDER, real: Float32 | None = None) -> World:
    """The world of a scale of SCALES, built now if `root` has none that this program would build.

    `real` float32[n, d] takes the place of the talks' embeddings, for a test that has no time for them.
    """
    scale, folder = SCALES[name], root / name
    with _only_one(root / f".{name}.lock"):
        tenants = _built(scale, folder, real)
    with np.load(folder / "parents.npz") as kept:
        parents = {tenant.id: kept[tenant.id] for tenant in tenants}
    return World(folder, scale, tenants, parents)


def _built(scale: Scale, folder: Path, real: Float32 | None) -> tuple[Built, ...]:
    """Build what is not there, or is not as this program would build it; the tenants."""
    wanted = {"format": FORMAT, "scale": asdict(scale)}
    about = _about(folder)
    if {key: about.get(key) for key in wanted} != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        built = asyncio.run(world_content.fill(folder, _seeds(scale, real)))
        about = wanted | {"tenants": [asdict(tenant) for tenant in built]}
        write_atomically(folder / "world.json", orjson.dumps(about))
    segments = _segment_format()
    if about.get("segments") != segments:
        shutil.rmtree(folder / "snapshots", ignore_errors=True)
        asyncio.run(world_content.publish(folder, _seeds(scale, real)))
        write_atomically(folder / "world.json", orjson.dumps(about | {"segments": segments}))
    return tuple(Built(**facts) for facts in about["tenants"])


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """While inside, no other process builds or opens the same world."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sizes(tenants: int, smallest: int, largest: int, items: int) -> list[int]:
    """Videos of each tenant, largest first: Zipf-Mandelbrot between `largest` and `smallest`, in sum about `items`."""
    if smallest == largest:
        return [largest] * tenants
    rank = np.arange(1, tenants + 1)

    def at(exponent: float) -> npt.NDArray[np.float64]:
        ratio = (largest / smallest) ** (1 / exponent)
        shift = (tenants - ratio) / (ratio - 1)
        law: npt.NDArray[np.float64] = largest * ((1 + shift) / (rank + shift)) ** exponent
        return law

    # Below this exponent the shift would be negative; the sum grows with the exponent.
    low, high = 1.001 * np.log(largest / smallest) / np.log(tenants), 60.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if at(middle).sum() < items else (low, middle)
    return [round(size) for size in at(low).tolist()]


def _seeds(scale: Scale, real: Float32 | None) -> Seeds:
    talks = [video for videos in read_videos().values() for video in videos]
    vectors = embeddings.embeddings() if real is None else real
    named = {f"tenant-{rank:03d}": n for rank, n in enumerate(sizes_of(scale), start=1)}
    if scale.with_talks:
        named[TALKS] = len(vectors)
    return Seeds(vectors, talks[: len(vectors)], named, real_tenant=TALKS)


def sizes_of(scale: Scale) -> list[int]:
    """`sizes` of a scale."""
    return sizes(scale.tenants, scale.smallest, scale.largest, scale.items)


def _about(folder: Path) -> dict[str, Any]:
    try:
        about: dict[str, Any] = orjson.loads((folder / "world.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return about


def _segment_format() -> str:
    """Names what this program's segments look like, by writing one of a few rows: after a change of their format or of
    the index kinds the snapshots of a world are built again."""
    vectors = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    rows = Rows.from_videos([world_content.example(n) for n in range(len(vectors))], vectors)
    with tempfile.TemporaryDirectory() as folder:
        return blake2b(f"{Segment.write(Path(folder) / 'one', rows)} {KINDS}".encode(), digest_size=8).hexdigest()


def main() -> None:
    """Build and describe a world."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=tuple(SCALES), default="full")
    parser.add_argument("--worlds", type=Path, default=FOLDER, help="the folder they are kept in")
    given = parser.parse_args()
    world = opened(given.scale, given.worlds)
    largest = [f"{tenant.items:,}" for tenant in sorted(world.tenants, key=lambda tenant: -tenant.items)]
    print(f"{world.folder}: {len(world.tenants)} tenants, {world.items:,} videos, {world.scale.users:,} users")
    print(f"largest {', '.join(largest[:8])} ... smallest {', '.join(largest[-3:])}")


if __name__ == "__main__":
    main()
