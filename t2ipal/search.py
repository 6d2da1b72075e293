"""What a search varies, what it may look at, and what it leaves; any engine can run the trials.

Owns the space files, their validation and the split; does not know Ray. The objective is a score on
synthetic images of held-out captions: no test image has a way in.
"""

import contextlib
import csv
import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import yaml

from t2ipal.config import from_dict, one_of, override, require, to_dict
from t2ipal.evaluation import evaluate
from t2ipal.features import FeatureSet, TrainingFeatures
from t2ipal.methods import T2IPAL
from t2ipal.prompts import PromptEncoder
from t2ipal.recipes import Recipe
from t2ipal.training import EpochRecord, fit

KINDS = ("grid", "choice", "uniform", "loguniform", "randint")
METRICS = ("validation_mAP", "loss")


@dataclass(frozen=True)
class Dimension:
    """One varied option."""

    path: str
    """Dotted name in `Recipe`, e.g. `method.residual_ratio`."""
    kind: str
    """`grid`: every value; `choice`: one of the values; `uniform`, `loguniform`: a number between
    two ends; `randint`: a whole number between two ends, both included."""
    values: tuple[Any, ...]
    """The values, or the two ends."""


@dataclass(frozen=True)
class SearchConfig:
    """A checked space and how it is searched."""

    dimensions: tuple[Dimension, ...]
    metric: str = "validation_mAP"
    """mAP on images of held-out captions, percent; or the training `loss` of the last epoch."""
    mode: str = "max"
    """"max" or "min" of the metric is best."""
    num_samples: int = 1
    """Trials; with `grid` dimensions, trials for each of their combinations."""
    searcher: str = "random"
    """"grid" (all combinations), "random" or "optuna"."""
    scheduler: str = "none"
    """"none", or "asha": stop bad trials early, by their validation score after each epoch."""
    validation_fraction: float = 0.2
    """Share of captions held out with all their images."""
    seed: int = 0
    """Of the sampling and the split."""

    def __post_init__(self) -> None:
        require(len(self.dimensions) > 0, "A space needs one option or more to vary, got none.")
        one_of("metric", self.metric, METRICS)
        one_of("mode", self.mode, ("max", "min"))
        one_of("searcher", self.searcher, ("grid", "random", "optuna"))
        one_of("scheduler", self.scheduler, ("none", "asha"))
        require(self.num_samples >= 1, f"num_samples must be >= 1, got {self.num_samples}.")
        fraction = self.validation_fraction
        require(0 < fraction < 1, f"validation_fraction must be between 0 and 1, got {fraction}.")
        for dimension in self.dimensions:
            grid = dimension.kind == "grid"
            require(
                self.searcher != "grid" or grid,
                f"searcher grid takes only grid dimensions, got {dimension.kind} for "
                f"{dimension.path}.",
            )
            require(
                self.searcher != "optuna" or not grid,
                f"searcher optuna takes no grid dimension, got one for {dimension.path}; "
                "write choice.",
            )


def load_space(path: Path | str, config: Recipe) -> SearchConfig:
    """Reads a space file; every name, value and end of a range is tried on `config`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: what is wrong, with the file's name and the option's.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No space file {path}. tune_spaces/ holds examples.")
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {error}") from error
    require(
        isinstance(content, dict) and isinstance(content.get("space"), dict),
        f"{path} must be a mapping with the options to vary under `space`, got "
        f"{type(content).__name__}.",
    )
    try:
        dimensions = [_dimension(name, rule, config) for name, rule in content.pop("space").items()]
        return from_dict(SearchConfig, content | {"dimensions": dimensions})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _dimension(name: str, rule: Any, config: Recipe) -> Dimension:
    require(
        isinstance(rule, dict) and len(rule) == 1,
        f"{name} needs exactly one of {', '.join(KINDS)}, got {rule!r}.",
    )
    kind, values = next(iter(rule.items()))
    one_of(f"kind of {name}", kind, KINDS)
    require(
        isinstance(values, list) and len(values) > 0,
        f"{name} needs a list of values, got {values!r}.",
    )
    if kind in ("uniform", "loguniform", "randint"):
        values = _ends(name, kind, values)
    for value in values:
        try:
            override(config, {name: value})
        except ValueError as error:
            raise ValueError(f"{error}{_hint([value])}") from error
    return Dimension(name, kind, tuple(values))


def _ends(name: str, kind: str, values: list[Any]) -> list[Any]:
    number = int if kind == "randint" else (int, float)
    fits = all(isinstance(value, number) and not isinstance(value, bool) for value in values)
    wanted = "whole numbers" if kind == "randint" else "numbers"
    require(
        len(values) == 2 and fits,
        f"{name}: {kind} needs [low, high] as {wanted}, got {values!r}.{_hint(values)}",
    )
    low, high = values
    require(low < high, f"{name}: low must be below high, got {values!r}.")
    require(kind != "loguniform" or low > 0, f"{name}: loguniform needs low > 0, got {low}.")
    return values if kind == "randint" else [float(low), float(high)]


def _hint(values: list[Any]) -> str:
    """YAML 1.1 reads 1e-3 as text, which no number takes; worth a word."""
    for value in values:
        with contextlib.suppress(ValueError):
            if isinstance(value, str) and float(value) is not None:
                return f" YAML takes {value} for text: write the point, as in 1.0e-3."
    return ""


def split_captions(
    data: TrainingFeatures, fraction: float, seed: int
) -> tuple[TrainingFeatures, FeatureSet]:
    """Training features without the held-out captions, and all images of the held-out ones.

    Captions without an image stay in training. Random, but every class gets a held-out caption.
    """
    require(
        data.images is not None,
        "A search needs synthetic images to validate on, got none. Synthesize some first.",
    )
    labels, images_of = data.texts.labels, data.image_of_caption
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = order[(images_of[order] >= 0).any(dim=1)]
    held = torch.zeros(len(labels), dtype=torch.bool)
    held[order[: round(fraction * len(order))]] = True
    for index in range(labels.shape[1]):
        named = order[labels[order, index] > 0]
        if len(named) > 1 and not held[named].any():
            held[named[0]] = True
    rows = images_of[held]
    train = TrainingFeatures(data.texts.rows(~held), data.images, images_of[~held])
    return train, data.images.rows(rows[rows >= 0])  # type: ignore


def run_trial(
    recipe: Recipe,
    train: TrainingFeatures,
    validation: FeatureSet,
    backbone: PromptEncoder,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> dict[str, float]:
    """Trains one setting and gives its `METRICS`; `on_epoch` gets them after every epoch."""
    method = T2IPAL(recipe.method, backbone, seed=recipe.training.seed)

    def report(record: EpochRecord) -> None:
        if on_epoch is not None:
            score = evaluate(method, validation).mAP
            on_epoch({"validation_mAP": score, "loss": record.loss})

    result = fit(method, train, recipe.training, on_epoch=report)
    require(len(result.history) > 0, "A search trains: num_epochs must be > 0, got 0.")
    score = evaluate(result.recognizer, validation).mAP
    return {"validation_mAP": score, "loss": result.history[-1].loss}


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


def write_search(result: SearchResult, directory: Path | str) -> None:
    """Writes `trials.json`, `trials.csv` and, if any trial succeeded, `best.json`."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    content = {
        "search": to_dict(result.search),
        "trials": [asdict(trial) for trial in result.trials],
    }
    (directory / "trials.json").write_text(json.dumps(content, indent=2) + "\n")
    text = io.StringIO()
    names = [dimension.path for dimension in result.search.dimensions]
    outcome = [field.name for field in fields(Trial) if field.name != "values"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names + outcome)
    for trial in result.trials:
        row = [trial.values[name] for name in names]
        writer.writerow(row + [getattr(trial, name) for name in outcome])
    (directory / "trials.csv").write_text(text.getvalue())
    if any(trial.status == "ok" for trial in result.trials):
        best = json.dumps(asdict(result.best()), indent=2)
        (directory / "best.json").write_text(best + "\n")
