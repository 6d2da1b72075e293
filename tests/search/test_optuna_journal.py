"""The journal, opened by Optuna as a dashboard does."""

import dataclasses
import os
import time

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from search_trials import BEGUN_S, SEARCH, ended, running, some_trials

from t2ipal.search.optuna_journal import OptunaJournal

SEVERAL = dataclasses.replace(SEARCH, scheduler="none", minimize=("images",))


def opened(path):
    storage = JournalStorage(JournalFileBackend(str(path)))
    return optuna.load_study(study_name="search", storage=storage)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "optuna.journal"


def write(path, trials, search=SEARCH):
    OptunaJournal(search, path, "search").update(trials, False)


def content(study):
    """All that a dashboard shows of the trials, but for the times."""
    keys = ("number", "state", "values", "params", "user_attrs", "intermediate_values")
    return [{key: getattr(trial, key) for key in keys} for trial in study.get_trials()]


def test_whole(path):
    write(path, some_trials(8))
    study = opened(path)
    assert study.metric_names == ["validation_mAP"]
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    states = [trial.state.name for trial in study.trials]
    ok = "COMPLETE"
    assert states == [ok, ok, "PRUNED", "FAIL", ok, ok, ok, "RUNNING"]
    trial = study.trials[1]
    assert trial.value == pytest.approx(73.1)
    assert trial.params["method.places"] == "[1, 2]"
    assert trial.params["training.images_per_caption"] == 2
    assert trial.intermediate_values == {2: 71.1, 4: 72.1, 6: pytest.approx(73.1)}
    assert trial.datetime_start.timestamp() == BEGUN_S + 1
    assert trial.datetime_complete.timestamp() == BEGUN_S + 11
    assert trial.distributions["method.sharpness"].log
    assert study.trials[3].user_attrs["reason"] == "loss is nan at epoch 2"
    assert study.trials[3].value is None
    assert study.best_trial.number == 6


def test_running_trials_come_to_their_end(path):
    journal = OptunaJournal(SEARCH, path, "search")
    journal.update([running(0, 0), running(1, 1)], False)
    assert [t.intermediate_values for t in opened(path).trials] == [{}, {2: 71.1}]
    size = path.stat().st_size
    journal.update([running(0, 0), running(1, 1)], False)
    assert path.stat().st_size == size  # nothing new, nothing written
    journal.update([running(0, 2), ended(1)], False)
    journal.update([ended(0, "failed", "no memory"), ended(1), running(2)], True)
    whole = path.with_name("whole.journal")
    write(whole, [ended(0, "failed", "no memory"), ended(1), running(2)])
    assert [t.state.name for t in opened(path).trials] == ["FAIL", "COMPLETE", "RUNNING"]
    assert content(opened(path)) == content(opened(whole))


@pytest.mark.parametrize("ends", ["ok", "failed"])
def test_an_unfinished_trial_will_run_again(path, ends):
    waits = ended(1, "unfinished", "its process was lost", num_scores=2)
    journal = OptunaJournal(SEARCH, path, "search")
    journal.update([ended(0), running(1)], False)
    journal.update([ended(0), waits], True)
    trial = opened(path).trials[1]
    assert (trial.state.name, trial.values, trial.datetime_complete) == ("RUNNING", None, None)
    assert trial.intermediate_values == {2: 71.1, 4: 72.1}
    assert trial.user_attrs["reason"] == "its process was lost"
    write(path, [ended(0), running(1)])  # the next process
    trial = opened(path).trials[1]
    assert trial.user_attrs["reason"] is None and trial.state.name == "RUNNING"
    write(path, [ended(0), ended(1, ends, "no memory" if ends == "failed" else "")])
    trial = opened(path).trials[1]
    assert trial.state.is_finished() and trial.user_attrs["seconds"] == 12.5
    assert trial.user_attrs["reason"] == ("no memory" if ends == "failed" else None)


def test_of_a_search_by_loss_the_losses_are_told(path):
    by_loss = dataclasses.replace(SEARCH, metric="loss", mode="min")
    strange = dataclasses.replace(running(1, 2), losses=(1.0, None, 0.5, 0.25))
    write(path, [ended(0), strange], by_loss)
    study = opened(path)
    assert study.metric_names == ["loss"] and study.direction.name == "MINIMIZE"
    curve = {2: 1 / 2, 4: 1 / 4, 6: 1 / 6}
    assert study.trials[0].intermediate_values == pytest.approx(curve)
    assert study.trials[1].intermediate_values == {4: 0.25}


def test_numbers_stay_where_a_later_trial_begins_first(path):
    journal = OptunaJournal(SEARCH, path, "search")
    journal.update([running(0), running(3)], False)
    assert [t.state.name for t in opened(path).trials] == [
        "RUNNING",
        "WAITING",
        "WAITING",
        "RUNNING",
    ]
    trials = [ended(0), running(1), ended(2), ended(3)]
    journal.update(trials, False)
    whole = path.with_name("whole.journal")
    write(whole, trials)
    assert content(opened(path)) == content(opened(whole))


def test_a_dashboard_that_is_open_follows_over_a_restart(path):
    write(path, [ended(0), running(1)])
    dashboard = opened(path)
    assert len(dashboard.trials) == 2
    write(path, [ended(0), ended(1), running(2)])  # another process
    assert [t.state.name for t in dashboard.get_trials()] == ["COMPLETE", "COMPLETE", "RUNNING"]


@pytest.mark.parametrize("cut", [1, 40, 300])
def test_a_half_written_line_is_made_good(path, cut):
    write(path, some_trials(8))
    whole = content(opened(path))
    path.write_bytes(path.read_bytes()[:-cut])
    write(path, some_trials(8))
    assert content(opened(path)) == whole


def test_the_lock_of_a_killed_process_holds_up_nobody(path):
    write(path, [running(0)])
    lock = path.with_name("optuna.journal.lock")
    lock.touch()
    os.utime(lock, (time.time() - 60,) * 2)
    begun = time.monotonic()
    write(path, [ended(0)])
    assert time.monotonic() - begun < 2 and not lock.exists()


@pytest.mark.parametrize(
    "damage", [b"", b"\n", b"nonsense\n", b'{"op_code": 99}\n', b"[1]\n", b"\xff\n"]
)
def test_a_damaged_journal_is_written_anew(path, damage):
    write(path, some_trials(8))
    whole = content(opened(path))
    path.write_bytes(damage)
    write(path, some_trials(8))
    assert content(opened(path)) == whole


def test_one_of_another_search_is_written_anew(path):
    write(path, some_trials(8))
    write(path, some_trials(8)[:3], SEVERAL)
    assert len(opened(path).directions) == 2
    changed = dataclasses.replace(ended(0), values={**ended(0).values, "training.seed": 7})
    write(path, [changed], SEVERAL)
    assert [trial.params["training.seed"] for trial in opened(path).trials] == [7]


def test_a_finished_trial_that_runs_again_is_written_anew(path):
    write(path, [ended(0), ended(1)])
    write(path, [ended(0), running(1)])
    assert [t.state.name for t in opened(path).trials] == ["COMPLETE", "RUNNING"]


def test_several_objectives(path):
    write(path, some_trials(8), SEVERAL)
    study = opened(path)
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.metric_names == ["validation_mAP", "images"]
    assert study.trials[0].values == [73.0, 200]
    assert [trial.number for trial in study.best_trials] == [6]
    assert study.trials[2].state == TrialState.PRUNED


def test_one_without_its_metric_has_failed(path):
    write(path, [dataclasses.replace(ended(0), validation_mAP=None)])
    (trial,) = opened(path).trials
    assert (trial.state.name, trial.user_attrs["reason"]) == ("FAIL", "It has no validation_mAP.")
