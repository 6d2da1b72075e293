import dataclasses
from functools import partial

import fake_clip
import pytest
import torch
from fake_clip import FakeClip

from t2ipal.config import override
from t2ipal.engine.training import TrainingRun, load_run, train_runs
from t2ipal.methods import T2IPAL
from t2ipal.recipes import recipe
from t2ipal.training import fit

RECIPE = override(
    recipe("t2ipal", "pictovoc", fake_clip.NAMES, fake_clip.PROMPT_NAMES),
    {"training.num_epochs": 3, "training.batch_size": 16},
)
TEXTS_ONLY = override(RECIPE, {"method.adapter": "none", "method.image_weight": 0.0})
INPUTS = {"model": "fake", "num_captions": 40}
RUNS = [
    TrainingRun("t2ipal-seed0", RECIPE),
    TrainingRun("tai_dpt-seed1", override(TEXTS_ONLY, {"training.seed": 1})),
]


def load_inputs():
    return FakeClip(), fake_clip.training_features()


def load_inputs_or_die(marker):
    """Breaks off in the first attempt, in the midst of the second run."""
    clip, data = load_inputs()
    encode = clip.encode_token_embeddings

    def encode_or_die(embeddings, end):
        if not marker.exists() and len(end) == 10 and clip.calls == 20:
            marker.touch()
            raise RuntimeError("the worker is lost")
        clip.calls += 1
        return encode(embeddings, end)

    clip.calls, clip.encode_token_embeddings = 0, encode_or_die
    return clip, data


def alone(run):
    method = T2IPAL(run.recipe.method, FakeClip(), seed=run.recipe.training.seed)
    return fit(method, fake_clip.training_features(), run.recipe.training)


def check_equal(result, expected):
    assert result.history == expected.history
    for name in ("global_embeddings", "local_embeddings", "prototypes"):
        ours, theirs = getattr(result.recognizer, name), getattr(expected.recognizer, name)
        assert (ours is None and theirs is None) or torch.equal(ours, theirs)


def check_close(result, expected):
    for ours, theirs in zip(result.history, expected.history, strict=True):
        assert dataclasses.astuple(ours) == pytest.approx(dataclasses.astuple(theirs), rel=1e-4)
    for name in ("global_embeddings", "local_embeddings"):
        ours, theirs = getattr(result.recognizer, name), getattr(expected.recognizer, name)
        assert torch.allclose(ours, theirs, atol=1e-4)


def test_in_process_equals_fit_and_resumes(tmp_path):
    marker = tmp_path / "died"
    with pytest.raises(RuntimeError, match="the worker is lost"):
        train_runs(
            RUNS, partial(load_inputs_or_die, marker), tmp_path, inputs=INPUTS, num_workers=0
        )
    results = train_runs(RUNS, load_inputs, tmp_path, inputs=INPUTS, num_workers=0)
    for run in RUNS:
        check_equal(results[run.name], alone(run))
        check_equal(load_run(tmp_path / run.name), alone(run))
        names = {path.name for path in (tmp_path / run.name).iterdir()}
        assert names == {
            "recognizer.safetensors",
            "recognizer.json",
            "settings.json",
            "history.json",
        }


def test_done_is_done_and_other_settings_are_an_error(tmp_path):
    first = train_runs(RUNS, load_inputs, tmp_path, inputs=INPUTS, num_workers=0)
    again = train_runs(RUNS, None, tmp_path, inputs=INPUTS, num_workers=0)
    for run in RUNS:
        check_equal(again[run.name], first[run.name])
    changed = [TrainingRun(RUNS[0].name, override(RECIPE, {"method.sharpness": 2.0}))]
    message = r"t2ipal-seed0 holds .* \(recipe.method.sharpness: 5.5 there, 2.0 here\)"
    with pytest.raises(ValueError, match=message):
        train_runs(changed, load_inputs, tmp_path, inputs=INPUTS, num_workers=0)
    with pytest.raises(ValueError, match=r"inputs.num_captions: 40 there, 50 here"):
        train_runs(RUNS, load_inputs, tmp_path, inputs=INPUTS | {"num_captions": 50})


def test_one_worker_that_is_lost_equals_fit(ray_session, tmp_path):
    marker = tmp_path / "died"
    inputs = partial(load_inputs_or_die, marker)
    results = train_runs(RUNS, inputs, tmp_path, inputs=INPUTS, num_workers=1, checkpoint_epochs=1)
    assert marker.exists()
    for run in RUNS:
        check_equal(results[run.name], alone(run))


def test_two_workers_are_close_to_one(ray_session, tmp_path):
    results = train_runs(RUNS, load_inputs, tmp_path, inputs=INPUTS, num_workers=2)
    for run in RUNS:
        check_close(results[run.name], alone(run))


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match="must be runs to train"):
        train_runs([], load_inputs, tmp_path, inputs=INPUTS)
    with pytest.raises(ValueError, match="names of their own"):
        train_runs([RUNS[0], RUNS[0]], load_inputs, tmp_path, inputs=INPUTS)
    with pytest.raises(ValueError, match="num_workers must be >= 0, got -1"):
        train_runs(RUNS, load_inputs, tmp_path, inputs=INPUTS, num_workers=-1)
    with pytest.raises(ValueError, match="checkpoint_epochs must be > 0"):
        train_runs(RUNS, load_inputs, tmp_path, inputs=INPUTS, checkpoint_epochs=0)
    with pytest.raises(FileNotFoundError, match="No recognizer"):
        load_run(tmp_path)
