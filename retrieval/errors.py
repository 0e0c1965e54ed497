"""Everything that can go wrong on purpose, in one tree.

FeedError
├── InvalidInput       the caller sent something that cannot be accepted; names every field and what is allowed
├── NotFound           no such tenant, video, key, policy version
├── AlreadyExists      the id is taken
├── VersionMismatch    somebody else published first (optimistic locking)
├── RateLimited        more requests than the stated rate
├── StoreUnavailable   a store cannot answer now; the same call may work later
├── SnapshotCorrupt    a file of a snapshot is not what its manifest says
├── StaleGeneration    a newer generation is already published
└── LeaseLost          the lease ran out or went to another holder
"""

# The names say what happened; an "Error" at the end of each would say it twice.

from collections.abc import Sequence
from dataclasses import dataclass


class FeedError(Exception):
    """Base of every error this project raises on purpose; its text may be shown to an operator."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with an input: `pointer` is the JSON pointer (RFC 6901) of the field, "" for the whole."""

    pointer: str
    message: str


class InvalidInput(FeedError):
    """The input breaks a stated limit. `problems` is never empty."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(f"{problem.pointer or '(input)'}: {problem.message}" for problem in problems))
        self.problems = tuple(problems)


class NotFound(FeedError):
    """The thing does not exist, or belongs to another tenant: the two must look the same."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"no such {kind}: {name[:80]!r}")
        self.kind = kind


class AlreadyExists(FeedError):
    """The id is taken."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"{kind} exists already: {name[:80]!r}")
        self.kind = kind


class VersionMismatch(FeedError):
    """The caller's `expected` version is not the `current` one; nothing was written."""

    def __init__(self, expected: int, current: int) -> None:
        super().__init__(f"expected version {expected}, but version {current} is current")
        self.expected = expected
        self.current = current


class RateLimited(FeedError):
    """More requests than the stated rate; the next one is answered in `retry_after_s`, at least 1."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"too many requests; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class StoreUnavailable(FeedError):
    """A store (SQL, Redis, object storage) cannot answer now. Nothing of the failed call was stored.

    `disk_full` tells the one case that no retry heals from those that a retry may.
    """

    def __init__(self, message: str, *, disk_full: bool = False) -> None:
        super().__init__(message)
        self.disk_full = disk_full


class SnapshotCorrupt(FeedError):
    """A file of a snapshot is missing, short, or has another checksum than its manifest says."""


class StaleGeneration(FeedError):
    """A newer generation is published already; the older one must not replace it."""


class LeaseLost(FeedError):
    """The lease ran out or went to another holder: stop, and publish nothing more."""
