import dataclasses
import json

import pytest

from t2ipal.doctor.cluster import (
    ClusterState,
    NodeSeen,
    NodeType,
    check_demands,
    check_launches,
    check_nodes,
    check_versions,
)

HEAD = NodeSeen("head", "f0", "10.0.0.1", {"memory": 1e9})
CPU = NodeSeen("cpu_worker", "c1", "10.0.0.2", {"CPU": 8})
TYPES = (
    NodeType("head", {}, 0),
    NodeType("cpu_worker", {"CPU": 8}, 1),
    NodeType("gpu_worker", {"CPU": 4, "GPU": 1}, 2),
)
STATE = ClusterState("2.60.0", "3.11.7", (HEAD, CPU), (), (), (), (), (), True, TYPES)
LOG = """2026-11-29 11:00:00,000 INFO node_provider.py:485 -- Launching 1 nodes of type gpu_worker.
2026-11-29 11:00:02,000 INFO node_provider.py:492 -- Failed to launch 1 nodes of type gpu_worker: \
Node Launch Exception (InsufficientInstanceCapacity): We currently do not have sufficient g6.xlarge
"""


def changed(**values):
    return dataclasses.replace(STATE, **values)


def test_a_state_survives_json():
    state = changed(starting=("gpu_worker",), failed=(("gpu_worker", "x"),), ended=("gpu_worker",),
                    demands=(({"GPU": 1.0}, 3),))  # fmt: skip
    assert ClusterState.from_json(json.loads(json.dumps(dataclasses.asdict(state)))) == state
    state = changed(node_types=None, infeasible=(({"GPU": 9.0}, 1),))
    assert ClusterState.from_json(json.loads(json.dumps(dataclasses.asdict(state)))) == state


@pytest.mark.parametrize(
    ("ray", "python", "state", "text"),
    [
        ("2.60.0", "3.11.7", "ok", "Ray 2.60.0 and Python 3.11.7 on both sides."),
        ("2.60.0", "3.11.9", "ok", "Ray 2.60.0 and Python 3.11.7, Ray 2.60.0 and Python 3.11.9"),
        ("2.60.0", "3.12.1", "wrong", "Ray 2.60.0 and Python 3.11.7 there, Ray 2.60.0 and Python "),
        ("2.61.0", "3.11.7", "wrong", "Ray 2.60.0 and Python 3.11.7 there, Ray 2.61.0 and Python "),
    ],
)
def test_versions(ray, python, state, text):
    found = check_versions(STATE, ray, python)
    assert found.state == state and found.text.startswith(text)


def test_nodes():
    assert check_nodes(STATE).text == "there: 1 cpu_worker, 1 head."
    state = changed(starting=("gpu_worker",) * 2, ended=("gpu_worker",))
    assert check_nodes(state).text.endswith(
        "; starting: 2 gpu_worker; gone (idle, taken away or failed): 1 gpu_worker."
    )
    leaving = dataclasses.replace(CPU, draining=True)
    assert check_nodes(changed(nodes=(HEAD, leaving))).text == (
        "there: 1 cpu_worker, 1 head; of these about to go: 1 cpu_worker."
    )
    found = check_nodes(changed(error="The autoscaler\n failed"))
    assert found.state == "wrong" and "The autoscaler says: The autoscaler failed" in found.text


def test_a_start_that_failed_has_the_cloud_s_own_words():
    assert [found.state for found in check_launches(STATE)] == ["ok"]
    failed = (("gpu_worker", "launch failed with Failed to launch 1 nodes"),) * 2
    (found,) = check_launches(changed(failed=failed, log=LOG))
    assert found.state == "wrong"
    assert found.text == (
        "gpu_worker failed 2 times: Node Launch Exception (InsufficientInstanceCapacity): We "
        "currently do not have sufficient g6.xlarge AWS has no such machine there now: name more "
        "instance types and zones in cluster.yaml, or wait."
    )
    (found,) = check_launches(changed(failed=failed))  # as Ray's own status is: without a reason
    assert found.text.endswith(
        "Ray's status has no reason: look for it in monitor.log on the head."
    )


@pytest.mark.parametrize(
    ("asked", "values", "state", "text"),
    [
        ({"GPU": 1}, {"starting": ("gpu_worker",)}, "ok", "gpu_worker is being started."),
        ({"GPU": 1}, {}, "wrong", "gpu_worker would do, and none is starting. Look again in a"),
        ({"CPU": 8}, {}, "ok", "waits until a machine that is there has it free."),
        ({"CPU": 8}, {"nodes": (HEAD, NodeSeen("cpu_worker", "", "", {}))}, "wrong",
         "max_workers of cpu_worker is reached."),
        ({"GPU": 4, "CPU": 4}, {}, "wrong",
         "no node type can ever give that (GPU at most 1). Ask for less a worker, or add"),
        ({"GPU": 1, "CPU": 8}, {}, "wrong",
         "no node type can ever give that (no type has all of it together)."),
        ({"TPU": 1}, {}, "wrong", "no node type can ever give that (TPU at most 0)."),
        ({"GPU": 1}, {"node_types": None, "infeasible": (({"GPU": 1}, 1),)}, "wrong",
         "the autoscaler cannot give that: no node type has it, or max_workers is reached."),
        ({"GPU": 1}, {"node_types": None}, "wrong", "a node type would do, and none is starting."),
        ({"GPU": 1}, {"node_types": None, "starting": ("gpu",)}, "ok", "gpu is being started."),
        ({"GPU": 1}, {"node_types": None, "has_autoscaler": False}, "wrong",
         "no machine has that, and no autoscaler can start one."),
        ({"CPU": 2}, {"node_types": None}, "ok", "waits until a machine that is there"),
    ],
)  # fmt: skip
def test_what_work_waits_for(asked, values, state, text):
    (found,) = check_demands(changed(demands=((asked, 3),), **values))
    assert found.state == state
    assert text in found.text and found.text.startswith("3 x ")


def test_many_demands_are_counted():
    assert [found.text for found in check_demands(STATE)] == ["no work waits for resources."]
    demands = tuple(({"CPU": float(n)}, 1) for n in range(1, 6))
    assert [*check_demands(changed(demands=demands))][-1].text == "2 more."
