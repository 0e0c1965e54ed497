"""Who may work on a thing now, in SQL, with a fencing token that only grows.

A lease keeps two daemons from doing the same work; the token keeps a holder that slept through its lease from
publishing over its successor. Expiry compares clocks of different machines: a `ttl_s` of seconds forgives the skew
that NTP leaves, and the token forgives the rest.
"""

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncEngine

from retrieval.database import insert, writing
from retrieval.errors import LeaseLost
from retrieval.tables import LEASES

_NOBODY = ""


class Leases:
    """Named leases; each call is one statement. `holder` must differ for every process and every start of it."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def acquire(self, name: str, holder: str, ttl_s: int, now_s: int) -> int | None:
        """A token greater than every earlier one of this name, or None while somebody (also `holder`) has it."""
        async with writing(self._engine) as connection:
            values = {"name": name, "holder": holder, "expires_s": now_s + ttl_s, "token": 1}
            statement = insert(connection, LEASES).values(values)
            taken_over = {
                "holder": statement.excluded.holder,
                "expires_s": statement.excluded.expires_s,
                "token": LEASES.c.token + 1,
            }
            upsert = statement.on_conflict_do_update(
                index_elements=[LEASES.c.name], set_=taken_over, where=LEASES.c.expires_s <= now_s
            )
            token: int | None = (await connection.execute(upsert.returning(LEASES.c.token))).scalar_one_or_none()
        return token

    async def renew(self, name: str, holder: str, token: int, ttl_s: int, now_s: int) -> None:
        """Hold it `ttl_s` from now. Raises LeaseLost when another took it, or it was released.

        A lease that ran out but that nobody took is still the holder's: nothing can have happened meanwhile.
        """
        if not await self._update(name, holder, token, {"expires_s": now_s + ttl_s}):
            raise LeaseLost(f"the lease {name!r} with token {token} is no longer held by {holder!r}")

    async def release(self, name: str, holder: str, token: int) -> None:
        """Let others have it at once; does nothing when it is lost already. The row stays, for its token."""
        await self._update(name, holder, token, {"expires_s": 0, "holder": _NOBODY})

    async def _update(self, name: str, holder: str, token: int, values: dict[str, int | str]) -> bool:
        held = (LEASES.c.name == name, LEASES.c.holder == holder, LEASES.c.token == token)
        async with writing(self._engine) as connection:
            return (await connection.execute(update(LEASES).where(*held).values(**values))).rowcount == 1
