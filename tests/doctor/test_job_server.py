import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from t2ipal.doctor.job_server import check_job_server, check_status, find_token

STATUS = """======== Autoscaler status: 2026-11-29 11:07:07.117836 ========
Node status
---------------------------------------------------------------
Active:
 1 head
Idle:
 (no idle nodes)
Pending:
 gpu_worker, 2 launching
Recent failures:
 gpu_worker: LaunchFailed (latest_attempt: 11:06:01)
 cpu_worker: NodeTerminated (instance_id: i-1)

Resources
---------------------------------------------------------------
Total Usage:
 0.0/2.0 CPU

From request_resources:
 (none)
Pending Demands:
 {'GPU': 1.0}: 3+ pending tasks/actors
"""
LOG = (
    "x INFO -- Failed to launch 1 nodes of type gpu_worker: VcpuLimitExceeded: "
    "You have requested more vCPU capacity than your current limit"
)
NODES = {"data": {"result": {"result": [{"node_id": "f0", "is_head_node": True}]}}}
PAGES = {
    "/api/version": {"ray_version": "2.60.0"},
    "/api/cluster_status?format=1": {"data": {"clusterStatus": STATUS}},
    "/api/v0/nodes?detail=1": NODES,
}


@pytest.fixture
def dashboard(monkeypatch, tmp_path):
    """Address of a dashboard that wants the token `right-token`."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            token = self.headers.get("Authorization")
            status, text = 200, json.dumps(PAGES.get(self.path, {}))
            if self.path.startswith("/api/v0/logs/file?node_id=f0&filename=monitor.log"):
                text = LOG
            if token != "Bearer right-token":
                status, text = (403, "wrong") if token else (401, "none")
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_token_is_found_where_ray_looks(dashboard, monkeypatch, tmp_path):
    assert find_token() is None
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("at-home\n")
    assert find_token() == "at-home"
    (tmp_path / "other").write_text("elsewhere")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "other"))
    assert find_token() == "elsewhere"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "given")
    assert find_token() == "given"


@pytest.mark.parametrize(
    ("token", "text"),
    [("", "wants a token, and none is here"), ("bad-token", "refuses this token")],
)
def test_a_token_that_is_not_the_cluster_s(dashboard, monkeypatch, token, text):
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    address, refused = check_job_server(dashboard, "2.60.0")
    assert (address.state, refused.state, refused.check) == ("ok", "wrong", "token")
    assert text in refused.text and "bad-token" not in refused.text


def test_what_a_dashboard_tells(dashboard, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "right-token")
    found = {each.check: each for each in check_job_server(dashboard, "2.60.0")}
    assert {name: each.state for name, each in found.items()} == {
        "address": "ok", "token": "ok", "versions": "ok", "nodes": "ok", "launches": "wrong",
        "demands": "ok", "machines": "not looked at",
    }  # fmt: skip
    assert found["nodes"].text == "there: 1 head; starting: gpu_worker, 2 launching."
    assert "You have requested more vCPU capacity" in found["launches"].text
    assert found["launches"].text.endswith("Ask for a larger quota in Service Quotas of AWS.")
    others = {each.check: each.state for each in check_job_server(dashboard, "2.61.0")}
    assert others["versions"] == "wrong"


def test_no_dashboard(dashboard, monkeypatch):
    with pytest.raises(ConnectionError, match=r"Nobody answers at http://127.0.0.1:1 \(.*refused"):
        [*check_job_server("http://127.0.0.1:1", "2.60.0")]
    monkeypatch.setenv("RAY_AUTH_TOKEN", "right-token")
    monkeypatch.setitem(PAGES, "/api/version", {})
    (found,) = check_job_server(dashboard, "2.60.0")
    assert found.text.endswith("is no job server of Ray.")


def test_demands_for_which_nothing_starts():
    status = STATUS.replace(" gpu_worker, 2 launching", " (no pending nodes)")
    found = [each for each in check_status(status, lambda: "") if each.check == "demands"]
    assert [each.state for each in found] == ["wrong"]
    assert found[0].text == "{'GPU': 1.0}: 3+ pending tasks/actors, and no machine is starting."
