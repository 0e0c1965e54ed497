"""Real talks with their real vectors, small and at once: some 350 videos of the demo, embedded by the default model.

    talks()      videos as the API takes them, each with its vector: nothing is left to embed

`python -m tests.support.talks` makes the vectors anew. Their source and licence are those of deploy/local/SOURCE.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from deploy.local.demo_file import read_videos
from indexer.encoders import open_encoder
from retrieval.videos import VideoIn, embedded_text

MODEL: Final = "all-MiniLM-L6-v2"
DIM: Final = 384
FILE: Final = Path(__file__).with_name("talks.npy")
TENANT: Final = "pycon-us"
TOPICS: Final = (
    *("community", "data", "language", "machine learning", "operations", "performance"),
    *("science", "security", "teaching", "testing", "tutorial", "web"),
)
PER_TOPIC: Final = 30


def chosen() -> list[dict[str, Any]]:
    """The newest talks of each of TOPICS, PER_TOPIC each; one with several has the first that needs it, and
    only that one, so that no talk is to the taste of more people than another."""
    taken: Counter[str] = Counter()
    videos = []
    for video in read_videos()[TENANT]:
        topic = next((one for one in video["categories"] if one in TOPICS and taken[one] < PER_TOPIC), None)
        if topic is not None:
            taken[topic] += 1
            videos.append({**video, "categories": [topic]})
    return videos


@cache
def talks() -> list[dict[str, Any]]:
    """The chosen videos with their vectors."""
    vectors = np.load(FILE).astype(np.float32)
    return [{**video, "vector": vector.tolist()} for video, vector in zip(chosen(), vectors, strict=True)]


def embedded(videos: Sequence[dict[str, Any]]) -> npt.NDArray[np.float32]:
    """float32[n, DIM]: vectors of videos from the model itself."""
    return open_encoder(MODEL).encode([embedded_text(VideoIn.model_validate(one)) for one in videos])


if __name__ == "__main__":
    np.save(FILE, embedded(chosen()).astype(np.float16))
