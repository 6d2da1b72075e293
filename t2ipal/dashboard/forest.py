"""fANOVA of trials, as a program: JSON in, JSON out.

In a process of its own: a forest takes seconds of a core, and the job whose page it is for trains
meanwhile. Loads Optuna and scikit-learn, and nothing of the package.
"""

import json
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

NUM_TREES = 32
"""Of the forest: with 1,000 trials of 9 dimensions it takes some 15 seconds."""


def importance(
    dimensions: Sequence[dict[str, Any]], rows: Sequence[tuple[Sequence[Any], float]]
) -> dict[str, float]:
    """The share of the score's variance that each dimension explains alone (fANOVA).

    Args:
        dimensions: `path`, `kind` and `values` of each.
        rows: of each trial its values, in the order of the dimensions, and its score.
    """
    import optuna

    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = {
        dimension["path"]: _distribution(dimension, [values[index] for values, _ in rows])
        for index, dimension in enumerate(dimensions)
    }
    study = optuna.create_study()
    study.add_trials(
        [
            optuna.trial.create_trial(
                params=dict(zip(distributions, map(_plain, values))),
                distributions=distributions,
                value=score,
            )
            for values, score in rows
        ]
    )
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=NUM_TREES, seed=0)
    return optuna.importance.get_param_importances(study, evaluator=evaluator, normalize=False)


def _distribution(dimension: dict[str, Any], tried: Sequence[Any]) -> Any:
    """How Optuna calls a dimension; a grid is its values and nothing between them."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    kind, values = dimension["kind"], dimension["values"]
    if kind in ("grid", "choice"):
        return CategoricalDistribution(tuple(dict.fromkeys(map(_plain, [*values, *tried]))))
    if kind == "randint":
        return IntDistribution(*values)
    return FloatDistribution(*values, log=kind == "loguniform")


def _plain(value: Any) -> Any:
    """What Optuna takes as a category."""
    return value if isinstance(value, str | int | float | None) else json.dumps(value)


def _answer(task: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"shares": importance(task["dimensions"], task["rows"])}
    except ImportError as error:
        return {"note": f"It cannot be computed here: {error}"}


if __name__ == "__main__":
    os.nice(10)
    print(json.dumps(_answer(json.load(sys.stdin))))
