import shutil
import subprocess
from collections import namedtuple

import pytest

from t2ipal.doctor import machine
from t2ipal.doctor.machine import (
    check_disk,
    check_gpus,
    check_machine,
    check_open_files,
    check_packages,
    check_shared_memory,
    read_pins,
)

Disk = namedtuple("Disk", "total used free")


def test_the_checkout_has_pins():
    assert {"ray", "torch", "boto3"} <= {*read_pins()}


def test_packages_of_other_versions(tmp_path, monkeypatch):
    (tmp_path / "pins").write_text("# all\ntorch==2.1.0\nnumpy==1.0 ; python_version > '3'\nx==1\n")
    pins = read_pins(tmp_path / "pins")
    assert pins == {"torch": "2.1.0", "numpy": "1.0", "x": "1"}
    here = {"torch": "2.1.0+cpu", "numpy": "2.0", "t2ipal": "0.1"}
    monkeypatch.setattr(machine, "_installed", here.get)
    found = check_packages(pins, "0.2")
    assert found.state == "wrong"
    assert found.text.startswith("numpy 2.0 in place of 1.0, t2ipal 0.1 in place of 0.2. Build ")
    assert check_packages({"torch": "2.1.0"}, "0.1").state == "ok"
    assert read_pins(tmp_path / "none") == {}
    assert check_packages({}, "0.1").state == "not looked at"


@pytest.mark.parametrize(
    ("output", "devices", "expected", "state", "text"),
    [
        ("2.13.0 0 None", [], 0, "ok", "none on this machine."),
        ("2.13.0 2 13.0", ["nvidia0", "nvidia1", "nvidiactl"], 2, "ok", "torch 2.13.0 sees 2."),
        ("2.13.0+cpu 0 None", ["nvidia0"], 0, "wrong", "torch sees 0, 1 there. torch 2.13.0+cpu"),
        ("2.13.0 1 13.0", [], 4, "wrong", "torch sees 1, 4 there. Check the driver"),
    ],
)
def test_gpus(monkeypatch, output, devices, expected, state, text):
    asked = {}

    def run(command, env, **options):
        asked.update(env)
        return subprocess.CompletedProcess(command, 0, f"warning\n{output}\n", "")

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(machine.os, "listdir", lambda folder: devices)
    monkeypatch.setattr(machine.subprocess, "run", run)
    found = check_gpus(expected)
    assert found.state == state and found.text.startswith(text)
    assert "CUDA_VISIBLE_DEVICES" not in asked  # Ray hides all from a task without GPUs


def test_a_torch_that_does_not_load_or_hangs(monkeypatch):
    def run(command, **options):
        return subprocess.CompletedProcess(command, 1, "", "Traceback\nImportError: libcuda.so\n")

    monkeypatch.setattr(machine.subprocess, "run", run)
    assert check_gpus().text == "torch cannot be imported: ImportError: libcuda.so"

    def hang(command, timeout, **options):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(machine.subprocess, "run", hang)
    assert check_gpus().text == "torch did not answer in 30 s: restart this machine."


def test_shared_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda place: Disk(64 * 2**20, 0, 0))
    found = check_shared_memory(tmp_path, memory_bytes=32 * 2**30)
    assert found.state == "wrong"
    assert "has 0.1 GB, Ray wants 10.3 GB" in found.text and "--shm-size=10gb" in found.text
    assert check_shared_memory(tmp_path, memory_bytes=200 * 2**20).state == "ok"
    assert check_shared_memory(tmp_path / "none").state == "not looked at"


def test_a_disk_that_is_full(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Disk(10**12, 96 * 10**10, 4 * 10**10))
    found = check_disk()
    assert found.state == "wrong" and found.text.startswith(f"{tmp_path} has 40.0 GB free of 1,000")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Disk(10**12, 10**11, 9 * 10**11))
    assert check_disk().state == "ok"
    monkeypatch.undo()
    assert check_disk(str(tmp_path / "none")).text.startswith(f"{tmp_path / 'none'} cannot be read")


@pytest.mark.parametrize(
    ("most", "state"), [(1024, "wrong"), (65536, "ok"), (machine.resource.RLIM_INFINITY, "ok")]
)
def test_open_files(monkeypatch, most, state):
    monkeypatch.setattr(machine.resource, "getrlimit", lambda kind: (256, most))
    assert check_open_files().state == state


def test_everything_about_this_machine(monkeypatch):
    monkeypatch.setattr(machine, "check_gpus", lambda gpus: machine.ok("GPUs", f"{gpus}"))
    names = [finding.check for finding in check_machine({}, "0", 2)]
    assert names == ["packages", "GPUs", "shared memory", "disk", "open files"]
