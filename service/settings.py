"""What the service can be told, beside where the stores are. Environment: `FEED_` and the name in capitals."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from retrieval.settings import StoreSettings


class ServiceSettings(StoreSettings):
    host: str = Field("127.0.0.1", description="address the API listens on")
    port: int = Field(8080, ge=1, le=65535, description="port of the API")
    health_port: int = Field(8081, ge=1, le=65535, description="port of /livez, /readyz and /metrics")
    workers: int = Field(2, ge=1, le=256, description="worker processes")
    redis_timeout_ms: int = Field(50, ge=1, le=5000, description="longest wait for user state on the feed path")
    redis_write_timeout_ms: int = Field(1000, ge=1, le=30_000, description="longest wait when storing events")
    config_poll_ms: int = Field(1000, ge=50, le=60_000, description="how often tenants, keys, policies are looked at")
    snapshot_poll_ms: int = Field(250, ge=50, le=60_000, description="how often published snapshots are looked at")
    counters_poll_ms: int = Field(10_000, ge=100, le=600_000, description="how often popularity is read anew")
    journal_entries: int = Field(4096, ge=64, le=65_536, description="entries kept per user; older ones are dropped")
    cursor_secrets: str = Field(
        "", repr=False, description="what cursors are sealed with, newest first, comma between; empty: made locally"
    )
    admin_body_bytes: int = Field(16 << 20, ge=1024, description="largest body of an admin request")
    metrics_dir: Path = Field(Path("var/metrics"), description="where worker processes share their metrics")
