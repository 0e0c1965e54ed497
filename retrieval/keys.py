"""Every Redis key of the product. Nothing else makes a key.

| key                        | type   | expiry            | holds                                  | writer  | reader  |
|----------------------------|--------|-------------------|----------------------------------------|---------|---------|
| `j:{TENANT:USER}`          | string | 90 days, sliding  | journal: 12-byte entries, newest last  | service | service |
| `d:{TENANT:USER}:EVENT`    | string | 48 h              | an event id that was taken             | service | service |
| `n:TENANT:CHAIN`           | string | 2 h, sliding      | item numbers a cursor chain has had    | service | service |
| `c:TENANT:HOUR`            | hash   | 8 days            | counters: `ITEM:SIGNAL` -> sum         | service | service |
| `flags`                    | hash   | none              | mirror of SQL's flags: TENANT -> flag  | service | service |

TENANT is a tenant id, USER the re-keyed user id (32 hex digits), CHAIN 16 random hex digits, HOUR unix seconds / 3600.
The braces are a Redis Cluster hash tag: all keys of one user live in one slot, so one script may touch them together.
"""

from __future__ import annotations

FLAGS = "flags"


def journal(tenant: str, user_key: str) -> str:
    return f"j:{{{tenant}:{user_key}}}"


def event(tenant: str, user_key: str, event_id: str) -> str:
    return f"d:{{{tenant}:{user_key}}}:{event_id}"


def counters(tenant: str, hour: int) -> str:
    return f"c:{tenant}:{hour}"


def chain(tenant: str, chain: str) -> str:
    return f"n:{tenant}:{chain}"
