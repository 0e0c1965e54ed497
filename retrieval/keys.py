"""Every Redis key of the product. Nothing else makes a key.

| key                            | type   | expiry           | holds                                       | writer           | reader           |
|--------------------------------|--------|------------------|---------------------------------------------|------------------|------------------|
| `j:{SHARD}:TENANT:USER`        | string | 90 days, sliding | journal: 12-byte entries, newest last       | service, indexer | service, indexer |
| `d:{SHARD}:TENANT:USER:DAY`    | set    | 3 days           | events taken that day: 64-bit hashes of ids | service          | service          |
| `t:{SHARD}:ERASED`             | string | 90 days          | tombstone of a user: unix seconds           | service, indexer | service          |
| `e:{SHARD}`                    | stream | 90 days, sliding | events and serves, until they are archived  | service          | indexer          |
| `c:{signals}:TENANT:HOUR`      | string | 8 days           | engagement per item of one hour             | indexer          | indexer          |
| `p:{signals}:TENANT`           | string | 8 days, sliding  | engagement per item and window              | indexer          | service          |
| `b:{signals}:TENANT`           | string | 400 days, sliding | what was counted in older hours, faded     | indexer          | indexer          |
| `o:{signals}`                  | hash   | 90 days, sliding | how far the counters have read each stream  | indexer          | indexer          |
| `w:{signals}`                  | string | 60 s, renewed    | whose archive the streams are drained into  | indexer          | indexer          |
| `q:{erasures}`                 | hash   | 90 days, sliding | erasures to do: ID -> whom                  | service          | indexer          |
| `r:{erasures}:ID`              | string | 90 days          | receipt of an erasure                       | service, indexer | service          |
| `n:TENANT:CHAIN`               | string | 2 h, sliding     | item numbers a cursor chain has had         | service          | service          |
| `l:TENANT:WHO`                 | string | seconds          | rate of a user or `key:ID`: when it is due  | service          | service          |
| `flags`                        | hash   | none             | mirror of SQL's flags: TENANT -> flag       | service          | service          |

TENANT is a tenant id, USER the re-keyed user id (32 hex digits, or `-` for everybody anonymous), ERASED a hash of both,
DAY and HOUR unix seconds / 86,400 and / 3,600, CHAIN 16 random hex digits, SHARD two hex digits made of tenant and user.

The braces are a Redis Cluster hash tag. All keys of one user and the stream their events go to are in one slot, so one
script can take an event, remember it and make it durable, or do none of it. There are always 64 shards: nodes come and
go by moving slots, never by moving users between shards.
"""  # noqa: E501 - a table is read in rows

from __future__ import annotations

import hashlib
import zlib
from types import MappingProxyType
from typing import Final

FLAGS: Final = "flags"
COUNTED: Final = "o:{signals}"
DRAINED_BY: Final = "w:{signals}"
COUNTERS_OF_TENANTS: Final = "[cp]:{signals}:*"
ERASURES: Final = "q:{erasures}"
SHARDS: Final = 64
ANONYMOUS: Final = "-"
"""In place of a user key: anonymous events and serves belong to nobody's journal."""
EVERYBODY: Final = "*"
"""In place of a user key: all users of a tenant, and what is kept of them together."""
PERSONAL: Final = ("j:", "d:", "e:", "t:", "q:", "r:")
"""What begins like this is about a user, and must have an expiry."""


def shard(tenant: str, user_key: str) -> int:
    """The shard of a user, 0 to SHARDS - 1. Part of what is stored: never change it."""
    return zlib.crc32(f"{tenant}:{user_key}".encode()) % SHARDS


def journal(tenant: str, user_key: str) -> str:
    return f"j:{{{shard(tenant, user_key):02x}}}:{tenant}:{user_key}"


def taken(tenant: str, user_key: str, day: int) -> str:
    return f"d:{{{shard(tenant, user_key):02x}}}:{tenant}:{user_key}:{day}"


def tombstone(tenant: str, user_key: str) -> str:
    """Named by a hash, so that even who was erased is forgotten."""
    erased = hashlib.blake2b(f"{tenant}:{user_key}".encode(), digest_size=16).hexdigest()
    return f"t:{{{shard(tenant, user_key):02x}}}:{erased}"


def stream(shard: int) -> str:
    return f"e:{{{shard:02x}}}"


def counts(tenant: str, hour: int) -> str:
    return f"c:{{signals}}:{tenant}:{hour}"


def windows(tenant: str) -> str:
    return f"p:{{signals}}:{tenant}"


def before(tenant: str) -> str:
    return f"b:{{signals}}:{tenant}"


def receipt(erasure_id: str) -> str:
    return f"r:{{erasures}}:{erasure_id}"


def rate(tenant: str, who: str) -> str:
    return f"l:{tenant}:{who}"


def chain(tenant: str, chain: str) -> str:
    return f"n:{tenant}:{chain}"


def user_of_journal(key: bytes) -> tuple[str, str]:
    """(tenant, user key) of a journal's key; a tenant id has no colon."""
    _, _, tenant, user_key = key.decode("ascii").split(":")
    return tenant, user_key


def tenant_of(key: bytes) -> str | None:
    """The tenant that a key names, None for a key of all tenants together."""
    kind, *parts = key.decode("ascii", "replace").split(":")
    at = _TENANT_AT.get(kind)
    return parts[at] if at is not None and at < len(parts) else None


_TENANT_AT: Final = MappingProxyType({"j": 1, "d": 1, "c": 1, "p": 1, "b": 1, "n": 0, "l": 0})
