"""The machines of the cluster that this process is connected to."""

import ray

GROUP = "ray.io/node-group"
"""Label that the autoscaler and KubeRay give a node: its type."""


def alive_machines(untyped: str) -> dict[str, str]:
    """Id -> node type of every machine that is there, the head too.

    Args:
        untyped: type of machines that no autoscaler started.
    """
    return {
        node["NodeID"]: node.get("Labels", {}).get(GROUP) or untyped
        for node in ray.nodes()
        if node["Alive"]
    }
