import csv
import json
import os

import pytest
from fake_clip import NAMES, PROMPT_NAMES, FakeClip, training_features

from t2ipal.config import override
from t2ipal.engine.search import _domain, _searcher, run_search
from t2ipal.search.space import Dimension, SearchConfig, draw_settings
from t2ipal.search.trials import Trial, failed, keep_trial, read_trials, run_trial
from t2ipal.store import Store
from t2ipal.training.recipes import recipe
from t2ipal.training.validation import split_captions

RECIPE = override(
    recipe("t2ipal", "pictovoc", NAMES, PROMPT_NAMES),
    {"training.num_epochs": 4, "training.batch_size": 32},
)


def test_grid_equals_trials_run_alone(ray_session, tmp_path):
    dimensions = (
        Dimension("method.residual_ratio", "grid", (0.0, 1.0)),
        Dimension("training.images_per_caption", "grid", (2,)),
    )
    search = SearchConfig(dimensions, searcher="grid", validation_fraction=0.3)
    data = training_features(60)
    result = run_search(search, RECIPE, data, FakeClip, Store(tmp_path), "")
    train, validation = split_captions(data, 0.3, 0)
    assert len(result.trials) == 2
    for trial in result.trials:
        expected = run_trial(override(RECIPE, trial.values), train, validation, FakeClip())
        assert (trial.status, trial.reason) == ("ok", "")
        assert trial.validation_mAP == pytest.approx(expected["validation_mAP"])
        assert trial.loss == pytest.approx(expected["loss"])
        assert trial.seconds > 0
    assert {trial.values["method.residual_ratio"] for trial in result.trials} == {0.0, 1.0}
    with open(tmp_path / "trials.csv") as file:
        assert len(list(csv.DictReader(file))) == 2
    best = json.loads((tmp_path / "best.json").read_text())
    assert best["values"] == result.best().values
    logs = {path.name for path in (tmp_path / "trials").rglob("*") if path.is_file()}
    assert {"progress.csv", "result.json"} <= logs
    assert any(name.startswith("events.out.tfevents") for name in logs)


def test_optuna_with_asha_and_a_failing_setting(ray_session, tmp_path):
    dimensions = (
        Dimension("method.sharpness", "uniform", (1.0, 10.0)),
        Dimension("training.lr", "loguniform", (1e-4, 1e-2)),
        Dimension("training.images_per_caption", "randint", (1, 2)),
        # One at a time both are valid; together with adapter "local" False is not.
        Dimension("method.adapter", "choice", ("local", "none")),
    )
    search = SearchConfig(dimensions, searcher="optuna", scheduler="asha", num_samples=4, seed=1)
    settings = override(RECIPE, {"method.adapter": "none", "method.local_scores": False})
    result = run_search(search, settings, training_features(60), FakeClip, Store(tmp_path))
    assert len(result.trials) == 4
    for trial in result.trials:
        failed = trial.values["method.adapter"] == "local"
        assert (trial.status == "failed") == failed
        assert ("needs local_scores" in trial.reason) == failed
        assert trial.values["training.images_per_caption"] in (1, 2)
        assert 1 <= trial.values["method.sharpness"] <= 10
        assert 1e-4 <= trial.values["training.lr"] <= 1e-2
    assert {trial.status for trial in result.trials} >= {"ok", "failed"}
    assert read_trials(Store(tmp_path), "tune") == [*result.trials]


def test_a_search_goes_on_with_what_is_not_finished(ray_session, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dimensions = (Dimension("method.sharpness", "uniform", (1.0, 10.0)),)
    search = SearchConfig(dimensions, num_samples=3, validation_fraction=0.3)
    settings, data = draw_settings(search), training_features(60)
    kept = Trial(settings[1], "ok", "", 99.0, 1.0, 1.0)
    keep_trial(kept, 1, store, "tune")
    store.write("tune/trials/00002/result.json", b"of a trial that was killed\n")
    result = run_search(search, RECIPE, data, FakeClip, store)
    assert [trial.values for trial in result.trials] == settings
    assert {trial.status for trial in result.trials} == {"ok"}
    assert result.best() == result.trials[1] == kept
    logs = [key for key in store.list("tune/trials/") if key.endswith("/result.json")]
    assert logs == [f"tune/trials/{number}/result.json" for number in ("00000", "00002")]
    (line,) = store.read(logs[1]).splitlines()
    assert json.loads(line)["validation_mAP"] == result.trials[2].validation_mAP
    there = {key: store.read(key) for key in store.list()}
    assert {"tune/trials.json", "tune/trials.csv", "tune/best.json"} <= {*there}
    assert all(key.startswith("tune/") for key in there)
    assert not list(tmp_path.glob("s3*"))  # no folder of the bucket's name
    assert run_search(search, RECIPE, data, FakeClip, store) == result
    assert {key: store.read(key) for key in store.list()} == there


def test_optuna_learns_of_finished_trials_first():
    dimension = Dimension("method.sharpness", "uniform", (1.0, 10.0))
    search = SearchConfig((dimension,), searcher="optuna")
    space = {dimension.path: _domain(dimension)}
    stopped = Trial({dimension.path: 4.0}, "stopped", "", 50.0, 1.0, 1.0)
    trials = {0: Trial({dimension.path: 2.0}, "ok", "", 60.0, 1.0, 1.0), 1: stopped}
    trials[3] = failed({dimension.path: 3.0}, "no memory")
    suggested = []
    for kept in ({}, trials):
        searcher = _searcher(search, kept, [2])
        searcher.set_search_properties("validation_mAP", "max", space)
        suggested.append(searcher.suggest("next"))
    known = [(each.params, each.value) for each in searcher._ot_study.trials[:2]]
    assert known == [({dimension.path: 2.0}, 60.0), ({dimension.path: 4.0}, 50.0)]
    assert suggested[0] != suggested[1]  # the first of all is known already


class DiesOnce:
    """Loads a backbone; the first process that does, ends."""

    def __init__(self, sign):
        self.sign = sign

    def __call__(self):
        if not self.sign.exists():
            self.sign.touch()
            os._exit(1)
        return FakeClip()


def test_a_trial_whose_process_was_lost_is_run_again(ray_session, tmp_path):
    search = SearchConfig((Dimension("method.residual_ratio", "grid", (1.0,)),), searcher="grid")
    store, load = Store(tmp_path / "run"), DiesOnce(tmp_path / "died")
    lost, done = (run_search(search, RECIPE, training_features(60), load, store) for _ in range(2))
    assert [trial.status for trial in lost.trials] == ["failed"] and "died" in lost.trials[0].reason
    assert [trial.status for trial in done.trials] == ["ok"]
    assert read_trials(store, "tune") == [*done.trials]
