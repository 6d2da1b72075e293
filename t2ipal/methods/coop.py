"""CoOp: one context learned from labelled images (Zhou et al., 2022), as the paper compares it.

With several classes an image, T2I-PAL's ancestor trains it by binary cross-entropy, on the logits
of the whole image and on those of its locations. Logits are CLIP's: 100 cos.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from t2ipal.config import PositiveFloat, PositiveInt, Share, check_fields, require
from t2ipal.features.sets import FeatureSet, TrainingFeatures
from t2ipal.methods import scoring
from t2ipal.methods.contract import FrozenBackbone, Losses
from t2ipal.methods.labelled import binary_losses, known, mean_loss, require_labelled
from t2ipal.methods.prompts import LearnedPrompts, require_prompt_names
from t2ipal.methods.recognizer import Recognizer, detached


def coop_epochs(shots: int) -> int:
    """Epochs for so many shown images of each class: 50 for 1, 100 up to 4, 200 above (CoOp)."""
    require(shots > 0, f"shots must be > 0, got {shots}.")
    if shots == 1:
        return 50
    return 100 if shots <= 4 else 200


@dataclass(frozen=True)
class CoOpConfig:
    """What CoOp computes for one set of classes."""

    class_names: tuple[str, ...]
    """The data set's own names, in the order of the label columns."""
    prompt_names: tuple[str, ...]
    """What goes into the prompts in their place."""
    context_length: PositiveInt = 16
    """Learned vectors before the class name, from N(0, 0.02) (CoOp: 16)."""
    class_specific_context: bool = False
    """One context for each class in place of one for all (CoOp: shared)."""
    prompt_suffix: str = "."
    """Text right after the class name (CoOp)."""
    local_scores: bool = True
    """Logits of the locations beside those of the whole image (TaI-DPT); False: CoOp's own."""
    scale: PositiveFloat = 100.0
    """Logit of a cosine of 1 (CLIP)."""
    image_temperature: PositiveFloat = 0.02
    """tau of the softmax over locations (our choice: TaI-DPT's for captions)."""
    known_labels: Share = 1.0
    """Share of labels that are known; the others are left out."""
    method: Literal["coop"] = "coop"
    """Which method's config this is."""

    def __post_init__(self) -> None:
        check_fields(self)
        require_prompt_names(self.class_names, self.prompt_names)

    def numbers(self) -> "Numbers":
        """What trials of one stack may differ in."""
        return Numbers(self.scale, self.image_temperature, self.known_labels)

    def build(self, backbone: FrozenBackbone, seed: int = 0) -> "CoOp":
        """The method with its start drawn from `seed`."""
        return CoOp(self, backbone, seed=seed)


class Numbers(NamedTuple):
    """The config's numbers that a step works with; tensors in a stack of trials."""

    scale: Any
    image_temperature: Any
    known_labels: Any


@dataclass(frozen=True)
class CoOpScorer:
    """The class embeddings of the learned prompts."""

    config: CoOpConfig
    embeddings: Float[Tensor, "classes width"]
    """Normalized."""
    stacked: Numbers | None = None
    """In place of the config's numbers, for one of several trials that are trained at once."""

    @property
    def numbers(self) -> Numbers:
        """What it computes with."""
        return self.config.numbers() if self.stacked is None else self.stacked

    @property
    def device(self) -> torch.device:
        """Where the constants are."""
        return self.embeddings.device

    def logits(self, images: FeatureSet) -> Float[Tensor, "kinds images classes"]:
        """100 cos of the whole image, and of its locations: sum_j softmax_j(cos_j / tau) cos_j."""
        whole = images.global_features.to(self.embeddings.dtype) @ self.embeddings.T
        cosines = [whole]
        if self.config.local_scores:
            similarities = self._similarities(images.local_features)
            heatmap = torch.softmax(similarities / self.numbers.image_temperature, dim=-1)
            cosines.append(scoring.aggregate(similarities, heatmap))
        return self.numbers.scale * torch.stack(cosines)

    def scores(self, images: FeatureSet) -> Float[Tensor, "images classes"]:
        """The mean of both logits."""
        return self.logits(images).mean(dim=0)

    def heatmap(
        self, local_features: Float[Tensor, "images locations width"]
    ) -> Float[Tensor, "images classes locations"]:
        """softmax_j(cos_j / tau): how much each location counts for each class."""
        similarities = self._similarities(local_features)
        return torch.softmax(similarities / self.numbers.image_temperature, dim=-1)

    def _similarities(
        self, local_features: Float[Tensor, "images locations width"]
    ) -> Float[Tensor, "images classes locations"]:
        locations = local_features.to(self.embeddings.dtype)
        return scoring.local_similarities(locations, self.embeddings)

    @staticmethod
    def shapes(config: CoOpConfig) -> dict[str, tuple[str, ...]]:
        """Name -> dimensions of each stored tensor."""
        return {"embeddings": ("classes", "width")}

    @staticmethod
    def from_tensors(config: CoOpConfig, tensors: Mapping[str, Tensor]) -> "CoOpScorer":
        """The scorer of tensors that have `shapes`."""
        return CoOpScorer(config, tensors["embeddings"])


class CoOp(nn.Module):
    """A learned context before a frozen CLIP.

    Args:
        config: what to compute.
        backbone: the frozen CLIP; no part of the module.
        seed: of the context's random start.
    """

    uses_images, uses_texts = True, False

    def __init__(self, config: CoOpConfig, backbone: FrozenBackbone, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self._backbone = backbone.identity
        self.prompts = LearnedPrompts(config, backbone, num_sets=1, seed=seed)

    def prepare(self, data: TrainingFeatures) -> None:
        """Checks that there are labelled images."""
        require_labelled(data, self.config.method, self.config.known_labels)

    def loss(
        self,
        images: FeatureSet | None,
        texts: FeatureSet | None,
        *,
        num_images: Any = None,
        num_texts: int | None = None,
        image_weights: Float[Tensor, " images"] | None = None,
        stacked: Numbers | None = None,
    ) -> Losses:
        """Binary cross-entropy of the whole image's logits, plus that of its locations' logits."""
        assert images is not None
        scorer = self.scorer(stacked)
        with torch.autocast(scorer.device.type, enabled=False):  # logits and loss are float32's
            logits = scorer.logits(images)
            is_known = known(images, scorer.numbers.known_labels)
            losses = binary_losses(logits, images.labels.to(logits.dtype), is_known).sum(dim=0)
            return mean_loss(losses, image_weights, num_images)

    def parameter_groups(self, training: Any) -> list[dict[str, Any]]:
        """The context."""
        return [{"params": [*self.parameters()], "peak_lr": training.lr}]

    def scorer(self, stacked: Numbers | None = None) -> CoOpScorer:
        """Current class embeddings with their graph."""
        return CoOpScorer(self.config, self.prompts()[0], stacked)

    @torch.no_grad()
    def export(self) -> Recognizer:
        """The recognizer as constants, independent of any later step."""
        return Recognizer(detached(self.scorer()), self._backbone)
