"""Rates of what asks Redis nothing before it is answered: cursor pages, pages under a flag, batches of events.

The same bucket as in `retrieval/limits.py` (the generic cell rate algorithm), kept in the worker's memory: a flood is
refused before its body is read, with Redis away too, for a microsecond each. The price: every worker counts by itself,
so with n workers somebody on many connections gets up to n times the rate.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from retrieval.errors import RateLimited
from retrieval.limits import MAX_WAIT_S, Rate

MOST_BUCKETS: Final = 50_000
"""Buckets kept at most, about 250 bytes each. With more in use than half of them, all are forgotten."""
FEW: Final = 1_000
"""Buckets among which the empty ones are not looked for."""


@dataclass
class LocalRates:
    """The buckets of one kind of request in one worker. `clock` gives seconds that never go back."""

    per_user: Rate
    per_key: Rate
    clock: Callable[[], float] = time.monotonic
    due_s: dict[str, float] = field(default_factory=dict)
    _look_at: int = FEW

    def charge(self, tenant: str, user_key: str | None, key_id: str) -> None:
        """Count one request of a user (None: anonymous, only the key counts) under a key.

        Raises RateLimited: the request takes nothing from either bucket then.
        """
        now_s = self.clock()
        key, user = f"key:{key_id}", f"{tenant}:{user_key}"
        key_due_s = self._due_s(key, self.per_key, now_s)
        if user_key is not None and self.per_user.per_s:
            self.due_s[user] = self._due_s(user, self.per_user, now_s)
        if self.per_key.per_s:
            self.due_s[key] = key_due_s
        if len(self.due_s) > self._look_at:
            self._forget(now_s)

    def _due_s(self, who: str, rate: Rate, now_s: float) -> float:
        """When everything asked for by now would have been due. Raises RateLimited."""
        if not rate.per_s:
            return now_s
        due_s = max(self.due_s.get(who, now_s), now_s) + 1 / rate.per_s
        wait_s = due_s - now_s - max(rate.burst, 1) / rate.per_s
        if wait_s > 1e-9:
            raise RateLimited(min(math.ceil(wait_s), MAX_WAIT_S))
        return due_s

    def _forget(self, now_s: float) -> None:
        """Forget the buckets that are empty by now: of most users, for few ask all the time."""
        self.due_s = {who: due_s for who, due_s in self.due_s.items() if due_s > now_s}
        if len(self.due_s) > MOST_BUCKETS // 2:  # a flood of made-up users: start over rather than search each time
            self.due_s.clear()
        # Twice as many as are in use: so each new bucket pays for a look at two.
        self._look_at = max(2 * len(self.due_s), FEW)
