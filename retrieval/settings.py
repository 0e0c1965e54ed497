"""What every process of the product must know to reach the stores. One table; each field is an environment variable.

`FEED_DATABASE_URL`, `FEED_REDIS_URL`, ... : the prefix `FEED_` and the field's name in capitals.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


class StoreSettings(BaseSettings):
    """Where the catalogue, the user state and the snapshots are. The defaults are one machine, nothing installed."""

    model_config = SettingsConfigDict(env_prefix="FEED_", extra="ignore")

    database_url: str = Field(
        "sqlite+aiosqlite:///var/feed.db",
        description="catalogue, tenants, keys, policies: sqlite+aiosqlite:///PATH or postgresql+asyncpg://…",
    )
    redis_url: str = Field("redis://127.0.0.1:6390/0", description="journals and counters: any Redis-protocol server")
    snapshot_dir: Path = Field(Path("var/snapshots"), description="published index snapshots, one folder per tenant")
    archive_url: str = Field(
        "var/archive", description="events and serves as Delta tables: a folder, s3://…, gs://… or az://…"
    )
    state_dir: Path = Field(Path("var/state"), description="each machine's last good copy of tenants, keys, policies")
    vector_dim: int = Field(384, ge=2, le=4096, description="length of every vector; the encoder must agree")


def explained(error: ValidationError) -> str:
    """What is wrong with the environment, a line per variable; values are not repeated, one may be a secret."""
    problems = error.errors(include_url=False, include_input=False)
    return "\n".join(f"FEED_{'_'.join(map(str, one['loc'])).upper()}: {one['msg']}" for one in problems)
