"""Ray Train around the runs of a store; what they leave there is tested without it."""

import dataclasses
import os
from functools import partial

import fake_clip
import pytest
import torch
from fake_clip import FakeClip

from t2ipal.config import override
from t2ipal.engine.training import on_ray
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
    """In a bucket too: nothing of a run lies anywhere else."""
    workers = partial(on_ray, num_workers=2)
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
