"""How far recognizers are, from their folders alone."""

import os
import time

import pytest
import torch

from t2ipal.dashboard import trained
from t2ipal.dashboard.trained import TrainedFolders
from t2ipal.store import Store, json_bytes


@pytest.fixture
def run(tmp_path):
    store = Store(tmp_path)
    settings = {
        "recipe": {"training": {"num_epochs": 9}},
        "inputs": {"features": "features/abc", "backbone": {"model": "RN50"}},
    }
    store.write("train/tai_dpt-seed1/settings.json", json_bytes(settings))
    torch.save(
        {"history": [{"loss": 2.0}, {"loss": float("nan")}], "method": {}},
        tmp_path / "train/tai_dpt-seed1/checkpoint.pt",
    )
    return store


def test_losses_so_far_come_from_the_checkpoint(run):
    folders = TrainedFolders(run)
    (told,) = folders.told()
    assert (told["title"], told["seed"], told["status"]) == ("TaI-DPT", 1, "running")
    assert (told["losses"], told["num_epochs"]) == ([2.0, None], 9)
    assert folders.models == {"features/abc": "RN50"}


def test_one_that_nobody_works_on_is_interrupted(run, tmp_path):
    for path in (tmp_path / "train/tai_dpt-seed1").iterdir():
        os.utime(path, (time.time() - 900,) * 2)
    assert TrainedFolders(run).told()[0]["status"] == "interrupted"


def test_a_finished_one(run):
    record = {"epoch": 0, "lr": 0.1, "loss": 1.5, "image_loss": 1.0, "text_loss": 0.5}
    history = {"history": [record], "seconds": 3.0}
    folders = TrainedFolders(run)
    folders.told()
    run.write("train/tai_dpt-seed1/history.json", json_bytes(history))
    (told,) = folders.told()
    assert (told["status"], told["losses"], told["seconds"]) == ("done", [1.5], 3.0)
    assert told["num_epochs"] == 1


@pytest.mark.parametrize("data", [b"", b"nonsense", b"PK\x03\x04"])
def test_a_checkpoint_that_cannot_be_read_tells_no_losses(run, data):
    run.write("train/tai_dpt-seed1/checkpoint.pt", data)
    assert TrainedFolders(run).told()[0]["losses"] == []


def test_a_large_checkpoint_is_not_read(run, monkeypatch):
    monkeypatch.setattr(trained, "MAX_CHECKPOINT_BYTES", 10)
    monkeypatch.setattr(torch, "load", None)
    assert TrainedFolders(run).told()[0]["losses"] == []


def test_other_folders_are_none(run):
    run.write("train/ray/1/t2ipal-seed7/checkpoint.pt", b"of a version before")
    run.write("train/notes/settings.json", b"{}")
    assert len(TrainedFolders(run).told()) == 1
