"""Learned models of behaviour on disk: TENANT/models/00000003-CHECKSUM.model, beside the snapshots that name them.

A model is written before the generation that is joined with it and never changes. Which one is in effect, its
generation's manifest says; so a model and its rows are published, and taken back, in one step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from retrieval.behaviour import Behaviour, read
from retrieval.files import checksum, write_atomically

Learned = tuple[int, str]
"""(number of a model, checksum of its file)."""

KEPT: Final = 10
"""Models that can be gone back to."""


class Models:
    """The models of all tenants in one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def kept(self, tenant: str) -> list[Learned]:
        """The models on disk, newest first, published or not."""
        names = [path.stem.partition("-") for path in (self.root / tenant / "models").glob("[0-9]*-*.model")]
        return sorted(((int(number), sum_) for number, _, sum_ in names if number.isdecimal()), reverse=True)

    def next_number(self, tenant: str) -> int:
        """A number no model of the tenant has."""
        return max((number for number, _ in self.kept(tenant)), default=0) + 1

    def path(self, tenant: str, learned: Learned) -> Path:
        number, sum_ = learned
        return self.root / tenant / "models" / f"{number:08d}-{sum_}.model"

    def write(self, tenant: str, behaviour: Behaviour) -> Learned:
        """Put a model beside the others. Raises OSError (disk full)."""
        content = behaviour.dumps()
        learned = behaviour.number, checksum(content)
        self.path(tenant, learned).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path(tenant, learned), content)
        return learned

    def sweep(self, tenant: str, *, in_use: set[Learned]) -> int:
        """Delete all but the newest KEPT and those in use; how many went."""
        doomed = [one for one in self.kept(tenant)[KEPT:] if one not in in_use]
        for one in doomed:
            self.path(tenant, one).unlink(missing_ok=True)
        return len(doomed)

    def read(self, tenant: str, learned: Learned) -> Behaviour:
        """A model. Raises SnapshotCorrupt."""
        return read(self.path(tenant, learned), learned[1])
