"""A recognizer: the constants that score images of one backbone, and the folder that keeps them.

Knows no method's equations: a `Scorer` has them. Knows no backbone but by its name and digest.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Protocol

import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor

from t2ipal.config import Share, check_fields, require, to_dict
from t2ipal.features.config import BackboneIdentity
from t2ipal.features.sets import FeatureSet
from t2ipal.store import Store, join_key, json_bytes

SETTINGS = "settings.json"
"""What a recognizer was made of, beside those that were trained in a run."""
RECOGNIZER, WEIGHTS = "recognizer.json", "recognizer.safetensors"
"""Names of a stored recognizer's two objects; the first one is written last."""
KEPT_APART = ("backbone", "normalization")
"""What recognizer.json holds beside the fields of the method's config."""


@dataclass(frozen=True)
class Normalization:
    """Each image's scores on a scale of their own (SPARC, 2025): (s - w m) / d^p.

    m and d are the mean and the standard deviation over the image's classes. It changes no order of
    classes within an image, only that of images within a class, which is what mAP ranks.
    """

    mean_weight: Share = 0.0
    """w: 1 in SPARC; 0 leaves the mean in."""
    deviation_power: Share = 0.0
    """p: 1 in SPARC; 0 leaves the spread as it is."""

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, scores: Float[Tensor, "images classes"]) -> Float[Tensor, "images classes"]:
        """The scores normalized; exactly as they are for w = p = 0."""
        if self == Normalization():
            return scores
        mean = scores.mean(dim=1, keepdim=True)
        deviation = scores.std(dim=1, keepdim=True, correction=0).clamp(min=1e-12)
        return (scores - self.mean_weight * mean) / deviation**self.deviation_power


FULL = Normalization(1.0, 1.0)
"""SPARC's own."""


class Scorer(Protocol):
    """A method's equations with their constants: a frozen dataclass of a config and tensors."""

    config: Any
    """Has `class_names` and `method`."""

    @property
    def device(self) -> torch.device:
        """Where the constants are."""
        ...

    def scores(self, images: FeatureSet) -> Float[Tensor, "images classes"]:
        """Higher is more likely; no probabilities."""
        ...

    def heatmap(
        self, local_features: Float[Tensor, "images locations width"]
    ) -> Float[Tensor, "images classes locations"]:
        """How much each location counts for each class; sums to 1 over the locations."""
        ...


@dataclass(frozen=True)
class Recognizer:
    """What a method exports; it needs no text encoder, and features of its own backbone alone."""

    scorer: Scorer
    backbone: BackboneIdentity | None
    """Whose features it was trained on; None where a test does not care."""
    normalization: Normalization = Normalization()

    @property
    def config(self) -> Any:
        """Of the method."""
        return self.scorer.config

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the scores."""
        return self.scorer.config.class_names

    @property
    def device(self) -> torch.device:
        """Where its constants are."""
        return self.scorer.device

    def scores(self, images: FeatureSet) -> Float[Tensor, "images classes"]:
        """Predictions for images, normalized; higher is more likely, no probabilities."""
        return self.normalization(self.scorer.scores(images))

    def require_backbone(self, backbone: BackboneIdentity, name: str) -> None:
        """Raises ValueError unless `backbone` is its own; `name` is what the message calls it."""
        require(self.backbone is not None, f"{name} does not say which backbone it belongs to.")
        assert self.backbone is not None
        self.backbone.require(backbone, name)

    def save(self, store: Store, folder: str) -> None:
        """Writes the weights and, last, recognizer.json into a folder of a store."""
        constants = scorer_tensors(self.scorer).items()
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in constants}
        store.write(join_key(folder, WEIGHTS), safetensors.torch.save(tensors))
        values = to_dict(self.config)
        if self.backbone is not None:
            values["backbone"] = to_dict(self.backbone)
        if self.normalization != Normalization():
            values["normalization"] = to_dict(self.normalization)
        store.write(join_key(folder, RECOGNIZER), json_bytes(values))


def detached(scorer: Any) -> Any:
    """A copy of a scorer whose tensors are constants, independent of any later step."""
    tensors = scorer_tensors(scorer).items()
    return dataclasses.replace(scorer, **{name: each.detach().clone() for name, each in tensors})


def scorer_tensors(scorer: Any) -> dict[str, Tensor]:
    """What a scorer computes with beside its config, by name."""
    return {name: value for name, value in vars(scorer).items() if isinstance(value, Tensor)}
