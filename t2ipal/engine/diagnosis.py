"""Reading what a cluster knows about itself, for `t2ipal.doctor`.

In a process of its own: without a token Ray's client ends its process, and without a head it waits
for most of a minute.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import psutil
import ray
import ray._raylet

from t2ipal.config import read_yaml
from t2ipal.doctor.cluster import (
    ClusterState,
    check_demands,
    check_launches,
    check_nodes,
    check_versions,
)
from t2ipal.doctor.findings import Finding, not_looked_at, ok, wrong
from t2ipal.doctor.job_server import check_job_server, find_token, token_advice
from t2ipal.engine.session import require_head

raylet: Any = ray._raylet  # compiled: its stubs know little of it
STATE_LIMIT_S = 20.0
"""For the process: most of it is the import of Ray on a busy machine."""
MACHINES_LIMIT_S = 60.0
"""For workers to start on all machines, and to import torch."""
CONNECT_S = 5.0
RPC_S = 5.0
MONITORS = "autoscaler/v2/monitor.py", "autoscaler/_private/monitor.py"
LOG_BYTES = 200_000
"""Of the end of the autoscaler's log."""


def check_cluster(address: str, pins: Mapping[str, str], version: str) -> Iterable[Finding]:
    """Everything about a cluster.

    Args:
        address: of its head, host:port or "auto", or of its dashboard, http://host:port.
        pins: package -> version that its machines should have.
        version: of t2ipal, the same.
    """
    if address.startswith(("http://", "https://")):
        yield from check_job_server(address, ray.__version__)
        return
    if address.startswith("ray://"):
        yield not_looked_at("address", "give host:6379 of the head, or http://host:8265.")
        return
    require_head(address, CONNECT_S)
    yield ok("address", f"{address} answers.")
    reply = _ask("state", {"address": address}, STATE_LIMIT_S)
    if "token" in reply:
        yield wrong("token", token_advice(reply["token"] == "refused"))
        return
    if "error" in reply:
        yield wrong("cluster", reply["error"])
        return
    yield ok("token", "accepted." if find_token() else "none here, and none is wanted.")
    state = ClusterState.from_json(reply["state"])
    python_version = ".".join(map(str, sys.version_info[:3]))
    versions = check_versions(state, ray.__version__, python_version)
    yield versions
    yield check_nodes(state)
    yield from check_launches(state)
    yield from check_demands(state)
    if versions.state != "ok":
        yield not_looked_at("machines", "with these versions no work can be started there.")
        return
    machines = {"address": address, "pins": dict(pins), "version": version}
    reply = _ask("machines", machines, MACHINES_LIMIT_S)
    if "error" in reply:
        yield wrong("machines", reply["error"])
    for finding in reply.get("findings", ()):
        yield Finding(**finding)


def _ask(what: str, request: Mapping[str, Any], limit_s: float) -> dict[str, Any]:
    """What a process of its own finds out, or {"error": ...}."""
    command = [sys.executable, "-m", "t2ipal.engine.diagnosis", what, json.dumps(request)]
    variables = {**os.environ, "RAY_BACKEND_LOG_LEVEL": "fatal"}
    try:
        done = subprocess.run(
            command, env=variables, capture_output=True, text=True, timeout=limit_s
        )
    except subprocess.TimeoutExpired:
        return {"error": f"{request['address']} takes more than {limit_s:g} s to answer."}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if lines:
        return json.loads(lines[-1])
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return {"error": f"Ray ended while it asked {request['address']}: {last}"}


def _state(request: Mapping[str, Any]) -> dict[str, Any]:
    from ray._private.services import canonicalize_bootstrap_address_or_die
    from ray.exceptions import AuthenticationError

    try:
        # Raises where there must be one and is none.
        raylet.AuthenticationTokenLoader.instance().has_token()
    except AuthenticationError:
        return {"token": "missing"}
    address = canonicalize_bootstrap_address_or_die(request["address"])
    try:
        return {"state": _read_state(raylet.GcsClient(address=address), address)}
    except AuthenticationError:
        sent = os.environ.get("RAY_AUTH_MODE") == "token"
        return {"token": "refused" if sent else "missing"}


def _read_state(client: Any, address: str) -> dict[str, Any]:
    from ray._common.usage.usage_lib import get_cluster_metadata
    from ray._private.ray_constants import DEBUG_AUTOSCALING_ERROR
    from ray.autoscaler.v2.schema import Stats
    from ray.autoscaler.v2.utils import ClusterStatusParser
    from ray.core.generated import autoscaler_pb2

    versions, protocol = get_cluster_metadata(client), cast(Any, autoscaler_pb2)
    reply = protocol.GetClusterStatusReply.FromString(client.get_cluster_status(timeout_s=RPC_S))
    status = ClusterStatusParser.from_get_cluster_status_reply(reply, Stats())
    autoscaler, waiting = _autoscaler(address), status.resource_demands
    asked = [
        *waiting.ray_task_actor_demand,
        *waiting.placement_group_demand,
        *waiting.cluster_constraint_demand,
    ]
    error = client.internal_kv_get(DEBUG_AUTOSCALING_ERROR.encode(), timeout=RPC_S)
    return {
        "ray_version": versions["ray_version"],
        "python_version": versions["python_version"],
        "nodes": [
            {
                "node_type": _type(node),
                "node_id": node.node_id,
                "ip": node.ip_address,
                "resources": node.total_resources(),
                "draining": node.node_status == "DRAINING",
            }
            for node in [*status.active_nodes, *status.idle_nodes]
        ],
        "starting": [
            *(
                each.ray_node_type_name
                for each in status.pending_launches
                for _ in range(each.count)
            ),
            *(node.ray_node_type_name for node in status.pending_nodes),
        ],
        "failed": [
            (each.ray_node_type_name, each.details or "")
            for each in status.failed_launches
            for _ in range(each.count)
        ],
        "ended": [_type(node) for node in status.failed_nodes],
        "demands": [(dict(each.bundle), each.count) for d in asked for each in d.bundles_by_count],
        "infeasible": _infeasible(reply.autoscaling_state),
        "has_autoscaler": reply.autoscaling_state.autoscaler_state_version > 0,
        "node_types": _node_types(autoscaler),
        "log": _log(autoscaler),
        "error": (error or b"").decode(),
    }


def _type(node: Any) -> str:
    """The node's type; a machine that no autoscaler started has none."""
    name = node.ray_node_type_name
    return "machine" if name == f"node_{node.node_id}" else name


def _infeasible(state: Any) -> list[tuple[dict[str, float], int]]:
    """What the autoscaler says that it cannot give."""
    requests = [
        *state.infeasible_resource_requests,
        *(each for gang in state.infeasible_gang_resource_requests for each in gang.requests),
        *(
            each.request
            for constraint in state.infeasible_cluster_resource_constraints
            for each in constraint.resource_requests
        ),
    ]
    return [(dict(each.resources_bundle), 1) for each in requests]


def _autoscaler(address: str) -> dict[str, str]:
    """Options of the autoscaler's process, which is on the head's machine; empty elsewhere."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if any(word.endswith(MONITORS) for word in words):
            options = dict(word.split("=", 1) for word in words if "=" in word)
            if options.get("--gcs-address") == address:
                return options
    return {}


def _node_types(autoscaler: Mapping[str, str]) -> list[dict[str, Any]] | None:
    """From the cluster.yaml that the autoscaler runs by; None: it cannot be read here."""
    file = Path(autoscaler.get("--autoscaling-config", "")).expanduser()
    if not file.is_file():
        return None
    return [
        {
            "name": name,
            "resources": each.get("resources", {}),
            "most": each.get("max_workers", each.get("min_workers", 0)),
        }
        for name, each in read_yaml(file)["available_node_types"].items()
    ]


def _log(autoscaler: Mapping[str, str]) -> str:
    """Its end."""
    try:
        data = Path(autoscaler.get("--logs-dir", ""), "monitor.log").read_bytes()
    except OSError:
        return ""
    return data[-LOG_BYTES:].decode(errors="replace")


def _machines(request: Mapping[str, Any]) -> dict[str, Any]:
    """The checks of a machine, made by a worker on each machine of the cluster."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from t2ipal.engine.session import connect

    with connect(address=request["address"]):
        nodes = [node for node in ray.nodes() if node["Alive"]]
        asked = {}
        for node in nodes:
            affinity = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = ray.remote(_look_here).options(
                num_cpus=0, scheduling_strategy=affinity, max_retries=0
            )
            gpus = node["Resources"].get("GPU", 0)
            asked[task.remote(request["pins"], request["version"], gpus)] = node[
                "NodeManagerAddress"
            ]
        deadline = time.monotonic() + MACHINES_LIMIT_S * 0.8
        findings: list[dict[str, Any]] = []
        for result, ip in asked.items():
            try:
                found = ray.get(result, timeout=max(deadline - time.monotonic(), 0))
            except Exception as error:  # of a machine that is lost, or has no room for a worker
                reason = str(error).strip().splitlines() or [""]
                text = f"no worker started there ({type(error).__name__}). {reason[-1]}"
                findings.append(vars(wrong(f"{ip}", text)))
                continue
            bad = [each for each in found if each["state"] != "ok"]
            fine = [each["check"] for each in found if each["state"] == "ok"]
            findings += [each | {"check": f"{ip} {each['check']}"} for each in bad]
            if fine:
                findings.append(vars(ok(f"{ip}", f"{', '.join(fine)} are well.")))
    return {"findings": findings}


def _look_here(pins: dict[str, str], version: str, gpus: float) -> list[dict[str, Any]]:
    from t2ipal.doctor.machine import check_machine

    return [vars(finding) for finding in check_machine(pins, version, gpus)]


if __name__ == "__main__":
    work = {"state": _state, "machines": _machines}[sys.argv[1]]
    try:
        answer = json.dumps(work(json.loads(sys.argv[2])))
    except Exception as error:
        answer = json.dumps({"error": " ".join(f"{type(error).__name__}: {error}".split())[:400]})
    print(answer, flush=True)
    os._exit(0)  # threads of Ray may hang
