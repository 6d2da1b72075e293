"""When trials are scored, and which are stopped early: asynchronous successive halving.

A trial that is scored at a rung goes on if it is among the best half of all that were scored there
so far (ASHA; Li et al., 2020, algorithm 2). The trials of a population arrive together and are
judged together, so their order does not matter.
"""

import math
import time
from collections.abc import Mapping, Sequence

import numpy as np

from t2ipal.search.results import Trial
from t2ipal.search.space import SearchConfig

REDUCTION = 2
"""One of so many goes on at each rung."""
FIRST_RUNG = 4
"""The first rung lies at this part of the epochs."""


def scored_epochs(search: SearchConfig, num_epochs: int) -> list[int]:
    """After how many epochs a trial is scored; the last one is its end."""
    if search.scheduler == "asha":
        return [*rungs(num_epochs), num_epochs]
    steps = np.arange(1, search.num_validations + 1) / search.num_validations
    return sorted({math.ceil(step * num_epochs) for step in steps})


def rungs(num_epochs: int) -> list[int]:
    """After how many epochs a trial may be stopped."""
    found, at = [], max(1, num_epochs // FIRST_RUNG)
    while at < num_epochs:
        found.append(at)
        at *= REDUCTION
    return found


class Halving:
    """What was scored at each rung by all trials so far, and who goes on.

    Args:
        search: its metric, mode and scheduler.
        trials: of before, where the search goes on.
        deadline_s: since 1970; whoever is scored after it is stopped.
    """

    def __init__(
        self, search: SearchConfig, trials: Sequence[Trial] = (), deadline_s: float = math.inf
    ) -> None:
        self.search, self.deadline_s = search, deadline_s
        self._metrics: dict[int, dict[int, float]] = {}
        for trial in trials:
            for epochs, score in trial.scores:
                loss = trial.losses[epochs - 1]
                metric = score if search.metric == "validation_mAP" else loss
                if metric is not None:
                    self._metrics.setdefault(epochs, {})[trial.number] = metric

    def stopped(self, epochs: int, metrics: Mapping[int, float]) -> dict[int, str]:
        """The trials of those scored now that are stopped, each with the reason.

        Args:
            epochs: that they were trained.
            metrics: of each, by its number.
        """
        if time.time() > self.deadline_s:
            return dict.fromkeys(metrics, f"the time was up after epoch {epochs}")
        if self.search.scheduler != "asha":
            return {}
        known = self._metrics.setdefault(epochs, {})
        known.update(metrics)
        sign = 1 if self.search.mode == "max" else -1
        values = [sign * value for value in known.values()]
        bar = float(np.percentile(values, 100 * (1 - 1 / REDUCTION)))
        return {
            number: f"below the best half of {len(known)} trials after epoch {epochs}"
            for number, value in metrics.items()
            if sign * value < bar
        }
