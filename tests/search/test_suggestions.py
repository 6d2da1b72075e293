import dataclasses

import pytest
from search_data import space

from t2ipal.search.results import Trial
from t2ipal.search.space import draw_settings
from t2ipal.search.suggestions import Suggestions, population_size

SHARPNESS = ("method.sharpness", "uniform", (1.0, 9.0))
MIXED = (
    SHARPNESS,
    ("training.lr", "loguniform", (1e-4, 1e-2)),
    ("training.images_per_caption", "randint", (1, 2)),
    ("method.adapter", "choice", ("local", "none")),
)


def ended(number, values, score=60.0, status="ok", **more):
    return Trial(number, values, status, validation_mAP=score, loss=1.0, **more)


def test_drawn_settings_come_in_their_order():
    search = space(SHARPNESS, num_samples=5)
    suggestions, settings = Suggestions(search), draw_settings(search)
    assert suggestions.num_left == 5
    assert suggestions.next(2) == dict(enumerate(settings[:2]))
    assert suggestions.next(9) == {n: settings[n] for n in (2, 3, 4)}
    assert suggestions.next(1) == {} and suggestions.num_left == 0


@pytest.mark.parametrize("searcher", ["random", "optuna"])
def test_a_search_goes_on_with_those_that_have_not_ended(searcher):
    search = space(SHARPNESS, num_samples=6, searcher=searcher)
    before = [
        ended(0, {"method.sharpness": 2.0}),
        Trial(1, {"method.sharpness": 3.25}, "running"),
        ended(3, {"method.sharpness": 4.0}, status="stopped", scores=((2, 60.0),)),
        Trial(4, {"method.sharpness": 5.25}, "unfinished"),
        ended(5, {"method.sharpness": 6.0}, None, "failed"),
    ]
    suggestions = Suggestions(search, before)
    assert suggestions.num_left == 3
    found = suggestions.next(10)
    assert [*found] == [1, 4, 2]
    assert [found[n]["method.sharpness"] for n in (1, 4)] == [3.25, 5.25]
    assert 1 <= found[2]["method.sharpness"] <= 9


def test_optuna_suggests_within_the_space_and_learns():
    search = space(*MIXED, num_samples=40, searcher="optuna", seed=3)
    suggestions = Suggestions(search)
    last = []
    while settings := suggestions.next(5):
        for values in settings.values():
            assert [*values] == [dimension[0] for dimension in MIXED]
            assert 1 <= values["method.sharpness"] <= 9
            assert 1e-4 <= values["training.lr"] <= 1e-2
            assert values["training.images_per_caption"] in (1, 2)
            assert values["method.adapter"] in ("local", "none")
        last = [values["method.sharpness"] for values in settings.values()]
        scores = {n: -abs(values["method.sharpness"] - 7) for n, values in settings.items()}
        suggestions.tell(ended(n, settings[n], score) for n, score in scores.items())
    assert sum(abs(value - 7) < 2 for value in last) >= 3  # of five; a third were by chance


def test_the_same_seed_suggests_the_same_and_those_at_once_differ():
    search = space(SHARPNESS, num_samples=8, searcher="optuna")
    first, second = (Suggestions(search).next(8) for _ in range(2))
    assert first == second
    assert len({values["method.sharpness"] for values in first.values()}) == 8
    again = Suggestions(search, [ended(0, first[0])]).next(1)
    assert again[1] != first[0]


def test_several_objectives():
    search = space(MIXED[2], SHARPNESS, num_samples=6, searcher="optuna", minimize=("images",))
    suggestions = Suggestions(search)
    settings = suggestions.next(3)
    suggestions.tell(
        ended(n, values, 50.0 + n, images=100 * (n + 1)) for n, values in settings.items()
    )
    assert len(suggestions.next(3)) == 3


def test_failed_and_stopped_trials_are_told_too():
    search = space(SHARPNESS, num_samples=6, searcher="optuna", scheduler="asha")
    suggestions = Suggestions(search)
    settings = suggestions.next(3)
    suggestions.tell(
        [
            ended(0, settings[0]),
            ended(1, settings[1], status="stopped", scores=((2, 40.0), (4, 41.0))),
            dataclasses.replace(ended(2, settings[2], None), status="failed"),
        ]
    )
    states = [trial.state.name for trial in suggestions._study.trials]
    assert states == ["COMPLETE", "PRUNED", "FAIL"]
    assert suggestions._study.trials[1].intermediate_values == {2: 40.0, 4: 41.0}


def test_a_search_by_loss_is_told_losses():
    search = space(
        SHARPNESS, num_samples=4, searcher="optuna", scheduler="asha", metric="loss", mode="min"
    )
    suggestions = Suggestions(search)
    settings = suggestions.next(1)
    losses, scores = (9.0, 3.0), ((1, 40.0), (2, 41.0))
    stopped = ended(0, settings[0], status="stopped", scores=scores, losses=losses)
    suggestions.tell([stopped])
    assert suggestions.study.trials[0].intermediate_values == {1: 9.0, 2: 3.0}
    again = Suggestions(search, [stopped]).study.trials[0]
    assert again.intermediate_values == {1: 9.0, 2: 3.0}


@pytest.mark.parametrize(
    "searcher, trials, left, workers, most, expected",
    [
        ("random", 120, 120, 2, None, 30),  # two rounds of two
        ("random", 120, 120, 1, None, 30),
        ("random", 16, 16, 2, None, 8),  # all workers have work
        ("random", 16, 3, 2, None, 2),
        ("random", 120, 120, 2, 1, 1),
        ("random", 3, 3, 8, None, 1),
        ("optuna", 16, 16, 2, None, 2),
        ("optuna", 1000, 1000, 2, None, 32),
        ("optuna", 4, 4, 2, None, 1),
        ("optuna", 16, 16, 2, 8, 8),
        ("random", 16, 0, 2, None, 1),
    ],
)
def test_population_sizes(searcher, trials, left, workers, most, expected):
    search = space(SHARPNESS, num_samples=trials, searcher=searcher)
    assert population_size(search, left, workers, most) == expected
