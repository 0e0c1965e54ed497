"""The TypeScript of docs/sdk.md, compiled with every check and run by Node against a real service."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.running import user_id, video
from tests.support.served import Served, served

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "scroll.ts"
DRIVER = """
import { Feed, Refused } from "./scroll.js";
const [base, key, user, language] = process.argv.slice(2);
const shown = [];
try {
  for await (const item of new Feed(base, key, user || undefined).scroll({ limit: "50", language })) shown.push(item);
  console.log(JSON.stringify(shown));
} catch (error) {
  console.log(JSON.stringify({ refused: error instanceof Refused, status: error.status, type: error.type }));
}
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A tenant with more videos than a list holds; a user may ask twice at once."""
    videos = [video(f"v{n}", f"bread {n}") for n in range(230)]
    with served(tmp_path_factory.mktemp("sdk"), {"acme": videos}, user_requests_per_s=2, burst_s=1) as started:
        yield started


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, compiled in strict mode, and a program that uses it."""
    folder = tmp_path_factory.mktemp("compiled")
    shutil.copy(EXAMPLE, folder)
    (folder / "package.json").write_text('{"type": "module"}')
    strict = ["--strict", "--noUncheckedIndexedAccess", "--noUnusedLocals"]
    target = ["--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom"]
    done = subprocess.run(["tsc", *strict, *target, "scroll.ts"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    (folder / "driver.js").write_text(DRIVER)
    return folder / "driver.js"


def run(program: Path, service: Served, key: str, user: str = "") -> object:
    """What the program prints."""
    command = ["node", str(program), service.base_url, key, user, "en"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


def test_it_scrolls_to_the_end(service: Served, program: Path) -> None:
    """All videos once, in the order of their positions, though the rate makes it wait on the way."""
    shown = run(program, service, service.keys["acme"].publishable, user_id("typescript"))
    assert isinstance(shown, list)
    assert sorted(item["id"] for item in shown) == sorted(f"v{n}" for n in range(230))
    assert all(item["request_id"] for item in shown)


def test_it_tells_what_was_refused(service: Served, program: Path) -> None:
    """The problem's type and status, at once."""
    assert run(program, service, "pk_wrong") == {"refused": True, "status": 401, "type": "/problems/unauthenticated"}
