"""Log lines: one JSON object each, from our own code and from libraries alike."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from retrieval import logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where this process logs to while the test runs."""
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    written = io.StringIO()
    logging.captureWarnings(False)  # another test may have configured this process for a command
    logs.configure(stream=written)
    yield written
    logging.captureWarnings(False)
    root.handlers[:], root.level = handlers, level
    structlog.configure(**before)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """What was written, line by line."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_our_own_line_has_event_facts_level_and_time(stream: io.StringIO) -> None:
    """And a traceback is one string of it."""
    log = structlog.get_logger("test").bind()
    log.info("published", tenant="acme", items=3)
    try:
        raise ValueError("broken\nin two")
    except ValueError as error:
        log.error("failed", exc_info=error)
    published, failed = lines(stream)
    assert published.pop("timestamp").endswith("Z")
    assert published == {"event": "published", "level": "info", "tenant": "acme", "items": 3}
    assert "ValueError: broken" in failed["exception"]


def test_a_librarys_sentence_is_a_fact(stream: io.StringIO) -> None:
    """Under one event, with the library's name; what is less than a warning is left out."""
    logging.getLogger("some.library").warning("Invalid HTTP request %s", "received.")
    logging.getLogger("some.library").info("Started")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", UserWarning, stacklevel=1)
    invalid, warned = lines(stream)
    assert (invalid["event"], invalid["logger"], invalid["message"]) == (
        "library",
        "some.library",
        "Invalid HTTP request received.",
    )
    assert (warned["logger"], warned["level"]) == ("py.warnings", "warning")
    assert "old" in warned["message"]


def test_a_level_nobody_knows_is_refused() -> None:
    """A typing error is not taken for silence."""
    with pytest.raises(KeyError):
        logs.configure(stream=io.StringIO(), level="LOUD")
