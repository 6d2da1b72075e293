import http.client
import json
import socket
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from small_search import write_search

from t2ipal.dashboard import snapshot
from t2ipal.dashboard.config import PageAddress
from t2ipal.dashboard.server import serve, serve_search
from t2ipal.search.results import search_folder
from t2ipal.store import Store


@pytest.fixture(autouse=True)
def no_forest(monkeypatch):
    monkeypatch.setattr(snapshot.Importance, "update", lambda *args, **more: None)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("served") / "run")
    write_search(store, num_trials=12)
    return store


@contextmanager
def asked(address, path="/", method="GET", **headers):
    url = urlsplit(address)
    connection = http.client.HTTPConnection("127.0.0.1", url.port, timeout=10)
    try:
        connection.request(method, path, headers={"Host": url.netloc, **headers})
        yield connection.getresponse()
    finally:
        connection.close()


def test_pages_and_data(run):
    with serve(run) as address:
        with asked(address) as page:
            assert page.status == 200 and b"<!doctype html>" in page.read()
            policy = page.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy and "unsafe" not in policy
            assert page.headers["X-Content-Type-Options"] == "nosniff"
            assert "Python" not in page.headers["Server"]
        with asked(address, "/page.js", **{"Accept-Encoding": "gzip"}) as script:
            assert script.headers["Content-Encoding"] == "gzip"
            tag = script.headers["ETag"]
        with asked(address, "/page.js", **{"If-None-Match": tag}) as known:
            assert known.status == 304 and known.read() == b""
        with asked(address, "/state.json") as state:
            assert len(json.load(state)["columns"]["number"]) == 12
        with asked(address, "/curves.json?search=search&since=0") as curves:
            assert len(json.load(curves)["number"]) == 12
        with asked(address, method="HEAD") as head:
            assert head.status == 200 and int(head.headers["Content-Length"]) > 0
            assert head.read() == b""


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/nothing", 404),
        ("/../pyproject.toml", 404),
        ("/%2e%2e/%2e%2e/etc/passwd", 404),
        ("//etc/passwd", 404),
        ("/snapshot.py", 404),
        ("/state.json?since=x", 400),
        ("/state.json?since=-5", 400),
        ("/curves.json?search=%00", 400),
        ("/curves.json?search=../../etc", 400),
        ("http://[x/", 400),
    ],
)
def test_what_is_not_there(run, path, code):
    with serve(run) as address, asked(address, path) as answer:
        text = answer.read().decode()
        assert answer.status == code and "Traceback" not in text and "root:" not in text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_it_is_to_be_read_only(run, method):
    with serve(run) as address, asked(address, method=method) as answer:
        assert answer.status == 405 and answer.headers["Allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "junk",
    [b"\x16\x03\x01\x02\x00\n\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\r\n\r\n", b""],
)
def test_junk_stops_nothing(run, capfd, junk):
    with serve(run) as address:
        with socket.create_connection(("127.0.0.1", urlsplit(address).port), timeout=5) as pipe:
            pipe.sendall(junk)
            pipe.shutdown(socket.SHUT_WR)
            assert b"Traceback" not in pipe.recv(4096)
        with asked(address) as page:
            assert page.status == 200
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "10.0.0.1", ""])
def test_names_that_others_gave_to_this_machine(run, host):
    with serve(run) as address, asked(address, Host=host) as answer:
        assert answer.status == 400


def test_a_forwarded_port(run):
    with serve(run) as address, asked(address, Host="localhost:9999") as answer:
        assert answer.status == 200


def test_others_need_the_token(run):
    with serve(run, host="0.0.0.0") as address:
        token = urlsplit(address).query
        assert token.startswith("token=") and len(token) > 20
        for path in ("/", "/state.json", "/?token=", "/?token=wrong", "/page.js"):
            with asked(address, path) as answer:
                assert answer.status == 403
        with asked(address, f"/?{token}") as page:
            assert page.status == 200
            cookie = page.headers["Set-Cookie"]
            assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
        with asked(address, "/state.json", Cookie=cookie.partition(";")[0]) as state:
            assert state.status == 200
        with asked(address, "/state.json", Cookie="=;;\x01") as state:
            assert state.status == 403
        # Those who have it may call this machine as they like: through a proxy, by its address.
        for host in ("proxy.example", "10.0.0.1:80", ""):
            with asked(address, f"/?{token}", Host=host) as page:
                assert page.status == 200
            with asked(address, "/", Host=host) as page:
                assert page.status == 403


def test_the_address_for_others_names_this_machine(run):
    with serve(run, host="0.0.0.0") as address:
        assert urlsplit(address).hostname == socket.gethostname().lower()


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        (None, ["search", "search-wide"]),
        ("run/search-2", ["search-2", "search-wide"]),
        ("run/wide", ["wide"]),
        ("run/more/deep", ["deep"]),
        ("other/search", ["search"]),
    ],
)
def test_the_page_of_a_search_shows_it(tmp_path, output, shown):
    run = Store(tmp_path / "run")
    write_search(run, "search-wide", num_trials=2)
    folder = search_folder(run, output and str(tmp_path / output))
    write_search(folder.store, folder.folder, num_trials=4)
    with serve_search(folder, PageAddress()) as address, asked(address, "/state.json") as state:
        told = json.load(state)
    assert told["searches"] == shown and told["columns"]["number"] == [0, 1, 2, 3]


def test_no_store_disturbs_the_job(tmp_path):
    class Broken(Store):
        def folders(self, prefix):
            raise PermissionError("Cannot read there.")

    with serve(Broken(tmp_path)) as address, asked(address, "/state.json") as state:
        assert json.load(state)["error"] == "Cannot read there."


def test_a_port_in_use(run):
    with serve(run) as address:
        port = urlsplit(address).port
        with (
            pytest.raises(OSError, match=f"port {port} of 127.0.0.1 is in use. Choose another"),
            serve(run, port),
        ):
            pass
    with serve(run, port) as again:  # at once
        assert urlsplit(again).port == port


@pytest.mark.parametrize(
    ("port", "host", "said"),
    [
        (70000, "127.0.0.1", r"port must be in 0\.\.65535, got 70000"),
        (0, "no such host", "host must be a name or number of this machine, got 'no such host'"),
        (0, "192.0.2.1", "host must be a name or number of this machine, got '192.0.2.1'"),
    ],
)
def test_places_where_nobody_can_listen(run, port, host, said):
    with pytest.raises(ValueError, match=said), serve(run, port, host):
        pass
