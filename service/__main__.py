"""`python -m service serve`: worker processes behind one port."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Annotated

import typer

# One thread per numeric library and worker: the workers are the parallelism.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

cli = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


@cli.callback()
def commands() -> None:
    """Answer feeds, events and catalogue changes over HTTP."""


@cli.command()
def serve(
    host: Annotated[str | None, typer.Option(help="FEED_HOST")] = None,
    port: Annotated[int | None, typer.Option(help="FEED_PORT")] = None,
    workers: Annotated[int | None, typer.Option(help="FEED_WORKERS")] = None,
) -> None:
    """Serve until SIGTERM or Ctrl-C; running requests finish first. A worker that dies is replaced."""
    import uvicorn

    from service.settings import ServiceSettings

    given = {"host": host, "port": port, "workers": workers}
    for name, value in given.items():
        if value is not None:
            os.environ[f"FEED_{name.upper()}"] = str(value)  # the workers read their settings from here as well
    settings = ServiceSettings()
    shutil.rmtree(settings.metrics_dir, ignore_errors=True)
    settings.metrics_dir.mkdir(parents=True, exist_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(settings.metrics_dir.resolve())

    from service import health

    try:
        health.serve(settings.host, settings.health_port)
    except OSError as error:
        sys.stderr.write(f"service: port {settings.health_port} (FEED_HEALTH_PORT): {error.strerror}\n")
        sys.exit(2)
    uvicorn.run(
        "service.worker:create",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        http="service.wire:Wire",
        loop="service.listener:Loop",
        access_log=False,
        log_level="warning",
        log_config=None,  # as ours: one JSON object a line
        proxy_headers=False,  # nothing here looks at addresses
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=10,
    )


@cli.command()
def canary() -> None:
    """Measure, until stopped, how long a change takes to be in the feed: as a customer, with a tenant of its own."""
    import asyncio

    from prometheus_client import disable_created_metrics, start_http_server

    from service.canary import METRICS, Misplaced, keep_singing
    from service.settings import ServiceSettings

    settings = ServiceSettings()
    disable_created_metrics()  # type: ignore[no-untyped-call]
    try:
        start_http_server(settings.canary_port, settings.host, registry=METRICS)
        asyncio.run(keep_singing(settings.canary_url, settings.canary_keys, every_s=settings.canary_every_s))
    except KeyboardInterrupt:
        sys.exit(0)
    except OSError as error:
        sys.stderr.write(f"service: port {settings.canary_port} (FEED_CANARY_PORT): {error.strerror}\n")
        sys.exit(2)
    except Misplaced as error:
        sys.stderr.write(f"service: {error}\n")
        sys.exit(2)


@cli.command("openapi")
def print_openapi() -> None:
    """Print the OpenAPI document; docs/openapi.json is its committed copy."""
    import orjson

    from service.openapi import document

    typer.echo(orjson.dumps(document(), option=orjson.OPT_INDENT_2).decode())


if __name__ == "__main__":  # a worker process imports this file under another name, and needs no commands
    from pydantic import ValidationError

    from retrieval import logs
    from retrieval.settings import explained

    logs.configure()  # to standard error: standard output is for answers
    # What the operator's commands import would settle where metrics go before `serve` has said it.
    if sys.argv[1:2] != ["serve"]:
        from service.operator import mount

        mount(cli)
    try:
        cli()
    except ValidationError as error:
        sys.stderr.write(f"service: {explained(error)}\n")
        sys.exit(2)
