import pytest
from search_data import space

from t2ipal.search.halving import Halving, rungs, scored_epochs
from t2ipal.search.results import Trial

DIMENSION = ("method.sharpness", "uniform", (1.0, 9.0))
ASHA = space(DIMENSION, scheduler="asha")


@pytest.mark.parametrize(
    "epochs, expected",
    [(1, []), (2, [1]), (4, [1, 2]), (30, [8, 15]), (35, [9, 18]), (16, [4, 8])],
)
def test_rungs(epochs, expected):
    assert rungs(epochs) == expected
    assert scored_epochs(ASHA, epochs) == [*expected, epochs]


@pytest.mark.parametrize(
    "times, epochs, expected",
    [(5, 30, [6, 12, 18, 24, 30]), (1, 30, [30]), (5, 3, [1, 2, 3]), (4, 10, [3, 5, 8, 10])],
)
def test_scores_lie_evenly(times, epochs, expected):
    assert scored_epochs(space(DIMENSION, num_validations=times), epochs) == expected


def test_the_better_half_goes_on():
    halving = Halving(ASHA)
    stopped = halving.stopped(7, {0: 50.0, 1: 60.0, 2: 40.0, 3: 55.0})
    assert stopped == dict.fromkeys((0, 2), "below the best half of 4 trials after epoch 7")
    assert halving.stopped(7, {4: 59.0}) == {}  # among the best three of five
    assert [*halving.stopped(7, {5: 51.0})] == [5]
    assert halving.stopped(14, {2: 1.0}) == {}  # the first one there


def test_the_smaller_the_better():
    halving = Halving(space(DIMENSION, scheduler="asha", metric="loss", mode="min"))
    assert [*halving.stopped(7, {0: 5.0, 1: 6.0, 2: 4.0})] == [1]


def test_order_within_a_population_does_not_matter():
    scores = {n: float(n * 37 % 11) for n in range(11)}
    assert {*Halving(ASHA).stopped(7, scores)} == {
        *Halving(ASHA).stopped(7, dict(reversed(scores.items())))
    }


def test_what_was_scored_before_counts():
    trial = Trial(0, {}, "ok", scores=((7, 80.0),), losses=(1.0,) * 7)
    assert [*Halving(ASHA, [trial]).stopped(7, {1: 70.0})] == [1]
    by_loss = space(DIMENSION, scheduler="asha", metric="loss", mode="min")
    assert [*Halving(by_loss, [trial]).stopped(7, {1: 2.0})] == [1]


def test_without_a_scheduler_nobody_is_stopped():
    assert Halving(space(DIMENSION)).stopped(7, {0: 1.0, 1: 9.0}) == {}
