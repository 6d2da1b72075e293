"""Prometheus and the dashboard of Grafana as they are shipped, on a real run on a real cluster."""

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DASHBOARD = json.loads((ROOT / "cluster" / "grafana.json").read_text())
QUERIES = {target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]}
BUSY = next(query for query in QUERIES if "/ sum by (stage)" in query)
SETTINGS = {
    "$__rate_interval": "15s", "$__range": "1h", "$__interval_ms": "1000", "$__interval": "1s",
    "$price_per_gpu_hour": "0.4",
}  # fmt: skip
"""What Grafana puts into a query, longer names first."""
RUN_S = 60
"""For the run, and for its last numbers after it."""


def test_the_dashboard_can_be_imported():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len({*ids}) == len(ids) == 16
    names = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    for panel in DASHBOARD["panels"]:
        assert panel["datasource"]["uid"] == "${datasource}" and "datasource" in names
    (price,) = (each for each in DASHBOARD["templating"]["list"] if each["type"] == "textbox")
    assert f"${price['name']}" in SETTINGS and float(price["query"]) > 0


def test_metrics_have_a_port_that_is_known():
    """Ray takes any free port on a node for metrics, unless it is told one."""
    cluster = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert "--metrics-export-port=8080" in cluster[name][1]


@contextlib.contextmanager
def prometheus(head, folder):
    """One with the shipped file, for this head, and faster; its address."""
    config = yaml.safe_load((ROOT / "cluster" / "prometheus.yml").read_text())
    (discovery,) = config["scrape_configs"][0]["file_sd_configs"]
    (path,) = discovery["files"]
    discovery["files"] = [path.replace("/tmp/ray", str(head.folder))]
    config["global"]["scrape_interval"] = discovery["refresh_interval"] = "1s"
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = ["prometheus", f"--config.file={folder}/prometheus.yml"]
    command += [f"--storage.tsdb.path={folder}/data", f"--web.listen-address={address}"]
    with (folder / "prometheus.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield f"http://{address}"
    finally:
        server.kill()
        server.wait()


def ask(server, path, **values):
    url = f"{server}/api/v1/{path}?{urllib.parse.urlencode(values)}"
    with urllib.request.urlopen(url, timeout=10) as reply:
        return json.loads(reply.read())["data"]


def answer(server, query, start):
    """Every value of a query since then."""
    for name, value in SETTINGS.items():
        query = query.replace(name, value)
    data = ask(server, "query_range", query=query, start=start, end=time.time(), step=1)
    return [float(value) for series in data["result"] for _, value in series["values"]]


@pytest.mark.skipif(
    shutil.which("prometheus") is None,
    reason="Prometheus is not installed: apt-get install prometheus",
)
def test_every_query_of_the_dashboard_has_an_answer(head, tmp_path):
    start = time.time()
    with prometheus(head, tmp_path) as server:
        command = [sys.executable, ROOT / "tests" / "metered_run.py", tmp_path / "run"]
        variables = {"RAY_ADDRESS": head.gcs, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
        done = subprocess.run(
            command, env=head.environment | variables, capture_output=True, text=True, timeout=RUN_S
        )
        assert done.returncode == 0, done.stderr
        waiting, deadline = QUERIES, time.monotonic() + RUN_S
        while waiting and time.monotonic() < deadline:
            time.sleep(1)
            waiting = {query for query in waiting if not answer(server, query, start)}
        assert not waiting
        # Of a node, of the autoscaler and of the dashboard.
        assert max(answer(server, "count(up == 1)", start)) >= 3
        # A worker tells its numbers every two seconds, and those after the last time are lost.
        assert 0 < max(answer(server, "max(ray_t2ipal_images_total)", start)) <= 30
        pending = answer(server, "max(ray_t2ipal_pending_items)", start)
        assert max(pending) <= 16 and pending[-1] == 0
        assert 0 < max(answer(server, BUSY, start)) < 1.5
