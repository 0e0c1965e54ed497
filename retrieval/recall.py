"""The last pages of each tenant, by request id, with what it takes to make them again: for those who ask why.

One capped stream per tenant in Redis, kept for an hour. It holds re-keyed user ids, so it is short on purpose: what
must last is the serve log's.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ranking.context import Context
from retrieval import keys
from retrieval.errors import NotFound, StoreUnavailable

KEPT_PAGES: Final = 1_000
KEPT_S: Final = 3_600
HINTS: Final = ("surface", "language", "country", "age_band", "max_age", "cohort", "seed")
"""What of a `Context` is kept; the rest is worked out from the journal."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One page as it was answered. `at_s` is when its list was made, `items` its item numbers in order."""

    request_id: str
    user_key: str | None
    at_s: int
    limit: int
    mode: str
    generation: int
    policy_version: str
    items: list[int]
    hints: dict[str, Any] = field(default_factory=dict)

    @property
    def context(self) -> Context:
        return Context(now_s=self.at_s, **self.hints)


class Recall:
    """The last pages in Redis. Every method raises StoreUnavailable."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def note(self, tenant: str, page: Answered) -> None:
        """Keep a page; the oldest of more than KEPT_PAGES goes."""
        key = keys.recall(tenant)
        try:
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.xadd(key, {b"p": orjson.dumps(asdict(page))}, maxlen=KEPT_PAGES, approximate=True)
            pipeline.expire(key, KEPT_S)
            await pipeline.execute()
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"recall: {type(error).__name__}") from error

    async def find(self, tenant: str, request_id: str) -> Answered:
        """The page of a request id. Raises NotFound when it is another tenant's, too old, or never was."""
        wanted = request_id.encode("utf-8", "replace")
        try:
            entries: Any = await self._redis.xrevrange(keys.recall(tenant))
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"recall: {type(error).__name__}") from error
        for _, fields in entries:
            if wanted in fields.get(b"p", b""):
                page = Answered(**orjson.loads(fields[b"p"]))
                if page.request_id == request_id:
                    return page
        raise NotFound("request of the last hour", request_id)
