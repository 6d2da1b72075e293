"""A job's connection to Ray: joins the cluster it runs on, or starts a private one."""

import contextlib
import logging
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray

import t2ipal
from t2ipal.config import require
from t2ipal.engine.config import RayConfig
from t2ipal.engine.private_ray import private_ray
from t2ipal.engine.waiting import Watch, max_wait_s
from t2ipal.places import runs_as_submitted_job

ANSWER_S = 60.0
"""In which a cluster must answer: there it is, or it is not."""


@contextlib.contextmanager
def connect(
    config: RayConfig | None = None,
    *,
    least_cpus: int = 1,
    least_gpus: float = 0,
    address: str | None = None,
    dashboard: bool = False,
) -> Iterator[dict[str, Any]]:
    """Connected to Ray inside the `with` block; gives the resources that are there.

    A session that is already open (a test's, a notebook's) is used and left open. Otherwise the
    cluster at `address` or RAY_ADDRESS is joined (`ray job submit` sets it), and without either a
    private Ray starts on this machine and ends with the block.

    Args:
        config: how long what is done in the block waits for Ray; None: the default.
        least_cpus: that the work needs at once; a private Ray offers them even on fewer cores.
        least_gpus: that the work needs at once; a private Ray has what the machine has.
        address: of a running cluster, e.g. "auto" on its head node.
        dashboard: serve a private Ray's dashboard, on 127.0.0.1 only.

    Raises:
        OSError: there is no cluster at the address (ConnectionError), or it does not answer.
        ValueError: a private Ray would have too few GPUs and wait for them forever, or cannot work
            where the package or the temporary folders lie.
    """
    token = max_wait_s.set((config or RayConfig()).max_wait_s)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        with _session(least_cpus, least_gpus, address, dashboard):
            if callable(on_sigterm):  # Ray has put its own in place of it
                signal.signal(signal.SIGTERM, on_sigterm)
            logging.getLogger("ray.data").setLevel(logging.ERROR)
            yield ray.cluster_resources()
    finally:
        max_wait_s.reset(token)


@contextlib.contextmanager
def _session(
    least_cpus: int, least_gpus: float, address: str | None, dashboard: bool
) -> Iterator[None]:
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if ray.is_initialized():
        yield
    elif address == "local":
        with private_ray(max(least_cpus, os.cpu_count() or 1), dashboard):
            gpus = ray.cluster_resources().get("GPU", 0)
            require(
                gpus >= least_gpus,
                f"The work needs {least_gpus:g} GPUs, this machine has {gpus:g}.",
            )
            yield
    else:
        try:
            _join(address)
            yield
        finally:
            ray.shutdown()


def _join(address: str) -> None:
    """Joins the cluster at an address, or raises within a minute."""
    require_head(address)
    describe, advice = f"the Ray cluster at {address} to answer.", "Check RAY_ADDRESS."
    with Watch(lambda: describe, most_s=ANSWER_S, advice=advice).over():
        ray.init(
            address=address,
            runtime_env=_runtime_env(),
            log_to_driver=False,
            logging_level=logging.ERROR,
        )


def require_head(address: str, limit_s: float = ANSWER_S) -> None:
    """Raises ConnectionError unless something listens at the address of a head, if that names one.

    Ray would try for ten minutes.
    """
    server = re.fullmatch(r"(?:ray://)?\[?([^/]+?)\]?:(\d+)", address)
    if server is None:
        return
    try:
        socket.create_connection((server[1], int(server[2])), limit_s).close()
    except OSError as error:
        raise ConnectionError(
            f"No Ray cluster answers at {address} ({error.strerror or error}). Check the "
            "address, or unset RAY_ADDRESS: then a job starts a Ray of its own."
        ) from error


def _runtime_env() -> dict[str, Any]:
    """Lets workers of a cluster import this package where it runs from a checkout."""
    if runs_as_submitted_job():
        return {}  # the working directory is on every node already
    return {"py_modules": [str(Path(t2ipal.__file__).parent)]}
