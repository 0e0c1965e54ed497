"""`migrate`: the step between a new release and its first process."""

from __future__ import annotations

from retrieval.database import migrate as bring_up_to_date
from service.operator.console import run
from service.settings import ServiceSettings


def migrate() -> None:
    """Bring the database to the schema of this release; safe to run twice, and in several places at once."""
    run(bring_up_to_date(ServiceSettings().database_url))
