import csv
import json

import pytest
from fake_clip import NAMES, PROMPT_NAMES, FakeClip, training_features

from t2ipal.config import override
from t2ipal.engine.search import run_search
from t2ipal.search.space import Dimension, SearchConfig
from t2ipal.search.trials import read_trials, run_trial
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


def test_a_bucket_gets_tables_and_logs(ray_session, s3_server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dimensions = (Dimension("method.residual_ratio", "grid", (0.0, 1.0)),)
    search = SearchConfig(dimensions, searcher="grid", validation_fraction=0.3)
    store = Store("s3://runs/search-of-the-engine", s3_server)
    result = run_search(search, RECIPE, training_features(60), FakeClip, store, "tune")
    assert read_trials(store, "tune") == [*result.trials]
    assert {trial.status for trial in result.trials} == {"ok"}
    keys = store.list()
    assert {"tune/trials.json", "tune/trials.csv", "tune/best.json"} <= {*keys}
    logs = {key.rpartition("/")[2] for key in keys if key.startswith("tune/trials/")}
    assert {"progress.csv", "result.json"} <= logs
    assert all(key.startswith("tune/") for key in keys)
    assert not list(tmp_path.iterdir())  # no folder of the name "s3:"
