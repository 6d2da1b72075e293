"""What a trial may look at, and what a search leaves; any engine can run the trials.

The objective is a score on synthetic images of held-out captions: no test image has a way in. Each
finished trial is kept at once, so that a search that was stopped goes on with the others.
"""

import csv
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from t2ipal.config import differences, require, to_dict
from t2ipal.evaluation.evaluate import predict
from t2ipal.evaluation.metrics import average_precision
from t2ipal.features.sets import FeatureTable, TrainingFeatures
from t2ipal.methods.contract import FrozenBackbone
from t2ipal.methods.recognizer import Recognizer
from t2ipal.search.space import SearchConfig
from t2ipal.store import Store, damaged, join_key, json_bytes, read_json
from t2ipal.training.loop import EpochRecord, fit
from t2ipal.training.recipes import Recipe

TRIALS = "trials.json"
"""Name of the table of a search."""
LOGS = "trials"
"""Name of the folder beside it with a folder for each trial."""
OUTCOME = "trial.json"
"""Name, in such a folder, of what the finished trial gave."""


def run_trial(
    recipe: Recipe,
    train: TrainingFeatures,
    validation: FeatureTable,
    backbone: FrozenBackbone,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> dict[str, float]:
    """Trains one setting, gives its metrics; `on_epoch` gets them after each epoch but the last."""
    method = recipe.method.build(backbone, recipe.training.seed)
    shown = validation.labels.any(dim=0)

    def score(recognizer: Recognizer) -> float:
        """Mean over classes that a held-out image shows: a rare one may have one caption alone."""
        (scores,) = predict([recognizer], validation)
        per_class = average_precision(scores[:, shown], validation.labels[:, shown])
        return float(per_class.mean())

    def report(record: EpochRecord) -> None:
        if on_epoch is not None and record.epoch + 1 < recipe.training.num_epochs:
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


def finished(
    values: Mapping[str, Any], metrics: Mapping[str, Any], seconds: float, status: str = "ok"
) -> Trial:
    """A trial that gave metrics; without a finite loss it failed."""
    score, loss, reason = metrics["validation_mAP"], metrics["loss"], ""
    if not math.isfinite(loss):
        status, reason = "failed", f"no finite result: validation_mAP {score}, loss {loss}"
    return Trial(dict(values), status, reason, score, loss, seconds)


def failed(values: Mapping[str, Any], error: Any) -> Trial:
    """A trial that gave none."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
    return Trial(dict(values), "failed", reason, None, None, None)


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


def trial_name(number: int) -> str:
    """Name of a trial's folder; trials are counted from 0."""
    return f"{number:05d}"


def keep_trial(trial: Trial, number: int, store: Store, folder: str) -> None:
    """Writes what a finished trial gave: it is not run again."""
    key = f"{join_key(folder, LOGS)}/{trial_name(number)}/{OUTCOME}"
    store.write(key, json_bytes(asdict(trial)))


def kept_trials(search: SearchConfig, store: Store, folder: str) -> dict[int, Trial]:
    """The finished trials of a search by their numbers, of one that is not at its end too.

    Raises:
        ValueError: what is kept of one is damaged.
    """
    table = read_trials(store, folder)  # alone in versions before, which wrote it at the end
    whole = len(table) == search.num_trials
    kept = {n: trial for n, trial in enumerate(table) if whole and trial.status != "failed"}
    return kept | {int(key.split("/")[-2]): _read(store, key) for key in _kept(store, folder)}


def _kept(store: Store, folder: str) -> list[str]:
    keys = store.list(join_key(folder, f"{LOGS}/"))
    return [key for key in keys if key.endswith(f"/{OUTCOME}")]


def _read(store: Store, key: str) -> Trial:
    values = read_json(store, key, "tune")
    try:
        return _checked(values)
    except (TypeError, ValueError) as error:
        raise ValueError(damaged(store, key, "tune")) from error


def _checked(stored: Mapping[str, Any]) -> Trial:
    """A stored trial; raises TypeError or ValueError where it is none."""
    trial = Trial(**stored)
    require(isinstance(trial.values, dict), "values must have names.")
    score = trial.validation_mAP
    require(isinstance(score, int | float | None), "validation_mAP must be a number.")
    return trial


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
        return [_checked(row) for row in read_json(store, key)["trials"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(damaged(store, key, "tune")) from error


def keep_search(store: Store, folder: str, settings: Mapping[str, Any]) -> None:
    """Writes what is searched beside the trials, unless those there are of another search.

    Raises:
        ValueError: they are; every difference is named.
    """
    key = join_key(folder, "settings.json")
    there = read_json(store, key, "tune") if store.exists(key) else None
    if there is not None and (store.exists(join_key(folder, TRIALS)) or _kept(store, folder)):
        changed, place = differences(settings, there), f"{store.uri}/{folder}".rstrip("/")
        require(
            not changed,
            f"{place} holds another search ({'; '.join(changed)}). Use another output folder or "
            "remove it.",
        )
    if there != settings:
        store.write(key, json_bytes(settings))
