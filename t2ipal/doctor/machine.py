"""What a machine offers to Ray and to torch: packages, GPUs, shared memory, disk, open files."""

import importlib.metadata
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil

import t2ipal
from t2ipal.config import listed
from t2ipal.doctor.findings import Finding, not_looked_at, ok, wrong

PINS = Path(t2ipal.__file__).parents[1] / "constraints.txt"
"""Of a checkout; an installed package has none."""
SHARED_MEMORY = Path("/dev/shm")
SHARED_SHARE = 0.3
"""Of the memory: what Ray takes for its object store, and wants in shared memory."""
FULL_SHARE = 0.95
"""Of a disk, from which on Ray refuses to make and to spill objects."""
LEAST_FREE_BYTES = 5 * 10**9
LEAST_FILES, GOOD_FILES = 8192, 65536
"""That a machine needs, and that a head of many machines does: each connection takes some."""
TORCH_LIMIT_S = 30.0
ASK_TORCH = "import torch; print(torch.__version__, torch.cuda.device_count(), torch.version.cuda)"


def read_pins(path: Path = PINS) -> dict[str, str]:
    """Package -> version that a checkout was tested with; empty where there is no checkout."""
    if not path.is_file():
        return {}
    lines = (re.match(r"([\w.-]+)==([^\s;#]+)", line) for line in path.read_text().splitlines())
    return {match[1]: match[2] for match in lines if match}


def check_packages(pins: Mapping[str, str], version: str) -> Finding:
    """Whether what is installed here is what was tested.

    Args:
        pins: package -> version of the checkout.
        version: of t2ipal in the checkout.
    """
    if not pins:
        return not_looked_at("packages", f"there is no {PINS.name} beside the package.")
    installed = {name: _installed(name) for name in [*pins, "t2ipal"]}
    expected = {**pins, "t2ipal": version}
    others = [
        f"{name} {found} in place of {expected[name]}"
        for name, found in installed.items()
        if found is not None and found.partition("+")[0] != expected[name]
    ]
    if others:
        return wrong(
            "packages",
            f"{listed(others, 4)}. Build the image anew, or pip install -c constraints.txt .",
        )
    there = sum(found is not None for found in installed.values())
    return ok("packages", f"{there} packages have the versions of {PINS.name}.")


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_gpus(expected: float = 0) -> Finding:
    """Whether torch sees the GPUs that are there.

    Args:
        expected: GPUs that Ray offers on this machine.
    """
    devices = len([name for name in os.listdir("/dev") if re.fullmatch(r"nvidia\d+", name)])
    # In a process of its own: a driver may hang, and Ray hides GPUs from whom it gave none.
    variables = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    try:
        asked = subprocess.run(
            [sys.executable, "-c", ASK_TORCH],
            env=variables, capture_output=True, text=True, timeout=TORCH_LIMIT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return wrong("GPUs", f"torch did not answer in {TORCH_LIMIT_S:g} s: restart this machine.")
    if asked.returncode != 0:
        last = (asked.stderr.strip().splitlines() or ["no reason given"])[-1]
        return wrong("GPUs", f"torch cannot be imported: {last}")
    version, count, cuda = asked.stdout.split()[-3:]
    if int(count) < max(devices, expected):
        remedy = (
            f"torch {version} is a build without CUDA: install one with it."
            if cuda == "None"
            else "Check the driver (nvidia-smi), and --gpus all of the container."
        )
        there = f"{max(devices, int(expected))} there"
        return wrong("GPUs", f"torch sees {count}, {there}. {remedy}")
    return ok("GPUs", f"torch {version} sees {count}." if int(count) else "none on this machine.")


def check_shared_memory(folder: Path = SHARED_MEMORY, memory_bytes: int | None = None) -> Finding:
    """Whether Ray's object store fits into shared memory."""
    if not folder.is_dir():
        return not_looked_at("shared memory", f"this system has no {folder}.")
    memory = memory_bytes or psutil.virtual_memory().total
    size, need = shutil.disk_usage(folder).total, SHARED_SHARE * memory
    if size < need:
        return wrong(
            "shared memory",
            f"{folder} has {_gb(size)}, Ray wants {_gb(need)} and would take slow files. Start the "
            f"container with --shm-size={need / 2**30:.0f}gb.",
        )
    return ok("shared memory", f"{folder} has {_gb(size)}.")


def check_disk(folder: str | None = None) -> Finding:
    """Whether Ray has room for its logs and for objects that leave the memory."""
    place = folder or os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    try:
        disk = shutil.disk_usage(place)
    except OSError as error:
        return wrong("disk", f"{place} cannot be read ({error.strerror}). Set RAY_TMPDIR.")
    free = f"{place} has {_gb(disk.free)} free of {_gb(disk.total)}"
    # Of what a user may write: some of a disk is kept for the system.
    if disk.used / (disk.used + disk.free or 1) >= FULL_SHARE or disk.free < LEAST_FREE_BYTES:
        return wrong(
            "disk", f"{free}; Ray spills nothing beyond 95%. Make room, or set RAY_TMPDIR."
        )
    return ok("disk", f"{free}.")


def check_open_files() -> Finding:
    """Whether a Ray on this machine may open enough files and connections."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)  # Ray raises the first one to this
    if most != resource.RLIM_INFINITY and most < LEAST_FILES:
        return wrong(
            "open files",
            f"at most {most:,}, which many workers use up: ulimit -n {GOOD_FILES}, or start the "
            f"container with --ulimit nofile={GOOD_FILES}:{GOOD_FILES}.",
        )
    return ok("open files", "no limit." if most == resource.RLIM_INFINITY else f"up to {most:,}.")


def check_machine(pins: Mapping[str, str], version: str, gpus: float = 0) -> Iterable[Finding]:
    """Everything about this machine; in a worker, everything about the worker's.

    Args:
        pins: package -> version of the checkout that asks.
        version: of its t2ipal.
        gpus: that Ray offers here.
    """
    yield check_packages(pins, version)
    yield check_gpus(gpus)
    yield check_shared_memory()
    yield check_disk()
    yield check_open_files()


def _gb(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"
