"""Does the feed learn? Simulated viewers with hidden tastes, swiping through the real system with the reference client.

What a viewer likes is known to the simulator alone; `benchmarks.viewers` says what about them is made up.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.viewers import REACTIONS, Audience, Round, topics_of
from tests.support.running import System, system
from tests.support.talks import DIM, FILE, MODEL, TENANT, TOPICS, chosen, embedded, talks

VIEWERS = 48
SWIPES = 20


@pytest.fixture(scope="module")
def s(redis_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Real talks with their real vectors. Popularity stays as it was at the start:
    this is about what is learnt of each viewer."""
    folder = tmp_path_factory.mktemp("learning")
    env = {"FEED_SIGNALS_PUBLISH_S": "60"}
    with system(folder, redis_database, {TENANT: talks()}, dim=DIM, model=MODEL, env=env) as running:
        yield running


def test_the_vectors_are_those_of_the_model() -> None:
    """The file that is shipped for speed is what the default model says of these talks."""
    some = [0, 100, 200]
    shipped = np.load(FILE).astype(np.float32)
    assert len(shipped) == len(chosen())
    assert np.abs(shipped[some] - embedded([chosen()[n] for n in some])).max() < 2e-3


def test_twenty_swipes_double_the_share_of_liked_topics(s: System, tmp_path: Path) -> None:
    """Simulated: on average over the viewers, at least twice what the feed for nobody in particular has of them; and
    before the first swipe it is about the same."""

    async def watch() -> tuple[Round, Round]:
        key = s.tenants[TENANT].publishable
        audience = Audience.of(
            s.base_url, TENANT, key, topics_of(talks()), tmp_path, count=VIEWERS, seed=1, likes=TOPICS
        )
        try:
            before = await audience.look()
            await audience.swipe(SWIPES)
            return before, await audience.look()
        finally:
            await audience.http.aclose()

    before, after = asyncio.run(watch())
    assert (before.swipes, after.swipes) == (0, SWIPES)
    assert after.viewers >= 0.9 * VIEWERS
    assert before.personal < 1.4 * before.nobody
    assert after.personal >= 2 * after.nobody, f"simulated: {after}"


def test_the_program_says_simulated_wherever_it_says_a_figure(s: System, tmp_path: Path) -> None:
    """As `make viewers` runs it beside a demo: a line before the first swipe and one per round."""
    tenants = [{"id": TENANT, "publishable_key": s.tenants[TENANT].publishable}]
    (tmp_path / "demo.json").write_text(json.dumps({"base_url": s.base_url, "tenants": tenants}))
    words = (
        "--folder",
        str(tmp_path),
        "--viewers",
        "3",
        "--rounds",
        "2",
        "--swipes",
        "5",
        "--pace-ms",
        "0",
        "--seed",
        "1",
    )
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.viewers", *words], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert "simulated" in lines[0]
    assert [line.split()[:3] for line in lines[2:]] == [["simulated", "3", str(swipes)] for swipes in (0, 5, 10)]


def test_viewers_react_as_often_as_real_ones() -> None:
    """The measured rates, when a third of what is shown is to somebody's taste."""
    for kind, measured in (("like", 0.137), ("bookmark", 0.046), ("follow", 0.035)):
        mixed = getattr(REACTIONS[True], kind) / 3 + getattr(REACTIONS[False], kind) * 2 / 3
        assert mixed == pytest.approx(measured, abs=0.002)
