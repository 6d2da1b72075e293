"""A Ray head of our own with a token, its dashboard, and further nodes that may go again."""

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
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

RAY = str(Path(sys.executable).with_name("ray"))
QUIET = ["--disable-usage-stats", f"--object-store-memory={100 * 2**20}"]


@dataclass(frozen=True)
class Head:
    """Where it is, and what it takes to be let in."""

    address: str
    """Of its job server, http://host:port."""
    gcs: str
    """host:port."""
    token: str
    folder: Path
    """Of its files."""

    @property
    def environment(self) -> dict[str, str]:
        """That of a process that may use it."""
        names = [name for name in os.environ if name.startswith(("RAY_", "PYTHONPATH"))]
        kept = {name: value for name, value in os.environ.items() if name not in names}
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}
        return {**kept, **token, "OMP_NUM_THREADS": "1"}

    @contextlib.contextmanager
    def node(self) -> Iterator[str]:
        """One more machine without CPUs while the block lasts, and its id."""
        command = [RAY, "start", "--block", f"--address={self.gcs}", "--num-cpus=0", *QUIET]
        started = subprocess.Popen(
            command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 60
            while not (found := _node_ids(started.pid)):
                assert time.monotonic() < deadline and started.poll() is None, "no node"
                time.sleep(0.2)
            yield found[0]
        finally:
            _end(psutil.Process(started.pid))
            started.wait()


def _node_ids(pid: int) -> list[str]:
    """Of the raylets that a process has started."""
    words = [word for child in psutil.Process(pid).children(True) for word in child.cmdline()]
    return [word.partition("=")[2] for word in words if word.startswith("--node_id=")]


@contextlib.contextmanager
def ray_head() -> Iterator[Head]:
    """One with 2 CPUs that ends with the block."""
    token = secrets.token_hex(16)
    folder = tempfile.mkdtemp(prefix="t2ipal-", dir="/tmp")
    gcs, dashboard, listen, grpc, client, metrics, environments, *others = _free_ports(9)
    command = [RAY, "start", "--head", "--block", "--num-cpus=2", *QUIET]
    command += [f"--port={gcs}", f"--temp-dir={folder}", "--node-ip-address=127.0.0.1"]
    command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
    command += [f"--dashboard-agent-listen-port={listen}", f"--dashboard-agent-grpc-port={grpc}"]
    command += [f"--ray-client-server-port={client}", f"--metrics-export-port={metrics}"]
    command += [f"--runtime-env-agent-port={environments}"]
    head = Head(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{gcs}", token, Path(folder))
    variables = {
        **head.environment, "RAY_metrics_report_interval_ms": "2000",
        **dict(zip(("AUTOSCALER_METRIC_PORT", "DASHBOARD_METRIC_PORT"), others)),
    }  # fmt: skip
    log = Path(folder) / "head.log"
    with log.open("w") as file:
        started = subprocess.Popen(
            command, env=variables, stdout=file, stderr=file, start_new_session=True
        )
    try:
        _wait_until_ready(head, started, log)
        yield head
    finally:
        _end(psutil.Process(started.pid))
        started.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _free_ports(count: int) -> list[str]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [str(one.getsockname()[1]) for one in sockets]


def _wait_until_ready(head: Head, process: subprocess.Popen, log: Path) -> None:
    """Until it takes jobs, and knows its own machine."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            _ask(head, "api/jobs/")
            if json.loads(_ask(head, "api/v0/nodes"))["data"]["result"]["total"]:
                return
        except OSError:
            pass
        time.sleep(0.3)
    raise RuntimeError(f"The Ray head did not start:\n{log.read_text()}")


def _ask(head: Head, path: str) -> bytes:
    headers = {"Authorization": f"Bearer {head.token}"}
    request = urllib.request.Request(f"{head.address}/{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=5) as reply:
        return reply.read()


def _end(process: psutil.Process) -> None:
    """Ends a process and all that it started, by their ids."""
    family = [process, *process.children(recursive=True)]
    with contextlib.suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
        process.terminate()  # `ray start --block` ends its own children
        process.wait(timeout=5)
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(family, timeout=10)
