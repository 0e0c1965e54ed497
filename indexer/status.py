"""What an operator asks: is every tenant's published snapshot what its catalogue says, and if not, why not."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from retrieval.catalogue import Catalogue
from retrieval.errors import SnapshotCorrupt
from retrieval.files import write_atomically
from retrieval.store import Manifest, Store


@dataclass(frozen=True)
class TenantStatus:
    """One tenant. `lag_s`: how long the oldest change that is not published has been waiting; 0 when there is none.

    `published_s`: when the published snapshot was made, unix seconds. `index_bytes`: what its snapshots take on disk.
    """

    tenant: str
    items: int
    quarantined: int
    wanted: int
    published: int | None
    generation: int
    model: str
    published_s: int | None
    index_bytes: int
    lag_s: float
    last_error: str
    stale: bool

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


async def status(
    catalogue: Catalogue, store: Store, *, stale_s: float, now_s: float | None = None
) -> list[TenantStatus]:
    """One line per active tenant, by id. Raises StoreUnavailable when the catalogue cannot answer."""
    now_s = time.time() if now_s is None else now_s
    return [
        await _of(catalogue, store, tenant, wanted, stale_s=stale_s, now_s=now_s)
        for tenant, wanted in sorted((await catalogue.versions()).items())
    ]


async def _of(
    catalogue: Catalogue, store: Store, tenant: str, wanted: int, *, stale_s: float, now_s: float
) -> TenantStatus:
    error = read_failure(store, tenant)
    manifest: Manifest | None = None
    try:
        manifest = store.current(tenant)
    except SnapshotCorrupt as corrupt:
        error = str(corrupt)
    waiting_since_s = await catalogue.waiting_since_s(tenant, manifest.version if manifest else 0)
    lag_s = max(0.0, now_s - waiting_since_s) if waiting_since_s is not None else 0.0
    counts = await catalogue.counts(tenant)
    return TenantStatus(
        tenant=tenant,
        items=counts["published"],
        quarantined=counts["quarantined"],
        wanted=wanted,
        published=manifest.version if manifest else None,
        generation=manifest.generation if manifest else 0,
        model=manifest.model if manifest else "",
        published_s=manifest.created_s if manifest else None,
        index_bytes=_bytes_below(store.root / tenant),
        lag_s=lag_s,
        last_error=error,
        stale=manifest is None or lag_s > stale_s,
    )


def _bytes_below(folder: Path) -> int:
    """Size of all files; one that goes meanwhile counts nothing."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def record_failure(store: Store, tenant: str, error: BaseException) -> None:
    """Remember why a tenant could not be brought up to date, until it is."""
    path = _failure_path(store, tenant)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, orjson.dumps({"error": f"{type(error).__name__}: {error}"[:500], "at_s": int(time.time())}))


def clear_failure(store: Store, tenant: str) -> None:
    _failure_path(store, tenant).unlink(missing_ok=True)


def read_failure(store: Store, tenant: str) -> str:
    """The remembered failure, "" if there is none."""
    try:
        return str(orjson.loads(_failure_path(store, tenant).read_bytes())["error"])
    except (FileNotFoundError, ValueError, KeyError):
        return ""


def _failure_path(store: Store, tenant: str) -> Path:
    return store.root / tenant / "last_error.json"
