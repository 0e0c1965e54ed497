"""/livez, /readyz and /metrics on their own port, answered by the parent of the worker processes.

Ready means that at least one worker has something to serve from and is looking for news. Redis and SQL are not asked:
without them the feed still answers.
"""

from __future__ import annotations

import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

READY_WITHIN_S: Final = 10.0
ALIVE_METRIC: Final = "feed_worker_refreshed_timestamp_seconds"


def metrics() -> CollectorRegistry:
    """The metrics of all worker processes together. What a worker that has ended counted stays counted, but how it was
    says nothing any more."""
    forget_ended(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return registry


def forget_ended(folder: Path) -> None:
    """Drop the gauges of processes that are no more."""
    for pid in {path.stem.rpartition("_")[2] for path in folder.glob("gauge_live*_*.db")}:
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            mark_process_dead(int(pid), str(folder))  # type: ignore[no-untyped-call]


def ready(registry: CollectorRegistry, *, now_s: float) -> bool:
    """Whether any worker was alive and able to serve within the last READY_WITHIN_S seconds."""
    return any(
        now_s - sample.value < READY_WITHIN_S
        for metric in registry.collect()
        if metric.name == ALIVE_METRIC
        for sample in metric.samples
    )


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/livez":
            self._answer(200, b"ok\n")
        elif self.path == "/readyz":
            is_ready = ready(metrics(), now_s=time.time())
            self._answer(200 if is_ready else 503, b"ready\n" if is_ready else b"no worker can serve yet\n")
        elif self.path == "/metrics":
            self._answer(200, generate_latest(metrics()), "text/plain; version=0.0.4; charset=utf-8")
        else:
            self._answer(404, b"/livez /readyz /metrics\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
        """Say nothing: a probe every second is no event."""

    def _answer(self, status: int, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def serve(host: str, port: int) -> ThreadingHTTPServer:
    """Answer on a thread of this process until it ends. Raises OSError if the port is taken."""
    server = ThreadingHTTPServer((host, port), Handler)
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server
