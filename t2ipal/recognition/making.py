"""From a run's features to recognizers: what `t2ipal train` asks for, and in which order.

Owns the joints between features, training and score normalization; decides nothing of theirs.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from t2ipal.config import check_fields, listed, require, to_dict
from t2ipal.evaluation.normalization import normalized
from t2ipal.evaluation.validation_sets import (
    load_validation_set,
    require_validation_set,
    validation_features,
)
from t2ipal.features.backbone import Backbone, load_backbone, load_text_tower
from t2ipal.features.config import BackboneConfig, FeatureAccess
from t2ipal.features.reading import read_training_features
from t2ipal.features.sets import FeatureTable, TrainingFeatures
from t2ipal.methods.recognizer import Normalization
from t2ipal.store import (
    Store,
    join_key,
    read_caption_index,
    read_choice_manifest,
    read_manifest,
    read_sections,
)
from t2ipal.training.loop import FitResult
from t2ipal.training.plans import TrainingRun, plan_runs
from t2ipal.training.recipes import METHODS, require_learns_from_captions
from t2ipal.training.runs import Workers, train_runs
from t2ipal.training.validation import split_captions

NUM_SHOWN = 20
"""Classes that a message names."""
HELD_OUT = 0.2
"""Share of captions whose images choose a partial normalization."""


@dataclass(frozen=True)
class TrainingRequest:
    """Which recognizers to make of a run."""

    methods: tuple[str, ...]
    """Names of recipes."""
    seeds: tuple[int, ...]
    schedule: str
    """Whose settings to take, of `t2ipal.training.recipes.SCHEDULES`."""
    images: str | None = None
    """Name of a choice among the images; None: all of them."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Of the recipes, by dotted names."""
    normalization: Literal["none", "full", "partial"] = "none"
    """Of scores."""
    validation_set: str | None = None
    """Labelled images to choose a partial normalization on: the name of a data set that is no test
    set, or a folder; None: synthetic images of held-out captions."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    unnamed_classes: Literal["train", "refuse"] = "train"
    """What becomes of a class that no caption names."""
    access: FeatureAccess = field(default_factory=FeatureAccess)
    """How its features are read."""
    chosen_normalization: Normalization | None = None
    """In place of `normalization`, where a search has chosen one."""

    def __post_init__(self) -> None:
        check_fields(self)
        name = self.validation_set
        require(
            self.chosen_normalization is None or self.normalization == "none",
            f"normalization {self.normalization} cannot be given with a search that chose one.",
        )
        require(
            name is None or self.normalization == "partial",
            f"validation_set {name!r} is for partial normalization, got {self.normalization}.",
        )
        if name is not None:
            require_validation_set(name)

    @property
    def held_out(self) -> float:
        """Share of captions that training leaves for the choice of a normalization."""
        return HELD_OUT if self.normalization == "partial" and not self.validation_set else 0.0


def check_request(store: Store, request: TrainingRequest) -> tuple[list[TrainingRun], list[str]]:
    """The runs of a request and remarks on its changes; what cannot be trained is refused here.

    Raises:
        FileNotFoundError: the synthesis is not finished, or there is no such choice.
        ValueError: a method, change or choice that cannot be trained on.
    """
    for method in request.methods:
        require_learns_from_captions(method)
    settings = read_manifest(store).settings
    if request.images is not None:
        chosen = read_choice_manifest(store, request.images)
        require(
            chosen.num_kept > 0,
            f"The choice {request.images!r} keeps none of {chosen.num_images:,} images, asked "
            f"for {chosen.settings.get('choice')}. Run jobs/choose.py with lower thresholds.",
        )
    names = settings.class_names
    require(
        len(names) > 1 or request.normalization == "none",
        "Normalization compares an image's scores with each other: it needs 2 classes or more, "
        f"got {len(names)}.",
    )
    runs, remarks = plan_runs(
        request.methods, request.seeds, request.schedule, names, settings.prompt_names,
        request.changes,
    )  # fmt: skip
    if request.validation_set is not None:
        load_validation_set(request.validation_set, names, store.endpoint_url)
    return runs, remarks + _check_captions(store, request, runs, names)


def _check_captions(
    store: Store, request: TrainingRequest, runs: Sequence[TrainingRun], names: Sequence[str]
) -> list[str]:
    """What a person should know of the captions before anything is trained on them.

    Raises:
        ValueError: no caption names a class, and such are to be refused.
    """
    index = read_caption_index(store, read_sections(store), len(names))
    counts = index.labels.sum(axis=0).tolist()
    unnamed = [name for name, count in zip(names, counts) if not count]
    require(
        not unnamed or request.unnamed_classes == "train",
        f"Every class must be named by a caption, none names {listed(unnamed, NUM_SHOWN)}. Add "
        "captions, or train such classes from their names alone: --unnamed-classes train.",
    )
    remarks = []
    if unnamed:
        remarks.append(
            f"No caption names {listed(unnamed, NUM_SHOWN)}: what is learned of them is what sets "
            "them apart from the others. --unnamed-classes refuse would stop here."
        )
    planned = [run.recipe.training for run in runs if run.recipe.training.num_epochs]
    batch_size = min((training.batch_size for training in planned), default=0)
    if batch_size > len(index.ids):
        remarks.append(
            f"The batch size {batch_size} is larger than the {len(index.ids):,} captions: each "
            "epoch is one step. A smaller one takes more: --set training.batch_size=32."
        )
    return remarks


def train_recognizers(
    store: Store,
    request: TrainingRequest,
    runs: Sequence[TrainingRun],
    feature_folder: str,
    workers: Workers,
    output: Store,
    folder: str = "train",
) -> dict[str, FitResult]:
    """Trains what is not trained yet; each recognizer ends in `folder`/NAME of `output`.

    Args:
        store: home of the run.
        request: what was asked for.
        runs: of `check_request`.
        feature_folder: of the backbone's features in the run, all of them there.
        workers: who trains.
        output: where to.
        folder: in it.
    """
    load = partial(load_inputs, store, request, feature_folder)
    results = train_runs(
        runs, load, output, folder, inputs=_inputs(store, request, feature_folder), workers=workers
    )
    return _normalize(store, request, feature_folder, results, output, folder)


def load_inputs(
    store: Store, request: TrainingRequest, feature_folder: str
) -> tuple[Backbone, TrainingFeatures]:
    """What a training worker reads; a share of captions may be left to choose with."""
    data = read_training_features(store, feature_folder, request.images, request.access)
    held_out = request.held_out
    visual = any(getattr(METHODS[m].config, "needs_visual_tower", False) for m in request.methods)
    load = load_backbone if visual else load_text_tower
    return load(request.backbone), _split(data, held_out)[0] if held_out else data


def _split(data: TrainingFeatures, held_out: float) -> tuple[TrainingFeatures, FeatureTable]:
    """What trains and what validates: one split for both, so that neither sees the other's."""
    return split_captions(data, held_out, seed=0)


def _inputs(store: Store, request: TrainingRequest, feature_folder: str) -> dict[str, Any]:
    """Plain values of what the runs learn from, kept with each."""
    inputs: dict[str, Any] = {"features": feature_folder, "backbone": to_dict(request.backbone)}
    if request.images is not None:
        inputs["images"] = to_dict(read_choice_manifest(store, request.images))
    if request.held_out:
        inputs["held_out"] = request.held_out
    return inputs


def _normalize(
    store: Store,
    request: TrainingRequest,
    feature_folder: str,
    results: Mapping[str, FitResult],
    output: Store,
    folder: str,
) -> dict[str, FitResult]:
    """The results with recognizers normalized as asked, stored in place of those that are not.

    All seeds of a method get one choice.
    """
    validation = None
    if request.validation_set is not None:
        class_names = next(iter(results.values())).recognizer.class_names
        labelled = load_validation_set(request.validation_set, class_names, store.endpoint_url)
        validation = validation_features(labelled, request.backbone)
    elif request.held_out:
        data = read_training_features(store, feature_folder, request.images, request.access)
        validation = _split(data, request.held_out)[1]
    changed: dict[str, FitResult] = {}
    methods = dict.fromkeys(name.rpartition("-seed")[0] for name in results)
    for method in methods:
        names = [name for name in results if name.rpartition("-seed")[0] == method]
        plain = [results[name].recognizer for name in names]
        kind = request.chosen_normalization or request.normalization
        for name, recognizer in zip(names, normalized(plain, kind, validation)):
            if recognizer.normalization != results[name].recognizer.normalization:
                recognizer.save(output, join_key(folder, name))
            changed[name] = dataclasses.replace(results[name], recognizer=recognizer)
    return changed
