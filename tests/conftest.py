"""Fixtures for every test come from these modules."""

pytest_plugins = [
    "tests.support.databases",
    "tests.support.redis_server",
    "tests.support.running",
    "tests.support.indexing",
    "tests.support.observed",
]
