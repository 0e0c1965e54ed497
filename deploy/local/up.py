"""The demo from nothing to feeds and back: checks, server, catalogue, indexer, service, and an orderly end."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from deploy.local import probe, valkey
from deploy.local.checks import check_disk, check_ports, only_run
from deploy.local.demo import Demo
from deploy.local.demo_file import newest_about
from deploy.local.demo_keys import DemoKeys, write_keys
from deploy.local.processes import Children, answering, ended_error, last_lines
from deploy.local.progress import progress_display
from deploy.local.words import say, say_how_to_call, say_try_this
from retrieval.settings import StoreSettings

HOST = "127.0.0.1"
LOOK_EVERY_S = 0.5
LOW_DISK_BYTES = 200_000_000
FULL_DISK_BYTES = 1_000_000
TRY_TOPIC = "security"
TRY_LIKES = 4


@dataclass(frozen=True)
class Options:
    """What a person may choose. `folder` holds everything that is written; 0 `videos_per_tenant` means all."""

    folder: Path
    port: int
    health_port: int
    redis_port: int
    workers: int
    videos_per_tenant: int

    @property
    def base_url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def limit(self) -> int | None:
        """Most videos a tenant gets, None for all."""
        return self.videos_per_tenant or None

    @property
    def settings(self) -> StoreSettings:
        """Where the stores of this run are: all in its own folder."""
        return StoreSettings(
            database_url=f"sqlite+aiosqlite:///{self.folder / 'feed.db'}",
            redis_url=f"redis://{HOST}:{self.redis_port}/0",
            snapshot_dir=self.folder / "snapshots",
            state_dir=self.folder / "state",
            archive_url=str(self.folder / "archive"),
        )

    @property
    def environment(self) -> dict[str, str]:
        """What the programs of this run are told, beside what this one was told itself."""
        stores = {f"FEED_{name.upper()}": str(value) for name, value in self.settings.model_dump().items()}
        service = {"FEED_HEALTH_PORT": str(self.health_port), "FEED_METRICS_DIR": str(self.folder / "metrics")}
        return {**os.environ, **stores, **service, "PYTHONUNBUFFERED": "1"}


async def up(options: Options) -> None:
    """Run the demo until a signal cancels this task. Raises StartError when it cannot start or a part of it ends."""
    began = time.monotonic()
    options.folder.mkdir(parents=True, exist_ok=True)
    with only_run(options.folder) as guard_lock:
        check_disk(options.folder)
        check_ports(HOST, {"service": options.port, "health": options.health_port, "redis": options.redis_port})
        with Children(guard_lock, told=lambda name: say(f"stopping {name}")) as children:
            await _start_redis(children, options)
            async with Demo(options.folder, options.settings) as demo:
                await _load(demo, options)
                keys = await demo.keys(options.base_url)  # before the service starts: it knows them from the beginning
                _start_program(children, options, "indexer", "run")
                _start_program(children, options, "service", "serve", *_serve_options(options))
                await _ready(children, demo, keys, options)
            write_keys(options.folder, keys)  # last: whoever finds it may call
            say(f"ready after {time.monotonic() - began:.0f} s\n")
            say_how_to_call(keys, options.folder)
            _say_try_this(keys, options)
            await _watch(children, options.folder)


async def _start_redis(children: Children, options: Options) -> None:
    folder = options.folder / "redis"
    folder.mkdir(exist_ok=True)
    command = valkey.server_command(options.redis_port, folder, valkey.DURABLE)
    child = children.start("redis", command, _log(options, "redis"), env=options.environment)
    await answering(child, lambda: valkey.answers(options.redis_port), valkey.READY_LIMIT_S)
    say(f"redis      {Path(command[0]).name} on {HOST}:{options.redis_port}")


async def _load(demo: Demo, options: Options) -> None:
    began = time.monotonic()
    videos = await demo.load(options.limit)
    say(f"catalogue  {len(videos)} tenants, {sum(videos.values()):,} videos ({time.monotonic() - began:.1f} s)")


def _start_program(children: Children, options: Options, package: str, *arguments: str) -> None:
    command = [sys.executable, "-m", package, *arguments]
    children.start(package, command, _log(options, package), env=options.environment)


def _serve_options(options: Options) -> list[str]:
    return ["--port", str(options.port), "--workers", str(options.workers)]


async def _ready(children: Children, demo: Demo, keys: DemoKeys, options: Options) -> None:
    """Show how embedding goes until every tenant's snapshot is complete and its feed has something in it."""
    with progress_display(await demo.embedded()) as display:
        while awaited := await _awaited(demo, keys, options):
            _check_children(children, options.folder)
            display.waits_for(awaited)
            await asyncio.sleep(LOOK_EVERY_S)
            display.show(await demo.embedded())
        display.show(await demo.embedded())  # the last texts and their snapshot may have come between two looks
    say(f"indexer    every tenant has a complete snapshot in {options.folder / 'snapshots'}")
    say(f"service    {options.base_url}, {options.workers} worker processes")


async def _awaited(demo: Demo, keys: DemoKeys, options: Options) -> list[str]:
    """What is not ready yet, in words; nothing means that every curl line works."""
    if unpublished := await demo.unpublished():
        full = (
            [f"space on the disk of {options.folder}, which is full"]
            if _disk_is_low(options.folder, FULL_DISK_BYTES)
            else []
        )
        failures = sorted({failure for failure in unpublished.values() if failure})
        return [*full, f"the snapshots of {', '.join(unpublished)}", *failures]
    if not probe.is_ready(options.health_port):
        log = _log(options, "service")
        return [f"the service, see {log}: {last_lines(log, 1)}"]
    tenants = keys["tenants"]
    return [f"the feed of {t['id']}" for t in tenants if not probe.gives_videos(options.port, t["publishable_key"])]


def _say_try_this(keys: DemoKeys, options: Options) -> None:
    tenant = keys["tenants"][0]
    if liked := newest_about(TRY_TOPIC, tenant["id"], TRY_LIKES, options.limit):
        say_try_this(keys["base_url"], tenant, TRY_TOPIC, liked)


async def _watch(children: Children, folder: Path) -> None:
    """Return never: only a signal, or the end of one of the programs, ends a demo that runs."""
    warned = False
    while True:
        _check_children(children, folder)
        if not warned and _disk_is_low(folder, LOW_DISK_BYTES):
            say(f"the disk of {folder} is nearly full: writes will soon fail until space is freed")
            warned = True
        await asyncio.sleep(LOOK_EVERY_S)


def _disk_is_low(folder: Path, at_most_bytes: int) -> bool:
    return shutil.disk_usage(folder).free <= at_most_bytes


def _check_children(children: Children, folder: Path) -> None:
    if ended := children.first_ended():
        if _disk_is_low(folder, FULL_DISK_BYTES):  # its log had no room for the reason either
            raise OSError(errno.ENOSPC, f"{ended.name} ended")
        raise ended_error(ended)


def _log(options: Options, name: str) -> Path:
    return options.folder / "log" / f"{name}.log"


async def until_signalled(options: Options) -> None:
    """`up`, ended by Ctrl-C, SIGTERM or a closed terminal. More signals change nothing: the end is under way."""
    task = asyncio.ensure_future(up(options))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # `nohup make run` is meant to outlive its terminal
        loop.add_signal_handler(signal.SIGHUP, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        say("stopped")
