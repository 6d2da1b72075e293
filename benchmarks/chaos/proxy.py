"""An HTTP proxy that fails as an object store does on a bad day, more often.

Stands on loopback between clients and one server. Host and all signed headers pass unchanged, so
that signatures hold. Knows nothing of what it carries.
"""

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from t2ipal.config import require

ALWAYS = ("delay", "error 500", "503 SlowDown", "reset before", "reset after")
"""Faults of any request. Reset after: the server did what was asked, and nobody hears of it."""
WITH_BODY, WITH_REPLY_BODY = "upload cut", "reply cut"
"""Half of the request's body reaches the server; half of the reply's reaches the client."""
FAULTS = (*ALWAYS, WITH_BODY, WITH_REPLY_BODY)
DELAYS_S = 0.05, 0.5
HOP_BY_HOP = {"connection", "keep-alive", "expect", "transfer-encoding"}


class FaultyProxy:
    """Serves inside its `with` block; `url` is where, `counts` the faults so far by kind."""

    def __init__(self, server_url: str, rate: float, seed: int):
        """Takes a free port.

        Args:
            server_url: where requests go, e.g. "http://127.0.0.1:9000".
            rate: share of the requests that meet a fault, 0 to 1.
            seed: of the order of the faults.
        """
        require(0 <= rate <= 1, f"rate must be in 0..1, got {rate}.")
        self.server_address = urlsplit(server_url).netloc
        self.rate = rate
        self.num_requests = 0
        self.counts: Counter[str] = Counter()
        self._rng = random.Random(seed)
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "FaultyProxy":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def draw(self, method: str, body: bytes) -> tuple[str | None, float]:
        """The fault that the next request meets, None as a rule, and the seconds of a delay."""
        kinds = [*ALWAYS, *([WITH_BODY] if body else []), *([WITH_REPLY_BODY] * (method == "GET"))]
        with self._lock:
            self.num_requests += 1
            if self._rng.random() >= self.rate:
                return None, 0.0
            fault, seconds = self._rng.choice(kinds), self._rng.uniform(*DELAYS_S)
            self.counts[fault] += 1
            return fault, seconds


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], proxy: FaultyProxy):
        self.proxy = proxy
        super().__init__(address, _Handler)

    def shutdown_request(self, request: Any) -> None:
        self.close_request(request)  # no polite end first: a reset is to arrive as one

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client or a connection that went away is what all this is about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _serve(self) -> None:
        expected = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(expected)
        fault, seconds = self.server.proxy.draw(self.command, body)
        if fault == "delay":
            time.sleep(seconds)
        elif fault == "error 500":
            return self._refuse(500, "InternalError")
        elif fault == "503 SlowDown":
            return self._refuse(503, "SlowDown")
        elif fault == "reset before":
            return self._reset()
        if fault == WITH_BODY or len(body) < expected:  # or the client was killed meanwhile
            self._forward(body, sent=min(expected // 2, len(body)))
            return self._reset()
        reply, content = self._forward(body)
        if fault == "reset after":
            return self._reset()
        self.send_response_only(reply.status, reply.reason)
        for name, value in reply.getheaders():
            if name.lower() not in {*HOP_BY_HOP, "content-length"}:
                self.send_header(name, value)
        length = reply.headers["Content-Length"] if self.command == "HEAD" else len(content)
        self.send_header("Content-Length", str(length or 0))
        self.end_headers()
        if fault == WITH_REPLY_BODY:
            content = content[: len(content) // 2]
            self.close_connection = True
        self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def _forward(self, body: bytes, sent: int | None = None) -> tuple[Any, bytes]:
        """The server's reply and its body; after `sent` bytes of a cut upload neither."""
        upstream = http.client.HTTPConnection(self.server.proxy.server_address, timeout=60)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in HOP_BY_HOP:
                    upstream.putheader(name, value)
            upstream.endheaders()
            upstream.send(body[:sent])
            if sent is not None:
                return None, b""
            reply = upstream.getresponse()
            return reply, reply.read()
        finally:
            upstream.close()

    def _refuse(self, status: int, code: str) -> None:
        content = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{code}</Code><Message>Please try again.</Message></Error>"
        ).encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _reset(self) -> None:
        """Closes so that the client meets "connection reset by peer"."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""
