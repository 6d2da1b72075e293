"""The shipped cluster.yaml with other machines: processes on this one, started by Ray's autoscaler.

Also the provider that makes them, which the autoscaler loads from here.
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
import yaml
from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider
from ray.autoscaler._private.util import prepare_config
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.tags import TAG_RAY_USER_NODE_TYPE

from t2ipal.engine.capacity import RefusalsCount

ROOT = Path(__file__).parents[1]
RAY = str(Path(sys.executable).with_name("ray"))
HEAD = "f" * 51 + "00000"
"""Id of the head by which Ray's fake provider knows it."""
HEAD_TYPE = "ray.head.default"
"""Its type, of which that provider knows no other name."""
NODE_BYTES = 100 * 2**20
"""Object store of each machine."""


class ScarceMachines(FakeMultiNodeProvider):
    """Has none of the types that its file `refused` names, as a cloud without capacity."""

    def create_node_with_resources_and_labels(self, node_config, tags, count, resources, labels):
        node_type = tags[TAG_RAY_USER_NODE_TYPE]
        if node_type in json.loads(Path(self.provider_config["refused"]).read_text()):
            raise NodeLaunchException("InsufficientInstanceCapacity", f"No {node_type}.", None)
        super().create_node_with_resources_and_labels(node_config, tags, count, resources, labels)


class FakeMachines(RefusalsCount, ScarceMachines):
    """As the shipped provider, which puts the same before Ray's own for AWS."""


@contextlib.contextmanager
def fake_cluster(provider="fake_cluster.FakeMachines"):
    """A head alone; gives the environment of its jobs, and the file of the types to refuse."""
    folder = Path(tempfile.mkdtemp(prefix="t2ipal-", dir="/tmp"))
    refused = folder / "refused.json"
    refused.write_text("[]")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = _swapped({
        "type": "external", "module": provider, "refused": str(refused),
        "disable_node_updaters": True,  # there is nothing to install
        "gcs_address": f"127.0.0.1:{port}",  # otherwise they join port 6379 of the machine
    })  # fmt: skip
    (folder / "cluster.yaml").write_text(yaml.safe_dump(config))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = {
        **kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16),
    }  # fmt: skip
    for_fake_nodes = {
        "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_enable_autoscaler_v2": "1", "RAY_CLOUD_INSTANCE_ID": HEAD,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD,
    }  # fmt: skip
    command = [RAY, "start", "--head", "--block", "--num-cpus=0", f"--port={port}"]
    command += ["--node-ip-address=127.0.0.1", f"--temp-dir={folder}", "--disable-usage-stats"]
    command += ["--include-dashboard=false", f"--object-store-memory={NODE_BYTES}"]
    command += [f"--autoscaling-config={folder / 'cluster.yaml'}"]
    with (folder / "head.log").open("w") as log:
        head = subprocess.Popen(command, env=environment | for_fake_nodes, stdout=log, stderr=log)
    try:
        _wait_until_it_answers(port, head)
        yield {**environment, "RAY_ADDRESS": f"127.0.0.1:{port}"}, refused
    finally:
        _end_all_of(str(folder), head)
        shutil.rmtree(folder, ignore_errors=True)


def _swapped(provider):
    """The shipped file with another provider, and without what only its machines have."""
    shipped = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    types = {}
    for name, node_type in shipped["available_node_types"].items():
        is_head = name == shipped["head_node_type"]
        store = {} if is_head else {"object_store_memory": NODE_BYTES}
        node_type["resources"] |= store
        types[HEAD_TYPE if is_head else name] = {**node_type, "node_config": {}, "docker": {}}
    commands = {name: [] for name in shipped if name.endswith("_commands")}
    return prepare_config({
        **shipped, **commands, "provider": provider, "head_node_type": HEAD_TYPE,
        "available_node_types": types, "auth": {}, "docker": {}, "file_mounts": {},
    })  # fmt: skip


def _wait_until_it_answers(port, head):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and head.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.3)
    raise RuntimeError("The head did not start.")


def _end_all_of(folder, head):
    """Ends what was started, nodes included, which are no children: their folder tells them."""
    family = [psutil.Process(head.pid), *psutil.Process(head.pid).children(recursive=True)]
    for process in psutil.process_iter(["cmdline"]):
        if folder in " ".join(process.info["cmdline"] or ()):
            family.append(process)
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=10)
