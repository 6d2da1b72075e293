"""What a trial may look at, and what a search leaves; any engine can run the trials.

The objective is a score on synthetic images of held-out captions: no test image has a way in.
"""

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from t2ipal.config import differences, require, to_dict
from t2ipal.evaluation.evaluate import predict
from t2ipal.evaluation.metrics import average_precision
from t2ipal.features.sets import FeatureSet, TrainingFeatures
from t2ipal.methods.contract import FrozenBackbone
from t2ipal.methods.recognizer import Recognizer
from t2ipal.search.space import SearchConfig
from t2ipal.store import Store, join_key, json_bytes, read_json
from t2ipal.training.loop import EpochRecord, fit
from t2ipal.training.recipes import Recipe

TRIALS = "trials.json"
"""Name of the table of a search."""


def run_trial(
    recipe: Recipe,
    train: TrainingFeatures,
    validation: FeatureSet,
    backbone: FrozenBackbone,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> dict[str, float]:
    """Trains one setting and gives its metrics; `on_epoch` gets them after every epoch."""
    method = recipe.method.build(backbone, recipe.training.seed)
    shown = validation.labels.any(dim=0)

    def score(recognizer: Recognizer) -> float:
        """Mean over classes that a held-out image shows: a rare one may have one caption alone."""
        per_class = average_precision(
            predict(recognizer, validation)[:, shown], validation.labels[:, shown]
        )
        return float(per_class.mean())

    def report(record: EpochRecord) -> None:
        if on_epoch is not None:
            on_epoch({"validation_mAP": score(method.export()), "loss": record.loss})

    result = fit(method, train, recipe.training, on_epoch=report)
    require(len(result.history) > 0, "A search trains: num_epochs must be > 0, got 0.")
    return {"validation_mAP": score(result.recognizer), "loss": result.history[-1].loss}


@dataclass(frozen=True)
class Trial:
    """One setting and what it reached."""

    values: dict[str, Any]
    """Dotted names and the values tried."""
    status: str
    """"ok", "stopped" (early, by the scheduler) or "failed"."""
    reason: str
    """Why it failed."""
    validation_mAP: float | None
    loss: float | None
    seconds: float | None
    """Wall time of the trial."""


@dataclass(frozen=True)
class SearchResult:
    """All trials of a search."""

    search: SearchConfig
    trials: tuple[Trial, ...]

    def best(self) -> Trial:
        """The best trial that ran to its end; the first of equals.

        Raises:
            RuntimeError: none did.
        """
        sign = 1 if self.search.mode == "max" else -1
        done = [trial for trial in self.trials if trial.status == "ok"]
        if not done:
            reason = next((trial.reason for trial in self.trials if trial.reason), "no trial ran")
            raise RuntimeError(f"None of {len(self.trials)} trials succeeded; the first: {reason}")
        return max(done, key=lambda trial: sign * getattr(trial, self.search.metric))


def write_search(result: SearchResult, store: Store, folder: str) -> None:
    """Writes `trials.json`, `trials.csv` and, if any trial succeeded, `best.json`."""
    content = {
        "search": to_dict(result.search),
        "trials": [asdict(trial) for trial in result.trials],
    }
    store.write(join_key(folder, TRIALS), json_bytes(content))
    text = io.StringIO()
    names = [dimension.path for dimension in result.search.dimensions]
    outcome = [field.name for field in fields(Trial) if field.name != "values"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names + outcome)
    for trial in result.trials:
        row = [trial.values[name] for name in names]
        writer.writerow(row + [getattr(trial, name) for name in outcome])
    store.write(join_key(folder, "trials.csv"), text.getvalue().encode())
    if any(trial.status == "ok" for trial in result.trials):
        store.write(join_key(folder, "best.json"), json_bytes(asdict(result.best())))


def read_trials(store: Store, folder: str) -> list[Trial]:
    """The trials of a search; none where there was no search.

    Raises:
        ValueError: the table is damaged.
    """
    key = join_key(folder, TRIALS)
    if not store.exists(key):
        return []
    try:
        trials = [Trial(**row) for row in read_json(store, key)["trials"]]
        for trial in trials:
            require(isinstance(trial.values, dict), "values must have names.")
            score = trial.validation_mAP
            require(isinstance(score, int | float | None), "validation_mAP must be a number.")
        return trials
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{key} in {store.uri} is damaged. Remove it and run jobs/tune.py again."
        ) from error


def keep_search(store: Store, folder: str, settings: Mapping[str, Any]) -> None:
    """Writes what is searched beside the trials, unless those there are of another search.

    Raises:
        ValueError: they are; every difference is named.
    """
    key = join_key(folder, "settings.json")
    there = read_json(store, key, "tune") if store.exists(key) else None
    if there is not None and store.exists(join_key(folder, TRIALS)):
        changed, place = differences(settings, there), f"{store.uri}/{folder}".rstrip("/")
        require(
            not changed,
            f"{place} holds another search ({'; '.join(changed)}). Use another output folder or "
            "remove it.",
        )
    if there != settings:
        store.write(key, json_bytes(settings))
