"""What the indexer can be told, beside where the stores are. Environment: `FEED_` and the name in capitals."""

from __future__ import annotations

import os

from pydantic import Field

from retrieval.settings import StoreSettings


class IndexerSettings(StoreSettings):
    model: str = Field(
        "all-MiniLM-L6-v2",
        description="what makes vectors of texts: all-MiniLM-L6-v2, sentence-transformers:NAME_OR_FOLDER, or "
        "python:PACKAGE.MODULE:NAME for an encoder of your own",
    )
    encoder_threads: int = Field(os.cpu_count() or 1, ge=1, le=256, description="CPU threads the encoder may use")
    nice: int = Field(
        10, ge=0, le=19, description="priority is lowered by so much: on a machine it shares, feeds go first"
    )
    poll_s: float = Field(0.5, gt=0, le=60, description="how often the catalogue is asked for new versions")
    part_items: int = Field(500, ge=1, description="a long catch-up is first published after this many videos")
    fold_min_items: int = Field(2000, ge=1, description="a fresh segment smaller than this is never folded")
    kept_mb: int = Field(
        1024, ge=0, description="disk that a tenant's replaced generations may take, kept for a day to replay pages, MB"
    )
    lease_s: int = Field(60, ge=5, le=3600, description="how long another indexer leaves a tenant alone")
    metrics_host: str = Field("127.0.0.1", description="address the indexer's /metrics listens on")
    metrics_port: int = Field(8082, ge=0, le=65535, description="port of the indexer's /metrics; 0: none")
    stale_s: int = Field(60, ge=1, description="`status` calls a tenant stale when its snapshot lags this long")
    signals_flush_s: float = Field(5.0, gt=0, le=60, description="how long events wait to be archived together")
    signals_rows: int = Field(5000, ge=1, description="so many events and serves are archived without waiting")
    signals_publish_s: float = Field(10.0, gt=0, le=60, description="how often popularity is worked out anew")
    retention_every_s: float = Field(3600, gt=0, le=86_400, description="how often what is 90 days old is looked for")
    learn_every_s: float = Field(
        86_400, ge=0, description="how often each tenant's behaviour is learned anew; 0: only by `indexer learn`"
    )
    listings_private: bool = Field(
        False, description="a CMS's listing may be fetched from an address of this network, and without TLS"
    )
