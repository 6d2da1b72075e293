"""Draining a node of Ray: it takes no new work, and who works there learns that it goes.

Asks the head directly and starts no driver: that would need a worker process of this node.
"""

import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psutil
import ray._raylet
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.core.generated import autoscaler_pb2
from ray.exceptions import RayError

from t2ipal.config import listed, require

raylet: Any = ray._raylet  # compiled: its stubs know little of it
protocol: Any = autoscaler_pb2
DRAINED = "DRAINING", "DEAD"
DRAIN_S = 5.0
"""In which a request must show."""


@dataclass(frozen=True)
class LocalNode:
    """A node of a Ray cluster whose raylet runs on this machine."""

    node_id: str
    head: str
    """Address of the cluster's head, host:port."""
    process: psutil.Process
    """Its raylet."""

    def is_alive(self) -> bool:
        """Whether the raylet runs; one that nobody has waited for yet does not."""
        try:
            return self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def local_nodes() -> list[LocalNode]:
    """The nodes of this machine, from the command lines of their raylets."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command, *words = process.info["cmdline"] or [""]
        if not command.endswith("raylet/raylet"):
            continue
        flags = dict(word.split("=", 1) for word in words if "=" in word)
        if "--node_id" in flags and "--gcs-address" in flags:
            found.append(LocalNode(flags["--node_id"], flags["--gcs-address"], process))
    return found


def local_node(node_id: str | None = None) -> LocalNode:
    """The node of this machine.

    Args:
        node_id: which one, where there are several.

    Raises:
        RuntimeError: there is none.
        ValueError: there are several, and none is named.
    """
    nodes = [node for node in local_nodes() if node_id in (None, node.node_id)]
    if not nodes:
        raise RuntimeError(
            f"No Ray node{f' {node_id}' if node_id else ''} runs on this machine. Start it first "
            "(ray start)."
        )
    names = [node.node_id for node in nodes]
    require(
        len(nodes) == 1,
        f"node_id must name one of the {len(nodes)} Ray nodes on this machine: {listed(names, 4)}.",
    )
    return nodes[0]


def drain(node: LocalNode, message: str, deadline: datetime | None) -> None:
    """Tells the cluster that a node will be taken away.

    Args:
        node: that goes.
        message: why, to be shown.
        deadline: when; None: nobody knows.

    Raises:
        RuntimeError: the head does not answer, or refuses.
    """
    reason = protocol.DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION
    deadline_ms = 0 if deadline is None else int(deadline.timestamp() * 1000)
    try:
        # Raises where there is none; the client would end the process.
        raylet.AuthenticationTokenLoader.instance().has_token()
        client = raylet.GcsClient(address=node.head)
        is_accepted, why = client.drain_node(node.node_id, reason, message, deadline_ms)
    except RayError as error:
        line = str(error).strip().splitlines()[0]
        raise RuntimeError(f"The head at {node.head} does not drain the node: {line}") from error
    if not is_accepted:
        raise RuntimeError(f"The head at {node.head} refused to drain the node: {why}")
    # It says yes to a node that it does not know yet, too.
    begun = time.monotonic()
    while _status(node) not in DRAINED:
        if time.monotonic() - begun > DRAIN_S:
            raise RuntimeError(f"The head at {node.head} took the request, and nothing drains.")
        time.sleep(0.2)


def _status(node: LocalNode) -> str | None:
    """What the head says of a node; None: it does not know it."""
    status = get_cluster_status(node.head)
    seen = [*status.active_nodes, *status.idle_nodes, *status.failed_nodes]
    return next((each.node_status for each in seen if each.node_id == node.node_id), None)
