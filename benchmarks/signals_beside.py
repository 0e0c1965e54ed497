"""Events beside feeds, for `benchmarks/signals.py`: 3,000 events and 300 feeds offered per second, open loop.

Every feed is a first page, the dearest kind: a viewer asks for one, and for another, and says in one post how much was
watched of each of its 20 videos; then it is the next viewer's turn. So of 450 requests a second 300 are ranked anew and
150 are posts of 20 events. What the generator itself takes of the two cores is in the answer: `benchmarks/load.py`
looks into no more than it must.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import orjson
import psutil  # type: ignore[import-untyped]  # ships no types
import uvloop

from benchmarks.load import Request, Run, Session
from benchmarks.load_mixes import EVENT, EVENTS, FIRST, IDS
from benchmarks.load_observed import percentile_ms
from tests.support.running import System, user_id

BATCH = 20
"""Events an SDK sends together: one for each video of a page."""
FEEDS_PER_S, EVENTS_PER_S = 300, 3000
CONNECTIONS, VIEWERS = 48, 2000
WARM_UP_S = 3.0


@dataclass
class Viewers:
    """Sessions of VIEWERS in turns; `lacking`: events of answered posts that the service has not said it took."""

    publishable: str
    lacking: int = 0

    def sessions(self) -> Iterator[Session]:
        """One viewer's visit after the other, without end."""
        heads = [self._head(user_id(f"u{n}")) for n in range(VIEWERS)]
        numbers = count(time.time_ns() % 1_000_000_000 * 1000)
        while True:
            for head in heads:
                yield self._visit(head, numbers)

    def _head(self, user: str) -> bytes:
        return f" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.publishable}\r\nFeed-User: {user}\r\n".encode()

    def _visit(self, head: bytes, numbers: Iterator[int]) -> Session:
        first = Request(FIRST, b"GET /v1/feed?limit=%d%b\r\n" % (BATCH, head))
        yield first
        page = yield first
        answer = yield Request(EVENTS, _post(head, page.body, numbers))
        if answer.status == 207:
            self.lacking += BATCH - orjson.loads(answer.body)["accepted"]


def _post(head: bytes, page: bytes, numbers: Iterator[int]) -> bytes:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()).encode()
    videos = IDS.findall(page)
    events = [EVENT % (next(numbers), b"watch", video, now, b',"value":0.5') for video in videos]
    body = b'{"sent_at":"%b","events":[%b]}' % (now, b",".join(events))
    length = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    return b"POST /v1/events%b%b%b" % (head, length, body)


def beside_feeds(running: System, seconds: float) -> dict[str, float]:
    """What was accepted and answered, and how soon an event is in the next feed's journal.

    A few seconds before are not measured, in which the viewers' sessions fall out of step.
    """
    viewers = Viewers(running.tenants["acme"].publishable)
    steps = [(WARM_UP_S + seconds, FEEDS_PER_S + EVENTS_PER_S / BATCH)]
    workers_s, generator_s = _cpu_s(running), time.process_time()
    everything = uvloop.run(Run(running.port, viewers.sessions(), connections=CONNECTIONS, steps=steps)())
    workers_s, generator_s = _cpu_s(running) - workers_s, time.process_time() - generator_s
    observed = everything.between(WARM_UP_S, WARM_UP_S + seconds)
    is_feed = (observed.kind == FIRST) & (observed.status == 200)
    is_event = (observed.kind == EVENTS) & (observed.status == 207)
    event_ms, feed_ms = (percentile_ms(observed.latency_ms[mine], 99) for mine in (is_event, is_feed))
    return {
        "events_accepted_per_s": (BATCH * int(is_event.sum()) - viewers.lacking) / seconds,
        "feeds_answered_per_s": int(is_feed.sum()) / seconds,
        # An event is in the journal when its batch is answered, and the next first page reads the journal.
        "event_to_feed_p99_ms": event_ms + feed_ms,
        "workers_cpu_share_of_2_cores": workers_s / (2 * (WARM_UP_S + seconds)),
        "generator_cpu_share_of_2_cores": generator_s / (2 * (WARM_UP_S + seconds)),
        "other_load_1_min": psutil.getloadavg()[0],
    }


def _cpu_s(running: System) -> float:
    return float(sum(sum(one.cpu_times()[:2]) for one in running.workers()))
