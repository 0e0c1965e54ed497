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
    config_poll_ms: int = Field(500, ge=50, le=60_000, description="how often tenants, keys, policies are looked at")
    snapshot_poll_ms: int = Field(250, ge=50, le=60_000, description="how often published snapshots are looked at")
    counters_poll_ms: int = Field(10_000, ge=100, le=600_000, description="how often popularity is read anew")
    # Three quarters of it stay when it is trimmed: 5,000 videos served, shown and watched. Few users ever get there.
    journal_entries: int = Field(18_432, ge=64, le=65_536, description="entries kept per user; older ones are dropped")
    serve_log_share: float = Field(1.0, ge=0, le=1, description="share of pages that are written to the serve log")
    events_fsync: bool = Field(
        False,
        description="acknowledge events only when Redis has them on its disk; needless with `appendfsync always`, and "
        "with `everysec` it takes up to a second: raise redis_write_timeout_ms to 3000 then",
    )
    events_replicas: int = Field(0, ge=0, le=10, description="acknowledge events only when so many replicas have them")
    user_requests_per_s: float = Field(20, ge=0, description="feed requests a user may make; 0: as many as they like")
    key_requests_per_s: float = Field(10_000, ge=0, description="feed requests under one key; 0: as many as come")
    user_batches_per_s: float = Field(
        5, ge=0, description="batches of events a user may send to one worker; 0: as many as they like"
    )
    key_batches_per_s: float = Field(
        10_000, ge=0, description="batches of events under one key and worker; 0: as many as come"
    )
    narrow_ms: int = Field(
        40, ge=1, description="expected wait in a worker from which first pages have fewer candidates"
    )
    prefetch_ms: int = Field(80, ge=1, description="expected wait in a worker from which prefetches are refused")
    plain_ms: int = Field(
        100, ge=1, description="expected wait in a worker from which first pages are made without the user's taste"
    )
    backlog_ms: int = Field(200, ge=0, description="expected wait in a worker from which every feed request is refused")
    burst_s: float = Field(10, ge=1, le=600, description="so many seconds' worth of requests may come at once")
    cursor_secrets: str = Field(
        "", repr=False, description="what cursors are sealed with, newest first, comma between; empty: made locally"
    )
    admin_body_bytes: int = Field(16 << 20, ge=1024, description="largest body of an admin request")
    minimum_versions: dict[str, str] = Field(
        {}, description='oldest SDK served well, by platform, as JSON: {"ios": "1.2.0"}; what /v1/config says'
    )
    trace_share: float = Field(
        0, ge=0, le=1, description="share of requests whose spans go to OTEL_EXPORTER_OTLP_ENDPOINT; 0: tracing is off"
    )
    canary_keys: str = Field(
        "", repr=False, description="pk_… and sk_… of a tenant called `canary`, comma between, for `service canary`"
    )
    canary_url: str = Field("http://127.0.0.1:8080", description="where `service canary` finds the API")
    canary_every_s: float = Field(60, ge=1, le=3600, description="how often the canary's video is changed")
    canary_port: int = Field(8083, ge=1, le=65535, description="port of the canary's /metrics")
    metrics_dir: Path = Field(Path("var/metrics"), description="where worker processes share their metrics")
