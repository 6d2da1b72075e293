"""A job's connection to Ray: joins the cluster it runs on, or starts a private one."""

import contextlib
import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray

import t2ipal
from t2ipal.config import require
from t2ipal.places import runs_as_submitted_job

AUTH_VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@contextlib.contextmanager
def connect(
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
        least_cpus: that the work needs at once; a private Ray offers them even on fewer cores.
        least_gpus: that the work needs at once; a private Ray has what the machine has.
        address: of a running cluster, e.g. "auto" on its head node.
        dashboard: serve a private Ray's dashboard, on 127.0.0.1 only.

    Raises:
        ConnectionError: there is no cluster at the address.
        ValueError: a private Ray would have too few GPUs and wait for them forever.
    """
    if ray.is_initialized():
        yield ray.cluster_resources()
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {}
    if address == "local":
        _provide_token()
        # Ray Data makes the C++ core report an error, about no error, for every pool of actors.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        num_cpus = max(least_cpus, os.cpu_count() or 1)
        options = {"num_cpus": num_cpus, "include_dashboard": dashboard}
        options["dashboard_host"] = "127.0.0.1"
    try:
        ray.init(
            address=address,
            runtime_env=_runtime_env(address),
            log_to_driver=False,
            logging_level=logging.ERROR,
            **options,
        )
        resources = ray.cluster_resources()
        gpus = resources.get("GPU", 0)
        require(
            address != "local" or gpus >= least_gpus,
            f"The work needs {least_gpus:g} GPUs, this machine has {gpus:g}.",
        )
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        yield resources
    finally:
        ray.shutdown()


def _runtime_env(address: str) -> dict[str, Any]:
    """Lets workers import this package where it runs from a checkout and is not installed."""
    package = Path(t2ipal.__file__).parent
    if address == "local":
        paths = [str(package.parent), os.environ.get("PYTHONPATH", "")]
        return {"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, paths))}}
    if runs_as_submitted_job():
        return {}  # the working directory is on every node already
    return {"py_modules": [str(package)]}


def _provide_token() -> None:
    """Sets a token for the private Rays of this process, unless the user has chosen one.

    Ray would otherwise write one under the home folder, which may be read-only or shared. The mode
    is left to `ray.init`, which turns tokens on by default and reads the variable only once.
    """
    if not any(name in os.environ for name in AUTH_VARIABLES):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
