"""Serves the page of a run from its store, in a thread of a job that it never disturbs.

It answers whoever is on this machine. Where it listens to others too, they need the token that is
in its address. What a browser may send is read and judged here, and nowhere else.
"""

import contextlib
import errno
import gzip
import hmac
import ipaddress
import logging
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from t2ipal.config import require
from t2ipal.dashboard.config import PageAddress
from t2ipal.dashboard.overview import REPORT
from t2ipal.dashboard.page import assets
from t2ipal.dashboard.snapshot import Snapshots
from t2ipal.search.results import SearchFolder, is_search_name
from t2ipal.store import Store, store_and_key

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the page may load: nothing from anywhere else."""
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox allow-popups"
"""The same for the run's report: a page without scripts, whoever wrote it."""
IDLE_S = 60.0
"""For which a connection may say nothing."""
SMALL_BYTES = 1000
"""Answers that are sent as they are."""
logger = logging.getLogger(__name__)


@contextlib.contextmanager
def serve(
    store: Store,
    port: int = 0,
    host: str = "127.0.0.1",
    only: str | None = None,
    *,
    price_per_gpu_hour: float | None = None,
    gpus_per_worker: float = 1.0,
) -> Iterator[str]:
    """The address of a run's page, which is served inside the `with` block.

    Args:
        store: of the run.
        port: 0 for any free one.
        host: name or number of this machine to listen on; 0.0.0.0 for all its networks.
        only: folder of the one search to show; None: all of the run.
        price_per_gpu_hour: for the cost of synthesis, in any currency; None: none is shown.
        gpus_per_worker: that synthesis had.

    Raises:
        ValueError: no such port, host or price.
        OSError: the port is in use, or not for this user.
    """
    snapshots = Snapshots(store, only, price_per_gpu_hour, gpus_per_worker)
    server = _listen(snapshots, port, host)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True, name="page")
    thread.start()
    # Whoever opens the page does not wait for the first look at the store.
    threading.Thread(target=server.snapshots.state, args=({},), daemon=True).start()
    try:
        yield server.address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def serve_search(
    folder: SearchFolder, address: PageAddress
) -> contextlib.AbstractContextManager[str]:
    """The same of a search: the page of its run where that shows it, else of the search alone."""
    store, only = folder.store, folder.folder
    if not only or "/" in only:
        place = f"{store.uri}/{only}".rstrip("/")
        store, only = store_and_key(place, store.endpoint_url)
    elif is_search_name(only):
        only = None
    return serve(store, address.port, address.host, only)


def _listen(snapshots: Snapshots, port: int, host: str) -> "_Server":
    require(0 <= port <= 65535, f"port must be in 0..65535, got {port}.")
    try:
        return _Server(snapshots, port, host)
    except socket.gaierror as error:
        raise ValueError(
            f"host must be a name or number of this machine, got {host!r} ({error.strerror})."
        ) from error
    except OSError as error:
        place = f"port {port} of {host}"
        if error.errno == errno.EADDRINUSE:
            raise OSError(
                f"Cannot serve the page: {place} is in use. Choose another port; 0 takes any free "
                "one."
            ) from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise ValueError(
                f"host must be a name or number of this machine, got {host!r}."
            ) from error
        if isinstance(error, PermissionError):
            raise PermissionError(
                f"Cannot serve the page: {place} is not for this user. Choose a port from 1024 on."
            ) from error
        raise OSError(f"Cannot serve the page on {place} ({error.strerror}).") from error


class _Server(ThreadingHTTPServer):
    """Listens, and knows what it may show to whom."""

    daemon_threads = True

    def __init__(self, snapshots: Snapshots, port: int, host: str):
        self.connections: set[socket.socket] = set()
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        self.address_family, *_, place = found[0]
        super().__init__((str(place[0]), port), _Handler)
        here = ipaddress.ip_address(str(place[0]).partition("%")[0])
        self.snapshots = snapshots
        self.token = "" if here.is_loopback else secrets.token_urlsafe(16)
        named = socket.gethostname() if here.is_unspecified else host
        self.names = {"localhost", socket.gethostname().lower(), socket.getfqdn().lower(), host}
        shown = f"[{named}]" if ":" in named else named
        self.cookie = f"t2ipal-page-{self.server_port}"
        query = f"?token={self.token}" if self.token else ""
        self.address = f"http://{shown}:{self.server_port}/{query}"

    def knows(self, name: str) -> bool:
        """Whether a browser may call this machine so.

        A page of others whose name leads here could read whatever needs no token.
        """
        if self.token:
            return True
        try:
            number = ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return name.lower() in self.names
        return number.is_loopback

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Keeps the connection in mind while it is open."""
        self.connections.add(request)
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.connections.discard(request)

    def server_close(self) -> None:
        """Ends the connections too: a browser keeps its own open and would be answered further."""
        super().server_close()
        for connection in [*self.connections]:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says no more than a line, and only where one wants to know: the browser has gone."""
        logger.debug("The page's connection to %s ended.", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD."""

    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = IDLE_S
    error_message_format = "%(code)d %(message)s. %(explain)s.\n"
    error_content_type = "text/plain; charset=utf-8"
    _policy_is_sent = False

    def do_GET(self) -> None:
        """Answers with what is asked for, or says why not."""
        try:
            url = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(url.query).items()}
            host = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
        except ValueError:
            return self._refuse(400, "This is no address")
        if not self.server.knows(host):
            return self._refuse(400, "The page has another address: the one that the job printed")
        if not self._is_let_in(query):
            return self._refuse(403, "The address lacks its token: take the one that was printed")
        if url.path in assets():
            return self._send_asset(url.path)
        if url.path == f"/{REPORT}":
            return self._send_report()
        answers: dict[str, Callable[[dict[str, str]], str]] = {
            "/state.json": self.server.snapshots.state,
            "/curves.json": self.server.snapshots.curves,
            "/overview.json": lambda query: self.server.snapshots.overview(),
        }
        answer = answers.get(url.path)
        if answer is None:
            return self._refuse(404, "Nothing is here")
        try:
            text = answer(query)
        except ValueError as error:  # of what came in the query; a store's troubles are told inside
            return self._refuse(400, str(error))
        except Exception as error:
            logger.debug("The page could not be answered.", exc_info=True)
            return self._refuse(500, f"It could not be read ({type(error).__name__}: {error})")
        self._send("application/json", text.encode(), {"Cache-Control": "no-store"})

    do_HEAD = do_GET

    def _not_allowed(self) -> None:
        self.close_connection = True  # a body may follow, which nobody reads
        self._refuse(405, "The page is to be read only")

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = _not_allowed

    def _is_let_in(self, query: dict[str, str]) -> bool:
        token = self.server.token.encode()
        if not token:
            return True
        with contextlib.suppress(CookieError):
            cookies = SimpleCookie(self.headers.get("Cookie", ""))
            kept = cookies.get(self.server.cookie)
            if kept is not None and hmac.compare_digest(kept.value.encode(), token):
                return True
        return hmac.compare_digest(query.get("token", "").encode(), token)

    def _send_asset(self, path: str) -> None:
        asset = assets()[path]
        headers = {"Cache-Control": "no-cache", "ETag": asset.tag}
        if self.server.token:
            cookie = f"{self.server.cookie}={self.server.token}; HttpOnly; SameSite=Strict; Path=/"
            headers["Set-Cookie"] = cookie
        if self.headers.get("If-None-Match") == asset.tag:
            return self._start(304, headers)
        packed = asset.packed if self._takes_gzip() else None
        self._send(asset.kind, asset.content, headers, packed)

    def _send_report(self) -> None:
        try:
            content = self.server.snapshots.store.read(REPORT)
        except OSError:
            return self._refuse(404, "The run has no report")
        headers = {"Cache-Control": "no-store", "Content-Security-Policy": REPORT_POLICY}
        self._send("text/html; charset=utf-8", content, headers)

    def _send(
        self, kind: str, content: bytes, headers: dict[str, str], packed: bytes | None = None
    ) -> None:
        if packed is None and len(content) > SMALL_BYTES and self._takes_gzip():
            packed = gzip.compress(content, 1)
        if packed is not None:
            headers["Content-Encoding"] = "gzip"
        body = content if packed is None else packed
        self._start(200, {**headers, "Content-Type": kind, "Content-Length": str(len(body))})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _takes_gzip(self) -> bool:
        return "gzip" in self.headers.get("Accept-Encoding", "")

    def _refuse(self, code: int, message: str) -> None:
        content = f"{message}.\n".encode()
        headers = {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(content))}
        if code == 405:
            headers["Allow"] = "GET, HEAD"
        self._start(code, headers)
        if self.command != "HEAD":
            self.wfile.write(content)

    def _start(self, code: int, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self._policy_is_sent = "Content-Security-Policy" in headers
        self.end_headers()

    def end_headers(self) -> None:
        """Adds what holds for every answer, errors of the library's own too."""
        if not self._policy_is_sent:
            self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Vary", "Accept-Encoding, Cookie")
        super().end_headers()

    def version_string(self) -> str:
        """Tells nobody which Python this is."""
        return "t2ipal"

    def log_message(self, format: str, *args: Any) -> None:
        """Is silent: it would come between the lines of the job."""
