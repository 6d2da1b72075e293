"""A Ray of a job's own on this machine, wherever the interpreter, the package and TMPDIR lie.

Ray starts its workers by texts that it takes apart as a shell does, and talks to them through
sockets whose paths must be short.
"""

import contextlib
import logging
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray

import t2ipal
from t2ipal.config import require

AUTH_VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
SOCKET = "/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"
MOST_BYTES = 107 - len(SOCKET)
"""Of the path of a folder in which Ray makes its sockets."""
NO_FIRST_WAIT = {"RAY_prestart_worker_first_driver": "0"}
"""`ray.init` would else wait for a first worker of each core, if need be forever and deaf."""
JOIN_S = 5.0
SHORT_PLACES = ("/tmp", "/var/tmp", "/dev/shm")
logger = logging.getLogger(__name__)


@contextlib.contextmanager
def private_ray(num_cpus: int, dashboard: bool = False) -> Iterator[None]:
    """A Ray of this process alone inside the `with` block; leaves nothing but its logs.

    Args:
        num_cpus: that it offers.
        dashboard: serve its dashboard, on 127.0.0.1 only.

    Raises:
        RuntimeError: it did not start, as on a machine that is too busy.
        ValueError: it cannot work where the package or the temporary folders lie.
    """
    _provide_token()
    # Ray Data makes the C++ core report an error, about no error, for every pool of actors.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    with _temp_dir() as folder:
        try:
            # Workers inherit the environment: a runtime_env would start each through a shell.
            variables = {"PYTHONPATH": _python_path(), "RAY_TMPDIR": folder, **NO_FIRST_WAIT}
            with _environment(variables), _quoting_as_a_shell(folder):
                _start(
                    num_cpus=num_cpus,
                    include_dashboard=dashboard,
                    dashboard_host="127.0.0.1",
                    runtime_env=_runtime_env(),
                )
            yield
        finally:
            if not _is_waited_for():
                ray.shutdown()


def _start(**options: Any) -> None:
    try:
        ray.init("local", log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:
        if type(error) is not Exception:
            raise
        # Its processes have 30 s, which no option changes.
        raise RuntimeError(f"Ray did not start on this machine, try again: {error}") from error


def _is_waited_for() -> bool:
    """Whether a thread of Ray Data hangs in a call of Ray, as where no worker process ever started.

    It would end the process in silence once Ray has gone, so that goes with the process.
    """
    executors = [t for t in threading.enumerate() if t.name.startswith("StreamingExecutor")]
    for thread in executors:
        thread.join(JOIN_S)
    return any(thread.is_alive() for thread in executors)


def _provide_token() -> None:
    """Sets a token for the private Rays of this process, unless the user has chosen one.

    Ray would otherwise write one under the home folder, which may be read-only or shared. The mode
    is left to `ray.init`, which turns tokens on by default and reads the variable only once.
    """
    if not any(name in os.environ for name in AUTH_VARIABLES):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _python_path() -> str:
    """Lets workers import this package where it runs from a checkout and is not installed."""
    parent = str(Path(t2ipal.__file__).parents[1])
    require(
        os.pathsep not in parent,
        f"Ray's workers cannot import t2ipal from {parent}: no path with {os.pathsep!r} can be in "
        "PYTHONPATH. Move it, or work without Ray (--in-process, or --num-workers 0).",
    )
    return os.pathsep.join(filter(None, [parent, os.environ.get("PYTHONPATH", "")]))


def _runtime_env() -> dict[str, Any]:
    """Lets Ray's shell, through which some workers are started, find the interpreter."""
    quoted = shlex.quote(sys.executable)
    return {} if quoted == sys.executable else {"py_executable": quoted}


@contextlib.contextmanager
def _quoting_as_a_shell(folder: str) -> Iterator[None]:
    """Mends how Ray writes its workers' commands: it quotes for Windows what a shell's rules read.

    Only where that shows: spaces and brackets are read as they were meant.
    """
    paths = (sys.executable, ray.__file__, folder)
    if not any(letter in path for path in paths for letter in "'\\"):
        yield
        return
    quote = subprocess.list2cmdline
    subprocess.list2cmdline = shlex.join
    try:
        yield
    finally:
        subprocess.list2cmdline = quote


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _temp_dir() -> Iterator[str]:
    """The folder in which Ray makes its own: where it would, or else a short one of this session.

    Raises:
        ValueError: RAY_TMPDIR cannot be used, or no folder can.
    """
    given, own = os.environ.get("RAY_TMPDIR"), os.environ.get("TMPDIR") or "/tmp"
    if given:
        with contextlib.suppress(OSError):  # `_unusable` says what is wrong
            os.makedirs(given, exist_ok=True)
    reason = _unusable(given or own)
    if not reason:
        yield given or own
        return
    require(not given, f"RAY_TMPDIR must be a folder for Ray's files, got {given}: {reason}.")
    place = next((place for place in SHORT_PLACES if not _unusable(place)), None)
    if place is None:
        raise ValueError(
            f"Ray needs a folder for its files, and cannot use {own} ({reason}) nor any of "
            f"{', '.join(SHORT_PLACES)}. Set RAY_TMPDIR to one with a short path."
        )
    folder = tempfile.mkdtemp(prefix="t2ipal-", dir=place)
    logger.warning("Ray cannot use TMPDIR (%s): %s. Its files go to %s.", own, reason, folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unusable(place: str) -> str:
    """Why Ray cannot make its folder `ray` there; "" where it can."""
    folder = Path(place, "ray")
    length = len(os.fsencode(folder))
    if length > MOST_BYTES:
        return f"its sockets' paths would have {length + len(SOCKET)} bytes, and 107 are the most"
    if not Path(place).is_dir():
        return "there is no such folder"
    existing = folder if folder.exists() else folder.parent
    try:
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        return f"{existing} cannot be written ({error.strerror})"
    return ""
