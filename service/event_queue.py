"""The client's events until they are acknowledged: a file that is only ever appended to.

    {"user": "5f2d…", "event": {"id": "0190…", "type": "like", …}}      something happened
    {"done": ["0190…", …]}                                              the service has it

Whatever moment the app is killed at, the next start reads what is not done and sends it with the same ids; the service
knows by the id what it has. A line that was not written to its end is left out. When everything is done the file is
emptied.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

MOST: Final = 10_000
"""Events that wait at most; beyond, the oldest are given up."""


@dataclass(frozen=True)
class Waiting:
    """One event as it will be sent, and whose it is (None: nobody's)."""

    user: str | None
    event: dict[str, Any]


class EventQueue:
    """Events of one app in one file, opened for each line: there is nothing to close. One process at a time."""

    BATCH: ClassVar[int] = 100

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes() if path.exists() else b""
        self._path = path
        self._waiting: deque[Waiting] = deque(_read(content), MOST)
        if content and not content.endswith(b"\n"):
            self._write(b"\n")  # so that a torn last line does not swallow the next one

    def __len__(self) -> int:
        return len(self._waiting)

    def add(
        self,
        user: str | None,
        kind: str,
        *,
        item_id: str,
        request_id: str,
        position: int | None,
        value: float | None,
        at_s: float,
    ) -> str:
        """Note an event; its id. It is in the file when this returns: a killed process loses nothing."""
        event: dict[str, Any] = {
            "id": event_id(at_s),
            "type": kind,
            "item_id": item_id,
            "request_id": request_id,
            "occurred_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s)),
        }
        event |= {name: given for name, given in (("position", position), ("value", value)) if given is not None}
        self._waiting.append(Waiting(user, event))
        self._append({"user": user, "event": event})
        return str(event["id"])

    def batch(self, most: int = BATCH) -> list[Waiting]:
        """The oldest events of one user, at most `most`, in order."""
        user = self._waiting[0].user if self._waiting else None
        return [one for one in self._waiting if one.user == user][:most]

    def done(self, batch: Sequence[Waiting]) -> None:
        """Forget what was acknowledged."""
        ids = {one.event["id"] for one in batch}
        self._waiting = deque((one for one in self._waiting if one.event["id"] not in ids), MOST)
        if self._waiting:
            self._append({"done": sorted(ids)})
        else:
            self._path.write_bytes(b"")

    def _append(self, line: dict[str, Any]) -> None:
        self._write(json.dumps(line).encode() + b"\n")

    def _write(self, content: bytes) -> None:
        with self._path.open("ab") as file:
            file.write(content)


def event_id(at_s: float) -> str:
    """A UUIDv7 (RFC 9562): milliseconds, then chance. Made once per event, whatever becomes of its sending."""
    number = int(at_s * 1000) << 80 | int.from_bytes(os.urandom(10), "big")
    number = number & ~(0xF << 76) | 7 << 76
    digits = f"{number & ~(0b11 << 62) | 0b10 << 62:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _read(content: bytes) -> list[Waiting]:
    waiting: dict[str, Waiting] = {}
    for line in content.splitlines():
        try:
            entry = json.loads(line)
            if "done" in entry:
                for known in entry["done"]:
                    waiting.pop(known, None)
            else:
                waiting[entry["event"]["id"]] = Waiting(entry["user"], entry["event"])
        except (ValueError, KeyError, TypeError):
            continue  # torn by a crash
    return list(waiting.values())
