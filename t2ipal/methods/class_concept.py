"""Class concepts: training-free recognition from captions alone (Kang et al., 2024).

A class is the mean text feature of the captions that name it. An image's features are first
re-expressed as captions, so that texts are compared with texts: v <- softmax(f v^T / a) v, three
times, where f stays and v is the caption bank at first. That equation is damaged in the text that
we have. The reading taken here is the literal one: after the first round v holds the re-expressed
features of the image itself, so further rounds smooth its locations among each other and leave the
one global feature as it is. (Asking the bank again with v for f, the other reading, is 7 mAP worse
on the embedded world's validation scenes; docs/log.md.)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from t2ipal.config import PositiveFloat, PositiveInt, check_fields, require
from t2ipal.features.sets import FeatureSet, TrainingFeatures, spread_evenly
from t2ipal.methods import scoring
from t2ipal.methods.contract import FrozenBackbone, Losses
from t2ipal.methods.recognizer import Recognizer, detached

BLOCK_VALUES = 2**26
"""Of one block's attention over the bank, 256 MB: images x locations x captions."""
BLOCK_ROWS = 65536
"""Captions of which features are in memory at once."""


@dataclass(frozen=True)
class ClassConceptConfig:
    """What the class concept method computes for one set of classes."""

    class_names: tuple[str, ...]
    """The data set's own names, in the order of the label columns."""
    global_sharpness: PositiveFloat = 60.0
    """1/a for the global feature (Kang et al.: COCO 80, VOC 60, NUS-WIDE 40)."""
    local_sharpness: PositiveFloat = 30.0
    """1/a for each location (Kang et al.: COCO 40, VOC 30, NUS-WIDE 20)."""
    num_rounds: PositiveInt = 3
    """Times that a feature is re-expressed (Kang et al.: 3)."""
    max_captions: PositiveInt = 16_384
    """Captions in the bank at most, spread evenly over the run's; concepts are of all of them."""
    method: Literal["class_concept"] = "class_concept"
    """Which method's config this is."""

    def __post_init__(self) -> None:
        check_fields(self)
        require(len(self.class_names) > 0, "class_names must name a class, got none.")

    def build(self, backbone: FrozenBackbone, seed: int = 0) -> "ClassConcept":
        """The method; nothing in it is random."""
        return ClassConcept(self, backbone)


@dataclass(frozen=True)
class ClassConceptScorer:
    """The concepts and the caption bank."""

    config: ClassConceptConfig
    concepts: Float[Tensor, "classes width"]
    """t_c, normalized."""
    bank: Float[Tensor, "captions width"]
    """T, normalized."""

    @property
    def device(self) -> torch.device:
        """Where the constants are."""
        return self.concepts.device

    def scores(self, images: FeatureSet) -> Float[Tensor, "images classes"]:
        """cos(v, t_c) of the whole image plus sum_j softmax_j(s_j) s_j over its locations."""
        dtype, rows = self.concepts.dtype, images.local_features.shape[1] * len(self.bank)
        parts = []
        for block in range(0, len(images), max(BLOCK_VALUES // rows, 1)):
            part = images.rows(slice(block, block + max(BLOCK_VALUES // rows, 1)))
            whole = part.global_features.to(dtype).unsqueeze(1)
            whole = self._as_captions(whole, self.config.global_sharpness).squeeze(1)
            similarities = self._similarities(part.local_features)
            heatmap = torch.softmax(similarities, dim=-1)
            local = scoring.aggregate(similarities, heatmap)
            parts.append(whole @ self.concepts.T + local)
        return torch.cat(parts)

    def heatmap(
        self, local_features: Float[Tensor, "images locations width"]
    ) -> Float[Tensor, "images classes locations"]:
        """softmax_j(s_j): how much each location counts for each class."""
        return torch.softmax(self._similarities(local_features), dim=-1)

    def _similarities(
        self, local_features: Float[Tensor, "images locations width"]
    ) -> Float[Tensor, "images classes locations"]:
        """s_j, the cosine of every re-expressed location with every concept."""
        locations = local_features.to(self.concepts.dtype)
        captions = self._as_captions(locations, self.config.local_sharpness)
        return scoring.local_similarities(captions, self.concepts)

    def _as_captions(
        self, features: Float[Tensor, "images places width"], sharpness: float
    ) -> Float[Tensor, "images places width"]:
        """v <- normalized softmax(f v^T / a) v, `num_rounds` times, from v = T."""
        captions = self.bank
        for _ in range(self.config.num_rounds):
            weights = torch.softmax(sharpness * (features @ captions.mT), dim=-1)
            captions = functional.normalize(weights @ captions, dim=-1)
        return captions

    @staticmethod
    def shapes(config: ClassConceptConfig) -> dict[str, tuple[str, ...]]:
        """Name -> dimensions of each stored tensor."""
        return {"concepts": ("classes", "width"), "bank": ("captions", "width")}

    @staticmethod
    def from_tensors(
        config: ClassConceptConfig, tensors: Mapping[str, Tensor]
    ) -> "ClassConceptScorer":
        """The scorer of tensors that have `shapes`."""
        return ClassConceptScorer(config, **tensors)


class ClassConcept(nn.Module):
    """Reads its constants off the captions once; there is nothing to train.

    Args:
        config: what to compute.
        backbone: the frozen CLIP whose features these are.
    """

    uses_images = uses_texts = False

    def __init__(self, config: ClassConceptConfig, backbone: FrozenBackbone) -> None:
        super().__init__()
        self.config = config
        self._backbone = backbone.identity
        self._device = backbone.device
        self._scorer: ClassConceptScorer | None = None

    def prepare(self, data: TrainingFeatures) -> None:
        """Takes concepts and bank from the captions.

        Raises:
            ValueError: a class that no caption names.
        """
        texts, labels = data.texts, data.texts.labels
        counts = labels.sum(dim=0)
        names = zip(self.config.class_names, counts.tolist())
        missing = [name for name, count in names if count == 0]
        require(
            not missing,
            f"A class concept needs a caption of every class, got none of: {', '.join(missing)}. "
            "Add captions that name them, or leave the classes out.",
        )
        sums = sum(
            labels[rows].float().T @ texts.column("global_features", rows)
            for rows in torch.arange(len(texts)).split(BLOCK_ROWS)
        )
        concepts = functional.normalize(sums / counts.unsqueeze(1), dim=-1)
        device = self._device
        chosen = spread_evenly(len(texts), self.config.max_captions)
        bank = texts.column("global_features", chosen).to(device)
        self._scorer = ClassConceptScorer(self.config, concepts.to(device), bank)

    def loss(
        self,
        images: FeatureSet | None,
        texts: FeatureSet | None,
        *,
        num_images: Any = None,
        num_texts: int | None = None,
        image_weights: Float[Tensor, " images"] | None = None,
        stacked: Any = None,
    ) -> Losses:
        """There is none.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("A class concept is not trained: it has no loss.")

    def parameter_groups(self, training: Any) -> list[dict[str, Any]]:
        """None: nothing is trained."""
        return []

    def scorer(self, stacked: Any = None) -> ClassConceptScorer:
        """Concepts and bank.

        Raises:
            RuntimeError: `prepare` was not called.
        """
        if self._scorer is None:
            raise RuntimeError("prepare must be called with the captions before export.")
        return self._scorer

    def export(self) -> Recognizer:
        """The recognizer as constants; raises as `scorer`."""
        return Recognizer(detached(self.scorer()), self._backbone)
