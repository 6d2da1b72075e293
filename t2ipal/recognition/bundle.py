"""A recognizer together with the frozen CLIP that it was trained on: all that a picture needs.

Owns that a recognizer never meets features of another CLIP; knows nothing of photographs.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8

from t2ipal.config import require
from t2ipal.evaluation.evaluate import predict
from t2ipal.evaluation.runs import named_backbone, with_named_backbone
from t2ipal.features.backbone import Backbone, load_backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.features.sets import FeatureSet
from t2ipal.methods.recognizer import RECOGNIZER, Recognizer
from t2ipal.methods.stored import load_recognizer
from t2ipal.store import Store, join_key


@dataclass(frozen=True)
class Bundle:
    """A recognizer and its backbone."""

    recognizer: Recognizer
    """Its backbone is named, whatever its file says."""
    backbone: Backbone

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the scores."""
        return self.recognizer.class_names


@dataclass(frozen=True)
class Whereabouts:
    """Where a backbone is on this machine, as far as that differs from where it was trained."""

    device: str = "cpu"
    """Any torch device."""
    model: str | None = None
    """Folder of the CLIP, where it has moved; None: as the recognizer names it."""
    pretrained: str | None = None
    """File of its weights, where that has moved; None: as the recognizer names it."""

    def of(self, config: BackboneConfig) -> BackboneConfig:
        """The config with these in place of its own."""
        changes = {name: value for name, value in vars(self).items() if value is not None}
        return dataclasses.replace(config, **changes)


def load_bundle(
    store: Store,
    folder: str,
    where: Whereabouts = Whereabouts(),
    backbone: Backbone | None = None,
) -> Bundle:
    """A stored recognizer with the backbone that it names.

    Args:
        store: home of the recognizer.
        folder: of it there, as jobs/train.py writes one for each method and seed.
        where: the backbone is.
        backbone: that is loaded already; None: it is loaded here.

    Raises:
        FileNotFoundError: no recognizer, or no backbone, there.
        ValueError: the backbone there is another one than it was trained on.
    """
    place = f"{store.uri}/{folder}"
    recognizer = find_recognizer(store, folder)
    config = named_backbone(store, folder, recognizer)[0]
    if backbone is None:
        backbone = _load(where.of(config), place)
    recognizer = with_named_backbone(store, folder, recognizer, backbone)
    recognizer.require_backbone(backbone.identity, place)
    return Bundle(recognizer, backbone)


def load_bundles(
    places: Sequence[tuple[Store, str]], where: Whereabouts = Whereabouts()
) -> list[Bundle]:
    """Several recognizers of one backbone and the same classes, as of several seeds.

    Args:
        places: store and folder of each.
        where: the backbone is.

    Raises:
        ValueError: they do not belong together, or as `load_bundle`.
    """
    check_same(places)
    bundles: list[Bundle] = []
    for store, folder in places:
        shared = bundles[0].backbone if bundles else None
        bundles.append(load_bundle(store, folder, where, shared))
    return bundles


def check_same(places: Sequence[tuple[Store, str]]) -> tuple[str, ...]:
    """The class names of some recognizers; loads no backbone.

    Raises:
        FileNotFoundError: no recognizer there.
        ValueError: they have other classes, or other backbones, than the first one.
    """
    require(len(places) > 0, "There must be a recognizer, got none.")
    first: tuple[tuple[str, ...], str] | None = None
    for store, folder in places:
        recognizer = find_recognizer(store, folder)
        facts = recognizer.class_names, named_backbone(store, folder, recognizer)[1]
        first = first or facts
        for what, ours, theirs in zip(("classes", "backbone"), first, facts):
            require(
                ours == theirs,
                f"Recognizers that are used together must have the same {what}: "
                f"{store.uri}/{folder} has other ones than {places[0][0].uri}/{places[0][1]}.",
            )
    assert first is not None
    return first[0]


def find_recognizer(store: Store, folder: str) -> Recognizer:
    """As `load_recognizer`; where there is none, the error names those that lie below.

    Raises:
        FileNotFoundError: no recognizer there.
    """
    if not store.exists(join_key(folder, RECOGNIZER)):
        ending = f"/{RECOGNIZER}"
        keys = store.list(join_key(folder, ""))
        below = [key.removesuffix(ending) for key in keys if key.endswith(ending)]
        if below:
            raise FileNotFoundError(
                f"{store.uri}/{folder} holds {len(below)} recognizers and is none itself. Give "
                f"one or several of: {', '.join(f'{store.uri}/{place}' for place in below[:12])}."
            )
    return load_recognizer(store, folder)


@torch.no_grad()
def mean_scores(
    bundles: Sequence[Bundle], images: UInt8[np.ndarray, "images size size 3"]
) -> Float[np.ndarray, "images classes"]:
    """Scores of images as their backbone sees them, mean over the recognizers."""
    features = bundles[0].backbone.encode_images(torch.from_numpy(images))
    names = "global_features", "local_features", "pooled_features"
    columns = [getattr(features, name).cpu() for name in names]
    labels = torch.zeros(len(images), len(bundles[0].class_names))
    rows = FeatureSet(columns[0], columns[1], None, labels, columns[2])
    return np.mean(predict([bundle.recognizer for bundle in bundles], rows), axis=0)


def _load(config: BackboneConfig, place: str) -> Backbone:
    try:
        torch.empty(0, device=config.device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {config.device!r} cannot be used here: {error}") from error
    try:
        return load_backbone(config)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"The backbone of {place} is not at {config.model}, where it was. Give the folder that "
            f"it is in now with --model. ({error})"
        ) from error
