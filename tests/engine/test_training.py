"""Ray Train around the runs of a store; what they leave there is tested without it."""

import dataclasses
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import Any

import fake_clip
import pytest
import torch
from fake_clip import FakeClip

from t2ipal.config import override
from t2ipal.engine.training import _fit, on_ray
from t2ipal.halting import Halted, halting
from t2ipal.store import Store
from t2ipal.training.loop import fit
from t2ipal.training.plans import TrainingRun
from t2ipal.training.recipes import recipe
from t2ipal.training.runs import load_run, train_runs

RECIPE = override(
    recipe("t2ipal", "pictovoc", fake_clip.NAMES, fake_clip.PROMPT_NAMES),
    {"training.num_epochs": 3, "training.batch_size": 16},
)
TEXTS_ONLY = override(RECIPE, {"method.adapter": "none", "method.image_weight": 0.0})
CLASS_CONCEPT = recipe("class_concept", "pictovoc", fake_clip.NAMES, fake_clip.PROMPT_NAMES)
INPUTS = {"model": "fake", "num_captions": 40}
RUNS = [
    TrainingRun("t2ipal-seed0", RECIPE),
    TrainingRun("tai_dpt-seed1", override(TEXTS_ONLY, {"training.seed": 1})),
    TrainingRun("class_concept-seed0", CLASS_CONCEPT),
]
FILES = {"recognizer.safetensors", "recognizer.json", "settings.json", "history.json"}


def load_inputs():
    return FakeClip(), fake_clip.training_features()


def load_inputs_with_credentials():
    """Ray's workers are older than the server, so they do not know what it takes."""
    os.environ.update(AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="very-secret")
    return load_inputs()


def load_inputs_or_die(marker):
    """Breaks off in the first attempt, in the midst of the second run."""
    clip, data = load_inputs()
    encode = clip.encode_token_embeddings

    def encode_or_die(embeddings, end, shared, layout):
        if not marker.exists() and len(shared) == 2 and clip.calls == 20:
            marker.touch()
            raise RuntimeError("the worker is lost")
        clip.calls += 1
        return encode(embeddings, end, shared, layout)

    clip.calls, clip.encode_token_embeddings = 0, encode_or_die
    return clip, data


def alone(run):
    method = run.recipe.method.build(FakeClip(), run.recipe.training.seed)
    return fit(method, fake_clip.training_features(), run.recipe.training)


def check_equal(result, expected):
    assert result.history == expected.history
    test = fake_clip.images(9)
    assert torch.equal(result.recognizer.scores(test), expected.recognizer.scores(test))


def check_close(result, expected):
    for ours, theirs in zip(result.history, expected.history, strict=True):
        assert dataclasses.astuple(ours) == pytest.approx(dataclasses.astuple(theirs), rel=1e-4)
    ours, theirs = (vars(r.recognizer.scorer) for r in (result, expected))
    for name in ("global_embeddings", "local_embeddings", "concepts"):
        assert (name in ours) == (name in theirs)
        assert name not in ours or torch.allclose(ours[name], theirs[name], atol=1e-4)


class Threads:
    """A torch.distributed among threads of this process."""

    def __init__(self, world_size: int):
        self.barrier, self.given = threading.Barrier(world_size), [None] * world_size
        self.local = threading.local()

    def exchange(self, value):
        """What each of them gave, the same for all."""
        self.given[self.local.rank] = value
        self.barrier.wait()
        given = [*self.given]
        self.barrier.wait()
        return given

    def all_reduce(self, tensor):
        tensor.copy_(torch.stack(self.exchange(tensor.clone())).sum(dim=0))

    def broadcast_object_list(self, box, src):
        box[0] = self.exchange(box[0])[src]


def curve_of(monkeypatch, world_size, checkpoints=None, on_epoch=None):
    """The losses of workers that share batches of 10 of 41 captions, in float64."""
    threads = Threads(world_size)
    for name in ("all_reduce", "broadcast_object_list"):
        monkeypatch.setattr(torch.distributed, name, getattr(threads, name))
    training = dataclasses.replace(RECIPE.training, num_epochs=6, batch_size=10)

    def work(rank):
        threads.local.rank = rank
        method = RECIPE.method.build(FakeClip(torch.float64), 0).double()
        data = fake_clip.training_features(41)
        return fit(
            method, data, training, checkpoints=checkpoints, rank=rank, world_size=world_size,
            on_epoch=on_epoch,
        )  # fmt: skip

    with ThreadPoolExecutor(world_size) as pool:
        results = list(pool.map(work, range(world_size)))
    assert all(result.history == results[0].history for result in results)
    return [dataclasses.astuple(record) for record in results[0].history]


class Kept:
    """Checkpoints in memory."""

    data = None

    def read(self):
        return self.data

    def write(self, data):
        self.data = data

    def is_due(self, is_last):
        return not is_last


def break_off(record):
    if record.epoch == 2:
        raise RuntimeError("a worker is lost")


def test_losses_do_not_depend_on_the_number_of_workers(monkeypatch):
    """The last batch has one row: nothing for most workers."""
    losses = curve_of(monkeypatch, 1)
    assert [record[0] for record in losses] == list(range(6))
    alone = [pytest.approx(record, rel=1e-12) for record in losses]
    for world_size in (2, 3):
        assert curve_of(monkeypatch, world_size) == alone
    kept = Kept()
    with pytest.raises(RuntimeError, match="a worker is lost"):
        curve_of(monkeypatch, 2, kept, break_off)
    assert curve_of(monkeypatch, 1, kept) == alone


def test_in_process_equals_fit_and_resumes(tmp_path):
    """Without Ray, by the same call."""
    marker, store = tmp_path / "died", Store(tmp_path / "run")
    inputs = partial(load_inputs_or_die, marker)
    with pytest.raises(RuntimeError, match="the worker is lost"):
        train_runs(RUNS, inputs, store, inputs=INPUTS, checkpoint_pause_s=0)
    results = train_runs(RUNS, load_inputs, store, inputs=INPUTS, checkpoint_pause_s=0)
    for run in RUNS:
        check_equal(results[run.name], alone(run))
        check_equal(load_run(store, f"train/{run.name}"), alone(run))


def test_all_runs_share_one_read_of_the_features(tmp_path):
    reads = []

    def load():
        reads.append(1)
        return load_inputs()

    train_runs(RUNS, load, Store(tmp_path), inputs=INPUTS)
    assert len(reads) == 1


def test_one_worker_that_is_lost_equals_fit(ray_session, tmp_path):
    marker, store = tmp_path / "died", Store(tmp_path / "run")
    inputs = partial(load_inputs_or_die, marker)
    results = train_runs(RUNS, inputs, store, inputs=INPUTS, workers=on_ray, checkpoint_pause_s=0)
    assert marker.exists()
    for run in RUNS:
        check_equal(results[run.name], alone(run))
        names = {path.name for path in (tmp_path / "run" / "train" / run.name).iterdir()}
        assert names == FILES
    assert {path.name for path in (tmp_path / "run" / "train").iterdir()} == {*results}


def test_two_workers_are_close_to_one(ray_session, store):
    """In a bucket too: nothing of a run lies anywhere else. And where their number may change."""
    in_bucket = store.endpoint_url is not None
    workers = partial(on_ray, num_workers=2 if in_bucket else (1, 2))
    inputs = load_inputs_with_credentials
    results = train_runs(RUNS, inputs, store, inputs=INPUTS, workers=workers)
    for run in RUNS:
        check_close(results[run.name], alone(run))
        keys = store.list(f"train/{run.name}/")
        assert {key.rpartition("/")[2] for key in keys} == FILES


def broken_inputs():
    raise ValueError("There is nothing to read.")


def test_what_fails_for_good_is_said(ray_session, tmp_path):
    workers = partial(on_ray, max_failures=0)
    with pytest.raises(RuntimeError, match=r"^Training failed: There is nothing to read\.$"):
        train_runs(RUNS, broken_inputs, Store(tmp_path), inputs=INPUTS, workers=workers)


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match="num_workers must be > 0, got 0"):
        train_runs(
            RUNS,
            load_inputs,
            Store(tmp_path),
            inputs=INPUTS,
            workers=partial(on_ray, num_workers=0),
        )


def test_a_halt_ends_the_wait_for_training():
    """Between two looks; checkpoints are in the store."""
    ended = threading.Event()
    trainer: Any = SimpleNamespace(fit=lambda: ended.wait(60))
    with halting(lambda: True), pytest.raises(Halted):
        _fit(trainer)
    ended.set()
    _fit(trainer)
