import dataclasses
import itertools

import pytest
import torch
from fake_clip import FakeClip, config, images

from t2ipal.evaluation.evaluate import evaluate, predict
from t2ipal.evaluation.metrics import mean_average_precision
from t2ipal.evaluation.normalization import (
    DEVIATION_POWERS,
    KINDS,
    MEAN_WEIGHTS,
    choose_normalization,
    normalized,
)
from t2ipal.methods.recognizer import FULL, Normalization
from t2ipal.methods.t2ipal import T2IPAL

VALIDATION = images(60, seed=5)


def recognizers(count=2):
    return [T2IPAL(config(), FakeClip(), seed=seed).export() for seed in range(count)]


def test_none_leaves_everything_and_takes_off_what_was_there():
    plain, test = recognizers(), images(20)
    for ours, theirs in zip(normalized(plain, "none"), plain, strict=True):
        assert ours == theirs and torch.equal(ours.scores(test), theirs.scores(test))
    again = normalized(normalized(plain, "full"), "none")
    assert [recognizer.normalization for recognizer in again] == [Normalization()] * 2


def test_full_is_the_formula_and_needs_no_data():
    (ours,), (plain,), test = normalized(recognizers(1), "full"), recognizers(1), images(20)
    scores = plain.scores(test)
    expected = (scores - scores.mean(dim=1, keepdim=True)) / scores.std(
        dim=1, keepdim=True, correction=0
    )
    assert ours.normalization == FULL
    torch.testing.assert_close(ours.scores(test), expected)


def test_partial_is_the_best_of_the_grid_on_validation_images():
    """Against every w and p tried one by one, on recognizers as they would be used."""
    plain = recognizers()
    reached = {}
    for weight, power in itertools.product(MEAN_WEIGHTS, DEVIATION_POWERS):
        tried = Normalization(weight, power)
        changed = [dataclasses.replace(one, normalization=tried) for one in plain]
        reached[tried] = sum(evaluate(one, VALIDATION).mAP for one in changed)
    best = max(reached.values())
    first = next(tried for tried, score in reached.items() if score == pytest.approx(best))
    chosen = choose_normalization(plain, VALIDATION)
    assert reached[chosen] == pytest.approx(best) and chosen == first
    assert [one.normalization for one in normalized(plain, "partial", VALIDATION)] == [chosen] * 2
    assert best >= reached[Normalization()] and best >= reached[FULL]


def test_a_choice_looks_at_validation_images_alone(monkeypatch):
    seen = []

    def noted(recognizers, features, *rest):
        seen.append(features)
        return predict(recognizers, features, *rest)

    monkeypatch.setattr("t2ipal.evaluation.normalization.predict", noted)
    normalized(recognizers(), "partial", VALIDATION)
    assert len(seen) == 1 and seen[0] is VALIDATION


def test_where_nothing_helps_nothing_is_done():
    """One image for each class, each far ahead: no normalization changes what is perfect."""
    perfect = dataclasses.replace(VALIDATION.rows(slice(0, 5)), labels=torch.eye(5))

    def scores(recognizers, features):
        return [(10 * torch.eye(5)).numpy()] * len(recognizers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("t2ipal.evaluation.normalization.predict", scores)
        assert choose_normalization(recognizers(1), perfect) == Normalization()


def test_classes_that_no_validation_image_shows_are_left_out():
    labels = VALIDATION.labels.clone()
    labels[:, 2] = 0
    validation = dataclasses.replace(VALIDATION, labels=labels)
    chosen = choose_normalization(recognizers(1), validation)
    (plain,) = recognizers(1)
    there = [0, 1, 3, 4]

    def reached(normalization):
        scores = normalization(plain.scores(validation)).numpy()
        return mean_average_precision(scores[:, there], labels.numpy()[:, there])

    grid = [Normalization(w, p) for w in MEAN_WEIGHTS for p in DEVIATION_POWERS]
    assert reached(chosen) == pytest.approx(max(map(reached, grid)))


def test_bad_input():
    assert KINDS == ("none", "full", "partial")
    with pytest.raises(ValueError, match=r"Unknown normalization 'parts'. Did you mean 'partial'"):
        normalized(recognizers(1), "parts")
    with pytest.raises(ValueError, match="chosen on validation images, got none"):
        normalized(recognizers(1), "partial")
    with pytest.raises(ValueError, match="needs images, got none"):
        normalized(recognizers(1), "partial", VALIDATION.rows(slice(0, 0)))
