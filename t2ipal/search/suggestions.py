"""Which settings come next: drawn beforehand (grid, random), or by Optuna from what is known.

Owns the numbers of trials, and what a search that goes on takes over from before.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import StudyDirection
from optuna.trial import TrialState

from t2ipal.search.results import Trial, metric_curve
from t2ipal.search.space import Dimension, SearchConfig, draw_settings

POPULATION = 32
"""Trials of a population at most, unless asked otherwise."""
GENERATIONS = 8
"""With Optuna there are at least so many populations: what comes of one guides the next."""


class Suggestions:
    """The settings that were not trained to their end, a population at a time.

    Args:
        search: the checked space.
        trials: of before, where the search goes on. Those that have not ended come first.
    """

    def __init__(self, search: SearchConfig, trials: Sequence[Trial] = ()) -> None:
        self.search = search
        self._known = {trial.number for trial in trials}
        self._number = 0  # no trial with a smaller one was never begun
        self._waiting = {trial.number: trial.values for trial in trials if not trial.has_ended}
        self._drawn = [] if search.searcher == "optuna" else draw_settings(search)
        self._asked: dict[int, optuna.trial.Trial] = {}
        self._study = _study(search, trials) if search.searcher == "optuna" else None

    @property
    def study(self) -> optuna.Study:
        """Optuna's, where it suggests."""
        assert self._study is not None
        return self._study

    @property
    def num_left(self) -> int:
        """Trials that `next` has not given."""
        return self.search.num_trials - len(self._known) + len(self._waiting)

    def next(self, count: int) -> dict[int, dict[str, Any]]:
        """The values of so many trials by their numbers; fewer where the search ends."""
        found: dict[int, dict[str, Any]] = {}
        while len(found) < count and self.num_left:
            if self._waiting:
                number = min(self._waiting)
                found[number] = self._waiting.pop(number)
                continue
            while self._number in self._known:
                self._number += 1
            number = self._number
            self._known.add(number)
            found[number] = self._ask(number) if self._study else self._drawn[number]
        return found

    def tell(self, trials: Iterable[Trial]) -> None:
        """What became of trials; those that have not ended are left out."""
        for trial in trials if self._study else ():
            if not trial.has_ended:
                continue
            asked = self._asked.pop(trial.number, None)
            if asked is None:  # of a search before this one
                self.study.add_trial(frozen_trial(self.search, trial))
                continue
            values = objectives(self.search, trial)
            for epochs, metric in metric_curve(self.search, trial).items():
                if len(values) == 1:
                    asked.report(metric, epochs)
            state = STATES[trial.status]
            self.study.tell(asked, values if state == TrialState.COMPLETE else None, state)

    def _ask(self, number: int) -> dict[str, Any]:
        self._asked[number] = self.study.ask(distributions(self.search))
        params = self._asked[number].params
        return {dimension.path: params[dimension.path] for dimension in self.search.dimensions}


def population_size(search: SearchConfig, num_left: int, workers: int, most: int | None) -> int:
    """Trials of each population, so that all workers have work to the end.

    Args:
        search: the space and how it is searched.
        num_left: trials to do.
        workers: that train populations side by side.
        most: trials of a population at most; None: as many as are good for this search.
    """
    if most is None:
        guided = search.searcher == "optuna"
        most = min(POPULATION, max(search.num_trials // GENERATIONS, 1)) if guided else POPULATION
    rounds = math.ceil(num_left / (most * workers))
    return max(math.ceil(num_left / max(rounds * workers, 1)), 1)


def distributions(search: SearchConfig) -> dict[str, BaseDistribution]:
    """The space as Optuna knows it."""
    return {dimension.path: _distribution(dimension) for dimension in search.dimensions}


def directions(search: SearchConfig) -> list[StudyDirection]:
    """Of the objectives."""
    least, most = StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE
    return [most if search.mode == "max" else least, *[least] * len(search.minimize)]


def objectives(search: SearchConfig, trial: Trial) -> list[float]:
    """What a trial reached in each."""
    return [getattr(trial, name) for name in (search.metric, *search.minimize)]


def frozen_trial(search: SearchConfig, trial: Trial) -> optuna.trial.FrozenTrial:
    """A trial that has ended, as Optuna keeps it."""
    state = STATES[trial.status]
    return optuna.trial.create_trial(
        state=state,
        params=trial.values,
        distributions=distributions(search),
        values=objectives(search, trial) if state == TrialState.COMPLETE else None,
        intermediate_values={} if search.minimize else metric_curve(search, trial),
    )


def _study(search: SearchConfig, trials: Sequence[Trial]) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ended = [trial for trial in trials if trial.has_ended]
    # With the same seed a search that goes on would be suggested the same values again. Trials that
    # run count as bad ones, so that those suggested at once differ.
    sampler = optuna.samplers.TPESampler(seed=search.seed + len(trials), constant_liar=True)
    study = optuna.create_study(sampler=sampler, directions=directions(search))
    study.add_trials([frozen_trial(search, trial) for trial in ended])
    return study


def _distribution(dimension: Dimension) -> BaseDistribution:
    values = dimension.values
    match dimension.kind:
        case "uniform":
            return FloatDistribution(*values)
        case "loguniform":
            return FloatDistribution(*values, log=True)
        case "randint":
            return IntDistribution(*values)
        case _:
            return CategoricalDistribution(values)


STATES: Mapping[str, TrialState] = {
    "ok": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}
