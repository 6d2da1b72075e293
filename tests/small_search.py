"""Searches for the tests of the page: scores by a formula, written as a search writes them."""

import math
import time

from t2ipal.config import to_dict
from t2ipal.search.results import Progress, SearchFolder, Trial
from t2ipal.search.space import Dimension, SearchConfig, draw_settings

RATIO, LR, KIND = "method.residual_ratio", "training.lr", "method.aggregation"
DIMENSIONS = (
    Dimension(RATIO, "uniform", (0.0, 4.0)),
    Dimension(LR, "loguniform", (1e-4, 1e-2)),
    Dimension(KIND, "choice", ("learnable", "mean", "max")),
)


def search_config(num_trials, **more):
    """A random search over three dimensions, of mAP against loss."""
    more = {"num_samples": num_trials, "minimize": ("loss",), "num_seeds": 3, **more}
    return SearchConfig(DIMENSIONS, **more)


def score_of(values):
    """Best at a ratio of 1 and a rate of 1e-3."""
    off = abs(values[RATIO] - 1) + 2 * abs(math.log10(values[LR]) + 3)
    return 70 - 4 * off - (values[KIND] == "mean")


def trial(number, values, status="ok", **more):
    """A trial that was scored five times in 30 epochs, or fewer where it did not get so far."""
    final, epochs = score_of(values), 30 if status == "ok" else 12
    scores = tuple((e, round(final - 20 / e, 3)) for e in range(6, epochs + 1, 6))
    known = status != "failed"
    return Trial(
        number,
        values,
        status,
        **{
            "validation_mAP": scores[-1][1] if known else None,
            "spread": 0.3 if known else None,
            "loss": 0.5 + number % 4,
            "images": 1000,
            "seconds": 1.5 + number % 4,
            "scores": scores if known else (),
            "losses": tuple(2 / epoch for epoch in range(1, epochs + 1)),
            "started_s": 1.7e9 + number,
            "ended_s": None if status == "running" else 1.7e9 + number + 60,
            **more,
        },
    )


def write_search(store, folder="search", num_trials=40, num_running=4, status="running", **more):
    """Writes a search whose last trials run, one trial in ten failed, in populations of 64."""
    search, of_search = SearchFolder(store, folder), search_config(num_trials, **more)
    search.begin({"search": to_dict(of_search), "recipe": {}, "features": "features/tiny"})
    trials = []
    for number, values in enumerate(draw_settings(of_search)):
        state = "ok" if number % 10 != 7 else "failed"
        state = "running" if number >= num_trials - num_running else state
        reason = f"loss is not finite at epoch {number}" if state == "failed" else ""
        trials.append(trial(number, values, state, reason=reason))
    for first in range(0, num_trials, 64):
        search.keep(first // 64, trials[first : first + 64])
    search.keep_progress(Progress(status, num_trials + 10, 1.7e9, time.time()))
    return search, trials
