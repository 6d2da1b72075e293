import importlib.machinery
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from t2ipal import torchvision_repair
from t2ipal.torchvision_repair import repair_torchvision

ROOT = Path(__file__).parents[1]


def test_torchvision_imports_after_the_repair():
    code = """
from t2ipal.torchvision_repair import repair_torchvision
library = repair_torchvision()
assert repair_torchvision() is library
import torchvision.transforms, torch
assert hasattr(torch.ops.torchvision, "nms")
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


@pytest.fixture
def torchvision_in(monkeypatch, tmp_path):
    """Makes torchvision seem to lie in a folder, and records what the repair defines."""
    defined = []

    class Library:
        def __init__(self, name, kind):
            assert (name, kind) == ("torchvision", "FRAGMENT")

        def define(self, schema):
            defined.append(schema.split("(")[0])

    spec = importlib.machinery.ModuleSpec("torchvision", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(torchvision_repair.importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr(torch.library, "Library", Library)
    return defined


def test_a_library_that_does_not_load_is_replaced_by_schemas(torchvision_in, tmp_path):
    (tmp_path / "_C.so").write_bytes(b"not a library")
    assert repair_torchvision.__wrapped__() is not None
    assert torchvision_in == ["nms", "qnms"]


def test_a_library_that_loads_is_left_alone(torchvision_in, tmp_path, monkeypatch):
    (tmp_path / "_C.so").write_bytes(b"a library")
    monkeypatch.setattr(torchvision_repair.ctypes, "CDLL", lambda path: object())
    assert repair_torchvision.__wrapped__() is None
    assert torchvision_in == []


def test_without_torchvision_there_is_nothing_to_do(torchvision_in, monkeypatch):
    monkeypatch.setattr(torchvision_repair.importlib.util, "find_spec", lambda name: None)
    assert repair_torchvision.__wrapped__() is None
    assert torchvision_in == []
