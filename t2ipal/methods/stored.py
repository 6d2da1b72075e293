"""Stored recognizers, read back: which method a recognizer is of, and whether it is whole."""

import dataclasses
from typing import Any

import safetensors.torch
from safetensors import SafetensorError

from t2ipal.config import from_dict, one_of, require
from t2ipal.features.config import BackboneIdentity
from t2ipal.methods.class_concept import ClassConceptConfig, ClassConceptScorer
from t2ipal.methods.coop import CoOpConfig, CoOpScorer
from t2ipal.methods.dualcoop import DualCoOpConfig, DualCoOpScorer
from t2ipal.methods.positive_coop import PositiveCoOpConfig, PositiveCoOpScorer
from t2ipal.methods.pvp import PVPConfig, PVPScorer
from t2ipal.methods.recognizer import (
    KEPT_APART,
    RECOGNIZER,
    WEIGHTS,
    Normalization,
    Recognizer,
)
from t2ipal.methods.t2ipal import T2IPALConfig, T2IPALScorer
from t2ipal.methods.t2ipal_plus import T2IPALPlusConfig, T2IPALPlusScorer
from t2ipal.methods.tip_adapter import TipAdapterConfig, TipAdapterScorer
from t2ipal.store import Store, join_key, read_json

MethodConfig = (
    T2IPALConfig
    | T2IPALPlusConfig
    | ClassConceptConfig
    | CoOpConfig
    | DualCoOpConfig
    | PositiveCoOpConfig
    | PVPConfig
    | TipAdapterConfig
)
"""The config of any method; its field `method` tells which, T2I-PAL's where it is left out."""
SCORERS: dict[str, tuple[Any, Any]] = {
    "t2ipal": (T2IPALConfig, T2IPALScorer),
    "t2ipal_plus": (T2IPALPlusConfig, T2IPALPlusScorer),
    "class_concept": (ClassConceptConfig, ClassConceptScorer),
    "coop": (CoOpConfig, CoOpScorer),
    "dualcoop": (DualCoOpConfig, DualCoOpScorer),
    "positive_coop": (PositiveCoOpConfig, PositiveCoOpScorer),
    "tip_adapter": (TipAdapterConfig, TipAdapterScorer),
    "pvp": (PVPConfig, PVPScorer),
}
"""Method -> its config and its scorer."""


def load_recognizer(store: Store, folder: str) -> Recognizer:
    """Reads what `Recognizer.save` wrote.

    Raises:
        FileNotFoundError: no recognizer there.
        ValueError: it is damaged, of an unknown method, or its weights do not fit its config.
    """
    place = f"{store.uri}/{folder}".rstrip("/")
    if not store.exists(join_key(folder, RECOGNIZER)):
        raise FileNotFoundError(f"No recognizer in {place}. Run jobs/train.py first.")
    values = read_json(store, join_key(folder, RECOGNIZER), "train")
    apart = {name: values.pop(name) for name in KEPT_APART if name in values}
    one_of(f"method in {place}/{RECOGNIZER}", values.get("method", "t2ipal"), SCORERS)
    config_type, scorer_type = SCORERS[values.get("method", "t2ipal")]
    try:
        config = from_dict(config_type, values)
        backbone = apart.get("backbone")
        identity = None if backbone is None else from_dict(BackboneIdentity, backbone)
        normalization = from_dict(Normalization, apart.get("normalization", {}))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place}/{RECOGNIZER} cannot be read: {error}") from error
    try:
        tensors = safetensors.torch.load(store.read(join_key(folder, WEIGHTS)))
    except SafetensorError as error:
        raise ValueError(
            f"The weights in {place} are damaged ({error}). Remove it and run jobs/train.py again."
        ) from error
    shapes = scorer_type.shapes(config)
    require(
        set(tensors) == set(shapes),
        f"{WEIGHTS} must hold {sorted(shapes)}, got {sorted(tensors)}.",
    )
    sizes = {"classes": len(config.class_names)}
    for name, dimensions in shapes.items():
        shape = tuple(tensors[name].shape)
        for dimension, size in zip(dimensions, shape):
            sizes.setdefault(dimension, size)
        wanted = tuple(sizes.get(dimension, dimension) for dimension in dimensions)
        require(shape == wanted, f"{name} in {WEIGHTS} must have shape {wanted}, got {shape}.")
    return Recognizer(scorer_type.from_tensors(config, tensors), identity, normalization)


def with_backbone(recognizer: Recognizer, backbone: BackboneIdentity) -> Recognizer:
    """The recognizer as one of this backbone, where its file is from before it said so."""
    if recognizer.backbone is not None:
        return recognizer
    return dataclasses.replace(recognizer, backbone=backbone)
