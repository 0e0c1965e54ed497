"""Fixtures for every test come from these modules."""

from ranking.compiled import compile_all

pytest_plugins = [
    "tests.support.databases",
    "tests.support.redis_server",
    "tests.support.running",
    "tests.support.indexing",
    "tests.support.observed",
]


def pytest_collection_finish() -> None:
    """Compile before the first test, as a worker does before its first answer: no test shall pay for it."""
    compile_all()
