"""The tag of a first page, from the versions of what goes into it; so a 304 needs one state read and no retrieval.

    W/"GENERATION.POLICY.USER.EPOCH.MODE.SEED"

USER is a checksum of what the user did, not of what was served to them: being served changes nothing, engagement does.
EPOCH counts the schedule edges that have passed. SEED is that of the order the client has: presenting the tag asks "is
this still right?", so it is answered with the client's own seed and not with the one a fresh request would get.
"""

from __future__ import annotations

import re
from typing import Final

import xxhash

from retrieval.journal import Journal, Signal
from retrieval.view import View

_TAG: Final = re.compile(r'(?:W/)?"([0-9a-z.]{1,120})\.([0-9a-f]{1,8})"')


def versions(view: View, journal: Journal, mode: str, *, now_s: int) -> str:
    """Everything a first page depends on but its seed."""
    engaged = journal[journal["signal"] != Signal.SERVED]
    user = xxhash.xxh3_64_hexdigest(engaged.tobytes()) if len(engaged) else "0"
    return f"{view.snapshot.generation}.{view.policy_version}.{user}.{view.epoch(now_s)}.{mode}"


def tag(versions: str, seed: int) -> str:
    """The ETag of a page made with `seed`."""
    return f'W/"{versions}.{seed:x}"'


def still_right(if_none_match: str | None, versions: str) -> str | None:
    """The tag among those the client presents that is still right, None if there is none."""
    for match in _TAG.finditer(if_none_match or ""):
        if match[1] == versions:
            return tag(versions, int(match[2], 16))
    return None
