"""The recognizers of a run, and what they reach on a test set: evaluation.json."""

import dataclasses
import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from t2ipal.config import from_dict, require
from t2ipal.evaluation.config import EvaluationOptions
from t2ipal.evaluation.evaluate import evaluate, summarize
from t2ipal.evaluation.modality_gap import ModalityGap, modality_gap
from t2ipal.evaluation.test_sets import TestFeatures
from t2ipal.features.backbone import Backbone, load_backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.features.extraction import feature_folder
from t2ipal.features.reading import read_training_features
from t2ipal.features.sets import TrainingFeatures
from t2ipal.methods.recognizer import RECOGNIZER, SETTINGS, Recognizer
from t2ipal.methods.stored import load_recognizer, with_backbone
from t2ipal.methods.t2ipal import T2IPALScorer
from t2ipal.store import Store, join_key, json_bytes, read_json
from t2ipal.store.tables import damaged

EVALUATION = "evaluation.json"
NAME = re.compile(r"(.+)-seed(\d+)")
"""Of a trained recognizer's folder: method and seed."""

Recognizers = dict[str, dict[int, Recognizer]]
"""Method -> seed -> recognizer."""


TRAINED = "train"
"""Folder of a run's recognizers."""


def trained_at(
    run: Store, elsewhere: str | None, endpoint_url: str | None = None
) -> tuple[Store, str]:
    """Store and folder of the recognizers of a run, which may lie where --output named."""
    return (run, TRAINED) if elsewhere is None else (Store(elsewhere, endpoint_url), "")


def find_recognizers(store: Store, folder: str = TRAINED) -> Recognizers:
    """All recognizers that were trained into a folder.

    Raises:
        FileNotFoundError: none was.
    """
    found: Recognizers = {}
    for key in store.list(join_key(folder, "")):
        place, _, file = key.rpartition("/")
        name = NAME.fullmatch(place.rpartition("/")[2])
        if file == RECOGNIZER and name and place == join_key(folder, name[0]):
            found.setdefault(name[1], {})[int(name[2])] = load_recognizer(store, place)
    if not found:
        raise FileNotFoundError(f"No recognizer in {store.uri}/{folder}. Run jobs/train.py first.")
    return found


def load_same_backbone(
    store: Store, recognizers: Recognizers, config: BackboneConfig, folder: str = TRAINED
) -> tuple[Backbone, Recognizers]:
    """The backbone, and the recognizers as its own.

    Raises:
        ValueError: a recognizer was trained on another one.
    """
    backbone = load_backbone(config)
    checked: Recognizers = {}
    for method, by_seed in recognizers.items():
        for seed, recognizer in by_seed.items():
            place = join_key(folder, f"{method}-seed{seed}")
            recognizer = with_named_backbone(store, place, recognizer, backbone)
            recognizer.require_backbone(backbone.identity, f"{store.uri}/{place}")
            checked.setdefault(method, {})[seed] = recognizer
    return backbone, checked


def named_backbone(store: Store, place: str, recognizer: Recognizer) -> tuple[BackboneConfig, str]:
    """Config and fingerprint of the backbone that a recognizer was trained on.

    Recognizers from before they named it have settings.json beside them, which does.

    Args:
        store: home of the recognizer.
        place: its folder there.
        recognizer: what the folder holds.

    Raises:
        FileNotFoundError: nothing says it.
    """
    if recognizer.backbone is not None:
        return recognizer.backbone.config, recognizer.backbone.fingerprint
    if not store.exists(f"{place}/{SETTINGS}"):
        raise FileNotFoundError(
            f"{store.uri}/{place} does not say which backbone it belongs to: it is from before "
            f"recognizers did, and lacks the {SETTINGS} that lay beside it. Copy its whole folder."
        )
    inputs = read_json(store, f"{place}/{SETTINGS}", "train")["inputs"]
    return from_dict(BackboneConfig, inputs["backbone"]), inputs["features"].rpartition("/")[2]


def with_named_backbone(
    store: Store, place: str, recognizer: Recognizer, backbone: Backbone
) -> Recognizer:
    """The recognizer with its own backbone named; `backbone` fills in how that one sees images."""
    config, fingerprint = named_backbone(store, place, recognizer)
    named = dataclasses.replace(backbone.identity, config=config, fingerprint=fingerprint)
    return with_backbone(recognizer, named)


def evaluate_run(
    store: Store,
    recognizers: Recognizers,
    test: TestFeatures,
    options: EvaluationOptions,
    data: TrainingFeatures | None = None,
) -> dict[str, Any]:
    """Measures every recognizer and writes evaluation.json; returns what it holds.

    Args:
        store: home of the run.
        recognizers: of the run.
        test: the test set, seen by their backbone.
        options: what is measured.
        data: the run's captions and images, where the modality gap is wanted.

    Raises:
        ValueError: a recognizer knows other classes than the test set, or there is no image for
            the modality gap.
    """
    methods: dict[str, Any] = {}
    definition = ""
    for method, by_seed in recognizers.items():
        evaluations = []
        for recognizer in by_seed.values():
            require(
                recognizer.class_names == test.class_names,
                f"{method} knows other classes than test set {test.name}: train on its vocabulary.",
            )
            evaluations.append(
                evaluate(
                    recognizer,
                    test.features,
                    difficult=test.difficult,
                    skip_difficult=options.skip_difficult,
                    eleven_point=options.eleven_point,
                )
            )
        summary = summarize([e.mAP for e in evaluations], list(by_seed))
        per_class = np.mean([e.average_precision for e in evaluations], axis=0)
        methods[method] = {**asdict(summary), "per_class": per_class.round(3).tolist()}
        if options.modality_gap and (gaps := _gaps(by_seed, test, data, store)):
            methods[method]["modality_gap"] = mean_gap(gaps)
        definition = evaluations[0].definition
    result = {
        "test_set": test.name,
        "num_images": len(test.features),
        "definition": definition,
        "class_names": list(test.class_names),
        "methods": methods,
    }
    store.write(EVALUATION, json_bytes(result))
    return result


def _gaps(
    by_seed: dict[int, Recognizer],
    test: TestFeatures,
    data: TrainingFeatures | None,
    store: Store,
) -> list[ModalityGap]:
    """Of each seed; none for a method that has no class embeddings."""
    if data is None or data.images is None:
        raise ValueError(f"The modality gap needs images, {store.uri} has none.")
    sets = test.features, data.texts, data.images
    scorers = [r.scorer for r in by_seed.values() if isinstance(r.scorer, T2IPALScorer)]
    return [modality_gap(scorer, *sets) for scorer in scorers]


def describe_evaluation(result: dict[str, Any]) -> str:
    """A line for each method, the best last."""
    lines = [f"{'method':<28}{'mAP':>7}{'std':>7}  seeds   ({result['definition']})"]
    for name, numbers in sorted(result["methods"].items(), key=lambda item: item[1]["mean"]):
        seeds = len(numbers["seeds"])
        lines.append(f"{name:<28}{numbers['mean']:7.2f}{numbers['std']:7.2f}  {seeds}")
    return "\n".join(lines)


def mean_gap(gaps: Sequence[ModalityGap]) -> dict[str, float | None]:
    """Each cosine's mean over seeds; None without an adapter."""
    columns = {f.name: [getattr(gap, f.name) for gap in gaps] for f in fields(ModalityGap)}
    return {
        name: None if None in column else round(statistics.fmean(column), 4)
        for name, column in columns.items()
    }


def read_evaluation(store: Store, key: str = EVALUATION) -> dict[str, Any]:
    """What `evaluate_run` wrote.

    Raises:
        FileNotFoundError: the run was not evaluated.
        ValueError: the file is damaged.
    """
    if not store.exists(key):
        raise FileNotFoundError(f"No {key} in {store.uri}. Run jobs/evaluate.py first.")
    content = read_json(store, key, "evaluate")
    require("methods" in content, damaged(store, key, "evaluate"))
    return content


def training_features(store: Store, backbone: Backbone) -> TrainingFeatures:
    """The run's captions and images, as this backbone sees them."""
    return read_training_features(store, feature_folder(backbone))
