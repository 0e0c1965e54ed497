"""One designed log line per event: JSON where a machine reads, aligned text where a person watches. No personal data.

Callers log event names and facts (tenant, counts, milliseconds), never ids of users, addresses or header values.
"""

from __future__ import annotations

import sys
from typing import Any, TextIO

import structlog


def configure(*, stream: TextIO = sys.stderr, level: str = "INFO") -> None:
    """Set up structlog for this process. `level` is a standard level name; raises ValueError for another."""
    watched = stream.isatty()
    steps: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        structlog.dev.ConsoleRenderer() if watched else structlog.processors.JSONRenderer(),
    ]
    structlog.configure(
        processors=steps,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
