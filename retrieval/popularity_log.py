"""Which popularity was published when: every version of the last day, so that a page can be made again.

    TENANT/popularity/00494027-5f2c81aa.log     one file per hour (unix seconds / 3600) and writer
    record: version 16 bytes | whole 1 | length 4 | zlib of the rows

The first record of a file holds all rows, the others only those that differ from the record before: what has been
counted changes a little every few seconds, and all of it when an hour ends. Only the indexer writes; a version is in
the file before the service can read of it.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from retrieval.counters import HOUR_S, WINDOWS, Windows, version_of
from retrieval.errors import NotFound
from retrieval.journal import DAY_S

KEPT_S: Final = DAY_S + HOUR_S
"""A version is in use for a while after it was published: at most until the next hour's."""
_HEAD: Final = struct.Struct("<16s?I")
_NOTHING: Final[Windows] = np.zeros(0, WINDOWS)
_LEVEL: Final = 1
"""Of zlib: the next ones take three times as long and save a fifth."""


class PopularityLog:
    """The versions of every tenant, in the folders of their snapshots (`root`)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._last: dict[str, tuple[Path, Windows]] = {}

    def keep(self, tenant: str, windows: Windows, *, now_s: float) -> None:
        """Note what is about to be published, and delete the hours that are over KEPT_S old. Raises OSError."""
        version, hour = version_of(windows), f"{int(now_s) // HOUR_S:08d}"
        path, before = self._last.get(tenant, (None, _NOTHING))
        if path is not None and path.name.startswith(hour):
            if version == version_of(before):
                return
            rows = _differing(before, windows)
        else:
            path = self._begun(tenant, hour, now_s)
            rows = None
        content = zlib.compress((windows if rows is None else rows).tobytes(), _LEVEL)
        with path.open("ab") as log:
            log.write(_HEAD.pack(version.encode(), rows is None, len(content)) + content)
        self._last[tenant] = path, windows

    def forget(self, tenant: str) -> None:
        """Begin with a new file next time: the tenant's folder goes."""
        self._last.pop(tenant, None)

    def find(self, tenant: str, version: str) -> Windows:
        """The rows of a version; none for "". Raises NotFound, also for what an older program kept of other windows."""
        if not version:
            return _NOTHING
        for path in sorted(self._folder(tenant).glob("*.log"), reverse=True):
            windows = _NOTHING
            for name, whole, rows in _records(path.read_bytes()):
                windows = rows if whole else _replaced(windows, rows)
                if name == version == version_of(windows):
                    return windows
        raise NotFound("popularity", version)

    def _folder(self, tenant: str) -> Path:
        return self.root / tenant / "popularity"

    def _begun(self, tenant: str, hour: str, now_s: float) -> Path:
        """A new file, after what is too old has gone; the newest stays however old it is: it may still be in use."""
        self._folder(tenant).mkdir(parents=True, exist_ok=True)
        for path in sorted(self._folder(tenant).glob("*.log"))[:-1]:
            if (int(path.stem.partition("-")[0]) + 1) * HOUR_S < now_s - KEPT_S:
                path.unlink(missing_ok=True)
        return self._folder(tenant) / f"{hour}-{os.urandom(4).hex()}.log"


def _differing(before: Windows, windows: Windows) -> Windows | None:
    """Rows of `windows` that are not in `before`; None when an item of `before` has gone."""
    if not np.isin(before["item"], windows["item"]).all():
        return None
    if not len(before):
        return windows
    place = np.searchsorted(before["item"], windows["item"]).clip(max=len(before) - 1)
    rows: Windows = windows[before[place] != windows]
    return rows


def _replaced(before: Windows, rows: Windows) -> Windows:
    """`before` with `rows` in place of the rows of the same items, ordered by item."""
    kept = before[~np.isin(before["item"], rows["item"])]
    together = np.concatenate([kept, rows])
    return together[np.argsort(together["item"], kind="stable")]


def _records(content: bytes) -> Iterator[tuple[str, bool, Windows]]:
    """(version, whole or not, rows) of each record; what cannot be read ends them: a killed writer's last one."""
    at = 0
    while at + _HEAD.size <= len(content):
        version, whole, length = _HEAD.unpack_from(content, at)
        at += _HEAD.size + length
        try:
            yield version.decode(), whole, np.frombuffer(zlib.decompress(content[at - length : at]), WINDOWS)
        except (zlib.error, ValueError):
            return
