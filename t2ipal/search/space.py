"""What a search varies and how: dimensions, options, and the values of its trials."""

import itertools
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np

from t2ipal.config import Bounds, PositiveInt, check_fields, require
from t2ipal.search.setting import IMAGES_PER_CAPTION, OF_IMAGES, OF_THE_LOSS

RANGES = ("uniform", "loguniform", "randint")
KINDS = ("grid", "choice", *RANGES)


@dataclass(frozen=True)
class Dimension:
    """One varied option."""

    path: str
    """Dotted name in `Setting`, e.g. `method.residual_ratio`."""
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
    """"none", or "asha": stop bad trials early, by their validation scores while they train."""
    validation_fraction: Annotated[float, Bounds(gt=0, lt=1)] = 0.2
    """Share of captions held out with all their images."""
    seed: Annotated[int, Bounds(ge=0, lt=2**32)] = 0
    """Of the sampling and the split."""
    minimize: tuple[Literal["images", "loss"], ...] = ()
    """Further objectives, each better the smaller it is: then a Pareto front is looked for."""
    num_seeds: PositiveInt = 1
    """Training seeds of each trial, from the recipe's on; its metrics are their means."""
    num_validations: PositiveInt = 5
    """Times that a trial is scored, evenly over its epochs; the last one at its end."""

    def __post_init__(self) -> None:
        check_fields(self)
        names = [dimension.path for dimension in self.dimensions]
        require(len(names) > 0, "A space needs one option or more to vary, got none.")
        twice = [name for number, name in enumerate(names) if name in names[:number]]
        require(not twice, f"{', '.join(twice)} stands twice in the space; leave one of them.")
        best = "min" if self.metric == "loss" else "max"
        require(
            self.mode == best,
            f"mode must be {best} with metric {self.metric}, got {self.mode}.",
        )
        for dimension in self.dimensions:
            self._require_searcher(dimension)
        self._require_objectives(names)

    def _require_searcher(self, dimension: Dimension) -> None:
        name, grid = dimension.path, dimension.kind == "grid"
        require(
            self.searcher != "grid" or grid,
            f"searcher grid takes only grid dimensions, got {dimension.kind} for {name}. List the "
            "values to try under grid, or take searcher random.",
        )
        require(
            self.searcher != "optuna" or not grid,
            f"searcher optuna takes no grid dimension, got one for {name}; write choice.",
        )
        require(
            name not in OF_IMAGES or dimension.kind not in RANGES,
            f"{name} takes grid or choice, got {dimension.kind}: each of its values is a whole set "
            "of images. List a few values.",
        )
        require(
            name != "training.seed" or self.num_seeds == 1,
            f"{name} cannot be varied with num_seeds {self.num_seeds}, which trains every trial "
            "with as many seeds: leave out one of the two.",
        )

    def _require_objectives(self, names: list[str]) -> None:
        objectives = [self.metric, *self.minimize]
        twice = [name for number, name in enumerate(objectives) if name in objectives[:number]]
        require(not twice, f"{', '.join(twice)} is minimized twice; leave it out of `minimize`.")
        require(
            "images" not in objectives or IMAGES_PER_CAPTION in names,
            f"minimize images needs {IMAGES_PER_CAPTION} among the varied options: nothing else "
            "changes how many images a trial may draw from.",
        )
        changed = [name for name in names if name in OF_THE_LOSS] if "loss" in objectives else []
        require(
            not changed,
            f"{', '.join(changed)} changes what the loss measures, so that losses of trials cannot "
            "be compared: leave it out, or take validation_mAP in place of loss.",
        )
        if self.scheduler == "none":
            return
        require(
            not self.minimize,
            f"scheduler asha does not go with minimize ({', '.join(self.minimize)}): it stops the "
            "trials that are behind in one score, which may be best in another. Take scheduler "
            "none.",
        )
        require(
            self.num_validations > 1,
            "scheduler asha stops trials by the scores that they have while they train: "
            "num_validations must be > 1, got 1.",
        )
        require(
            "training.num_epochs" not in names,
            "scheduler asha compares trials after equally many epochs, so that training.num_epochs "
            "cannot be varied: leave it out, or take scheduler none.",
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
