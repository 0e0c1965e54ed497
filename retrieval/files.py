"""Writing files so that a reader, a crash or a full disk never meets half of one."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import xxhash

SMALL = 4096
"""Bytes; what we write to such a file is far less."""


def write_atomically(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replace `path` by `content` in one step: written beside it, flushed to disk, then renamed over it."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def small(path: str) -> bytes:
    """The first SMALL bytes of a file, for those that are read many times a second: a third of what `Path` takes.

    Raises OSError.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, SMALL)
    finally:
        os.close(descriptor)


def mapped(path: Path) -> mmap.mmap:
    """A file as read-only memory, shared with whoever maps it too; it stays readable after its name is gone.

    Raises OSError, and ValueError for an empty file.
    """
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def checksum(content: bytes | memoryview | mmap.mmap) -> str:
    """xxh3-128 in hex: finds damage, not malice. So much faster than SHA-256 that every opening verifies every byte."""
    return xxhash.xxh3_128_hexdigest(content)
