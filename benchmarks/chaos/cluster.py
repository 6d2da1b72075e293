"""A Ray cluster of several nodes on this machine, of which any part but the head may be killed.

Only processes that it started itself: they are found as descendants of its own raylets.
"""

import contextlib
import logging
import os
import random
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import psutil
from ray._private.authentication.authentication_token_setup import (  # noqa: TID251
    enable_token_auth_by_default,
)
from ray.cluster_utils import Cluster  # noqa: TID251

ACTOR, WORKER, NODE = "actor", "worker", "node"
ACTORS = "(_Actor)", "TrainWorker"
"""In the titles of their processes: Ray Data names the actors of a pool after what they map."""


@contextlib.contextmanager
def small_cluster(num_nodes: int, cpus_per_node: int, python_path: str) -> Iterator["SmallCluster"]:
    """A cluster that ends with the block; this process's environment is that of its workers.

    Args:
        num_nodes: beside the head, which has no CPUs.
        cpus_per_node: logical ones.
        python_path: folders from which the workers import.
    """
    # Short, since the path of a Unix socket has at most 107 characters.
    folder = tempfile.mkdtemp(prefix="t2ipal-", dir="/tmp")
    os.environ.update(PYTHONPATH=python_path, RAY_TMPDIR=folder)
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(16))
    logging.getLogger("ray").setLevel(logging.ERROR)
    enable_token_auth_by_default()  # as ray.init does
    cluster = Cluster()
    try:
        cluster.add_node(num_cpus=0, include_dashboard=False)
        nodes = SmallCluster(cluster, cpus_per_node)
        for _ in range(num_nodes):
            nodes.add()
        cluster.wait_for_nodes(timeout=120)
        yield nodes
    finally:
        if cluster.head_node is not None:
            cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


class SmallCluster:
    """What of the cluster can be killed, and how."""

    def __init__(self, cluster: Any, cpus_per_node: int):
        self.cluster = cluster
        self.cpus_per_node = cpus_per_node

    @property
    def address(self) -> str:
        """For `ray.init`."""
        return self.cluster.address

    def add(self) -> None:
        """Starts one more node, and does not wait until it has joined."""
        self.cluster.add_node(wait=False, num_cpus=self.cpus_per_node)

    def kill(self, kind: str, rng: random.Random) -> bool:
        """Kills one at random with SIGKILL; False where there is none. A node is replaced.

        Args:
            kind: ACTOR, one that makes shards or trains; WORKER, any other process; or NODE.
            rng: chooses.
        """
        if kind == NODE:
            nodes = sorted(self.cluster.worker_nodes, key=lambda node: node.unique_id)
            self.cluster.remove_node(rng.choice(nodes), allow_graceful=False)
            self.add()
            return True
        victims = self._workers()[kind]
        if victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                rng.choice(victims).kill()
                return True
        return False

    def _workers(self) -> dict[str, list[psutil.Process]]:
        """Worker processes of all nodes by kind."""
        found: dict[str, list[psutil.Process]] = {ACTOR: [], WORKER: []}
        for node in self.cluster.list_all_nodes():
            with contextlib.suppress(psutil.NoSuchProcess):
                raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
                for process in raylet.children(recursive=True):
                    title = " ".join(process.cmdline()[:1])
                    # A raylet dies with its agents: that would be another way to kill a node.
                    if title.startswith("ray::") and not title.endswith("Agent"):
                        is_actor = any(name in title for name in ACTORS)
                        found[ACTOR if is_actor else WORKER].append(process)
        return found
