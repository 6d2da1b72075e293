"""A metadata service as EC2's with session tokens only: what it tells is set by the test."""

import contextlib
import secrets
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class MetadataServer:
    """Values by their path below /latest/meta-data/; tokens that it gave, and until when."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.tokens: dict[str, float] = {}
        self.requests: list[tuple[str, str, int]] = []
        """Method, path and status of each."""
        self.is_broken = False
        self.most_s = 21600.0
        """For which a token is good, whatever was asked for."""
        self.url = ""

    def put(self, path: str, ttl: str | None) -> tuple[int, str]:
        """As EC2 does: 400 without a lifetime of 1 to 21600 seconds."""
        if path != "/latest/api/token":
            return 404, ""
        if not ttl or not ttl.isdigit() or not 1 <= int(ttl) <= 21600:
            return 400, ""
        token = secrets.token_urlsafe(40)
        self.tokens[token] = time.monotonic() + min(int(ttl), self.most_s)
        return 200, token

    def get(self, path: str, token: str | None) -> tuple[int, str]:
        """401 without a token that is good now, before it says whether there is such a value."""
        if time.monotonic() >= self.tokens.get(token or "", 0.0):
            return 401, ""
        value = self.values.get(path.removeprefix("/latest/meta-data/"))
        return (404, "") if value is None else (200, value)

    def count(self, method: str) -> int:
        """Requests of a method so far."""
        return sum(each[0] == method for each in self.requests)


@contextlib.contextmanager
def metadata_server() -> Iterator[MetadataServer]:
    """One on a free port of this machine."""
    state = MetadataServer()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def answer(self, status, text):
            if state.is_broken:
                status, text = 500, "broken"
            state.requests.append((self.command, self.path, status))
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def do_PUT(self):
            ttl = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
            self.answer(*state.put(self.path, ttl))

        def do_GET(self):
            self.answer(*state.get(self.path, self.headers.get("X-aws-ec2-metadata-token")))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
