import os
from functools import partial

import pytest
from fake_clip import FakeClip
from search_data import START, data, space

from t2ipal.engine.config import PopulationGroup
from t2ipal.engine.search import on_ray
from t2ipal.search.population import train_population
from t2ipal.search.results import SearchFolder, Trial
from t2ipal.search.running import Monitor
from t2ipal.store import Store

SHARPNESS = ("method.sharpness", "uniform", (1.0, 9.0))


def search(space, folder, load=FakeClip, start=START, deadline_s=float("inf"), **group):
    with Monitor(space, folder, quiet=True) as monitor:
        on_ray(space, start, data(space), load, folder, deadline_s, group=PopulationGroup(**group))
    return monitor


def same(trials, others):
    for trial, other in zip(trials, others, strict=True):
        assert (trial.number, trial.values, trial.status) == (
            other.number,
            other.values,
            other.status,
        )
        assert trial.validation_mAP == pytest.approx(other.validation_mAP, rel=1e-5)
        assert trial.losses == pytest.approx(other.losses, rel=1e-5)


def test_populations_under_tune_are_those_of_one_process(ray_session, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space_of_grids = space(
        ("method.residual_ratio", "grid", (0.0, 1.0)),
        ("training.images_per_caption", "grid", (1, 2)),
        ("method.context_length", "grid", (4, 8)),
        num_seeds=2,
    )
    folder = SearchFolder(store, "search")
    monitor = search(space_of_grids, folder, population=3)
    assert folder.num_populations() > 1 and monitor.num_before == 0
    settings = {trial.number: trial.values for trial in monitor.trials}
    assert [*settings] == list(range(8))
    sets = data(space_of_grids)
    same(monitor.trials, train_population(settings, START, space_of_grids, sets, FakeClip()))
    assert {key.partition("/")[0] for key in store.list()} == {"search"}
    assert not list(tmp_path.glob("s3*"))  # no folder of the bucket's name
    again = search(space_of_grids, folder, population=1)
    assert again.num_before == 8 and again.trials == monitor.trials


def test_optuna_with_asha_in_a_search_that_goes_on(ray_session, tmp_path):
    mixed = space(
        SHARPNESS,
        ("training.lr", "loguniform", (1e-4, 1e-2)),
        ("method.adapter", "choice", ("local", "global")),
        searcher="optuna",
        scheduler="asha",
        num_samples=10,
        seed=1,
    )
    folder = SearchFolder(Store(tmp_path), "search")
    before = {"method.sharpness": 3.25, "training.lr": 0.001, "method.adapter": "local"}
    kept = Trial(0, before, "ok", validation_mAP=99.0, loss=1.0, scores=((1, 99.0), (4, 99.0)),
                 losses=(2.0, 2.0, 2.0, 1.0))  # fmt: skip
    broken = {**before, "method.sharpness": 4.25}
    folder.keep(0, [kept, Trial(1, broken, "running")])
    monitor = search(mixed, folder, population=2)
    assert monitor.num_before == 1 and len(monitor.trials) == 10
    assert monitor.trials[0] == kept
    assert monitor.trials[1].values == broken and monitor.trials[1].has_ended
    assert {trial.status for trial in monitor.trials} == {"ok", "stopped"}
    for trial in monitor.trials:
        stopped = trial.status == "stopped"
        assert ("below the best half" in trial.reason) == stopped
        assert (len(trial.losses) < 4) == stopped
        assert 1 <= trial.values["method.sharpness"] <= 9


def dies_once(sign):
    """Loads a backbone; the first process that does, ends."""
    if not sign.exists():
        sign.touch()
        os._exit(1)
    return FakeClip()


def dies():
    os._exit(1)


class DiesAt:
    """Training data; asked for the second time in one trial's life, it ends the process once."""

    def __init__(self, data, sign):
        self.data, self.sign = data, sign

    def training(self, values):
        return self.data.training(values)

    def validation(self):
        return Dying(self.data.validation(), self.sign)


class Dying:
    """Validation images, of which the second look ends the process once."""

    def __init__(self, images, sign):
        self.images, self.sign, self.labels, self.looks = images, sign, images.labels, 0

    def __len__(self):
        return len(self.images)

    def rows(self, index, device="cpu"):
        self.looks += 1
        if self.looks > 3 and not self.sign.exists():
            self.sign.touch()
            os._exit(1)
        return self.images.rows(index, device)


def test_a_population_that_is_begun_anew_leaves_what_has_ended(ray_session, tmp_path, monkeypatch):
    """Of two trials of other lengths the shorter one has ended when the process dies."""
    lengths = space(("training.num_epochs", "grid", (1, 4)), num_validations=4)
    folder = SearchFolder(Store(tmp_path / "run"), "")
    dying = DiesAt(data(lengths), tmp_path / "died")
    with Monitor(lengths, folder, quiet=True) as monitor:
        on_ray(lengths, START, dying, FakeClip, folder, group=PopulationGroup(population=2))
    assert (tmp_path / "died").exists()
    short, long = monitor.trials
    assert (short.status, len(short.losses)) == ("ok", 1) and (long.status, len(long.losses)) == (
        "ok",
        4,
    )
    assert short.ended_s < long.started_s


def test_a_lost_process_is_begun_anew_and_then_given_up(ray_session, tmp_path, monkeypatch):
    small = space(SHARPNESS, num_samples=1)
    folder = SearchFolder(Store(tmp_path / "once"), "")
    trials = search(small, folder, partial(dies_once, tmp_path / "died")).trials
    assert [trial.status for trial in trials] == ["ok"]
    folder = SearchFolder(Store(tmp_path / "always"), "")
    monkeypatch.setattr("t2ipal.engine.search.MAX_FAILURES", 0)
    lost = search(small, folder, dies).trials
    assert {trial.status for trial in lost} == {"unfinished"}
    assert all("died" in trial.reason for trial in lost)
    done = search(small, folder)
    assert done.num_before == 0
    assert [(t.status, t.values) for t in done.trials] == [("ok", t.values) for t in lost]
