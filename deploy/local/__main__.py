"""`python -m deploy.local up`: what `make run` runs."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from typing import Annotated

import typer

from deploy.local.errors import StartError
from deploy.local.processes import end_with_parent
from deploy.local.up import Options, until_signalled
from retrieval.errors import FeedError

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

Port = Annotated[int, typer.Option(min=1, max=65535)]


@app.callback()
def commands() -> None:
    """The whole product on one machine, with a demo of real videos."""


@app.command()
def up(
    port: Port = 8080,
    health_port: Annotated[int, typer.Option(min=0, max=65535, help="0 = the port after --port")] = 0,
    redis_port: Port = 6390,
    workers: Annotated[int, typer.Option(min=1, max=64, help="service processes")] = 2,
    folder: Annotated[Path, typer.Option(help="where everything that is written goes")] = Path("var"),
    videos_per_tenant: Annotated[int, typer.Option(min=0, help="fewer videos start faster; 0 = all")] = 0,
    stop_with_parent: Annotated[bool, typer.Option(help="end when the program that started this one ends")] = False,
) -> None:
    """Start Redis, indexer and service on 127.0.0.1 with a demo of real videos; Ctrl-C stops them."""
    if stop_with_parent:
        end_with_parent()
    options = Options(folder, port, health_port or port + 1, redis_port, workers, videos_per_tenant)
    try:
        asyncio.run(until_signalled(options))
    except (StartError, FeedError) as error:
        _fail(str(error))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _fail(f"the disk of {folder.resolve()} is full: free some space, then start again; nothing is lost")


def _fail(message: str) -> None:
    typer.echo(f"\n{message}", err=True)
    raise typer.Exit(1)


if __name__ == "__main__":
    app()
