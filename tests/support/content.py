"""Videos, rows and segments for tests, without catalogue or encoder: made from a number, or drawn by hypothesis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from ranking.hints import COUNTRIES, LANGUAGES
from retrieval.rows import Rows
from retrieval.segment import Segment
from retrieval.snapshot import Snapshot
from retrieval.store import Manifest, Store
from retrieval.videos import OPEN_END_S, Rating, Video

DIM = 16
NOW_S = 1_750_000_000
TOPICS = ("bread", "trains", "chess", "gardens", "stars")

_words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
_names = st.lists(_words, max_size=4).map(tuple)


@contextmanager
def memory_folder() -> Iterator[Path]:
    """A folder that is flushed in no time, for tests that write hundreds of segments."""
    memory = Path("/dev/shm")  # noqa: S108 - the name it has on every Linux
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def a_video(item: int, **fields: Any) -> Video:
    """Video number `item`; what is not in `fields` follows from the number."""
    facts: dict[str, Any] = {
        "item": item,
        "id": f"video-{item}",
        "title": f"{TOPICS[item % len(TOPICS)]} {item}",
        "description": "",
        "transcript": "",
        "tags": (TOPICS[item % len(TOPICS)],),
        "categories": (),
        "creator": f"creator-{item % 7}",
        "playlists": (),
        "language": "en",
        "countries": (),
        "ratings": (Rating(system="FSK", value="0"),),
        "media_url": f"https://cdn.example/{item}.mp4",
        "poster_url": None,
        "duration_s": 30,
        "published_s": NOW_S - 60 * item,
        "available_from_s": 0,
        "available_until_s": OPEN_END_S,
        "status": "published",
        "vector": None,
        "text_hash": item.to_bytes(16, "little"),
        "version": 1,
        "quarantine": None,
        "created_s": NOW_S,
        "updated_s": NOW_S,
    }
    return Video(**(facts | fields))


def unit_vectors(n: int, dim: int = DIM, seed: int = 0) -> npt.NDArray[np.float32]:
    """float32[n, dim]: random directions."""
    vectors = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    unit: npt.NDArray[np.float32] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return unit


def some_rows(items: Iterable[int], dim: int = DIM, seed: int = 0, **fields: Any) -> Rows:
    """Rows of `a_video`s with random vectors."""
    videos = [a_video(item, **fields) for item in items]
    return Rows.from_videos(videos, unit_vectors(len(videos), dim, seed))


def drawn_videos(max_size: int = 5) -> st.SearchStrategy[list[Video]]:
    """Hypothesis: videos with any text, any numbers their columns hold, and distinct item numbers in any order."""
    one = st.builds(
        a_video,
        st.integers(0, 2**20),
        id=_words,
        title=_words,
        tags=_names,
        categories=_names,
        creator=st.none() | _words,
        playlists=_names,
        language=st.none() | st.sampled_from(sorted(LANGUAGES)),
        countries=st.lists(st.sampled_from(sorted(COUNTRIES)), max_size=4).map(tuple),
        poster_url=st.none() | _words,
        duration_s=st.integers(0, 86_400),
        published_s=st.integers(0, 253_402_300_799),
        available_from_s=st.integers(0, 253_402_300_799),
        available_until_s=st.integers(1, 253_402_300_799) | st.just(OPEN_END_S),
        version=st.integers(1, 2**62),
    )
    return st.lists(one, max_size=max_size, unique_by=lambda video: video.item)


def written(store: Store, tenant: str, *parts: Rows, kind: str = "base") -> tuple[tuple[str, str], ...]:
    """Segments of `parts` in the store: (name, checksum) each, as a manifest has them."""
    segments = []
    for part in parts:
        path = store.new_segment_path(tenant, kind)
        segments.append((path.name, Segment.write(path, part)))
    return tuple(segments)


def manifest_of(
    tenant: str, generation: int, segments: Iterable[tuple[str, str]] = (), dim: int = DIM, **facts: Any
) -> Manifest:
    """A manifest with everything a test does not care about filled in; the version is the generation."""
    known: dict[str, Any] = {"version": generation, "model": "tiny", "created_s": NOW_S} | facts
    return Manifest(tenant=tenant, generation=generation, dim=dim, segments=tuple(segments), **known)


def published(store: Store, tenant: str, generation: int, *parts: Rows, **facts: Any) -> Manifest:
    """A generation of these segments, published."""
    dim = parts[0].vectors.shape[1] if parts else DIM
    manifest = manifest_of(tenant, generation, written(store, tenant, *parts), dim, **facts)
    store.publish(manifest)
    return manifest


def snapshot_of(folder: Path, base: Rows, *fresh: Rows, dead: Iterable[int] = (), tenant: str = "acme") -> Snapshot:
    """An opened snapshot of a base and fresh rows, from real files in `folder`."""
    store = Store(folder)
    manifest = manifest_of(
        tenant, 1, written(store, tenant, base, *fresh), base.vectors.shape[1], dead=tuple(sorted(dead))
    )
    return store.open(manifest)
