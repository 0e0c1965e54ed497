"""The Dockerfile's steps without Docker: `python -m deploy.docker.rehearse service|indexer [--folder F]`.

Copies what the target copies, and nothing else, into an empty folder, runs its RUN lines there with a new virtual
environment in place of /opt/feed, and then the product in it: a database is migrated; the service is started by the
image's own command, is found healthy by its own health check, and ends when asked; the indexer makes one pass with the
real model. So the files copied and the packages installed are enough. What only a daemon can prove (the base image, the
user, the layers) this does not.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from deploy.docker.dockerfile import FILE, Stage, Step, environment, last, lineage, stages

ROOT = FILE.parents[2]
PREFIXES = ("/opt/feed", "/app", "/var/lib/feed")
"""Where an image keeps things; here they are folders of the rehearsal."""
NEEDS_ROOT = "useradd"
"""A step with this word makes the image's user, and is left out."""
PORT, HEALTH_PORT = 18080, 18081
HEALTHY_WITHIN_S = 30.0


def rehearse(target: str, folder: Path) -> None:
    """Build the target in a folder. Raises CalledProcessError when a step fails."""
    found = stages(FILE.read_text())
    for stage in lineage(found, target):
        for step in stage.steps:
            if step.name == "COPY" and step.text.startswith("--from="):
                rehearse(step.words[0].removeprefix("--from="), folder)
            else:
                _do(step, lineage(found, stage.name), folder)


def inside(folder: Path, line: list[Stage]) -> dict[str, str]:
    """The environment of the image, and nothing of ours; its stores are files of the rehearsal."""
    told = {name: _here(value, folder) for name, value in environment(line).items()}
    told["PATH"] = told["PATH"].replace("$PATH", os.environ["PATH"])
    passed = {name: value for name, value in os.environ.items() if not name.startswith(("FEED_", "PYTHON"))}
    database = f"sqlite+aiosqlite:///{folder}/feed.db"
    ports = {"FEED_PORT": str(PORT), "FEED_HEALTH_PORT": str(HEALTH_PORT)}
    return {**passed, **told, **ports, "FEED_DATABASE_URL": database}


def run_in(folder: Path, line: list[Stage], command: list[str]) -> None:
    """Run a command as the image would. Raises CalledProcessError."""
    subprocess.run(command, cwd=folder / "app", env=inside(folder, line), check=True)


def serve_in(folder: Path, line: list[Stage]) -> None:
    """Start the image's own command, wait until its health check finds it ready, end it. Raises CalledProcessError."""
    command = last(line, "CMD").command
    check = [word.replace(":8081/livez", f":{HEALTH_PORT}/readyz") for word in last(line, "HEALTHCHECK").command]
    serving = subprocess.Popen(command, cwd=folder / "app", env=inside(folder, line))
    try:
        deadline = time.monotonic() + HEALTHY_WITHIN_S
        while subprocess.run(check, env=inside(folder, line), capture_output=True).returncode:
            if serving.poll() is not None or time.monotonic() > deadline:
                raise subprocess.CalledProcessError(serving.poll() or 1, check)
            time.sleep(0.2)
    finally:
        serving.terminate()
        status = serving.wait(20)
    if status:
        raise subprocess.CalledProcessError(status, command)


def _do(step: Step, line: list[Stage], folder: Path) -> None:
    if step.name == "COPY":
        *sources, target = step.words
        for source in sources:
            _copy(ROOT / source, folder / "app" / (target if target != "./" else Path(source).name))
    elif step.name == "RUN" and NEEDS_ROOT not in step.text:
        print(f"RUN {step.text}", flush=True)
        (folder / "app").mkdir(parents=True, exist_ok=True)
        run_in(folder, line, ["sh", "-euc", _here(step.text, folder)])


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    else:
        shutil.copy(source, target)


def _here(text: str, folder: Path) -> str:
    for prefix in PREFIXES:
        text = text.replace(prefix, str(folder) + prefix)
    return text


def main() -> None:
    """Rehearse, use what was built, and say how large it became."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=["service", "indexer"])
    parser.add_argument("--folder", type=Path, help="an empty one, kept afterwards; default: a temporary one")
    given = parser.parse_args()
    folder = (given.folder or Path(tempfile.mkdtemp(prefix="rehearsal-"))).resolve()
    line = lineage(stages(FILE.read_text()), given.target)
    try:
        rehearse(given.target, folder)
        run_in(folder, line, ["python", "-m", "service", "migrate"])
        if given.target == "service":
            serve_in(folder, line)
        else:
            run_in(folder, line, ["python", "-m", "indexer", "once"])
        sizes = sum(path.lstat().st_size for path in (folder / "opt/feed").rglob("*") if path.is_file())
        print(f"{given.target}: works; {sizes / 1e6:,.0f} MB of packages")
    except subprocess.CalledProcessError as error:
        sys.exit(f"{' '.join(map(str, error.cmd))}: status {error.returncode}")
    finally:
        if given.folder is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
