"""What ranking refuses.

ValueError
└── PolicyError      a policy document with every problem found in it
"""

from collections.abc import Sequence
from typing import NamedTuple


class Problem(NamedTuple):
    """One thing wrong with a policy document."""

    pointer: str
    """Where, as a JSON pointer (RFC 6901); "" is the whole document."""
    problem: str
    """What is there, and why it is refused."""
    allowed: str
    """What may stand there instead."""

    def __str__(self) -> str:
        return f"{self.pointer or '(document)'}: {self.problem}; allowed: {self.allowed}"


class PolicyError(ValueError):
    """The document is refused whole. `problems` lists everything wrong with it, in document order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))
