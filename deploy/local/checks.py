"""What must hold before anything is started: free ports, free disk, and nobody else running here."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from deploy.local.errors import StartError

LEAST_FREE_BYTES = 1_000_000_000
GUARD_WAIT_S = 12.0  # longer than the guard of a killed run needs to end what was left
POLL_S = 0.1


def check_disk(folder: Path) -> None:
    """Raises StartError when the disk under `folder` has less than 1 GB free."""
    free = shutil.disk_usage(folder).free
    if free < LEAST_FREE_BYTES:
        raise StartError(
            f"only {free / 1e6:,.0f} MB are free on the disk of {folder.resolve()}, the demo wants 1,000 MB: "
            f"free some space, or choose another folder with `make run VAR=/path/with/space`"
        )


def check_ports(host: str, ports: dict[str, int]) -> None:
    """`ports`: what a port is for -> its number. Raises StartError naming every one that is taken."""
    taken = [f"{port} ({purpose})" for purpose, port in ports.items() if not _is_free(host, port)]
    if taken:
        raise StartError(
            f"already in use: port {', port '.join(taken)}. "
            "Stop what listens there, or choose others: make run PORT=9000 HEALTH_PORT=9001 REDIS_PORT=6391"
        )


@contextlib.contextmanager
def only_run(folder: Path) -> Iterator[int]:
    """Be the only run in `folder`; yields the descriptor of the lock that this run's guard holds as well.

    Both locks are the kernel's: they end with their last holder, however it ends. `run.lock` is the supervisor's
    alone; `guard.lock` stays taken until the guard of a killed run has ended what was left, and that is waited for.
    Raises StartError when another run is alive.
    """
    with _opened(folder / "run.lock") as run_lock, _opened(folder / "guard.lock") as guard_lock:
        if not _lock(run_lock):
            holder = os.pread(run_lock, 20, 0).decode() or "unknown"
            raise StartError(f"a demo is already running in {folder.resolve()} (process {holder}): stop it first")
        os.truncate(run_lock, 0)
        os.pwrite(run_lock, str(os.getpid()).encode(), 0)
        deadline = time.monotonic() + GUARD_WAIT_S
        while not _lock(guard_lock):
            if time.monotonic() > deadline:
                raise StartError(f"processes of the last run in {folder.resolve()} do not end: try again")
            time.sleep(POLL_S)
        yield guard_lock


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        # Without it a port that a stopped server used a moment ago (TIME_WAIT) would count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
