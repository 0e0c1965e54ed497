"""`make run` as a newcomer meets it: what it starts, what it prints, and that it leaves nothing behind.

Everything is real, on fewer videos: the supervisor, the server, the daemon, the model, the service.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # ships no types
import pytest

from deploy.local.tenants import TENANTS
from tests.support.redis_server import free_port

ROOT = Path(__file__).parents[2]
VIDEOS_PER_TENANT = 40
OF_A_KILLED_RUN = 30  # fewer: however quick it was, the next run has something left to embed
FIRST_RUN_S = 180.0
NEXT_RUN_S = 10.0
STOP_S = 40.0


class Run:
    """One `python -m deploy.local up`, and every process that belongs to it."""

    def __init__(self, folder: Path, ports: list[int], videos_per_tenant: int = VIDEOS_PER_TENANT) -> None:
        self.log = folder.parent / f"run-{time.monotonic_ns()}.txt"
        port, health_port, redis_port = map(str, ports)
        options = ["--port", port, "--health-port", health_port, "--redis-port", redis_port, "--folder", str(folder)]
        command = [sys.executable, "-m", "deploy.local", "up", *options, "--videos-per-tenant", str(videos_per_tenant)]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT)

    @property
    def output(self) -> str:
        """Everything it has said so far."""
        return self.log.read_text()

    def wait_for(self, text: str, within_s: float) -> None:
        """Wait until it says `text`; an AssertionError with all it said when it does not."""
        deadline = time.monotonic() + within_s
        while text not in self.output:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{text!r} was not said within {within_s} s:\n{self.output}")
            time.sleep(0.05)

    def family(self) -> list[psutil.Process]:
        """The supervisor, its children, and theirs."""
        supervisor = psutil.Process(self.process.pid)
        return [supervisor, *supervisor.children(recursive=True)]

    def end(self, number: int) -> list[psutil.Process]:
        """Send a signal to the supervisor alone; those of its family that still run when they should be gone."""
        family = self.family()
        self.process.send_signal(number)
        self.process.wait(STOP_S)
        _, alive = psutil.wait_procs(family, timeout=15)
        return [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]

    @property
    def seconds(self) -> int:
        """How long it says it took until it was ready."""
        found = re.search(r"ready after (\d+) s", self.output)
        return int(found.group(1)) if found else -1


@contextmanager
def run(folder: Path, ports: list[int], ready_within_s: float) -> Iterator[Run]:
    """A run that is ready; stopped at the end, if the test has not."""
    started = Run(folder, ports)
    try:
        started.wait_for("Ctrl-C stops everything", ready_within_s)
        yield started
    finally:
        if started.process.poll() is None:
            started.end(signal.SIGINT)


def pasted(line: str) -> dict[str, Any]:
    """What a shell prints for a line, as JSON."""
    answer = subprocess.run(["bash", "-c", line], capture_output=True, timeout=30, check=True)
    body: dict[str, Any] = json.loads(answer.stdout)
    return body


@dataclass(frozen=True)
class FirstDay:
    """A newcomer's first run was killed, the second one was used and stopped: what was seen on the way."""

    folder: Path
    ports: list[int]
    left_by_kill: list[psutil.Process]
    output: str
    keys: dict[str, Any]
    feeds: dict[str, dict[str, Any]]
    """By tenant, as the printed lines gave them."""
    liked: dict[str, Any]
    feed_after_likes: dict[str, Any]
    exit_code: int
    left_by_ctrl_c: list[psutil.Process]


@pytest.fixture(scope="module")
def first_day(tmp_path_factory: pytest.TempPathFactory) -> FirstDay:
    """Two real starts; everything else in this file looks at them or goes on from there."""
    if shutil.which("curl") is None:
        pytest.skip("the printed lines need curl")
    folder = tmp_path_factory.mktemp("make-run") / "var"
    ports = [free_port() for _ in range(3)]
    interrupted = Run(folder, ports, OF_A_KILLED_RUN)
    interrupted.wait_for("embedding", FIRST_RUN_S)
    left_by_kill = interrupted.end(signal.SIGKILL)
    with run(folder, ports, FIRST_RUN_S) as second:
        keys = json.loads((folder / "demo.json").read_text())
        lines = re.findall(r"^# (\S+)\n(curl .*)$", second.output, re.MULTILINE)
        feeds = {tenant: pasted(line) for tenant, line in lines}
        liked = pasted(second.output.splitlines()[-1])
        feed_after_likes = pasted(lines[0][1])
        left_by_ctrl_c = second.end(signal.SIGINT)
        exit_code = second.process.returncode
    return FirstDay(
        folder, ports, left_by_kill, second.output, keys, feeds, liked, feed_after_likes, exit_code, left_by_ctrl_c
    )


def busy() -> float:
    """How many programs want each core just now, at least 1: a promise in seconds is for a machine of one's own."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def generations(folder: Path) -> dict[str, bytes]:
    """What each tenant's CURRENT names."""
    return {path.parent.name: path.read_bytes() for path in (folder / "snapshots").glob("*/CURRENT")}


def test_every_printed_line_gives_a_full_feed(first_day: FirstDay) -> None:
    """Twenty videos with titles and links, for each tenant, pasted as printed."""
    assert list(first_day.feeds) == [tenant.id for tenant in TENANTS]
    for feed in first_day.feeds.values():
        assert len({item["id"] for item in feed["items"]}) == 20
        assert all(item["title"] and item["media_url"].startswith("http") for item in feed["items"])


def test_the_likes_it_suggests_count_at_once(first_day: FirstDay) -> None:
    """The next feed of the same user is personalised and not the same."""
    assert first_day.liked["accepted"] >= 1 and not first_day.liked["rejected"]
    assert first_day.feed_after_likes["mode"] == "personalised"
    before = [item["id"] for item in first_day.feeds[TENANTS[0].id]["items"]]
    assert [item["id"] for item in first_day.feed_after_likes["items"]] != before


def test_demo_json_says_what_a_program_needs(first_day: FirstDay) -> None:
    """Base URL, admin key, and for each tenant both keys."""
    assert first_day.keys["base_url"] == f"http://127.0.0.1:{first_day.ports[0]}"
    assert first_day.keys["admin_key"].startswith("adm_")
    assert [tenant["id"] for tenant in first_day.keys["tenants"]] == [tenant.id for tenant in TENANTS]
    for tenant in first_day.keys["tenants"]:
        assert tenant["publishable_key"].startswith("pk_") and tenant["secret_key"].startswith("sk_")


def test_progress_is_shown_while_it_embeds(first_day: FirstDay) -> None:
    """Figures that end at all of the videos."""
    done = [int(one.replace(",", "")) for one in re.findall(r"embedding +([\d,]+) of", first_day.output)]
    total = re.findall(r"embedding +[\d,]+ of ([\d,]+)", first_day.output)[-1]
    assert done == sorted(done) and done[-1] == int(total)


def test_kill_9_and_ctrl_c_leave_no_process(first_day: FirstDay) -> None:
    """Server, daemon, service and its workers all end with the supervisor, however it ends."""
    assert first_day.left_by_kill == []
    assert first_day.left_by_ctrl_c == []
    assert first_day.exit_code == 0
    assert first_day.output.splitlines()[-4:] == ["stopping service", "stopping indexer", "stopping redis", "stopped"]


def test_the_next_start_is_quick_and_embeds_nothing(first_day: FirstDay) -> None:
    """Same keys, same snapshots, no progress to show."""
    before = generations(first_day.folder)
    with run(first_day.folder, first_day.ports, FIRST_RUN_S) as again:
        assert again.seconds < NEXT_RUN_S * busy()
        assert "embedding" not in again.output
        assert json.loads((first_day.folder / "demo.json").read_text()) == first_day.keys
        assert generations(first_day.folder) == before


def test_a_part_that_dies_ends_the_run_with_its_last_words(first_day: FirstDay) -> None:
    """Nothing limps on: the person is told which part ended, and the rest is stopped."""
    with run(first_day.folder, first_day.ports, FIRST_RUN_S) as broken:
        family = broken.family()
        [server] = [one for one in family if "valkey-server" in one.name() or "redis-server" in one.name()]
        server.kill()
        assert broken.process.wait(STOP_S) == 1
        assert "redis was killed by signal 9" in broken.output
        assert psutil.wait_procs(family, timeout=15)[1] == []


def test_a_taken_port_is_a_clear_message(first_day: FirstDay) -> None:
    """Which port, and what to type instead; nothing was started."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        refused = Run(first_day.folder, [port, *first_day.ports[1:]])
        assert refused.process.wait(STOP_S) == 1
    assert f"port {port} (service)" in refused.output and "make run PORT=" in refused.output
    assert "Traceback" not in refused.output


def test_a_second_run_in_the_same_folder_is_refused(first_day: FirstDay) -> None:
    """The first one goes on undisturbed."""
    with run(first_day.folder, first_day.ports, FIRST_RUN_S) as first:
        second = Run(first_day.folder, [free_port() for _ in range(3)])
        assert second.process.wait(STOP_S) == 1
        assert f"already running in {first_day.folder} (process {first.process.pid})" in second.output
        assert first.process.poll() is None
