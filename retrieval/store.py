"""Where snapshots are kept, and how a new generation replaces the old one without anyone seeing half of it.

    TENANT/CURRENT                     the newest generation's number and the checksum of its manifest
    TENANT/generations/00000012-….json a manifest: what the generation consists of; its checksum is in its name
    TENANT/segments/base-…, fresh-…    immutable segments, shared by the generations that name them
    TENANT/models/00000003-….model     what was learned from behaviour (`retrieval/models.py`); a generation names one

Publishing writes segments and manifest beside what is there, then replaces CURRENT: one rename. It is a compare and
swap on the generation number, so an indexer that slept through another one's publish cannot put an older one on top.
The generations before the newest stay for a while: who starts while the newest is damaged serves the one before, and
a page that was served from one of them can be made again (`service.replay`).
"""

from __future__ import annotations

import fcntl
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import orjson

from retrieval.behaviour import Behaviour
from retrieval.errors import SnapshotCorrupt, StaleGeneration
from retrieval.files import checksum, small, write_atomically
from retrieval.models import Learned, Models
from retrieval.segment import Segment
from retrieval.snapshot import Snapshot

FORMAT = 1
FIRST_RATINGS = 1
"""The table of ratings of generations that do not say which."""

Pointer = tuple[int, str]
"""(generation, checksum of its manifest): what CURRENT says."""


@dataclass(frozen=True)
class Manifest:
    """One generation: `segments` (name, checksum), base first; `dead` items of the base; 0 segments is an empty tenant.

    `version` is the catalogue version covered, `created_s` unix seconds, `model` what made the vectors of texts;
    `learned` the model of behaviour they are joined with, None for texts alone. `dim` is that of the rows, `ratings` is
    the `ranking.maturity.TABLE_VERSION` by which they have their minimum ages.
    """

    tenant: str
    generation: int
    version: int
    model: str
    dim: int
    created_s: int
    segments: tuple[tuple[str, str], ...] = ()
    dead: tuple[int, ...] = ()
    learned: Learned | None = None
    ratings: int = FIRST_RATINGS
    format: int = FORMAT

    def dumps(self) -> bytes:
        return orjson.dumps(asdict(self))

    @staticmethod
    def loads(content: bytes) -> Manifest:
        facts = orjson.loads(content)
        if facts.get("format") != FORMAT:
            raise SnapshotCorrupt(f"manifest format {facts.get('format')!r}, this program reads {FORMAT}")
        facts["segments"] = tuple((name, sum_) for name, sum_ in facts["segments"])
        learned = facts.get("learned")
        facts["learned"] = (int(learned[0]), str(learned[1])) if learned else None
        return Manifest(**{**facts, "dead": tuple(facts["dead"])})


class Store:
    """The snapshots of all tenants in one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.models = Models(root)
        self._named: dict[tuple[str, Pointer], frozenset[str]] = {}

    def pointer(self, tenant: str) -> Pointer | None:
        """What CURRENT names, None for a tenant that was never published. Costs one small read.

        Raises SnapshotCorrupt if CURRENT cannot be read as such, or is gone although there are generations.
        """
        try:
            return _pointer_in(small(f"{self.root}/{tenant}/CURRENT"))
        except FileNotFoundError as error:
            if any(generation > 1 for generation, _ in self.kept(tenant)):  # 1 alone: the very first publish, half-way
                raise SnapshotCorrupt(f"{tenant}/CURRENT is gone") from error
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SnapshotCorrupt(f"{tenant}/CURRENT: {error}") from error

    def kept(self, tenant: str) -> list[Pointer]:
        """The generations that are on disk, newest first. The first may be one that never became CURRENT: its indexer
        was killed just before."""
        names = [path.stem.partition("-") for path in (self.root / tenant / "generations").glob("[0-9]*-*.json")]
        return sorted(((int(number), sum_) for number, _, sum_ in names if number.isdecimal()), reverse=True)

    def newest_generation(self, tenant: str) -> int:
        """The number of the newest generation, 0 if there was none. An unreadable CURRENT does not stop publishing
        for ever: the manifests say then which generation was last."""
        try:
            pointer = self.pointer(tenant)
        except SnapshotCorrupt:
            pointer = next(iter(self.kept(tenant)), None)
        return pointer[0] if pointer else 0

    def manifest(self, tenant: str, pointer: Pointer) -> Manifest:
        """The verified manifest of a generation. Raises SnapshotCorrupt."""
        generation, expected = pointer
        try:
            content = self._manifest_path(tenant, pointer).read_bytes()
        except OSError as error:
            raise SnapshotCorrupt(f"{tenant} generation {generation}: {error}") from error
        if checksum(content) != expected:
            raise SnapshotCorrupt(f"{tenant} generation {generation}: manifest differs from its checksum")
        manifest = Manifest.loads(content)
        if manifest.tenant != tenant:
            raise SnapshotCorrupt(f"{tenant} generation {generation}: manifest belongs to another tenant")
        return manifest

    def current(self, tenant: str) -> Manifest | None:
        """The newest manifest, None for a tenant that was never published. Raises SnapshotCorrupt."""
        pointer = self.pointer(tenant)
        return None if pointer is None else self.manifest(tenant, pointer)

    def open(self, manifest: Manifest, previous: Snapshot | None = None) -> Snapshot:
        """The snapshot a manifest describes; segments that `previous` has open already are taken over as they are.

        Raises SnapshotCorrupt if any byte of any file differs from what was written.
        """
        known = {segment.name: segment for segment in previous.segments} if previous else {}
        segments = tuple(
            known[name] if name in known else Segment.open(self._segment_path(manifest.tenant, name), expected)
            for name, expected in manifest.segments
        )
        learned = self._learned(manifest, previous)
        if any(segment.index.d != manifest.dim for segment in segments) or (learned and learned.dim != manifest.dim):
            raise SnapshotCorrupt(f"{manifest.tenant} generation {manifest.generation}: dimensions differ")
        return Snapshot(
            manifest.tenant,
            manifest.generation,
            manifest.version,
            manifest.model,
            manifest.dim,
            segments,
            np.array(manifest.dead, np.uint32),
            learned,
        )

    def _learned(self, manifest: Manifest, previous: Snapshot | None) -> Behaviour | None:
        if manifest.learned is None:
            return None
        known = previous.learned if previous else None
        if known is not None and known.number == manifest.learned[0]:
            return known
        return self.models.read(manifest.tenant, manifest.learned)

    def new_segment_path(self, tenant: str, kind: str) -> Path:
        """A folder name nobody else uses, also when two indexers write at once."""
        return self._segment_path(tenant, f"{kind}-{os.urandom(6).hex()}")

    def publish(self, manifest: Manifest) -> Pointer:
        """Make `manifest` the newest generation, if the one before it still is; what CURRENT then says.

        Raises StaleGeneration when CURRENT is not `manifest.generation - 1`, SnapshotCorrupt when a segment it names is
        not there, OSError (disk full): CURRENT is as before.
        """
        content = manifest.dumps()
        pointer = manifest.generation, checksum(content)
        folder = self.root / manifest.tenant
        (folder / "generations").mkdir(parents=True, exist_ok=True)
        with self._locked(manifest.tenant):
            newest = self.newest_generation(manifest.tenant)
            if manifest.generation != newest + 1:
                raise StaleGeneration(
                    f"{manifest.tenant}: generation {manifest.generation} is not next, {newest} is published"
                )
            if manifest.learned and not self.models.path(manifest.tenant, manifest.learned).exists():
                raise SnapshotCorrupt(f"{manifest.tenant}: model {manifest.learned[0]} is gone, it cannot be published")
            for name, _ in manifest.segments:
                if not self._segment_path(manifest.tenant, name).exists():
                    raise SnapshotCorrupt(f"{manifest.tenant}: segment {name} is gone, it cannot be published")
            write_atomically(self._manifest_path(manifest.tenant, pointer), content)
            current = {"generation": manifest.generation, "checksum": pointer[1]}
            write_atomically(folder / "CURRENT", orjson.dumps(current))
        return pointer

    def sweep(
        self,
        tenant: str,
        *,
        now_s: float,
        keep: int = 3,
        grace_s: float = 120.0,
        keep_s: float = 0.0,
        keep_bytes: float = math.inf,
    ) -> int:
        """Delete what no recent generation names: all but CURRENT, the newest `keep` manifests and those that were
        CURRENT in the last `keep_s`, and segments only they had. Of the latter, what goes beyond `keep_bytes` of
        segments goes too, oldest first.

        Nothing younger than `grace_s` goes: a reader may be opening it, an indexer may be about to publish it.
        An opened snapshot stays readable after its files are gone. Returns how many folders and files went, none while
        a manifest cannot be read, because it may name any of them.
        """
        kept, before_s = self.kept(tenant), now_s - grace_s
        try:
            current = self.pointer(tenant)
            over = self._over(tenant, kept, keep, before_s=now_s - keep_s, keep_bytes=keep_bytes)
            old = [one for one in over if one != current and _older(self._manifest_path(tenant, one), before_s)]
            named = {name for pointer in kept if pointer not in old for name in self._segments_of(tenant, pointer)}
        except SnapshotCorrupt:
            return 0
        segments = self.root / tenant / "segments"
        found = segments.iterdir() if segments.exists() else ()
        doomed = [path for path in found if path.name not in named and _older(path, before_s)]
        for pointer in old:
            self._manifest_path(tenant, pointer).unlink(missing_ok=True)
            self._named.pop((tenant, pointer), None)
        for path in doomed:
            shutil.rmtree(path, ignore_errors=True)
        return len(old) + len(doomed)

    def _over(
        self, tenant: str, kept: Sequence[Pointer], keep: int, *, before_s: float, keep_bytes: float
    ) -> list[Pointer]:
        """The pointers behind the first `keep` that were replaced before then, or that there is no room for."""
        held = {name for pointer in kept[:keep] for name in self._segments_of(tenant, pointer)}
        over, spent = [], 0
        for newer, pointer in zip(kept[keep - 1 :], kept[keep:], strict=False):
            own = self._segments_of(tenant, pointer) - held
            held |= own
            spent += sum(_bytes_of(self._segment_path(tenant, name)) for name in own)
            if spent > keep_bytes or _older(self._manifest_path(tenant, newer), before_s):
                over.append(pointer)
        return over

    def _segments_of(self, tenant: str, pointer: Pointer) -> frozenset[str]:
        """The segments that a generation names; read once, for there may be thousands. Raises SnapshotCorrupt."""
        if (tenant, pointer) not in self._named:
            self._named[tenant, pointer] = frozenset(name for name, _ in self.manifest(tenant, pointer).segments)
        return self._named[tenant, pointer]

    def forget(self, tenant: str) -> None:
        """Delete all snapshots of a tenant."""
        shutil.rmtree(self.root / tenant, ignore_errors=True)

    def _manifest_path(self, tenant: str, pointer: Pointer) -> Path:
        generation, sum_ = pointer
        return self.root / tenant / "generations" / f"{generation:08d}-{sum_}.json"

    def _segment_path(self, tenant: str, name: str) -> Path:
        return self.root / tenant / "segments" / name

    @contextmanager
    def _locked(self, tenant: str) -> Iterator[None]:
        descriptor = os.open(self.root / tenant / ".publish.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


@lru_cache(maxsize=4096)
def _pointer_in(current: bytes) -> Pointer:
    """What a CURRENT of these bytes names. Raises ValueError, KeyError, TypeError for anything else."""
    facts = orjson.loads(current)
    return int(facts["generation"]), str(facts["checksum"])


def _older(path: Path, than_s: float) -> bool:
    try:
        return path.stat().st_mtime < than_s
    except FileNotFoundError:
        return False


@lru_cache(maxsize=16_384)
def _bytes_of(segment: Path) -> int:
    """What a segment takes on the disk, 0 when it is gone. Segments never change, so each is measured once."""
    try:
        return sum(file.stat().st_size for file in segment.iterdir())
    except FileNotFoundError:
        return 0
