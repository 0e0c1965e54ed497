"""Child processes that never outlive the one who started them.

Each child leads a session of its own: a Ctrl-C typed at the terminal reaches only the supervisor, which then stops
the children in order. Three things make sure that nobody is left behind:

1. Leaving `Children` asks each child to end, waits, and sweeps its whole process group (worker processes too).
2. Linux sends every child SIGTERM when the supervisor dies (`PR_SET_PDEATHSIG`).
3. `guard.py` sees the supervisor end on every system, reaches grandchildren, and kills what does not listen.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from deploy.local import guard
from deploy.local.errors import StartError

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
POLL_S = 0.02


@dataclass(frozen=True)
class Child:
    """One running program: its name for people, its process, its log, and how long it may take to end."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    grace_s: float

    @property
    def ended(self) -> bool:
        """True as soon as the program is gone, for whatever reason."""
        return self.process.poll() is not None

    def stop(self) -> None:
        """SIGTERM, wait `grace_s`, then SIGKILL to everything that is left of its process group. Never raises."""
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(self.grace_s)
        guard.signalled(self.process.pid, signal.SIGKILL)
        self.process.wait()


def last_lines(log: Path, count: int) -> str:
    """The end of a log, at most `count` lines that are not empty; an empty text when there are none."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 400 * count))
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join([line for line in lines if line.strip()][-count:])


def spawn(name: str, command: Sequence[str], log: Path, *, env: Mapping[str, str], grace_s: float) -> Child:
    """Start a program in a session of its own, its output appended to `log`. It ends with this process.

    Raises StartError when the program cannot be started at all.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        try:
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env),
                start_new_session=True,
                preexec_fn=_end_with(os.getpid()),
            )
        except OSError as error:
            raise StartError(f"{name} could not be started: {error}") from error
    return Child(name, process, log, grace_s)


def end_with_parent() -> None:
    """Ask the kernel to send this process SIGTERM when its parent dies. Only Linux can; elsewhere nothing happens."""
    _end_with(os.getppid())()


class Children:
    """The programs of one run, watched by a guard. A context manager: leaving it stops all, last started first."""

    def __init__(self, lock_fd: int, told: Callable[[str], None]) -> None:
        """`lock_fd`: the lock the guard holds until nothing is left; `told` hears the name of each one stopped."""
        self._lock_fd = lock_fd
        self._told = told
        self._running: list[Child] = []
        self._guard: subprocess.Popen[str] | None = None

    def __enter__(self) -> Children:
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__],
            stdin=subprocess.PIPE,
            pass_fds=[self._lock_fd],
            start_new_session=True,
            text=True,
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        while self._running:
            self._stop_last()
        if self._guard is not None:
            _close(self._guard.stdin)
            self._guard.wait()

    def start(
        self, name: str, command: Sequence[str], log: Path, *, env: Mapping[str, str], grace_s: float = 10.0
    ) -> Child:
        """Start one more program. Raises StartError when that is not possible."""
        child = spawn(name, command, log, env=env, grace_s=grace_s)
        self._running.append(child)
        self._tell_guard("+", child)
        return child

    def first_ended(self) -> Child | None:
        """A program that ended although nobody asked it to, or None while all is well."""
        return next((child for child in self._running if child.ended), None)

    def _stop_last(self) -> None:
        child = self._running[-1]
        self._told(child.name)
        child.stop()
        self._tell_guard("-", child)
        self._running.pop()

    def _tell_guard(self, sign: str, child: Child) -> None:
        if self._guard is not None and self._guard.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # a killed guard must not stop the run: rule 2 still holds
                self._guard.stdin.write(f"{sign} {child.process.pid}\n")
                self._guard.stdin.flush()


async def answering(child: Child, ready: Callable[[], bool], limit_s: float) -> None:
    """Wait until `ready()`. Raises StartError with the end of the child's log if it ends first or takes too long."""
    deadline = time.monotonic() + limit_s
    while not ready():
        if child.ended:
            raise ended_error(child)
        if time.monotonic() > deadline:
            raise StartError(f"{child.name} did not answer within {limit_s:.0f} s. Its log: {child.log}")
        await asyncio.sleep(POLL_S)


def ended_error(child: Child) -> StartError:
    """The message for a program that ended by itself: how, the last lines it wrote, and where the rest is."""
    code = child.process.wait()
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    return StartError(f"{child.name} {how}. The end of {child.log}:\n\n{last_lines(child.log, 15)}")


def _close(stream: IO[str] | None) -> None:
    if stream is not None:
        with contextlib.suppress(BrokenPipeError):
            stream.close()


def _end_with(parent: int) -> Callable[[], None]:
    """A function for a new process that ties its life to `parent`.

    The C library is loaded here, before the fork: between fork and exec nothing may take a lock. The parent may have
    died before the tie was made, and then no signal would ever come: hence the look at who the parent is now.
    """
    if sys.platform != "linux":
        return lambda: None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def tie() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)

    return tie
