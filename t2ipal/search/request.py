"""What `t2ipal tune` asks for, from a run's store to what is searched; and its winner."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from t2ipal.config import from_dict, override, require, to_dict
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.evaluation.validation_sets import (
    load_validation_set,
    require_validation_set,
    validation_features,
)
from t2ipal.features.config import BackboneConfig, FeatureAccess
from t2ipal.features.reading import read_training_features
from t2ipal.search.data import RunData, split_run
from t2ipal.search.results import SearchFolder, Trial, best
from t2ipal.search.setting import Setting
from t2ipal.search.space import SearchConfig
from t2ipal.search.space_file import load_space
from t2ipal.search.variants import Variants
from t2ipal.store import Store, read_manifest
from t2ipal.training.recipes import recipe


@dataclass(frozen=True)
class SearchRequest:
    """What is searched, on which data."""

    space: Path
    """The space file."""
    method: str
    """Recipe that every trial starts from."""
    schedule: str
    """Whose settings to take, of `t2ipal.training.recipes.SCHEDULES`."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """That hold for every trial, by dotted names."""
    num_samples: int | None = None
    """In place of the space's own number."""
    num_seeds: int | None = None
    """The same."""
    validation_set: str | None = None
    """Labelled images that trials are scored on: a data set that is no test set, or a folder; None:
    synthetic images of held-out captions."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    access: FeatureAccess = field(default_factory=FeatureAccess)

    def __post_init__(self) -> None:
        if self.validation_set is not None:
            require_validation_set(self.validation_set)


def plan_search(store: Store, request: SearchRequest) -> tuple[Setting, SearchConfig]:
    """What every trial starts from, and the checked space; nothing is read but the manifest.

    Raises:
        FileNotFoundError: the synthesis is not finished, or no such space file.
        ValueError: what the space or a change cannot be.
    """
    settings = read_manifest(store).settings
    names = settings.class_names, settings.prompt_names
    start = recipe(request.method, request.schedule, *names)
    synthesis = from_dict(SynthesisConfig, settings.synthesis)
    setting = Setting(start.method, start.training, synthesis=synthesis)
    setting = override(setting, request.changes)
    search = load_space(request.space, setting, request.num_samples)
    if request.num_seeds is not None:
        search = dataclasses.replace(search, num_seeds=request.num_seeds)
    return setting, search


def kept_settings(
    request: SearchRequest, setting: Setting, search: SearchConfig, features: str
) -> dict[str, Any]:
    """What is kept beside the trials: a search goes on only with the same."""
    return {
        "search": to_dict(search),
        "recipe": to_dict(setting),
        "features": features,
        "method": request.method,
        "schedule": request.schedule,
        "changes": dict(request.changes),
        "validation_set": request.validation_set,
        "backbone": to_dict(request.backbone),
    }


def load_data(
    variants: Variants,
    request: SearchRequest,
    search: SearchConfig,
    features: str,
) -> RunData:
    """What trials learn from and are scored on.

    Args:
        variants: the run, and its other sets of images that the space asks for.
        request: what was asked for.
        search: of it.
        features: folder of the backbone's features in each of them, all of them there.
    """
    store = variants.run.store
    run = read_training_features(store, features, access=request.access)
    sets = {
        tuple(variant.values.values()): run
        if variant.is_own
        else read_training_features(variant.store, features, access=request.access)
        for variant in variants.sets
    }
    labelled = None
    if request.validation_set is not None:
        names = variants.run.settings.class_names
        images = load_validation_set(request.validation_set, names, store.endpoint_url)
        labelled = validation_features(images, request.backbone)
    return split_run(search, variants.setting.synthesis, run, sets, labelled)


@dataclass(frozen=True)
class Winner:
    """The best trial of a search, as training takes it."""

    method: str
    """Name of the recipe."""
    schedule: str
    changes: dict[str, Any]
    """Of the recipe, by dotted names: the search's own, and the trial's."""
    normalization: dict[str, float]
    """`mean_weight` and `deviation_power`, those that the trial has."""
    synthesis: dict[str, Any]
    """By dotted names: whose images it learned from, where they are not the run's own."""
    trial: Trial


def read_winner(folder: SearchFolder) -> Winner:
    """The best trial of a search, which need not be at its end.

    Raises:
        FileNotFoundError: no search there.
        ValueError: it is of another version, or no trial has come to its end.
    """
    settings = folder.settings()
    if settings is None:
        raise FileNotFoundError(f"No search in {folder.place}. Run jobs/tune.py first.")
    require(
        "method" in settings,
        f"{folder.place} holds a search of a version before, which does not say what was searched. "
        "Give its best values to --set.",
    )
    search = from_dict(SearchConfig, settings["search"])
    trial = best(search, folder.trials())
    require(
        trial is not None,
        f"No trial of {folder.place} has come to its end. Run jobs/tune.py until one has.",
    )
    assert trial is not None
    parts: dict[str, dict[str, Any]] = {"normalization": {}, "synthesis": {}}
    changes = dict(settings["changes"])
    for name, value in trial.values.items():
        group = name.partition(".")[0]
        if group == "normalization":
            parts[group][name.partition(".")[2]] = value
        elif group == "synthesis":
            parts[group][name] = value
        else:
            changes[name] = value
    return Winner(settings["method"], settings["schedule"], changes, **parts, trial=trial)
