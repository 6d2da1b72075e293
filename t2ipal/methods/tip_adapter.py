"""Tip-Adapter: a cache of labelled images beside zero-shot CLIP (Zhang et al., 2022).

Training-free, or with keys that are learned (Tip-Adapter-F). The original has one class an image;
here the cache's values are multi-hot.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from t2ipal.config import NonNegativeFloat, PositiveFloat, Share, check_fields, require
from t2ipal.features.sets import FeatureSet, TrainingFeatures
from t2ipal.methods import scoring
from t2ipal.methods.contract import FrozenBackbone, Losses
from t2ipal.methods.labelled import binary_losses, known, mean_loss, require_labelled
from t2ipal.methods.prompts import prompt_tokens, require_prompt_names
from t2ipal.methods.recognizer import Recognizer, detached

BLOCK_ROWS = 256
"""Images whose views' features are in memory at once."""


@dataclass(frozen=True)
class TipAdapterConfig:
    """What Tip-Adapter computes for one set of classes."""

    class_names: tuple[str, ...]
    """The data set's own names, in the order of the label columns."""
    prompt_names: tuple[str, ...]
    """What goes into the prompts in their place."""
    context: str = "a photo of a"
    """Words before the class name (zero-shot CLIP)."""
    prompt_suffix: str = "."
    """Text right after the class name (zero-shot CLIP)."""
    scale: PositiveFloat = 100.0
    """Logit of a cosine of 1 (CLIP)."""
    residual_ratio: NonNegativeFloat = 1.0
    """alpha, weight of the cache; 0: zero-shot CLIP (Tip-Adapter: 1, or the best on validation)."""
    sharpness: NonNegativeFloat = 5.5
    """beta of the affinity to a key (Tip-Adapter: 5.5, or the best on validation)."""
    learned_keys: bool = False
    """Learn the keys: Tip-Adapter-F."""
    loss: Literal["binary", "softmax"] = "binary"
    """Of the learned keys: "binary" cross-entropy of each class; or the original's over the
    "softmax" of all classes, with an image's weight shared by the classes that it shows."""
    known_labels: Share = 1.0
    """Share of labels that are known; the others count as absent in the cache, and are left out of
    the loss."""
    method: Literal["tip_adapter"] = "tip_adapter"
    """Which method's config this is."""

    def __post_init__(self) -> None:
        check_fields(self)
        require_prompt_names(self.class_names, self.prompt_names)
        require(bool(self.context.strip()), 'context must be words, got "".')

    def build(self, backbone: FrozenBackbone, seed: int = 0) -> "TipAdapter":
        """The method; nothing in it is random."""
        return TipAdapter(self, backbone)


@dataclass(frozen=True)
class TipAdapterScorer:
    """Zero-shot class embeddings, and the cache."""

    config: TipAdapterConfig
    embeddings: Float[Tensor, "classes width"]
    """T, normalized."""
    keys: Float[Tensor, "shots width"]
    """K, normalized unless learned."""
    values: Float[Tensor, "shots classes"]
    """V, multi-hot."""

    @property
    def device(self) -> torch.device:
        """Where the constants are."""
        return self.keys.device

    def scores(self, images: FeatureSet) -> Float[Tensor, "images classes"]:
        """Logits: 100 f.T + alpha exp(-beta (1 - f.K)) V."""
        config = self.config
        cached = self.cached(images, config.sharpness)
        return self.zero_shot(images) + config.residual_ratio * cached

    def zero_shot(self, images: FeatureSet) -> Float[Tensor, "images classes"]:
        """100 f.T."""
        return self.config.scale * (self._features(images) @ self.embeddings.T)

    def cached(self, images: FeatureSet, sharpness: float) -> Float[Tensor, "images classes"]:
        """exp(-beta (1 - f.K)) V."""
        cosines = self._features(images) @ self.keys.T
        return torch.exp(-sharpness * (1 - cosines)) @ self.values

    def heatmap(
        self, local_features: Float[Tensor, "images locations width"]
    ) -> Float[Tensor, "images classes locations"]:
        """softmax_j(100 cos_j) of zero-shot CLIP: the cache knows whole images alone."""
        locations = local_features.to(self.embeddings.dtype)
        similarities = scoring.local_similarities(locations, self.embeddings)
        return torch.softmax(self.config.scale * similarities, dim=-1)

    def _features(self, images: FeatureSet) -> Float[Tensor, "images width"]:
        require(
            images.pooled_features is not None,
            "Tip-Adapter needs pooled_features; extract the features with them.",
        )
        assert images.pooled_features is not None
        return images.pooled_features.to(self.embeddings.dtype)

    @staticmethod
    def shapes(config: TipAdapterConfig) -> dict[str, tuple[str, ...]]:
        """Name -> dimensions of each stored tensor."""
        return {
            "embeddings": ("classes", "width"),
            "keys": ("shots", "width"),
            "values": ("shots", "classes"),
        }

    @staticmethod
    def from_tensors(config: TipAdapterConfig, tensors: Mapping[str, Tensor]) -> "TipAdapterScorer":
        """The scorer of tensors that have `shapes`."""
        return TipAdapterScorer(config, **tensors)


class TipAdapter(nn.Module):
    """Fills its cache from labelled images once; learns the keys where asked to.

    Args:
        config: what to compute.
        backbone: the frozen CLIP; no part of the module.
    """

    uses_texts = False

    def __init__(self, config: TipAdapterConfig, backbone: FrozenBackbone) -> None:
        super().__init__()
        self.config = config
        self.uses_images = config.learned_keys
        self._backbone = backbone.identity
        tokens = prompt_tokens(
            config.prompt_names,
            backbone,
            context_words=config.context,
            suffix=config.prompt_suffix,
        )
        with torch.no_grad():
            self._embeddings = backbone.encode_token_embeddings(tokens.embeddings, tokens.end)
        self.keys: nn.Parameter | None = None
        self._values: Tensor | None = None

    def prepare(self, data: TrainingFeatures) -> None:
        """Keys: each image's feature, mean over its views, normalized. Values: its known labels."""
        require_labelled(data, self.config.method, self.config.known_labels)
        assert data.images is not None
        keys, values = [], []
        for rows in data.image_of_caption.split(BLOCK_ROWS):
            rows = rows[(rows >= 0).any(dim=1)]
            seen = data.images.rows(rows[rows >= 0])
            require(
                seen.pooled_features is not None,
                "Tip-Adapter needs pooled_features; extract the features with them.",
            )
            assert seen.pooled_features is not None
            image = (rows >= 0).nonzero()[:, 0]
            sums = torch.zeros(len(rows), seen.pooled_features.shape[1])
            sums.index_add_(0, image, seen.pooled_features.float())
            keys.append(functional.normalize(sums, dim=-1))
            labels, is_known = seen.labels.float(), known(seen, self.config.known_labels)
            labels = labels if is_known is None else labels * is_known
            values.append(torch.zeros(len(rows), labels.shape[1]).index_copy_(0, image, labels))
        device = self._embeddings.device
        start = torch.cat(keys).to(device)
        self.keys = nn.Parameter(start, requires_grad=self.config.learned_keys)
        self._values = torch.cat(values).to(device)

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
        """Cross-entropy of the images' known labels, mean over images."""
        assert images is not None
        scorer = self.scorer()
        with torch.autocast(scorer.device.type, enabled=False):
            logits, is_known = scorer.scores(images), known(images, self.config.known_labels)
            labels = images.labels.to(logits.dtype)
            if self.config.loss == "binary":
                losses = binary_losses(logits, labels, is_known)
            else:
                if is_known is not None:
                    logits, labels = logits.masked_fill(~is_known, -1e9), labels * is_known
                shares = labels / labels.sum(dim=1, keepdim=True).clamp(min=1)
                losses = -(shares * functional.log_softmax(logits, dim=1)).sum(dim=1)
            return mean_loss(losses, image_weights, num_images)

    def parameter_groups(self, training: Any) -> list[dict[str, Any]]:
        """The keys where they are learned."""
        if not self.config.learned_keys:
            return []
        return [{"params": [self.keys], "peak_lr": training.lr}]

    def scorer(self, stacked: Any = None) -> TipAdapterScorer:
        """Class embeddings and cache.

        Raises:
            RuntimeError: `prepare` was not called.
        """
        if self.keys is None or self._values is None:
            raise RuntimeError("prepare must be called with the labelled images before export.")
        return TipAdapterScorer(self.config, self._embeddings, self.keys, self._values)

    @torch.no_grad()
    def export(self) -> Recognizer:
        """The recognizer as constants; raises as `scorer`."""
        return Recognizer(detached(self.scorer()), self._backbone)
