"""A pool on a cluster that grows from nothing, with Ray's own autoscaler and nodes that are fake.

One of the slow tests: `T2IPAL_SLOW_TESTS=1 pytest tests/engine/test_growing.py`.
"""

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
HEAD = "f" * 51 + "00000"
"""Id of the head by which Ray's fake provider knows it."""
pytestmark = pytest.mark.skipif(
    "T2IPAL_SLOW_TESTS" not in os.environ, reason="set T2IPAL_SLOW_TESTS=1"
)
SCRIPT = """
import json, time
import ray
from t2ipal.engine.actors import each_on_actors
from t2ipal.engine.session import connect
from t2ipal.pools import PoolConfig

def load():
    def work(item):
        time.sleep(1)
        return ray.get_runtime_context().get_node_id()
    return work

with connect():
    gpus = ray.cluster_resources().get("GPU", 0)
    pool = PoolConfig(min_workers=3, gpus_per_worker=1)
    nodes = list(each_on_actors(load, range(60), device="cpu", pool=pool))
    print(json.dumps({"gpus": gpus, "items": len(nodes), "nodes": len(set(nodes))}))
"""


@pytest.fixture
def growing():
    """The environment of a job on a head without CPUs that may start 3 nodes with a fake GPU."""
    folder = Path(tempfile.mkdtemp(prefix="t2ipal-", dir="/tmp"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "cluster.yaml").write_text(yaml.safe_dump(cluster_of_fake_nodes(port)))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = {
        **kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16),
    }  # fmt: skip
    for_fake_nodes = {
        "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_enable_autoscaler_v2": "1", "RAY_CLOUD_INSTANCE_ID": HEAD,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD,
    }  # fmt: skip
    command = [RAY, "start", "--head", "--block", "--num-cpus=0", f"--port={port}"]
    command += ["--node-ip-address=127.0.0.1", f"--temp-dir={folder}", "--disable-usage-stats"]
    command += ["--include-dashboard=false", f"--object-store-memory={100 * 2**20}"]
    command += [f"--autoscaling-config={folder / 'cluster.yaml'}"]
    with (folder / "head.log").open("w") as log:
        head = subprocess.Popen(command, env=environment | for_fake_nodes, stdout=log, stderr=log)
    try:
        wait_until_it_answers(port, head)
        yield {**environment, "RAY_ADDRESS": f"127.0.0.1:{port}"}
    finally:
        end_all_of(str(folder), head)
        shutil.rmtree(folder, ignore_errors=True)


def cluster_of_fake_nodes(port):
    """The shipped cluster with other machines: processes on this one."""
    shipped = prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text()))
    gpu = {"CPU": 1, "GPU": 1, "object_store_memory": 100 * 2**20}
    address = f"127.0.0.1:{port}"  # otherwise they join port 6379 of the machine
    return {
        **{name: [] if name.endswith("_commands") else part for name, part in shipped.items()},
        "provider": {"type": "external", "module": PROVIDER, "gcs_address": address},
        "head_node_type": "ray.head.default",  # the provider knows no other name
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "gpu": {"resources": gpu, "node_config": {}, "min_workers": 0, "max_workers": 3},
        },
        "auth": {}, "docker": {}, "file_mounts": {},
    }  # fmt: skip


def wait_until_it_answers(port, head):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and head.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.3)
    raise RuntimeError("The head did not start.")


def end_all_of(folder, head):
    """Ends what was started, nodes included, which are no children: their folder tells them."""
    family = [psutil.Process(head.pid), *psutil.Process(head.pid).children(recursive=True)]
    for process in psutil.process_iter(["cmdline"]):
        if folder in " ".join(process.info["cmdline"] or ()):
            family.append(process)
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=10)


def test_a_pool_starts_its_machines_from_none(growing):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=growing, capture_output=True, text=True, timeout=240,
        cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"gpus": 0, "items": 60, "nodes": 3}
