"""A pool on a cluster that grows from nothing, with Ray's own autoscaler and nodes that are fake.

One of the slow tests: `T2IPAL_SLOW_TESTS=1 pytest tests/engine/test_growing.py`.
"""

import json
import os
import subprocess
import sys

import pytest
from fake_cluster import ROOT, fake_cluster

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
    nodes = list(each_on_actors(load, range(60), stage="test", device="cpu", pool=pool))
    print(json.dumps({"gpus": gpus, "items": len(nodes), "nodes": len(set(nodes))}))
"""


def test_a_pool_starts_its_machines_from_none():
    with fake_cluster() as (environment, _):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True,
            timeout=240, cwd=ROOT,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"gpus": 0, "items": 60, "nodes": 3}
