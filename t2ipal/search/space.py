"""What a search varies: the space files, and every name, value and end of a range tried at once."""

import contextlib
import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from t2ipal.config import (
    Bounds,
    PositiveInt,
    check_fields,
    from_dict,
    one_of,
    override,
    read_yaml,
    require,
)
from t2ipal.training.recipes import Recipe

KINDS = ("grid", "choice", "uniform", "loguniform", "randint")


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
    metric: Literal["validation_mAP", "loss"] = "validation_mAP"
    """mAP on images of held-out captions, percent; or the training `loss` of the last epoch."""
    mode: Literal["max", "min"] = "max"
    """"max" or "min" of the metric is best."""
    num_samples: Annotated[int, Bounds(ge=1)] = 1
    """Trials; with `grid` dimensions, trials for each of their combinations."""
    searcher: Literal["grid", "random", "optuna"] = "random"
    """"grid" (all combinations), "random" or "optuna"."""
    scheduler: Literal["none", "asha"] = "none"
    """"none", or "asha": stop bad trials early, by their validation score after each epoch."""
    validation_fraction: Annotated[float, Bounds(gt=0, lt=1)] = 0.2
    """Share of captions held out with all their images."""
    seed: int = 0
    """Of the sampling and the split."""
    minimize: tuple[Literal["images", "seconds", "loss"], ...] = ()
    """Further objectives, each better the smaller it is: then a Pareto front is looked for."""
    num_seeds: PositiveInt = 1
    """Training seeds of each trial, from the recipe's on; its metrics are their means."""
    num_validations: PositiveInt = 5
    """Times that a trial is scored, evenly over its epochs; the last one at its end."""

    def __post_init__(self) -> None:
        check_fields(self)
        require(len(self.dimensions) > 0, "A space needs one option or more to vary, got none.")
        require(
            (self.metric == "loss") == (self.mode == "min"),
            f"mode must be {'min' if self.metric == 'loss' else 'max'} with metric {self.metric}, "
            f"got {self.mode}.",
        )
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

    @property
    def num_trials(self) -> int:
        """Trials of the whole search."""
        grids = (len(d.values) for d in self.dimensions if d.kind == "grid")
        return self.num_samples * math.prod(grids)


def draw_settings(search: SearchConfig) -> list[dict[str, Any]]:
    """The values of every trial of a grid or random search; the same for the same search."""
    rng, settings = np.random.default_rng(search.seed), []
    drawn = [d for d in search.dimensions if d.kind != "grid"]
    grids = [d for d in search.dimensions if d.kind == "grid"]
    grids.sort(key=lambda d: d.path, reverse=True)  # the order of Tune, whose tables are kept
    for _ in range(search.num_samples):
        for combination in itertools.product(*(d.values for d in grids)):
            values = {d.path: value for d, value in zip(grids, combination)}
            settings.append(values | {d.path: _draw(d, rng) for d in drawn})
    return settings


def _draw(dimension: Dimension, rng: np.random.Generator) -> Any:
    """One value of a dimension that is no grid."""
    values = dimension.values
    match dimension.kind:
        case "choice":
            return values[rng.integers(len(values))]
        case "uniform":
            return float(rng.uniform(*values))
        case "loguniform":
            return float(np.exp(rng.uniform(*np.log(values))))
        case _:
            return int(rng.integers(*values, endpoint=True))


def load_space(path: Path | str, config: Recipe) -> SearchConfig:
    """Reads a space file; every name, value and end of a range is tried on `config`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: what is wrong, with the file's name and the option's.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No space file {path}. tune_spaces/ holds examples.")
    content = read_yaml(path)
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
