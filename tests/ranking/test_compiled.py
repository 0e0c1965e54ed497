"""Compiled loops: they stay inside their arrays, and need no place to keep their machine code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the project with these variables."""
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )


def test_no_loop_reaches_beyond_its_arrays(tmp_path: Path) -> None:
    """Every law of theirs once more with the bounds of each access checked, which raises IndexError."""
    laws = [f"tests/ranking/test_{name}.py" for name in ("slate", "rank", "eligibility", "features", "alike")]
    laws += [f"tests/retrieval/test_{name}.py" for name in ("taste", "masks", "sources")]
    checked = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = run("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *laws, **checked)
    assert done.returncode == 0, done.stdout


COMPILE = "from ranking.alike import step_back; from ranking.compiled import compile_all; compile_all()"


@pytest.mark.parametrize("kept", [True, False])
def test_machine_code_is_kept_where_it_can_be(tmp_path: Path, kept: bool) -> None:
    """In the folder that is named; where there is none to be had, it is made for this process alone."""
    nowhere = {} if kept else {"NUMBA_CACHE_LOCATOR_CLASSES": "IPythonCacheLocator"}  # knows cells of notebooks only
    done = run("-c", COMPILE, NUMBA_CACHE_DIR=str(tmp_path), **nowhere)
    assert done.returncode == 0, done.stderr
    assert bool(list(tmp_path.rglob("*.nbc"))) is kept


def test_an_image_brings_machine_code_that_is_only_read(tmp_path: Path) -> None:
    """It is found as it was made; a folder that cannot be made is no error."""
    assert run("-c", COMPILE, NUMBA_CACHE_DIR=str(tmp_path)).returncode == 0
    image = {"NUMBA_CACHE_LOCATOR_CLASSES": "ranking.kept.Kept"}
    found = run(
        "-c", f"{COMPILE}; assert step_back.machine_code.stats.cache_hits", NUMBA_CACHE_DIR=str(tmp_path), **image
    )
    assert found.returncode == 0, found.stderr
    missing = run("-c", COMPILE, NUMBA_CACHE_DIR="/proc/none", **image)
    assert missing.returncode == 0, missing.stderr
