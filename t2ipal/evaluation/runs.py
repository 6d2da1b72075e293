"""The recognizers of a run, and the backbone that they share."""

import dataclasses
import re
from collections.abc import Sequence

from t2ipal.config import from_dict, require
from t2ipal.features.backbone import Backbone, load_backbone
from t2ipal.features.config import BackboneConfig, FeatureAccess
from t2ipal.features.extraction import feature_folder
from t2ipal.features.reading import read_training_features
from t2ipal.features.sets import TrainingFeatures
from t2ipal.methods.recognizer import RECOGNIZER, SETTINGS, Recognizer
from t2ipal.methods.stored import load_recognizer, with_backbone
from t2ipal.store import Store, join_key, read_json

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


def require_same_classes(
    recognizers: Recognizers, test_set: str, class_names: Sequence[str]
) -> None:
    """Raises ValueError where a recognizer knows other classes than the test set of a name."""
    for method, by_seed in recognizers.items():
        for recognizer in by_seed.values():
            require(
                recognizer.class_names == tuple(class_names),
                f"{method} knows other classes than test set {test_set}: train on its vocabulary.",
            )


def training_features(
    store: Store, backbone: Backbone, access: FeatureAccess | None = None
) -> TrainingFeatures:
    """The run's captions and images, as this backbone sees them."""
    return read_training_features(store, feature_folder(backbone), access=access)
