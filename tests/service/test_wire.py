"""What a connection may send, over raw sockets: too much or too slow is answered and hung up on, in bounded memory."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import psutil  # type: ignore[import-untyped]  # ships no types
import pytest

from service import wire
from tests.support.running import HOST, video
from tests.support.served import Served, served


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with little patience."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "HEAD_S", 0.4)
        patch.setattr(wire.Wire, "_owed_s", 0.4)
        patch.setattr(wire, "WHOLE_S", 0.8)
        with served(tmp_path_factory.mktemp("wire"), {"acme": [video("a", "a")]}) as started:
            yield started


class Connection:
    """One TCP connection to the service."""

    def __init__(self, service: Served) -> None:
        self.socket = socket.create_connection((HOST, service.port), timeout=10)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, content: bytes) -> bool:
        """Send; False when the other side has hung up."""
        try:
            self.socket.sendall(content)
        except (ConnectionError, TimeoutError):
            return False
        return True

    def answer(self) -> tuple[int, bytes]:
        """(status, everything) that came until the other side hung up; status 0: nothing came."""
        content = b""
        try:
            while part := self.socket.recv(65_536):
                content += part
        except ConnectionError:
            pass
        return int(content[9:12] or b"0"), content


def problem(content: bytes) -> str:
    """The type of the problem document in an answer."""
    found: str = json.loads(content.partition(b"\r\n\r\n")[2])["type"]
    return found


@pytest.fixture
def connection(service: Served) -> Iterator[Connection]:
    """A connection of the test's own."""
    with Connection(service) as opened:
        yield opened


@pytest.mark.parametrize(
    "piece",
    [b"X-Many: 1\r\n" * 1000, b"X-Long: " + b"x" * 10_000, b"x" * 10_000],
    ids=["many headers", "one header after the other", "one without end"],
)
def test_a_gigabyte_of_headers_is_not_collected(connection: Connection, piece: bytes) -> None:
    """431 after tens of kilobytes, whatever they consist of, and nothing of them is kept."""
    before = psutil.Process().memory_info().rss
    connection.send(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Begin: ")
    sent = 0
    while connection.send(piece) and sent < 1 << 30:
        sent += len(piece)
    assert sent < 16 << 20  # what lay in the kernel's buffers when it was refused
    assert psutil.Process().memory_info().rss - before < 20 << 20


def test_too_long_a_head_is_told_so(service: Served, connection: Connection) -> None:
    """One megabyte of headers: the client reads 431 and its problem document, and the next client is served."""
    connection.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * wire.MAX_HEAD_BYTES)
    status, content = connection.answer()
    assert (status, problem(content)) == (431, "/problems/headers-too-large")
    assert service.get("/v1/feed", "acme").status_code == 200


def test_what_is_no_http_is_told_so_in_the_same_form(connection: Connection) -> None:
    """The parser's own refusals are problem documents as well."""
    connection.send(b"HELLO\r\n\r\n")
    status, content = connection.answer()
    assert (status, problem(content)) == (400, "/problems/invalid-request")


def test_trailers_are_headers_too(connection: Connection) -> None:
    """After the body of a chunked request no more comes than before it."""
    connection.send(b"POST /v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
    sent = 0
    while connection.send(b"X-Trailer: " + b"x" * 8000 + b"\r\n") and sent < 1 << 30:
        sent += 8000
    assert sent < 16 << 20


def test_a_body_in_the_smallest_chunks_is_taken(service: Served, connection: Connection) -> None:
    """A chunk per byte is wasteful and allowed: what is around the body is not mistaken for headers."""
    body = json.dumps({"events": ["x" * 20_000]}).encode()
    head = "POST /v1/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
    key = service.keys["acme"].publishable
    connection.send(f"{head}Authorization: Bearer {key}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    connection.send(b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
    status, content = connection.answer()
    assert status == 207, content


@pytest.mark.parametrize(
    ("sent", "at_least_s"),
    [
        (b"", 0.4),
        (b"GET /v1/feed HTTP/1.1\r\nHost: x\r\n", 0.4),
        (b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nsome", 0.8),
    ],
    ids=["nothing", "half a head", "half a body"],
)
def test_who_is_too_slow_is_hung_up_on(connection: Connection, sent: bytes, at_least_s: float) -> None:
    """408, or the refusal the request had already earned, and the connection ends; not before its time."""
    began_s = time.monotonic()
    connection.send(sent)
    status, content = connection.answer()
    assert at_least_s * 0.9 <= time.monotonic() - began_s < at_least_s + 5
    assert status in (408, 401)
    assert status == 401 or problem(content) == "/problems/request-timeout"


def test_half_a_body_is_a_408_and_no_error_of_ours(
    service: Served, connection: Connection, capfd: pytest.CaptureFixture[str]
) -> None:
    """The route was waiting for the rest: the client is told, and the log has no traceback."""
    key = service.keys["acme"].publishable
    head = f"POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
    connection.send(f"{head}Content-Length: 100\r\n\r\nsome".encode())
    status, content = connection.answer()
    assert (status, problem(content)) == (408, "/problems/request-timeout")
    assert service.get("/v1/feed", "acme").status_code == 200
    said = "".join(capfd.readouterr())
    assert "unforeseen" not in said and "Traceback" not in said


def test_one_byte_now_and_then_is_too_slow(connection: Connection) -> None:
    """Bytes that keep coming do not win more time."""
    began_s = time.monotonic()
    for byte in b"GET /v1/feed HTTP/1.1\r\nHost: a-name-that-takes-its-time.example\r\n" * 3:
        if not connection.send(bytes([byte])):
            break
        time.sleep(0.05)
    assert time.monotonic() - began_s < 5
    assert connection.answer()[0] in (408, 0)


def test_a_kept_connection_is_not_late(connection: Connection) -> None:
    """Between two requests nothing is owed: the time of the first one does not run on."""
    for _ in range(2):
        connection.send(b"GET /v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.socket.recv(65_536).startswith(b"HTTP/1.1 404")
        time.sleep(1.0)
    connection.send(b"GET /v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n")
    assert connection.socket.recv(65_536).startswith(b"HTTP/1.1 404")
