"""Which recognizers to train: one run for each method and seed, with the user's changes applied."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from t2ipal.config import field_paths, one_of, override, require
from t2ipal.training.recipes import METHODS, Recipe, recipe

OWN_OPTIONS = {
    "training.seed": "seeds are given by --seeds, one recognizer each.",
    "method.method": "methods are given by --methods.",
    "method.class_names": "classes are those of the run's vocabulary.",
    "method.prompt_names": "they are those of the run's vocabulary.",
}
"""What options of the job decide, and so no change may."""


@dataclass(frozen=True)
class TrainingRun:
    """One recognizer to train."""

    name: str
    """Names its folder, e.g. `t2ipal-seed0`."""
    recipe: Recipe


def plan_runs(
    methods: Sequence[str],
    seeds: Sequence[int],
    schedule: str,
    class_names: tuple[str, ...],
    prompt_names: tuple[str, ...],
    changes: Mapping[str, Any] | None = None,
) -> tuple[list[TrainingRun], list[str]]:
    """One training run for each method and seed; methods without training need one seed only.

    Args:
        methods: names of recipes.
        seeds: of each; a method that is not trained gets the first one alone.
        schedule: whose settings to take, see `t2ipal.training.recipes.SCHEDULES`.
        class_names: of the vocabulary.
        prompt_names: what goes into prompts in their place.
        changes: dotted names and their values; each holds for every method that has the option.

    Returns:
        The runs, and a line for each change that some of the methods cannot take.

    Raises:
        ValueError: a change of what other options decide, that no method can take, or that has a
            value of another type.
    """
    require(bool(seeds) and bool(methods), "Give at least one method and one seed.")
    changes, runs, remarks = changes or {}, [], []
    for name, remedy in OWN_OPTIONS.items():
        require(name not in changes, f"{name} cannot be changed here: {remedy}")
    taken: set[str] = set()
    known: set[str] = set()
    for method in methods:
        one_of("method", method, METHODS)
        start = recipe(method, schedule, class_names, prompt_names, seeds[0])
        options = set(field_paths(start))
        known |= options
        possible = {
            name: value
            for name, value in changes.items()
            if name in options and name not in METHODS[method].fixed
        }
        taken |= possible.keys()
        left_out = [name for name in changes if name not in possible]
        if left_out:
            remarks.append(f"{method} does not take {', '.join(left_out)}: it goes on without.")
        for seed in seeds if start.training.num_epochs else seeds[:1]:
            chosen = override(recipe(method, schedule, class_names, prompt_names, seed), possible)
            runs.append(TrainingRun(f"{method}-seed{seed}", chosen))
    for name, value in changes.items():
        one_of("option", name, known)
        require(
            name in taken,
            f"{name}={value!r} applies to none of {', '.join(methods)}: leave it out, or name "
            "another method.",
        )
    return runs, remarks
