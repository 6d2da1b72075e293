"""Trials of a small search, as a driver has them."""

import dataclasses

from t2ipal.search.results import Trial
from t2ipal.search.space import Dimension, SearchConfig

SEARCH = SearchConfig(
    (
        Dimension("method.residual_ratio", "uniform", (0.0, 4.0)),
        Dimension("method.sharpness", "loguniform", (1.0, 10.0)),
        Dimension("training.images_per_caption", "choice", (1, 2, 4)),
        Dimension("method.places", "choice", ((1, 2), "all", None)),
        Dimension("training.seed", "randint", (0, 9)),
    ),
    scheduler="asha",
)
VALUES = {
    "method.residual_ratio": 0.5,
    "method.sharpness": 2.0,
    "training.images_per_caption": 2,
    "method.places": [1, 2],  # as JSON gives it back
    "training.seed": 3,
}
BEGUN_S = 1_800_000_000.0


def running(number: int, num_scores: int = 1) -> Trial:
    """Scored so many times after two epochs each."""
    scores = tuple((2 * n, 70.0 + number % 100 / 10 + n) for n in range(1, num_scores + 1))
    losses = tuple(1 / epoch for epoch in range(1, 2 * num_scores + 1))
    return Trial(
        number,
        {**VALUES, "training.seed": number % 10},
        "running",
        validation_mAP=scores[-1][1] if scores else None,
        loss=losses[-1] if losses else None,
        images=200,
        scores=scores,
        losses=losses,
        started_s=BEGUN_S + number,
    )


def ended(number: int, status: str = "ok", reason: str = "", num_scores: int = 3) -> Trial:
    """One that is over."""
    return dataclasses.replace(
        running(number, num_scores),
        status=status,
        reason=reason,
        seconds=12.5,
        ended_s=BEGUN_S + number + 10,
    )


def some_trials(num: int) -> list[Trial]:
    """Of all states."""
    reasons = {"ok": "", "stopped": "after 2 of 6 epochs", "failed": "loss is nan at epoch 2"}
    states = ("ok", "ok", "stopped", "failed", "ok")
    return [ended(n, states[n % 5], reasons[states[n % 5]]) for n in range(num - 1)] + [
        running(num - 1)
    ]
