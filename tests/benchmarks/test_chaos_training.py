"""The chaos benchmark of training: its checks one by one, and the whole of it in short."""

import dataclasses
import json
import os

import fake_clip
import pytest
import torch
from chaos_script import run_chaos

from benchmarks.chaos.checks import fetch
from benchmarks.chaos.training_checks import training_problems
from t2ipal.config import override
from t2ipal.store import Store
from t2ipal.training.plans import TrainingRun
from t2ipal.training.recipes import recipe
from t2ipal.training.runs import load_run, train_runs

NAME = "t2ipal-seed0"


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A store with one trained recognizer and a file of features."""
    store = Store(tmp_path_factory.mktemp("reference"))
    start = recipe("t2ipal", "pictovoc", fake_clip.NAMES, fake_clip.PROMPT_NAMES)
    run = TrainingRun(NAME, override(start, {"training.num_epochs": 3}))
    features = fake_clip.training_features()
    train_runs([run], lambda: (fake_clip.FakeClip(), features), store, inputs={})
    store.write("features/clip/images-00000.safetensors", b"of an image")
    return store


def change_history(change):
    def damage(store):
        content = json.loads(store.read(f"train/{NAME}/history.json"))
        change(content["history"])
        store.write(f"train/{NAME}/history.json", json.dumps(content).encode())

    return damage


def change_weights(store):
    recognizer = load_run(store, f"train/{NAME}").recognizer
    scorer = recognizer.scorer
    other = dataclasses.replace(scorer, prototypes=scorer.prototypes + torch.ones(()) * 1e-3)
    dataclasses.replace(recognizer, scorer=other).save(store, f"train/{NAME}")


DAMAGES = {
    f"{NAME}: epochs are [0, 1, 1, 2], expected 3, each once": change_history(
        lambda history: history.insert(1, history[1])
    ),
    f"{NAME}: epochs are [0, 2], expected 3, each once": change_history(
        lambda history: history.pop(1)
    ),
    f"{NAME}: losses of epoch 2 differ by 1.0e-02 of them": change_history(
        lambda history: history[2].update(image_loss=history[2]["image_loss"] * 1.01)
    ),
    f"{NAME}: prototypes of the recognizer differs": change_weights,
    f"{NAME}: FileNotFoundError: No recognizer in ": lambda store: store.delete(
        f"train/{NAME}/recognizer.json"
    ),
    f"missing: train/{NAME}/history.json": lambda store: store.delete(f"train/{NAME}/history.json"),
    f"left over: train/{NAME}/checkpoint.pt": lambda store: store.write(
        f"train/{NAME}/checkpoint.pt", b"half"
    ),
    "other bytes: features/clip/images-00000.safetensors": lambda store: store.write(
        "features/clip/images-00000.safetensors", b"of another"
    ),
}


@pytest.mark.parametrize("problem", DAMAGES)
def test_every_check_sees_its_damage(tmp_path, reference, problem):
    store = fetch(reference, tmp_path / "copy")
    assert training_problems(store, reference, [NAME], 3) == ([], 0.0)
    DAMAGES[problem](store)
    problems, _ = training_problems(store, reference, [NAME], 3)
    assert any(line.startswith(problem) for line in problems), problems


@pytest.mark.skipif("T2IPAL_SLOW_TESTS" not in os.environ, reason="set T2IPAL_SLOW_TESTS=1")
def test_a_short_run_survives_it_all(tmp_path):
    options = {
        "output": tmp_path / "chaos", "server": "moto", "num_captions": 24, "min_kills": 2,
        "min_faults": 5, "fault_rate": 0.25, "num_nodes": 1, "num_workers": "1:2",
        "cpus_per_node": 2, "max_seconds": 200, "num_epochs": 8, "seconds_between_kills": 0.5,
        "checkpoint_pause_s": 0.2,
    }  # fmt: skip
    result, output = run_chaos("training.py", **options)
    assert result["problems"] == [] and "all holds" in output
    assert sum(result["kills"].values()) >= 2 and sum(result["faults"].values()) >= 5
    assert result["largest_difference"] < 1e-6 and result["epochs"] >= 16
