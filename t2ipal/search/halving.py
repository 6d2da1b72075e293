"""When trials are scored, and which are stopped early: asynchronous successive halving.

A trial that is scored at a rung goes on if it is among the best half of all that were scored there
so far (ASHA; Li et al., 2020, algorithm 2). The trials of a population arrive together and are
judged together, so their order does not matter.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from t2ipal.search.results import Trial, metric_curve
from t2ipal.search.space import SearchConfig

RUNGS = (0.25, 0.5)
"""Parts of the epochs after which one of two goes on. A later one would save little."""


def scored_epochs(search: SearchConfig, num_epochs: int) -> list[int]:
    """After how many epochs a trial is scored; the last one is its end."""
    if search.scheduler == "asha":
        return [*rungs(num_epochs), num_epochs]
    steps = np.arange(1, search.num_validations + 1) / search.num_validations
    return sorted({math.ceil(step * num_epochs) for step in steps})


def rungs(num_epochs: int) -> list[int]:
    """After how many epochs a trial may be stopped."""
    found = {max(1, math.ceil(part * num_epochs)) for part in RUNGS}
    return sorted(epochs for epochs in found if epochs < num_epochs)


class Halving:
    """What was scored at each rung by all trials so far, and who goes on.

    Args:
        search: its metric, mode and scheduler.
        trials: of before, where the search goes on.
    """

    def __init__(self, search: SearchConfig, trials: Sequence[Trial] = ()) -> None:
        self.search = search
        self._metrics: dict[int, dict[int, float]] = {}
        for trial in trials:
            for epochs, metric in metric_curve(search, trial).items():
                self._metrics.setdefault(epochs, {})[trial.number] = metric

    def stopped(self, epochs: int, metrics: Mapping[int, float]) -> dict[int, str]:
        """The trials of those scored now that are stopped, each with the reason.

        Args:
            epochs: that they were trained.
            metrics: of each, by its number.
        """
        if self.search.scheduler != "asha":
            return {}
        known = self._metrics.setdefault(epochs, {})
        known.update(metrics)
        sign = 1 if self.search.mode == "max" else -1
        values = [sign * value for value in known.values()]
        bar = float(np.percentile(values, 50))
        return {
            number: f"below the best half of {len(known)} trials after epoch {epochs}"
            for number, value in metrics.items()
            if sign * value < bar
        }
