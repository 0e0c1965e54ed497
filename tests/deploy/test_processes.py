"""Nobody is left behind: not after an orderly end, not after a crash, not after kill -9. Real processes throughout."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # ships no types
import pytest

from deploy.local import guard
from deploy.local.errors import StartError
from deploy.local.processes import Children, ended_error, spawn

# A program with a child of its own that it forgets when it ends: what a crashing master process does.
PARENT_OF_ONE = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""
LONELY = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""
# A supervisor as `up` is one: it starts two programs, says who they are, and waits.
SUPERVISOR = """
import os, sys, time
from pathlib import Path
from deploy.local.processes import Children
folder = Path(sys.argv[1])
lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
with Children(lock, told=print) as children:
    command = [sys.executable, "-c", sys.argv[2]]
    started = [children.start(name, command, folder / name, env=os.environ) for name in "ab"]
    guard = children._guard
    print(*(child.process.pid for child in started), guard.pid, flush=True)
    time.sleep(600)
"""


def eventually(true: Callable[[], bool], within_s: float = 10.0) -> bool:
    """Ask again and again until the answer is yes or the time is up."""
    deadline = time.monotonic() + within_s
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def runs(pid: int) -> bool:
    """Whether the process is there and not merely waiting to be reaped."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def lock_fd(tmp_path: Path) -> Iterator[int]:
    """An open file for the guard to hold."""
    descriptor = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def start_supervisor(folder: Path, program: str) -> tuple[subprocess.Popen[str], list[int]]:
    """A running supervisor, and the process ids of its two children, their children, and (last) its guard."""
    command = [sys.executable, "-c", SUPERVISOR, str(folder), program]
    supervisor = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert supervisor.stdout is not None
    *children, guard_pid = (int(word) for word in supervisor.stdout.readline().split())
    assert eventually(lambda: all((folder / name).read_text().endswith("\n") for name in "ab"))
    grandchildren = [int(text) for name in "ab" if (text := (folder / name).read_text().strip()).isdigit()]
    return supervisor, [*children, *grandchildren, guard_pid]


def end(supervisor: subprocess.Popen[str]) -> None:
    """Reap it and close its pipe."""
    with supervisor:
        supervisor.kill()


def test_leaving_stops_all_in_reverse_order_with_their_children(tmp_path: Path, lock_fd: int) -> None:
    """The last one started ends first, and a forgotten worker process is swept with its master."""
    stopped: list[str] = []
    log = tmp_path / "first.log"
    with Children(lock_fd, told=stopped.append) as children:
        first = children.start("first", [sys.executable, "-c", PARENT_OF_ONE], log, env=os.environ)
        second = children.start("second", ["sleep", "600"], tmp_path / "second.log", env=os.environ)
        assert eventually(lambda: log.read_text().endswith("\n"))
        worker = int(log.read_text())
        assert runs(worker)
    assert stopped == ["second", "first"]
    assert first.ended and second.ended
    assert eventually(lambda: not runs(worker))


def test_a_program_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """Patience ends after the grace period."""
    log = tmp_path / "log"
    child = spawn("stubborn", [sys.executable, "-c", STUBBORN], log, env=os.environ, grace_s=0.2)
    assert eventually(lambda: "ready" in log.read_text())
    child.stop()
    assert child.process.returncode == -signal.SIGKILL


def test_kill_9_of_the_supervisor_leaves_nothing(tmp_path: Path) -> None:
    """Children and grandchildren end although the supervisor could not tell them, and then the guard goes too."""
    supervisor, pids = start_supervisor(tmp_path, PARENT_OF_ONE)
    assert len(pids) == 5 and all(runs(pid) for pid in pids)
    end(supervisor)
    assert eventually(lambda: not any(runs(pid) for pid in pids))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_kill_9_of_supervisor_and_guard_leaves_no_child(tmp_path: Path) -> None:
    """Without its guard, the kernel's own signal still ends what the supervisor started."""
    supervisor, (first, second, guard_pid) = start_supervisor(tmp_path, LONELY)
    os.kill(guard_pid, signal.SIGKILL)
    end(supervisor)
    assert eventually(lambda: not runs(first) and not runs(second))


def test_the_guard_kills_a_group_that_does_not_listen(tmp_path: Path) -> None:
    """SIGTERM first, SIGKILL after the grace period."""
    log = tmp_path / "log"
    child = spawn("stubborn", [sys.executable, "-c", STUBBORN], log, env=os.environ, grace_s=0.0)
    assert eventually(lambda: "ready" in log.read_text())
    guard.end_groups({child.process.pid}, grace_s=0.2)
    assert child.process.wait(5) == -signal.SIGKILL


def test_the_guard_follows_who_is_running() -> None:
    """A group that was swept is off the list: its number may belong to somebody else by then."""
    assert guard.watched_groups(["+ 10\n", "+ 11\n", "- 10\n"]) == {11}


def test_an_ended_program_is_noticed_and_its_last_words_shown(tmp_path: Path, lock_fd: int) -> None:
    """The message names the program, how it ended, its log, and the end of it."""
    with Children(lock_fd, told=lambda name: None) as children:
        program = "print('line 1', flush=True); raise SystemExit('no more memory')"
        child = children.start("indexer", [sys.executable, "-c", program], tmp_path / "indexer.log", env=os.environ)
        assert eventually(lambda: children.first_ended() is child)
    message = str(ended_error(child))
    assert message.startswith(f"indexer ended with code 1. The end of {tmp_path / 'indexer.log'}")
    assert message.endswith("no more memory")


def test_a_program_that_does_not_exist_is_a_clear_error(tmp_path: Path) -> None:
    """Not a traceback from the depths of subprocess."""
    with pytest.raises(StartError, match=r"redis could not be started: .*no-such-program"):
        spawn("redis", ["no-such-program"], tmp_path / "log", env=os.environ, grace_s=1.0)
