import json
import math

import pytest
from fake_clip import NAMES, PROMPT_NAMES, FakeClip, training_features

from t2ipal.config import override
from t2ipal.evaluation.evaluate import evaluate
from t2ipal.search.space import Dimension, SearchConfig
from t2ipal.search.trials import (
    SearchResult,
    Trial,
    failed,
    finished,
    keep_search,
    keep_trial,
    kept_trials,
    read_trials,
    run_trial,
    write_search,
)
from t2ipal.store import Store
from t2ipal.training.loop import fit
from t2ipal.training.recipes import recipe
from t2ipal.training.validation import split_captions

RECIPE = override(
    recipe("t2ipal", "pictovoc", NAMES, PROMPT_NAMES),
    {"training.num_epochs": 2, "training.batch_size": 16},
)


def test_trial_is_fit_and_evaluate():
    train, validation = split_captions(training_features(100), 0.3, 0)
    seen = []
    metrics = run_trial(RECIPE, train, validation, FakeClip(), seen.append)
    method = RECIPE.method.build(FakeClip(), RECIPE.training.seed)
    result = fit(method, train, RECIPE.training)
    assert metrics["validation_mAP"] == evaluate(result.recognizer, validation).mAP
    assert metrics["loss"] == result.history[-1].loss
    assert [each["loss"] for each in seen] == [result.history[0].loss]  # of two epochs
    with pytest.raises(ValueError, match="num_epochs must be > 0"):
        run_trial(override(RECIPE, {"training.num_epochs": 0}), train, validation, FakeClip())


def test_result_table(store):
    dimension = Dimension("method.sharpness", "grid", (1.0, 2.0, 3.0))
    trials = (
        Trial({"method.sharpness": 1.0}, "failed", "no memory, sorry", None, None, 1.0),
        Trial({"method.sharpness": 2.0}, "ok", "", 80.0, 1.5, 2.0),
        Trial({"method.sharpness": 3.0}, "ok", "", 81.0, 1.6, 2.0),
        Trial({"method.sharpness": 4.0}, "stopped", "", 95.0, 1.0, 2.0),
    )
    result = SearchResult(SearchConfig((dimension,)), trials)
    assert result.best() is trials[2]
    by_loss = SearchConfig((dimension,), metric="loss", mode="min")
    assert SearchResult(by_loss, trials).best() is trials[1]
    assert read_trials(store, "tune") == []
    write_search(result, store, "tune")
    assert store.list() == ["tune/best.json", "tune/trials.csv", "tune/trials.json"]
    assert json.loads(store.read("tune/best.json"))["values"] == {"method.sharpness": 3.0}
    assert len(json.loads(store.read("tune/trials.json"))["trials"]) == 4
    assert read_trials(store, "tune") == [*trials]
    lines = store.read("tune/trials.csv").decode().splitlines()
    assert lines[0] == "method.sharpness,status,reason,validation_mAP,loss,seconds"
    assert lines[1] == '1.0,failed,"no memory, sorry",,,1.0'
    assert lines[2] == "2.0,ok,,80.0,1.5,2.0"
    with pytest.raises(RuntimeError, match="None of 1 trials succeeded; the first: no memory"):
        SearchResult(by_loss, trials[:1]).best()


def test_no_best_where_none_succeeded(tmp_path):
    trial = Trial({"method.sharpness": 1.0}, "failed", "no memory", None, None, 1.0)
    search = SearchConfig((Dimension("method.sharpness", "grid", (1.0,)),))
    store = Store(tmp_path)
    write_search(SearchResult(search, (trial,)), store, "")  # the store itself is the folder
    assert store.list() == ["trials.csv", "trials.json"]
    assert read_trials(store, "") == [trial]


@pytest.mark.parametrize("text", ['{"trials": [', "[]", '{"rows": []}', '{"trials": [{"a": 1}]}'])
def test_damaged_trials_are_named(store, text):
    store.write("tune/trials.json", text.encode())
    message = r"trials.json in .* is damaged. Remove it and run jobs/tune.py"
    with pytest.raises(ValueError, match=message):
        read_trials(store, "tune")


def test_finished_trials_are_kept_one_by_one(store):
    search = SearchConfig((Dimension("method.sharpness", "uniform", (1.0, 9.0)),), num_samples=11)
    assert kept_trials(search, store, "tune") == {}
    kept = {
        10: finished({"method.sharpness": 2.0}, {"validation_mAP": 80.0, "loss": 1.5}, 2.0),
        2: finished({"method.sharpness": 3.0}, {"validation_mAP": 9.0, "loss": math.inf}, 2.0),
        3: failed({"method.sharpness": 4.0}, ValueError("a\nb")),
    }
    for number, trial in kept.items():
        keep_trial(trial, number, store, "tune")
    write_search(SearchResult(search, tuple(kept.values())), store, "tune")  # as where it stops
    assert kept_trials(search, store, "tune") == kept
    assert [kept[number].status for number in kept] == ["ok", "failed", "failed"]
    assert (kept[2].reason[:20], kept[3].reason) == ("no finite result: va", "b")
    store.write("tune/trials/00010/trial.json", b"{}")
    with pytest.raises(ValueError, match=r"tune/trials/00010/trial.json in .* is damaged"):
        kept_trials(search, store, "tune")


def test_the_table_of_a_version_before_is_taken_for_the_trials(store):
    search = SearchConfig((Dimension("method.sharpness", "grid", (1.0, 2.0, 3.0)),))
    ok = Trial({"method.sharpness": 2.0}, "ok", "", 80.0, 1.5, 2.0)
    lost = failed({"method.sharpness": 1.0}, "its process died")
    write_search(SearchResult(search, (lost, ok, ok)), store, "tune")
    assert kept_trials(search, store, "tune") == {1: ok, 2: ok}


@pytest.mark.parametrize("there", ["trials.json", "trials/00001/trial.json"])
def test_another_search_is_refused_where_there_are_trials(store, there):
    first, other = ({"recipe": {"method": {"sharpness": value}}, "seed": 0} for value in (1.0, 2.0))
    keep_search(store, "tune", first)
    keep_search(store, "tune", other)  # nothing was tried yet
    assert json.loads(store.read("tune/settings.json")) == other
    store.write(f"tune/{there}", b'{"trials": []}')
    keep_search(store, "tune", other)
    message = r"tune holds another search \(recipe.method.sharpness: 2.0 there, 1.0 here\)"
    with pytest.raises(ValueError, match=message):
        keep_search(store, "tune", first)
    assert json.loads(store.read("tune/settings.json")) == other
    store.write("tune/settings.json", json.dumps({**other, "added": None}).encode())
    keep_search(store, "tune", other)  # what a later version left out at its default
