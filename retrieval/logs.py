"""One designed log line per event: JSON where a machine reads, aligned text where a person watches. No personal data.

Callers log event names and facts (tenant, counts, milliseconds), never ids of users, addresses or header values;
docs/observability.md lists every event. What libraries say comes in the same form, as the event `library`.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Final, TextIO

import structlog
from structlog.types import EventDict, WrappedLogger

LIBRARIES_FROM: Final = logging.WARNING


def configure(*, stream: TextIO = sys.stderr, level: str = "INFO") -> None:
    """Set up logging for this process. `level` is a standard level name; raises KeyError for another."""
    steps: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Any] = [
        structlog.processors.format_exc_info,
        structlog.dev.ConsoleRenderer() if stream.isatty() else structlog.processors.JSONRenderer(),
    ]
    structlog.configure(
        processors=[*steps, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*steps, structlog.stdlib.add_logger_name, _as_event],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(handlers=[handler], level=LIBRARIES_FROM, force=True)
    logging.captureWarnings(True)


def _as_event(_logger: WrappedLogger, _method: str, facts: EventDict) -> EventDict:
    """A library's sentence as a fact of the event `library`."""
    return {**facts, "event": "library", "message": facts["event"]}
