"""The cursor: the rest of a frozen list, carried by the client. Later pages need no Redis and no index for it.

    token = base64url( key id 4 | day 2 | nonce 12 | AES-256-GCM( contents ) )

Encrypted, so that an app cannot read why something was recommended; authenticated together with tenant and user, so
that a changed or borrowed cursor is refused. Each day has its own key, derived from the secret: random nonces stay far
below the 2^32 messages that AES-GCM allows one key. Rotating the secret: put the new one in front, keep the old one
behind it for a day.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from retrieval.errors import FeedError

LIFETIME_S: Final = 3600
MAX_CHARS: Final = 2048
DAY_S: Final = 86_400
_PREFIX: Final = struct.Struct("<4sH12s")
_HEAD: Final = struct.Struct("<B8sIIBfIHH")
"""Version (and _FINAL), chain, made_s, seed, mode, chance, before, offset, number of items."""
_VERSION: Final = 1
_FINAL: Final = 0x80


class BadCursor(FeedError):
    """The cursor was not made by us for this tenant and user, or was changed."""


class Frozen(NamedTuple):
    """A list made once and read page by page.

    items uint32[n], reasons uint8[n] (positions in `ranking.rank.REASONS`); `chance` is the propensity of its explored
    items; `offset` of them were delivered, and `before` items of earlier lists of the same `chain`. `final`: nothing
    more was to be had when it was made.
    """

    chain: bytes
    made_s: int
    seed: int
    mode: int
    chance: float
    before: int
    offset: int
    final: bool
    items: npt.NDArray[np.uint32]
    reasons: npt.NDArray[np.uint8]

    @property
    def left(self) -> int:
        return len(self.items) - self.offset


class Cursors:
    """Seals and opens cursors. `secrets`: the newest first; each at least 16 bytes."""

    def __init__(self, secrets: Sequence[bytes]) -> None:
        if not secrets or any(len(secret) < 16 for secret in secrets):
            raise ValueError("cursor secrets must have 16 bytes or more, and there must be one")
        self._secrets = {hashlib.sha256(b"cursor key id" + secret).digest()[:4]: secret for secret in secrets}
        self._newest = next(iter(self._secrets))

    def seal(self, frozen: Frozen, tenant: str, user_key: str | None, *, now_s: int) -> str:
        """The token of a list for one tenant's user (None: anonymous)."""
        head = _HEAD.pack(
            _VERSION | (_FINAL if frozen.final else 0),
            frozen.chain,
            frozen.made_s,
            frozen.seed,
            frozen.mode,
            frozen.chance,
            frozen.before,
            frozen.offset,
            len(frozen.items),
        )
        content = head + frozen.items.astype("<u4").tobytes() + frozen.reasons.tobytes()
        day, nonce = now_s // DAY_S & 0xFFFF, os.urandom(12)
        sealed = _cipher(self._secrets[self._newest], day).encrypt(nonce, content, _bound_to(tenant, user_key))
        return urlsafe_b64encode(_PREFIX.pack(self._newest, day, nonce) + sealed).rstrip(b"=").decode()

    def open(self, token: str, tenant: str, user_key: str | None) -> Frozen:
        """The list in a token. Raises BadCursor; says nothing about why."""
        try:
            raw = _decoded(token)
            key_id, day, nonce = _PREFIX.unpack_from(raw)
            cipher = _cipher(self._secrets[key_id], day)
            content = cipher.decrypt(nonce, raw[_PREFIX.size :], _bound_to(tenant, user_key))
            version, chain, made_s, seed, mode, chance, before, offset, n = _HEAD.unpack_from(content)
        except (ValueError, KeyError, struct.error, InvalidTag) as error:
            raise BadCursor("the cursor is not one of ours for this user; start again without it") from error
        if version & ~_FINAL != _VERSION:
            raise BadCursor("the cursor is of another version; start again without it")
        items = np.frombuffer(content, "<u4", n, _HEAD.size)
        reasons = np.frombuffer(content, np.uint8, n, _HEAD.size + 4 * n)
        return Frozen(chain, made_s, seed, mode, chance, before, offset, bool(version & _FINAL), items, reasons)


def local_secret(path: Path) -> bytes:
    """The secret in a file of this machine, made at the first call; all workers find the same. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.urandom(6).hex()}")  # two containers may share folder and process id
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(os.urandom(32))
    try:
        os.link(beside, path)  # fails if another worker was first: then theirs is the one
    except FileExistsError:
        pass
    finally:
        beside.unlink()
    return path.read_bytes()


def _decoded(token: str) -> bytes:
    """The bytes of a token. Raises ValueError also for what the library would forgive: one token, one spelling."""
    if len(token) > MAX_CHARS:
        raise ValueError("too long")
    raw = urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
    if urlsafe_b64encode(raw).rstrip(b"=") != token.encode("ascii"):
        raise ValueError("not as we write it")
    return raw


@lru_cache(maxsize=64)
def _cipher(secret: bytes, day: int) -> AESGCM:
    return AESGCM(hmac.new(secret, b"cursor %d" % day, hashlib.sha256).digest())


def _bound_to(tenant: str, user_key: str | None) -> bytes:
    return f"{tenant}\0{user_key or ''}".encode()
