"""The machines of the cluster that this process is connected to."""

import ray

GROUP = "ray.io/node-group"
"""Label that the autoscaler and KubeRay give a node: its type."""
KUBERAY_HEAD = "headgroup"


def alive_machines(untyped: str) -> dict[str, str]:
    """Id -> node type, as cluster.yaml names it, of every machine that is there, the head too.

    Args:
        untyped: type of machines that no autoscaler started.
    """
    return {
        node["NodeID"]: node_type(node.get("Labels", {}).get(GROUP, "")) or untyped
        for node in ray.nodes()
        if node["Alive"]
    }


def node_type(group: str) -> str:
    """The name in cluster.yaml of a group of either; names of Kubernetes have no underscore."""
    return "head" if group == KUBERAY_HEAD else group.replace("-", "_")
