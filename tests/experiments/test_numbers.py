"""Numbers and verdicts from fits that are made up."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from t2ipal.evaluation.ensembles import ensemble
from t2ipal.evaluation.metrics import mean_average_precision
from t2ipal.evaluation.test_sets import TestFeatures
from t2ipal.experiments import numbers as module
from t2ipal.experiments.fitting import Measured
from t2ipal.experiments.numbers import Numbers
from t2ipal.experiments.rows import At, Claim, Mean, System
from t2ipal.experiments.sources import Labels
from t2ipal.methods.recognizer import Normalization

NAMES = ("a", "b", "c")
OURS, THEIRS, PLAIN = System("t2ipal"), System("tai_dpt"), System("zsclip")
RNG = np.random.default_rng(0)
LABELS = np.eye(3)[RNG.integers(0, 3, 60)].astype(np.float32)


def measured(value):
    return Measured({"pictovoc": value, "validation": value}, {"pictovoc": value + 1}, {}, 1.0)


def made(values, monkeypatch, scores=None, failed=None):
    """Numbers of systems by their values, seed by seed; `scores` of each system on each set."""
    done, kept = {}, {}
    for system, reached in values.items():
        for fit, value in zip(system.fits(range(len(reached))), reached, strict=True):
            done[fit] = measured(value)
            kept[fit] = (scores or {}).get(system)
    features = SimpleNamespace(labels=torch.from_numpy(LABELS))
    tests = [TestFeatures(n, NAMES, features, None, []) for n in ("pictovoc", "validation")]
    data = SimpleNamespace(
        vocabulary=lambda source: (NAMES, NAMES),
        tests=lambda source, backbone: tests,
        measure=lambda name: "mAP",
        missing=lambda *asked: "",
        validation="validation",
    )
    monkeypatch.setattr(module, "read_scores", lambda fit, data: kept[fit])
    seeds = range(max(len(reached) for reached in values.values()))
    return Numbers(data, seeds, done, failed or {})


def test_mean_and_deviation_over_seeds(monkeypatch):
    found = made({OURS: [70.0, 71.0, 72.0], PLAIN: [57.0]}, monkeypatch)
    summary = found(At(OURS, "pictovoc"))
    assert (summary.mean, summary.std, summary.mAPs) == (71.0, 1.0, (70.0, 71.0, 72.0))
    assert found(At(PLAIN, "pictovoc")).mAPs == (57.0,)
    normalized = System("t2ipal", normalization="full")
    assert found(At(normalized, "pictovoc")).mean == 72.0
    assert found(At(THEIRS, "pictovoc")) is None
    both = Mean((At(OURS, "pictovoc"), At(normalized, "pictovoc")))
    assert found(both).mAPs == (70.5, 71.5, 72.5)
    assert found(Mean((At(OURS, "pictovoc"), At(THEIRS, "pictovoc")))) is None


@pytest.mark.parametrize(
    ("ours", "theirs", "outcome"),
    [
        ([70, 71, 70.5], [60, 61.5, 60.2], "confirmed"),
        ([60, 61.5, 60.2], [70, 71, 70.5], "refuted"),
        ([70, 60, 65], [64, 66, 65], "undecided"),
        ([70], [60], "undecided"),
    ],
)
def test_one_is_higher(ours, theirs, outcome, monkeypatch):
    found = made({OURS: ours, THEIRS: theirs}, monkeypatch)
    verdict = found.verdict(Claim("words", "higher", (OURS, THEIRS), ("pictovoc",)))
    assert verdict.outcome == outcome
    (difference,) = verdict.differences
    assert difference.mean == pytest.approx(np.mean(np.subtract(ours, theirs)))


def test_a_system_without_seeds_is_compared_with_every_seed(monkeypatch):
    found = made({OURS: [70, 71, 72.0], PLAIN: [57.0]}, monkeypatch)
    difference = found.difference(OURS, PLAIN, "pictovoc")
    assert (difference.mean, difference.seeds) == (14.0, 3)


@pytest.mark.parametrize(
    ("ours", "theirs", "outcome"),
    [
        ([70, 70.2, 70.1], [70.1, 70.1, 70.2], "confirmed"),
        ([75, 75.2, 75.1], [70.1, 70.1, 70.2], "refuted"),
        ([70, 73, 67], [70, 70, 70.3], "undecided"),
    ],
)
def test_two_are_on_par(ours, theirs, outcome, monkeypatch):
    found = made({OURS: ours, THEIRS: theirs}, monkeypatch)
    claim = Claim("words", "equal", (OURS, THEIRS), ("pictovoc",))
    assert found.verdict(claim).outcome == outcome


@pytest.mark.parametrize(
    ("line", "outcome"),
    [([60, 70, 65], "confirmed"), ([72, 70, 60], "refuted"), ([70, 70.1, 60], "undecided")],
)
def test_the_best_lies_inside(line, outcome, monkeypatch):
    systems = [OURS.changed(method__sharpness=float(k)) for k in range(3)]
    noise = np.array([0.1, -0.1, 0.05])
    values = {s: [*(v + noise * (k + 1))] for k, (s, v) in enumerate(zip(systems, line))}
    found = made(values, monkeypatch)
    claim = Claim("words", "interior", tuple(systems), ("pictovoc",))
    assert found.verdict(claim).outcome == outcome


def test_what_is_not_there_is_not_measured(monkeypatch):
    (fit,) = THEIRS.fits(range(1))
    found = made({OURS: [70.0]}, monkeypatch, failed={fit: "no caption names a bus"})
    claim = Claim("words", "higher", (OURS, THEIRS), ("pictovoc",))
    assert found.verdict(claim).outcome == "not measured"
    assert found.missing(THEIRS) == "no caption names a bus"


def test_mixtures_are_ensembles_of_the_scores(monkeypatch):
    scores = {
        system: {name: RNG.normal(size=(60, 3)).astype(np.float32) for name in ("pictovoc",)}
        for system in (OURS, THEIRS, PLAIN)
    }
    found = made({OURS: [1.0, 2.0], THEIRS: [1.0, 2.0], PLAIN: [1.0]}, monkeypatch, scores)
    mixture = System("t2ipal", partner=THEIRS, ratio=0.6)
    by_hand = ensemble(scores[OURS]["pictovoc"], scores[THEIRS]["pictovoc"], 0.6)
    expected = mean_average_precision(by_hand, LABELS)
    assert found(At(mixture, "pictovoc")).mAPs == pytest.approx((expected, expected))
    added = System("t2ipal", partner=PLAIN)  # one of all seeds, and cosines both
    by_hand = scores[OURS]["pictovoc"].astype(float) + scores[PLAIN]["pictovoc"]
    expected = mean_average_precision(by_hand, LABELS)
    assert found(At(added, "pictovoc")).mAPs == pytest.approx((expected, expected))


def test_a_part_of_a_normalization_is_chosen_on_validation_images_alone(monkeypatch):
    brightness = RNG.normal(size=(60, 1)) * 5
    seen = (LABELS + RNG.normal(size=(60, 3)) * 0.4 + brightness).astype(np.float32)
    plain = (LABELS + RNG.normal(size=(60, 3)) * 0.4).astype(np.float32)
    partly = System("t2ipal", normalization="partial")
    both = {OURS: {"validation": seen, "pictovoc": plain}}
    found = made({OURS: [1.0, 2.0]}, monkeypatch, both)
    chosen = found._choose(partly)
    assert chosen.mean_weight == 1.0  # what validation needs, whatever the test set would
    expected = mean_average_precision(chosen(torch.from_numpy(plain)).numpy(), LABELS)
    assert found(At(partly, "pictovoc")).mAPs == pytest.approx((expected, expected))
    best = max(
        mean_average_precision(Normalization(w, p)(torch.from_numpy(plain)).numpy(), LABELS)
        for w in (0.0, 0.25) for p in (0.0,)
    )  # fmt: skip
    assert best != pytest.approx(expected)


def test_nothing_is_chosen_where_there_are_no_validation_images(monkeypatch):
    systems = [OURS.changed(method__sharpness=float(k)) for k in range(3)]
    found = made({system: [1.0, 2.0] for system in systems}, monkeypatch)
    found.data.validation = ""
    claim = Claim("words", "interior", tuple(systems), ("pictovoc",))
    assert found.verdict(claim).outcome == "not measured"
    partly = System("t2ipal", normalization="partial")
    assert found(At(partly, "pictovoc")) is None
    assert found.missing(partly).startswith("labelled validation images")


def test_image_trained_scores_are_probabilities_in_a_mixture(monkeypatch):
    logits = System("dualcoop", Labels())
    scores = {
        system: {"pictovoc": 9 * RNG.normal(size=(60, 3)).astype(np.float32)}
        for system in (OURS, logits)
    }
    found = made({OURS: [1.0], logits: [1.0]}, monkeypatch, scores)
    mixture = System("t2ipal", partner=logits, ratio=0.9)
    probs = 1 / (1 + np.exp(-scores[logits]["pictovoc"].astype(float)))
    expected = mean_average_precision(ensemble(scores[OURS]["pictovoc"], probs, 0.9), LABELS)
    assert found(At(mixture, "pictovoc")).mean == pytest.approx(expected)
