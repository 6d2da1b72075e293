import json
from dataclasses import replace

import pytest
from small_search import KIND, LR, RATIO, search_config, trial, write_search

from t2ipal.config import to_dict
from t2ipal.dashboard import snapshot as module
from t2ipal.dashboard.snapshot import Snapshots, trials_per_hour
from t2ipal.features.config import BackboneConfig
from t2ipal.search.results import Progress, SearchFolder, Trial
from t2ipal.store import Store, json_bytes


@pytest.fixture
def run(tmp_path):
    return Store(tmp_path / "run")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "REFRESH_S", 0.0)
    monkeypatch.setattr(module, "SEARCHES_S", 0.0)
    monkeypatch.setattr(module.Importance, "update", lambda self, search, trials, wait=False: None)


def state(snapshots, **query):
    return json.loads(snapshots.state({name: str(value) for name, value in query.items()}))


def test_all_is_told_once_and_then_what_changed(store):
    folder, trials = write_search(store, num_trials=20, num_running=2)
    snapshots = Snapshots(store)
    first = state(snapshots)
    columns = first["columns"]
    assert first["searches"] == ["search"] and first["search"] == "search" and first["since"] == 0
    assert columns["number"] == [*range(20)]
    assert columns["status"].count("running") == 2 and columns["status"].count("failed") == 2
    assert columns["values"] == [[t.values[path] for t in trials] for path in (RATIO, LR, KIND)]
    assert columns["ended_s"][:2] == [60.0, 61.0] and columns["ended_s"][-1] is None
    again = state(snapshots, since=first["version"], instance=first["instance"])
    assert again["version"] == first["version"] and again["columns"]["number"] == []

    folder.keep(0, [*trials[:-1], replace(trials[-1], status="ok", ended_s=1.7e9 + 99)])
    later = state(snapshots, since=first["version"], instance=first["instance"])
    assert later["columns"]["number"] == [19] and later["columns"]["status"] == ["ok"]
    curves = json.loads(snapshots.curves({"search": "search", "since": str(first["version"])}))
    assert curves["number"] == [19] and curves["num_scores"] == [2] and curves["num_losses"] == [12]
    assert curves["epochs"] == [6, 12] and len(curves["losses"]) == 12


def test_another_server_tells_everything_again(run):
    write_search(run, num_trials=12)
    first = state(Snapshots(run))
    other = state(Snapshots(run), since=first["version"], instance=first["instance"])
    assert other["instance"] != first["instance"] and len(other["columns"]["number"]) == 12


def test_head(run):
    write_search(run, num_trials=20, num_running=2)
    head = state(Snapshots(run))["head"]
    assert head["status"] == "running" and head["num_trials"] == 30
    assert head["best"] in head["front"]
    assert [each["path"] for each in head["dimensions"]] == [RATIO, LR, KIND]
    assert head["per_hour"] > 0 and head["seconds_left"] > 0


def test_options_of_the_run_are_told_where_they_are_not_the_defaults(run):
    search, _ = write_search(run, num_trials=2)
    told = state(Snapshots(run))["head"]  # of a version before
    assert (told["run"], told["options"]) == (None, {})
    backbone = BackboneConfig("RN101", "openai", precision="bf16", device="cuda")
    more = {"run": "s3://b/run", "backbone": to_dict(backbone), "endpoint_url": None}
    run.write(search.key("settings.json"), json_bytes({**search.settings(), **more}))
    told = state(Snapshots(run))["head"]
    assert (told["run"], told["options"]) == ("s3://b/run", {"model": "RN101", "precision": "bf16"})


def test_the_rate_is_of_the_last_start():
    ended = [Trial(n, {}, "ok", ended_s=1000.0 + 100 * n) for n in range(20)]
    assert trials_per_hour(ended, Progress("running", 40, 2500.0, 2900.0)) == pytest.approx(45)
    assert trials_per_hour(ended, Progress("running", 40, 5000.0, 5100.0)) is None
    assert trials_per_hour(ended, None) is None


def test_no_search_yet_and_then_one(run):
    snapshots = Snapshots(run)
    assert state(snapshots)["search"] is None and state(snapshots)["searches"] == []
    write_search(run, num_trials=12)
    write_search(run, "search-wide", num_trials=12)
    assert state(snapshots)["searches"] == ["search", "search-wide"]
    assert state(snapshots, search="search-wide")["search"] == "search-wide"


def test_a_search_that_began_anew_in_the_same_folder(run):
    folder, trials = write_search(run, num_trials=12)
    snapshots = Snapshots(run)
    first = state(snapshots)
    run.delete(folder.key("populations/00000.json"))
    folder.keep(1, trials[:3])
    later = state(snapshots, since=first["version"], instance=first["instance"])
    assert later["columns"]["number"] == [0, 1, 2] and later["since"] == 0


def test_damage_is_told_and_what_was_seen_is_kept(run):
    folder, trials = write_search(run, num_trials=12)
    snapshots = Snapshots(run)
    assert state(snapshots)["error"] is None
    run.write(folder.key("populations/00000.json"), b'{"trials": [{"nu')
    damaged = state(snapshots)
    assert "populations/00000.json" in damaged["error"] and len(damaged["columns"]["number"]) == 12
    folder.keep(0, trials)
    assert state(snapshots)["error"] is None


def test_numbers_that_are_none(run):
    folder = SearchFolder(run, "search")
    folder.begin({"search": to_dict(search_config(2)), "recipe": {}, "features": ""})
    nothing = trial(0, {RATIO: 1.0, LR: 1e-3, KIND: "max"}, "failed", losses=(2.0, float("nan")))
    folder.keep(0, [nothing, replace(nothing, number=1, loss=float("inf"), seconds=1e-7)])
    columns = state(Snapshots(run))["columns"]
    assert columns["loss"] == [0.5, None] and columns["seconds"] == [1.5, 1e-7]
    assert json.loads(Snapshots(run).curves({"search": "search"}))["losses"] == [2.0, None] * 2


def test_a_search_of_a_version_before(run):
    old = {"path": RATIO, "kind": "grid", "values": [0.5, 1.0]}
    run.write("tune/settings.json", json.dumps({"search": {"dimensions": [old]}}).encode())
    row = {"values": {RATIO: 0.5}, "status": "ok", "validation_mAP": 61.0, "loss": 0.4}
    run.write("tune/trials.json", json.dumps({"search": {}, "trials": [row]}).encode())
    told = state(Snapshots(run))
    assert told["search"] == "tune" and told["head"]["status"] == "done"
    assert told["columns"]["validation_mAP"] == [61.0]


@pytest.mark.parametrize("since", ["-1", "1.5", "x", "١", "9" * 20])
def test_nonsense_from_a_browser(run, since):
    write_search(run, num_trials=12)
    with pytest.raises(ValueError, match="since must be a number"):
        Snapshots(run).state({"since": since})


def test_everything_for_a_file(run):
    write_search(run, num_trials=12, status="done")
    told = Snapshots(run).everything("search")
    assert told["state"]["columns"]["number"] == [*range(12)]
    assert told["curves"]["number"] == [*range(12)]
    with pytest.raises(ValueError, match=r"No search in .*/search-none"):
        Snapshots(run).everything("search-none")
