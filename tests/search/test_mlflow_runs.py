"""A search in a database of MLflow's own, read with its client."""

import pytest
from search_trials import SEARCH, ended, running, some_trials

from t2ipal.search import mlflow_runs
from t2ipal.search.mlflow_runs import EXPERIMENT, MlflowRuns

pytest.importorskip("mlflow", reason="MLflow is not installed: pip install 't2ipal[mlflow]'")


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """Making the database takes seconds, so that the tests share one."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


def runs(uri, name):
    """The search's run of a name, and those of its trials by their names."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    everything = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    (parent,) = [run for run in everything if run.info.run_name == name]
    of = [r for r in everything if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    return client, parent, {run.info.run_name: run for run in of}


def test_a_run_for_each_trial(uri):
    trials = some_trials(6)
    MlflowRuns(SEARCH, uri, "all").update(trials, False)
    client, parent, children = runs(uri, "all")
    assert parent.info.status == "RUNNING"
    states = {name: run.info.status for name, run in children.items()}
    assert dict(sorted(states.items())) == {
        "00000": "FINISHED",
        "00001": "FINISHED",
        "00002": "KILLED",
        "00003": "FAILED",
        "00004": "FINISHED",
        "00005": "RUNNING",
    }
    run = children["00001"]
    assert run.data.params["method.sharpness"] == "2.0"
    assert run.data.metrics["validation_mAP"] == pytest.approx(73.1)
    assert run.data.metrics["seconds"] == 12.5
    assert run.info.end_time - run.info.start_time == 10_000
    curve = client.get_metric_history(run.info.run_id, "validation_mAP")
    assert [point.step for point in curve] == [2, 4, 6]
    assert children["00003"].data.tags["mlflow.note.content"] == "loss is nan at epoch 2"


def test_the_next_process_goes_on(uri, monkeypatch):
    MlflowRuns(SEARCH, uri, "killed").update([ended(0), running(1)], False)
    monkeypatch.setattr(mlflow_runs, "MAX_METRICS", 2)
    MlflowRuns(SEARCH, uri, "killed").update([ended(0), ended(1), ended(2)], True)
    client, parent, children = runs(uri, "killed")
    assert {run.info.status for run in (parent, *children.values())} == {"FINISHED"}
    assert sorted(children) == ["00000", "00001", "00002"]
    assert parent.data.metrics["best_validation_mAP"] == pytest.approx(73.2)
    for run in children.values():
        assert run.data.params["method.sharpness"] == "2.0"
        assert len(client.get_metric_history(run.info.run_id, "loss")) == 6


def test_a_slow_server_gets_the_rest_at_the_end(uri, monkeypatch):
    monkeypatch.setattr(mlflow_runs, "MAX_UPDATE_S", 0.0)
    server = MlflowRuns(SEARCH, uri, "slow")
    server.update([ended(0), ended(1), ended(2)], False)
    assert sorted(runs(uri, "slow")[2]) == ["00000"]
    server.update([ended(0), ended(1), ended(2)], True)
    assert sorted(runs(uri, "slow")[2]) == ["00000", "00001", "00002"]


def test_an_unfinished_trial_runs_until_it_ends(uri):
    lost = ended(1, "unfinished", "its process was lost")
    MlflowRuns(SEARCH, uri, "lost").update([ended(0), lost], True)
    states = {name: run.info.status for name, run in runs(uri, "lost")[2].items()}
    assert states == {"00000": "FINISHED", "00001": "RUNNING"}
    MlflowRuns(SEARCH, uri, "lost").update([ended(0), ended(1)], True)
    assert {run.info.status for run in runs(uri, "lost")[2].values()} == {"FINISHED"}
