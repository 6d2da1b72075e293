"""The chaos benchmark: its checks and its proxy one by one, and the whole of it in short."""

import contextlib
import dataclasses
import http.client
import json
import shutil
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
from chaos_script import run_chaos
from small_shard import all_samples

from benchmarks.chaos.checks import all_problems, fetch, marker_problems, orphans, plant_orphan
from benchmarks.chaos.driver import StubSynthesizer, Work
from benchmarks.chaos.playing import Chaos, Disturbance, Driver
from benchmarks.chaos.proxy import FAULTS, FaultyProxy
from t2ipal.store import Store
from t2ipal.synthesis.making import synthesize

WORK = Work(num_captions=12, images_per_shard=4, images_per_caption=2)
SAMPLES = [(f"id {n}", k) for n in range(12) for k in range(2)]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """An undisturbed run of six shards."""
    store = Store(tmp_path_factory.mktemp("reference"))
    synthesize(store, WORK.request(), factory=StubSynthesizer)
    return store


@pytest.fixture
def copy(tmp_path, reference):
    """Another folder with the same bytes."""
    return Path(fetch(reference, tmp_path / "copy").uri)


def cut_tar(folder):
    path = folder / "images/00001.tar"
    path.write_bytes(path.read_bytes()[:-512])


def trust_another_shards_bytes(folder):
    """A marker for a shard that nobody asked for: its samples are there twice."""
    for ending in ("tar", "parquet"):
        shutil.copy(folder / f"images/00002.{ending}", folder / f"images/00006.{ending}")
    marker = json.loads((folder / "images/00002.json").read_text())
    (folder / "images/00006.json").write_text(json.dumps({**marker, "shard": "00006"}))


def change_marker(folder):
    path = folder / "images/00003.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_failed": 1}))


def ask_for_more(folder):
    section = json.loads((folder / "sections/00000.json").read_text())
    more = {**section, "first_shard": 6, "first_k": 2, "num_k": 1, "captions_key": ""}
    (folder / "sections/00001.json").write_text(json.dumps(more))


DAMAGES = {
    "trusted but not what the marker describes: 1 (images/00001.tar)": cut_tar,
    "missing: 1 (images/00004.json)": lambda folder: (folder / "images/00004.json").unlink(),
    "missing: 1 (images/00005.parquet)": lambda folder: (folder / "images/00005.parquet").unlink(),
    "samples too many in the tars: 4": trust_another_shards_bytes,
    "samples too many in the sidecars: 4": trust_another_shards_bytes,
    "samples missing in the sidecars: 4": lambda folder: (folder / "images/00004.json").unlink(),
    "other bytes: 1 (images/00003.json)": change_marker,
    "the manifest differs from the markers: 1 (00006)": trust_another_shards_bytes,
    "not in the undisturbed run: 1 (sections/00001.json)": ask_for_more,
    "status: num_samples is 36, expected 24": ask_for_more,
    "status: num_images is 23, expected 24": change_marker,
    "contents: JSONDecodeError": lambda folder: (folder / "images/00000.json").write_text("{"),
}


@pytest.mark.parametrize("problem", DAMAGES)
def test_every_check_sees_its_damage(copy, reference, problem):
    assert all_problems(Store(copy), reference, SAMPLES) == []
    DAMAGES[problem](copy)
    problems = all_problems(Store(copy), reference, SAMPLES)
    assert any(line.startswith(problem) for line in problems), problems


def test_orphans_are_counted_and_do_no_harm(copy, reference):
    store = Store(copy)
    plant_orphan(store)
    assert orphans(store.list()) == ["images/99999.parquet", "images/99999.tar"]
    assert all_problems(store, reference, SAMPLES) == []
    assert marker_problems(store, ["00000"]) == []


def test_rows_of_orphans_and_of_failed_samples_are_found_out(copy, reference, monkeypatch):
    store = Store(copy)
    plant_orphan(store)
    first, *others = all_samples(store)
    trusting = [dataclasses.replace(first, key="99999-00000", status="failed"), *others]
    monkeypatch.setattr("benchmarks.chaos.checks.read_samples", lambda store, markers: trusting)
    problems = all_problems(store, reference, SAMPLES)
    assert "orphans that a reader trusts: 1 (99999)" in problems
    assert "rows differ from the markers: 1 (99999)" in problems
    assert "samples that failed: 1 (99999-00000)" in problems


def test_a_driver_is_started_until_it_exits_well(tmp_path):
    script = (
        "import pathlib, sys, time\n"
        "marks = sorted(pathlib.Path(sys.argv[1]).glob('mark*'))\n"
        "pathlib.Path(sys.argv[1], f'mark{len(marks)}').touch()\n"
        "print('connected', flush=True)\n"
        "time.sleep(60 if len(marks) == 1 else 0)\n"
        "sys.exit('error: no luck' if len(marks) == 0 else 0)\n"
    )
    driver = Driver([sys.executable, "-c", script, str(tmp_path)], tmp_path / "driver")
    deadline = time.monotonic() + 60
    while not driver.finished() and time.monotonic() < deadline:
        if driver.num_starts == 2 and not driver.killed:
            driver.kill()
        time.sleep(0.05)
    assert driver.finished() and not driver.kill()
    assert (driver.num_starts, driver.gave_up) == (3, ["error: no luck"])


def test_what_a_run_had_too_little_of_is_said(tmp_path, upstream):
    proxy = FaultyProxy(upstream[0], rate=1, seed=0)
    proxy._server.server_close()
    options = Disturbance(str(tmp_path), min_kills=2, min_faults=1)
    chaos = Chaos(options, cast(Any, None), proxy, {})
    assert chaos.lacking() == ["only 0 kills of 2", "only 0 faults of 1"]
    proxy.draw("GET", b"")
    chaos.kills.update(["node", "driver"])
    assert chaos.lacking() == []


@pytest.fixture
def upstream():
    """A server that says "well received", and the list of bodies that came whole or cut."""
    received = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self):
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "13")
            self.end_headers()
            self.wfile.write(b"well received")

        do_GET = do_PUT

        def handle(self):
            with contextlib.suppress(ConnectionError):
                super().handle()

        def log_message(self, format, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", received
    server.shutdown()
    server.server_close()


def ask(proxy, method="PUT", body=b"0123456789"):
    """The status and body that a client gets, or the name of its error."""
    client = http.client.HTTPConnection(proxy.url.removeprefix("http://"), timeout=10)
    try:
        client.request(method, "/bucket/key", body)
        reply = client.getresponse()
        return reply.status, reply.read()
    except (ConnectionError, http.client.HTTPException) as error:
        return type(error).__name__
    finally:
        client.close()


OUTCOMES = {
    None: ((200, b"well received"), b"0123456789"),
    "delay": ((200, b"well received"), b"0123456789"),
    "error 500": (500, None),
    "503 SlowDown": (503, None),
    "reset before": ("ConnectionResetError", None),
    "reset after": ("ConnectionResetError", b"0123456789"),
    "upload cut": ("ConnectionResetError", b"01234"),
    "reply cut": ("IncompleteRead", b"0123456789"),
}


@pytest.mark.parametrize("fault", OUTCOMES)
def test_the_proxy_fails_as_told(upstream, monkeypatch, fault):
    url, received = upstream
    with FaultyProxy(url, rate=0, seed=0) as proxy:
        monkeypatch.setattr(proxy, "draw", lambda method, body: (fault, 0.01))
        seen = ask(proxy, "GET" if fault == "reply cut" else "PUT")
    expected, arrived = OUTCOMES[fault]
    if isinstance(expected, int):
        status, text = seen
        assert status == expected and b"<Error><Code>" in text
    else:
        assert seen == expected
    for _ in range(100):  # the client may know of a reset before the server does
        if received or arrived is None:
            break
        time.sleep(0.05)
    assert received == ([] if arrived is None else [arrived])


def test_the_proxy_meets_its_rate_and_all_kinds(upstream):
    proxies = [FaultyProxy(upstream[0], rate=0.2, seed=seed) for seed in (0, 0, 1)]
    drawn = [[p.draw(m, b"body") for _ in range(500) for m in ("GET", "PUT")] for p in proxies]
    for proxy in proxies:
        proxy._server.server_close()
    assert drawn[0] == drawn[1] != drawn[2]
    assert proxies[0].num_requests == 1000 and 150 < proxies[0].counts.total() < 250
    assert {*proxies[0].counts} == {*FAULTS}
    puts = {fault for fault, _ in drawn[0][1::2]}
    assert "reply cut" not in puts and "upload cut" in puts
    with pytest.raises(ValueError, match=r"rate must be in 0..1, got 2"):
        FaultyProxy(upstream[0], rate=2, seed=0)


def test_a_short_run_survives_it_all(tmp_path):
    options = {
        "output": tmp_path / "chaos", "server": "moto", "num_captions": 48, "min_kills": 4,
        "min_faults": 15, "fault_rate": 0.25, "num_nodes": 2, "workers_per_driver": 1,
        "max_seconds": 120, "failing": 10,
    }  # fmt: skip
    result, output = run_chaos("run.py", **options)
    assert result["problems"] == [] and "all holds" in output
    assert sum(result["kills"].values()) >= 4 and sum(result["faults"].values()) >= 15
    assert (
        result["samples_made_again"] >= 2
        and result["shards"] >= 12
        and result["driver_starts"] >= 2
    )
