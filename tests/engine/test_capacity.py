"""Machines of another type where the cloud refuses one: Ray's scheduler alone, and a real one."""

import json
import subprocess
import sys
import time
from collections import deque

import pytest
import yaml
from fake_cluster import ROOT, fake_cluster
from ray.autoscaler.node_provider import NodeProvider
from ray.autoscaler.v2 import autoscaler
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil

from t2ipal.engine.capacity import RefusalsCount, _Monitor

SPOT = ["gpu_l4", "gpu_l40s", "gpu_a10g"]
"""By priority."""
SCRIPT = """
import json, os, sys
import ray

@ray.remote(num_gpus=1, num_cpus=1)
class Worker:
    def node_type(self):
        return os.environ["RAY_NODE_TYPE_NAME"]

refused, kinds, workers = sys.argv[1], [], []
ray.init(log_to_driver=False)
for types in json.loads(sys.argv[2]):
    with open(refused, "w") as file:
        json.dump(types, file)
    workers.append(Worker.remote())
    kinds.append(ray.get(workers[-1].node_type.remote(), timeout=60))
print(json.dumps(kinds))
"""


@pytest.fixture(scope="module")
def shipped():
    return AutoscalingConfig(
        yaml.safe_load((ROOT / "cluster.yaml").read_text()), skip_content_hash=True
    )


def launched(shipped, asked, count, refused=()):
    """Types, and how many of each, that Ray's scheduler asks for after some were refused."""
    monitor = _Monitor(deque((node_type, time.time()) for node_type in refused))
    request = SchedulingRequest(
        node_type_configs=shipped.get_node_type_configs(),
        max_num_nodes=shipped.get_max_num_nodes(),
        resource_requests=ResourceRequestUtil.group_by_count(
            [ResourceRequestUtil.make(asked)] * count
        ),
        current_instances=[],
        idle_timeout_s=300,
        disable_launch_config_check=True,
        cloud_resource_availabilities=monitor.get_resource_availabilities(),
        recoverable_resource_availabilities=monitor.get_recoverable_resource_availabilities(),
    )
    reply = ResourceDemandScheduler().schedule(request)
    return {launch.instance_type: launch.count for launch in reply.to_launch}


@pytest.mark.parametrize("num_refused", [0, 1, 2])
@pytest.mark.parametrize("asked", [{"GPU": 1, "CPU": 1}, {"GPU": 1, "CPU": 4}, {"GPU": 0.5}])
def test_spot_types_come_by_priority(shipped, asked, num_refused):
    assert launched(shipped, asked, 1, SPOT[:num_refused]) == {SPOT[num_refused]: 1}


def test_on_demand_comes_when_no_spot_type_does(shipped):
    assert launched(shipped, {"GPU": 1}, 2, SPOT) == {"gpu_on_demand": 2}


def test_many_gpus_come_as_spot(shipped):
    assert launched(shipped, {"GPU": 1}, 12) == {"gpu_l4": 8, "gpu_l40s": 4}


def test_work_without_gpu_gets_none(shipped):
    assert launched(shipped, {"CPU": 1}, 9) == {"cpu": 2}


def test_a_type_comes_back_after_its_time():
    monitor = _Monitor(deque([("gpu_l4", time.time() - 300), ("gpu_a10g", time.time() - 700)]))
    scores = monitor.get_recoverable_resource_availabilities()
    assert scores == {"gpu_l4": pytest.approx(0.5, abs=0.01), "gpu_a10g": 1.0}
    assert set(monitor.get_resource_availabilities()) == {"gpu_l4", "gpu_a10g"}


def test_only_what_is_refused_counts(monkeypatch):
    monkeypatch.setattr(autoscaler, "CloudResourceMonitor", None)  # as it was, after the test

    class Provider(NodeProvider):
        def create_node_with_resources_and_labels(self, config, tags, count, resources, labels):
            if tags["ray-user-node-type"] == "none":
                raise RuntimeError("no capacity")
            return {"i-1": None}

    class Counting(RefusalsCount, Provider):
        pass

    provider = Counting({}, "t2ipal")
    create = provider.create_node_with_resources_and_labels
    assert create({}, {"ray-user-node-type": "some"}, 1, {}, {}) == {"i-1": None}
    with pytest.raises(RuntimeError, match="no capacity"):
        create({}, {"ray-user-node-type": "none"}, 1, {}, {})
    monitor = autoscaler.CloudResourceMonitor()
    assert monitor.get_recoverable_resource_availabilities() == {"none": 0.0}


def test_the_next_type_comes_and_at_last_one_on_demand():
    with fake_cluster() as (environment, refused):
        steps = json.dumps([SPOT[:1], SPOT])
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(refused), steps], env=environment, cwd=ROOT,
            capture_output=True, text=True, timeout=150,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == ["gpu_l40s", "gpu_on_demand"]
