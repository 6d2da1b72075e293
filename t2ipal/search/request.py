"""What `t2ipal tune` asks for, from a run's store to what is searched."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from t2ipal.config import override, require, to_dict
from t2ipal.evaluation.validation_sets import (
    load_validation_set,
    require_validation_set,
    validation_features,
)
from t2ipal.features.config import BackboneConfig, FeatureAccess
from t2ipal.features.reading import read_training_features, training_features_of
from t2ipal.search.data import RunData, split_run
from t2ipal.search.setting import Setting, setting_of_run
from t2ipal.search.space import SearchConfig
from t2ipal.search.space_file import load_space
from t2ipal.search.variants import Variants
from t2ipal.store import Store, read_manifest
from t2ipal.training.recipes import METHODS, recipe, require_learns_from_captions
from t2ipal.training.stacked import stack_key


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
    require_learns_from_captions(request.method)
    settings = read_manifest(store).settings
    names = settings.class_names, settings.prompt_names
    setting = setting_of_run(recipe(request.method, request.schedule, *names), settings)
    fixed = [name for name in request.changes if name in METHODS[request.method].fixed]
    require(not fixed, f"{', '.join(fixed)} makes {request.method} what it is: leave it as it is.")
    setting = override(setting, request.changes)
    stack_key(setting.recipe)  # refuses what is not trained
    search = load_space(request.space, setting, request.num_samples)
    if request.validation_set is not None:
        load_validation_set(request.validation_set, names[0], store.endpoint_url)
    if request.num_seeds is not None:
        search = dataclasses.replace(search, num_seeds=request.num_seeds)
    return setting, search


def kept_settings(
    store: Store, request: SearchRequest, setting: Setting, search: SearchConfig
) -> dict[str, Any]:
    """What is kept beside the trials: a search goes on only with the same, on the same data."""
    manifest = read_manifest(store)
    return {
        "run": store.uri,
        "endpoint_url": store.endpoint_url,
        "captions": manifest.settings.captions,
        "num_images": manifest.num_images,
        "search": to_dict(search),
        "recipe": to_dict(setting),
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
    run = training_features_of(variants.run, features, access=request.access)
    sets = {
        tuple(variant.values.values()): run
        if variant.is_own
        else read_training_features(variant.store, features, access=request.access)
        for variant in variants.sets
    }
    labelled = None
    if request.validation_set is not None:
        names = variants.run.settings.class_names
        endpoint_url = variants.run.store.endpoint_url
        images = load_validation_set(request.validation_set, names, endpoint_url)
        labelled = validation_features(images, request.backbone)
    return split_run(search, variants.setting.synthesis, run, sets, labelled)
