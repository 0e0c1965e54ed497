"""The operator's commands: `python -m service tenants | keys | policy | flags | kill | …`.

They speak to the stores and not to the service, so that they also work while it is down. Every list is a table for a
person and, with --json, one JSON value for a program. Exit status 0 = done, 1 = answered no, 2 = could not be done.
"""

from __future__ import annotations

import typer

from service.operator.bulk import export, import_
from service.operator.flags import flags, kill, revive
from service.operator.listings import listings
from service.operator.migrate import migrate
from service.operator.policies import policy
from service.operator.replay import replay
from service.operator.report import report
from service.operator.status import audit, status
from service.operator.tenants import keys, tenants


def mount(cli: typer.Typer) -> None:
    """Add the operator's commands."""
    for name, group in (
        ("tenants", tenants),
        ("keys", keys),
        ("policy", policy),
        ("flags", flags),
        ("listings", listings),
    ):
        cli.add_typer(group, name=name)
    for name, command in (
        ("kill", kill),
        ("revive", revive),
        ("status", status),
        ("report", report),
        ("replay", replay),
        ("audit", audit),
        ("import", import_),
        ("export", export),
        ("migrate", migrate),
    ):
        cli.command(name)(command)
