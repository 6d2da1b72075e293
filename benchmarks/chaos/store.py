"""Where the disturbed run goes: a folder, or an S3 server behind the faulty proxy."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import boto3  # noqa: TID251  creates the bucket

from benchmarks.chaos.proxy import FaultyProxy
from benchmarks.chaos.servers import ObjectServer, ceph_server, swift_server
from t2ipal.store import Store

BUCKET = "chaos"


@contextlib.contextmanager
def faulty_store(
    server: str, folder: Path, fault_rate: float, seed: int
) -> Iterator[tuple[Store, FaultyProxy | None]]:
    """An empty store as it is, and the proxy through which it fails; both end with the block.

    Sets the credentials in this process's environment.

    Args:
        server: moto, swift, ceph, or "folder" for a local one, which has no proxy.
        folder: for that, or for the server's files and logs.
        fault_rate: share of the requests that meet a fault.
        seed: of the faults.
    """
    if server == "folder":
        yield Store(folder / "run"), None
        return
    start = {"moto": moto_server, "swift": swift_server, "ceph": ceph_server}[server]
    with start(folder) as place, FaultyProxy(place.url, fault_rate, seed) as proxy:
        os.environ.update(
            AWS_ACCESS_KEY_ID=place.access_key,
            AWS_SECRET_ACCESS_KEY=place.secret_key,
            AWS_DEFAULT_REGION="us-east-1",
            AWS_EC2_METADATA_DISABLED="true",
        )
        os.environ.pop("AWS_PROFILE", None)
        boto3.client("s3", endpoint_url=place.url).create_bucket(Bucket=BUCKET)
        yield Store(f"s3://{BUCKET}/run", place.url), proxy


@contextlib.contextmanager
def moto_server(folder: Path) -> Iterator[ObjectServer]:
    """moto's server in a process of its own, its log in the folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = ObjectServer(f"http://127.0.0.1:{port}", "key", "very-secret")
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=log,
            stderr=log,
        )
    try:
        while process.poll() is None:
            with contextlib.suppress(urllib.error.URLError):
                urllib.request.urlopen(server.url, timeout=10).close()
                break
            time.sleep(0.2)
        yield server
    finally:
        process.kill()
        process.wait()
