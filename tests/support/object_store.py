"""An S3-compatible server of its own, with a bucket `archive`."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]  # ships no types

from deploy.local.processes import spawn
from tests.support.redis_server import free_port
from tests.support.running import HOST, START_LIMIT_S, eventually


@contextmanager
def object_store(folder: Path) -> Iterator[dict[str, str]]:
    """The running server, as deltalake is told of it; its log is in `folder`."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)]
    server = spawn("moto", command, folder / "moto.log", env=os.environ, grace_s=5.0)
    options = {
        "AWS_ENDPOINT_URL": f"http://{HOST}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }
    try:
        eventually(lambda: server.ended or _answers(port), within_s=START_LIMIT_S)
        client(options).create_bucket(Bucket="archive")
        yield options
    finally:
        server.stop()


def client(options: dict[str, str]) -> Any:
    """boto3's client, to look at the objects themselves."""
    return boto3.client(
        "s3",
        endpoint_url=options["AWS_ENDPOINT_URL"],
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    )


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
