import math
import statistics
import time
from dataclasses import replace

import pytest
import torch
from fake_clip import FakeClip, images
from search_data import START, data, space

from t2ipal.config import override
from t2ipal.evaluation.evaluate import evaluate
from t2ipal.search.population import train_population
from t2ipal.training.loop import fit
from t2ipal.training.stacked import Stack

SPACE = space(("method.sharpness", "uniform", (1.0, 9.0)), ("training.lr", "uniform", (1e-4, 1.0)))
SETTINGS = {
    7: {"method.sharpness": 2.0, "training.lr": 0.001},
    3: {"method.sharpness": 8.0, "training.lr": 0.002},
    4: {"method.sharpness": 5.0, "training.lr": 0.003},
}


def train(settings=SETTINGS, start=START, search=SPACE, **options):
    trials = train_population(settings, start, search, data(search), FakeClip(), **options)
    return {trial.number: trial for trial in trials}


def alone(values, search=SPACE, seed=0, start=START):
    """Losses and validation mAP of a trial that is fitted and evaluated by itself."""
    setting, sets = override(start, values), data(search)
    setting = override(setting, {"training.seed": seed})
    method = setting.method.build(FakeClip(), seed)
    result = fit(method, sets.training(values), setting.training)
    recognizer = replace(result.recognizer, normalization=setting.normalization)
    return [r.loss for r in result.history], evaluate(recognizer, sets.validation()).mAP


def test_trials_are_fit_and_evaluate():
    trials = train()
    assert [*trials] == [7, 3, 4]
    for number, trial in trials.items():
        losses, score = alone(SETTINGS[number])
        assert (trial.status, trial.reason, trial.values) == ("ok", "", SETTINGS[number])
        assert trial.losses == pytest.approx(losses, rel=1e-5)
        assert (trial.loss, trial.validation_mAP) == pytest.approx((losses[-1], score), rel=1e-5)
        assert [epochs for epochs, _ in trial.scores] == [2, 4]
        assert trial.scores[-1][1] == trial.validation_mAP
        assert trial.spread is None and trial.seconds > 0
        assert trial.started_s <= trial.ended_s


def test_a_population_of_one_gives_the_same():
    together = train()
    for number, values in SETTINGS.items():
        (single,) = train({number: values}).values()
        known = together[number]
        assert single.losses == pytest.approx(known.losses, rel=1e-5)
        assert single.validation_mAP == pytest.approx(known.validation_mAP, rel=1e-5)


def test_shapes_that_differ_are_split_by_themselves():
    search = space(
        ("method.context_length", "choice", (4, 8)),
        ("method.adapter", "choice", ("local", "none")),
        ("training.num_epochs", "choice", (2, 4)),
    )
    keys = ("method.context_length", "method.adapter", "training.num_epochs")
    rows = [(4, "local", 2), (8, "local", 4), (4, "none", 4), (4, "local", 4)]
    settings = {n: dict(zip(keys, row)) for n, row in enumerate(rows)}
    for number, trial in train(settings, search=search).items():
        losses, score = alone(settings[number], search)
        assert trial.losses == pytest.approx(losses, rel=1e-5)
        assert trial.validation_mAP == pytest.approx(score, rel=1e-5)


def test_several_seeds_give_mean_and_spread():
    search = replace(SPACE, num_seeds=3)
    trial = train({0: SETTINGS[3]}, search=search)[0]
    runs = [alone(SETTINGS[3], search, seed) for seed in range(3)]
    scores = [score for _, score in runs]
    assert trial.validation_mAP == pytest.approx(statistics.fmean(scores), rel=1e-5)
    assert trial.spread == pytest.approx(statistics.stdev(scores), rel=1e-3)
    assert trial.loss == pytest.approx(statistics.fmean(loss[-1] for loss, _ in runs), rel=1e-5)


def test_normalization_is_of_the_scores_alone():
    search = space(("normalization.deviation_power", "choice", (0.0, 1.0)))
    settings = {n: {"normalization.deviation_power": float(n)} for n in range(2)}
    trials = train(settings, search=search)
    assert trials[0].losses == pytest.approx(trials[1].losses)
    for number, trial in trials.items():
        _, score = alone(settings[number], search)
        assert trial.validation_mAP == pytest.approx(score, rel=1e-5)
    assert trials[0].validation_mAP != trials[1].validation_mAP


def test_images_that_a_trial_may_draw_from():
    search = space(("training.images_per_caption", "choice", (1, 2)))
    trials = train({n: {"training.images_per_caption": n + 1} for n in range(2)}, search=search)
    rows = data(search).training({}).image_of_caption
    assert trials[1].images == int((rows >= 0).sum())
    assert trials[0].images == int((rows[:, 0] >= 0).sum()) < trials[1].images


def test_who_cannot_be_built_or_diverges_stops_nobody_else():
    search = space(
        ("method.adapter", "choice", ("local", "none")),
        ("method.local_scores", "choice", (True, False)),
        ("method.context_length", "randint", (4, 60)),
        ("training.lr", "uniform", (1e-3, 1e30)),
    )
    keys = tuple(dimension.path for dimension in search.dimensions)
    rows = [
        ("local", True, 4, 1e-3),
        ("local", False, 4, 1e-3),  # one by one both are valid, together they are not
        ("local", True, 60, 1e-3),  # no prompt fits into the text encoder
        ("local", True, 4, 1e30),
        ("none", False, 4, 1e-3),
    ]
    trials = train({n: dict(zip(keys, row)) for n, row in enumerate(rows)}, search=search)
    assert [trial.status for trial in trials.values()] == ["ok", "failed", "failed", "failed", "ok"]
    assert "needs local_scores" in trials[1].reason
    assert "shorten the name or the context" in trials[2].reason
    assert "diverged" in trials[3].reason and "epoch" in trials[3].reason
    assert trials[3].ended_s is not None
    losses, score = alone(trials[0].values, search)
    assert trials[0].losses == pytest.approx(losses, rel=1e-5)
    assert trials[0].validation_mAP == pytest.approx(score, rel=1e-5)


def test_who_cannot_be_prepared_leaves_the_others_stacked(monkeypatch):
    built, original = [], Stack.__init__

    def build(self, methods, trainings, data, at_once=None):
        if any(method.config.sharpness == 8.0 for method in methods):
            raise ValueError("no such data")
        original(self, methods, trainings, data, at_once)
        built.append(len(methods))

    monkeypatch.setattr(Stack, "__init__", build)
    trials = train()
    assert [trials[n].status for n in (7, 3, 4)] == ["ok", "failed", "ok"]
    assert trials[3].reason == "no such data" and built[-1] == 2


def test_who_is_stopped_leaves_and_the_others_go_on():
    asked = []

    def judge(epochs, metrics):
        asked.append((epochs, dict(metrics)))
        return {3: "enough"} if epochs == 2 else {}

    told = []
    trials = train(judge=judge, report=lambda rows: told.append({r.number: r for r in rows}))
    assert [(epochs, [*metrics]) for epochs, metrics in asked] == [(2, [7, 3, 4]), (4, [7, 4])]
    assert (trials[3].status, trials[3].reason, len(trials[3].losses)) == ("stopped", "enough", 2)
    assert asked[0][1][3] == trials[3].validation_mAP
    for number in (7, 4):
        losses, _ = alone(SETTINGS[number])
        assert trials[number].losses == pytest.approx(losses, rel=1e-5)
    assert [row.status for row in told[0].values()] == ["running"] * 3
    states = [[row.status for row in rows.values()] for rows in told]
    assert ["running", "stopped", "running"] in states and len(told) >= 5  # at every epoch
    assert told[-1] == trials


def test_when_the_time_is_up_who_runs_is_left_unfinished():
    told = []
    trials = train(deadline_s=time.time() - 1, report=told.append)
    assert {trial.status for trial in trials.values()} == {"unfinished"}
    assert {trial.reason for trial in trials.values()} == {"the time was up after epoch 0"}
    assert not any(trial.has_ended for trial in trials.values())
    assert [trial.status for trial in told[-1]] == ["unfinished"] * 3


def test_by_loss_the_judge_gets_losses():
    search, asked = replace(SPACE, metric="loss", mode="min"), []
    trials = train(search=search, judge=lambda epochs, metrics: asked.append(metrics) or {})
    assert asked[-1] == {number: trial.loss for number, trial in trials.items()}


@pytest.mark.parametrize(
    "error, status", [(torch.OutOfMemoryError, "unfinished"), (ValueError, "failed")]
)
def test_an_error_while_training_is_a_reason(monkeypatch, error, status):
    def fail(self):
        raise error("it is too much\nno memory is left")

    monkeypatch.setattr(Stack, "train_epoch", fail)
    trials = train()
    assert {trial.status for trial in trials.values()} == {status}
    assert {trial.reason for trial in trials.values()} == {"no memory is left"}


def test_an_error_of_the_device_ends_the_process(monkeypatch):
    def fail(self):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(Stack, "train_epoch", fail)
    with pytest.raises(RuntimeError, match="CUDA error"):
        train()


def test_classes_that_no_validation_image_shows_are_left_out():
    labelled = images(20, seed=3)
    labelled.labels[:, 2] = 0
    sets = replace(data(SPACE), images=labelled)
    (trial,) = train_population({0: SETTINGS[3]}, START, SPACE, sets, FakeClip())
    assert trial.status == "ok" and math.isfinite(trial.validation_mAP)
    assert torch.equal(sets.validation().labels[:, 2], torch.zeros(20))
