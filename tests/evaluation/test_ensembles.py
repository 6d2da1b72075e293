import numpy as np
import pytest

from t2ipal.evaluation.ensembles import (
    FEW_SHOT_RATIO,
    PARTIAL_LABELS_RATIO,
    ensemble,
    with_class_concepts,
)

RNG = np.random.default_rng(0)
OURS, THEIRS = RNG.normal(size=(7, 4)).astype(np.float32), 20 * RNG.normal(size=(7, 4)) + 3


def test_one_minimum_and_one_maximum_of_all_numbers():
    """By hand: 0 to 4 becomes 0 to 1, and so does -10 to 10."""
    ours, theirs = np.array([[0.0, 1.0], [4.0, 2.0]]), np.array([[-10.0, 10.0], [0.0, 5.0]])
    expected = [[0.4 * 0 + 0.6 * 0, 0.4 * 0.25 + 0.6 * 1], [0.4 + 0.6 * 0.5, 0.2 + 0.6 * 0.75]]
    np.testing.assert_allclose(ensemble(ours, theirs, FEW_SHOT_RATIO), expected)


def test_against_loops():
    found = ensemble(OURS, THEIRS, PARTIAL_LABELS_RATIO)
    lows, highs = zip(*((min(s.flat), max(s.flat)) for s in (OURS, THEIRS)))
    for row in range(7):
        for index in range(4):
            one, other = (
                (float(s[row, index]) - float(low)) / (float(high) - float(low))
                for s, low, high in zip((OURS, THEIRS), lows, highs)
            )
            assert found[row, index] == pytest.approx(0.1 * one + 0.9 * other)


def test_limits():
    for ratio, alone in ((0.0, OURS), (1.0, THEIRS)):
        found = ensemble(OURS, THEIRS, ratio)
        assert found.min() == 0 and found.max() == 1
        assert np.array_equal(np.argsort(found, axis=None), np.argsort(alone, axis=None))
    assert np.allclose(ensemble(OURS, 5 * OURS - 2, 0.3), ensemble(OURS, OURS, 0.9))


def test_class_concepts_are_added_as_logits():
    np.testing.assert_allclose(with_class_concepts(OURS, THEIRS), 100.0 * OURS + 100 * THEIRS)
    np.testing.assert_allclose(with_class_concepts(OURS, THEIRS, 1.0), 100.0 * OURS + THEIRS)


@pytest.mark.parametrize("add", [lambda a, b: ensemble(a, b, 0.5), with_class_concepts])
def test_what_cannot_be_added(add):
    with pytest.raises(ValueError, match=r"same images and classes, got \(7, 4\) and \(6, 4\)"):
        add(OURS, THEIRS[1:])
    broken = np.where(THEIRS.max() == THEIRS, np.nan, THEIRS)
    with pytest.raises(ValueError, match="must be finite"):
        add(OURS, broken)


def test_scores_without_a_range_and_ratios_out_of_theirs():
    with pytest.raises(ValueError, match="must differ, got one number everywhere"):
        ensemble(OURS, np.ones((7, 4)), 0.5)
    with pytest.raises(ValueError, match=r"ratio must be in 0\.\.1, got 1\.1"):
        ensemble(OURS, THEIRS, 1.1)
    with pytest.raises(ValueError, match="scale must be > 0, got 0"):
        with_class_concepts(OURS, THEIRS, 0.0)
