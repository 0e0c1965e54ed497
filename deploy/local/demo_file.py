"""Where the demo's videos are and how they are read. See SOURCE.md for where they come from."""

from __future__ import annotations

import gzip
from collections import defaultdict
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import orjson

VIDEOS_FILE: Final = Path(__file__).with_name("videos.jsonl.gz")


def read_videos(limit_per_tenant: int | None = None) -> dict[str, list[dict[str, Any]]]:
    """Tenant -> its videos as the API takes them, newest first; at most `limit_per_tenant` of each."""
    videos: dict[str, list[dict[str, Any]]] = defaultdict(list)
    with gzip.open(VIDEOS_FILE) as lines:
        for line in lines:
            video = orjson.loads(line)
            of_tenant = videos[video.pop("tenant")]
            if limit_per_tenant is None or len(of_tenant) < limit_per_tenant:
                of_tenant.append(video)
    return dict(videos)


def newest_about(topic: str, tenant: str, count: int, limit_per_tenant: int | None = None) -> list[str]:
    """The ids of at most `count` of the tenant's videos in the category `topic`, newest first."""
    videos = read_videos(limit_per_tenant)[tenant]
    return [video["id"] for video in videos if topic in video["categories"]][:count]


def fingerprint(limit_per_tenant: int | None) -> str:
    """Names what `read_videos` answers: another file or another limit has another fingerprint."""
    return f"{sha256(VIDEOS_FILE.read_bytes()).hexdigest()}:{limit_per_tenant}"
