"""The notebooks run from top to bottom, on a small tenant with real talks and simulated viewers, and say what is so."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from benchmarks.viewers import Audience, topics_of
from retrieval.archive import Archive
from retrieval.database import connect
from retrieval.policies import Policies
from tests.support.running import ROOT, System, eventually, finished, system, video
from tests.support.talks import DIM, MODEL, TENANT, TOPICS, talks

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
VIEWERS = 24
LIMIT_S = 120


@dataclass(frozen=True)
class Lab:
    """A system that has been used: `page` is what an app got, by video id in order, for the request `request_id`."""

    system: System
    request_id: str
    page: list[str]


@pytest.fixture(scope="module")
def lab(redis_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Two dozen simulated viewers have swiped, everything is archived, and a second generation is out."""
    folder = tmp_path_factory.mktemp("lab")
    env = {"FEED_SIGNALS_FLUSH_S": "0.3", "FEED_SIGNALS_PUBLISH_S": "1"}
    with system(folder, redis_database, {TENANT: talks()}, dim=DIM, model=MODEL, workers=1, env=env) as s:
        request_id, page, last = asyncio.run(_used(s, folder))
        s.put(TENANT, video("one-more", "One more talk about testing", vector=talks()[0]["vector"]))
        eventually(lambda: s.place.store.newest_generation(TENANT) > 1)
        eventually(lambda: _archived(s, last))
        yield Lab(s, request_id, page)


async def _used(s: System, folder: Path) -> tuple[str, list[str], set[str]]:
    """(a request, the page it got, the last request of every viewer)."""
    key = s.tenants[TENANT].publishable
    audience = Audience.of(s.base_url, TENANT, key, topics_of(talks()), folder, count=VIEWERS, seed=2, likes=TOPICS)
    try:
        for _ in range(4):
            await audience.swipe(10)
        pages = [await viewer.client.feed("refresh", limit=20) for viewer in audience.viewers]
        page = next(page for page in pages if page.body["mode"] == "personalised")
        last = {page.body["request_id"] for page in pages}
        return page.body["request_id"], [item["id"] for item in page.items], last
    finally:
        await audience.http.aclose()


def _archived(s: System, requests: set[str]) -> bool:
    found = Archive(str(s.place.folder / "archive")).query("SELECT request_id FROM serves")
    return requests <= {row["request_id"] for row in found}


def read_notebook(path: Path) -> Any:
    """The notebook in a file."""
    return nbformat.reads(path.read_text(), as_version=4)  # type: ignore[no-untyped-call]


def executed(lab: Lab, path: Path, **more: str) -> dict[str, str]:
    """Run a notebook; what its tagged cells printed, and "images": how many plots there are."""
    notebook = read_notebook(path)
    client = NotebookClient(notebook, timeout=LIMIT_S, resources={"metadata": {"path": str(ROOT)}})
    app = {"APP_URL": lab.system.base_url, "APP_KEY": lab.system.tenants[TENANT].publishable}
    app |= {"APP_USER": lab.system.user_id("notebook")}
    small = {"TENANT": TENANT, "TRIALS": "8", "PAGES": "24", "REQUEST_ID": lab.request_id, "JUPYTER_PLATFORM_DIRS": "1"}
    client.execute(env={**os.environ, **lab.system.place.environment, **app, **small, **more})
    said: dict[str, str] = {"images": "0"}
    for cell in notebook.cells:
        outputs: list[Any] = cell.get("outputs", [])
        images = sum("image/png" in one.get("data", {}) for one in outputs)
        said["images"] = str(int(said["images"]) + images)
        for tag in cell.metadata.get("tags", []):
            said[tag] = "".join(one.get("text", "") for one in outputs)
    return said


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_and_is_kept_without_outputs(lab: Lab, path: Path) -> None:
    """In less than two minutes, with plots; what it showed is not in git."""
    for cell in read_notebook(path).cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    began_s = time.monotonic()
    said = executed(lab, path)
    assert time.monotonic() - began_s < LIMIT_S
    assert int(said["images"]) >= 2
    CHECKS.get(path.stem[:1], _nothing_more)(lab, said)


def _the_served_page(lab: Lab, said: dict[str, str]) -> None:
    """The page of the notebook is the page the app got, item by item."""
    assert said["page"].split() == lab.page
    assert said["app"].startswith("cold_start, then personalised: ")


def _a_draft(lab: Lab, said: dict[str, str]) -> None:
    """The draft is in the database, and nothing is live that was not."""

    async def standing() -> Any:
        engine = connect(lab.system.place.database_url)
        try:
            return await Policies(engine).standing(TENANT)
        finally:
            await engine.dispose()

    found = finished(standing())
    assert said["draft"].startswith(f"draft saved for {TENANT}")
    assert found.draft.author == "notebook 3"
    assert found.live is None


def _the_truth(lab: Lab, said: dict[str, str]) -> None:
    """Of the twelve intervals, nearly all hold what the simulator knows."""
    held, _, of, *_ = said["truth"].split()
    assert int(held) >= int(of) - 2


def _identical(lab: Lab, said: dict[str, str]) -> None:
    """Every logged page is the served one, item by item."""
    same, _, of, *_ = said["identical"].split()
    assert same == of
    assert int(of) >= 10


def _nothing_more(lab: Lab, said: dict[str, str]) -> None:
    """Its plots are all there is to it."""


CHECKS = {"2": _the_served_page, "3": _a_draft, "5": _the_truth, "6": _identical}
