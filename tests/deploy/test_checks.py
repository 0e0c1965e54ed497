"""What stops the demo before it starts says so in a sentence that helps."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from deploy.local import checks
from deploy.local.checks import check_disk, check_ports, only_run
from deploy.local.errors import StartError
from tests.support.redis_server import free_port

HOST = "127.0.0.1"


def test_a_taken_port_is_named_with_the_way_out() -> None:
    """Which port, what it was wanted for, and what to type instead."""
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(StartError, match=rf"port {port} \(service\).*make run PORT="):
            check_ports(HOST, {"service": port, "redis": free_port()})


def test_a_port_taken_on_all_addresses_counts(tmp_path: Path) -> None:
    """A server on 0.0.0.0 would answer in our place."""
    with socket.create_server(("0.0.0.0", 0)) as listener, pytest.raises(StartError):  # noqa: S104 - that is the case
        check_ports(HOST, {"service": listener.getsockname()[1]})


def test_a_port_just_given_up_is_free() -> None:
    """Connections of the last run that linger in TIME_WAIT are no reason to refuse."""
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection((HOST, port)) as client:
            accepted, _ = listener.accept()
            accepted.close()  # the server closes first: its end lingers
            client.recv(1)
    check_ports(HOST, {"service": port})


def test_too_little_disk_is_said_in_megabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How much is free, how much is wanted, and how to go elsewhere."""
    check_disk(tmp_path)
    monkeypatch.setattr(checks, "LEAST_FREE_BYTES", 10**18)
    with pytest.raises(StartError, match=r"only [\d,]+ MB are free .*make run VAR="):
        check_disk(tmp_path)


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    """The second one hears who is there; afterwards the folder is free again."""
    refused = pytest.raises(StartError, match=f"already running .*process {os.getpid()}")
    with only_run(tmp_path), refused, only_run(tmp_path):
        pass
    with only_run(tmp_path):
        pass


def test_the_guard_of_a_killed_run_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it holds its lock, processes of that run may still hold ports and files."""
    monkeypatch.setattr(checks, "GUARD_WAIT_S", 0.3)
    with only_run(tmp_path) as guard_lock:
        held = os.dup(guard_lock)  # what the guard inherits
    with pytest.raises(StartError, match="do not end"), only_run(tmp_path):
        pass
    os.close(held)
    with only_run(tmp_path):
        pass
