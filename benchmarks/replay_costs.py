"""What it costs to keep a day of what pages were made from: `python -m benchmarks.replay_costs`.

Popularity: an hour of publishing every ten seconds while events come in, an item's share by Zipf's law; times 24 for a
day. Generations: a fresh segment of so many videos, and how many replaced ones fit in FEED_KEPT_MB.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from indexer.settings import IndexerSettings
from retrieval.counters import HOUR_S, WINDOWS, Windows
from retrieval.popularity_log import PopularityLog
from retrieval.rows import Rows
from retrieval.segment import Segment
from tests.support.content import a_video, unit_vectors

NOW_S = 1_700_000_000 // HOUR_S * HOUR_S
PUBLISH_S = 10
DIM = 384
ZIPF = 0.9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events-per-s", type=int, nargs="*", default=[1, 10, 100])
    parser.add_argument("--items", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--fresh", type=int, nargs="*", default=[100, 500, 2_000])
    arguments = parser.parse_args()
    print("popularity: items in the catalogue, events/s -> MB a day, bytes per version, ms of CPU per version")
    for items in arguments.items:
        for events in arguments.events_per_s:
            day_mb, version_bytes, ms = an_hour(items, events)
            print(f"  {items:>9,} {events:>6,} -> {day_mb:>8.1f} {version_bytes:>9,.0f} {ms:>7.2f}")
    print("generations: videos in the fresh segment -> MB of it, how many replaced ones FEED_KEPT_MB holds")
    for n in arguments.fresh:
        mb = fresh_segment_mb(n)
        print(f"  {n:>9,} -> {mb:>8.2f} {IndexerSettings().kept_mb / mb:>9,.0f}")


def an_hour(items: int, events_per_s: int) -> tuple[float, float, float]:
    """(megabytes of a day like this hour, bytes of one version, CPU of one version in milliseconds)."""
    rng = np.random.default_rng(1)
    shares = np.arange(1, items + 1) ** -ZIPF
    shares = rng.permutation(shares / shares.sum())
    sums = np.zeros((items, *WINDOWS["sums"].shape), np.float32)
    for window, hours in enumerate((1, 24, 168)):
        _count(sums, slice(window, None), rng, shares, events_per_s * HOUR_S * (hours - 1))
    with TemporaryDirectory() as folder:
        log, began_s = PopularityLog(Path(folder)), time.process_time()
        versions = HOUR_S // PUBLISH_S
        for version in range(versions):
            _count(sums, slice(None), rng, shares, events_per_s * PUBLISH_S)
            log.keep("acme", _windows(sums), now_s=NOW_S + version * PUBLISH_S)
        spent_s = time.process_time() - began_s
        written = sum(file.stat().st_size for file in Path(folder).rglob("*.log"))
    return 24 * written / 1e6, written / versions, 1000 * spent_s / versions


def fresh_segment_mb(videos: int) -> float:
    """A segment with texts as long as conference talks have them."""
    rows = Rows.from_videos(
        [a_video(n, title=f"A talk about something {n}" * 2, description="word " * 60) for n in range(videos)],
        unit_vectors(videos, DIM),
    )
    with TemporaryDirectory() as folder:
        Segment.write(Path(folder) / "fresh", rows)
        return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()) / 1e6


def _count(sums: np.ndarray, windows: slice, rng: np.random.Generator, shares: np.ndarray, events: int) -> None:
    shown = rng.multinomial(events, shares)
    touched = np.flatnonzero(shown)
    many = shown[touched]
    sums[touched, windows, 0] += many[:, None]
    sums[touched, windows, 1] += (many * rng.uniform(0.2, 0.9, len(touched)))[:, None]
    sums[touched, windows, 2] += rng.binomial(many, 0.137)[:, None]
    sums[touched, windows, 3] += rng.binomial(many, 0.3)[:, None]


def _windows(sums: np.ndarray) -> Windows:
    (items,) = np.nonzero(sums[:, -1, 0])
    windows = np.zeros(len(items), WINDOWS)
    windows["item"], windows["sums"] = items, sums[items]
    return windows


if __name__ == "__main__":
    main()
