"""What a cursor chain has had, so that no item comes twice however far somebody scrolls.

A cursor carries the list being read; of the lists before it only this log knows. It is written when a list is used up,
once per 200 items, in the same round trip that reads it. Not the journal: an anonymous user has none, and the journal
is capped.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from redis.asyncio import Redis
from redis.exceptions import RedisError

from retrieval import keys
from retrieval.roundtrip import RoundTrips, failure

EXPIRY_S = 2 * 3600


class Chains:
    """Logs of delivered items in Redis."""

    def __init__(self, redis: Redis) -> None:
        self.round_trips = RoundTrips(redis)

    async def had(self, tenant: str, chain: str, delivered: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        """Note `delivered` and return everything this chain has had, uint32[n], repeats possible.

        Asking twice with the same list is harmless. Less than was delivered in all means that the log was lost.
        Raises StoreUnavailable.
        """
        key = keys.chain(tenant, chain)
        try:
            answers = await self.round_trips.send(
                [("APPEND", key, delivered.astype("<u4").tobytes()), ("EXPIRE", key, EXPIRY_S), ("GET", key)]
            )
            for refused in (answer for answer in answers if isinstance(answer, RedisError)):
                raise refused
        except (RedisError, OSError, TimeoutError) as error:
            raise failure("chain", error) from error
        return np.frombuffer(answers[-1], "<u4")
