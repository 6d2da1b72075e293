"""DualCoOp: a positive and a negative prompt for each class (Sun et al., 2022).

Two forms are settings of one config: the rerun by T2I-PAL's ancestor, whose numbers the paper
prints (both scales learned), and the original (fixed scales; its local features are the backbone's
`dense_features` "regions").
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from t2ipal.config import (
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Share,
    check_fields,
)
from t2ipal.features.sets import FeatureSet, TrainingFeatures
from t2ipal.methods import scoring
from t2ipal.methods.contract import FrozenBackbone, Losses
from t2ipal.methods.labelled import asymmetric_losses, known, mean_loss, require_labelled
from t2ipal.methods.prompts import LearnedPrompts, require_prompt_names
from t2ipal.methods.recognizer import Recognizer, detached


@dataclass(frozen=True)
class DualCoOpConfig:
    """What DualCoOp computes for one set of classes."""

    class_names: tuple[str, ...]
    """The data set's own names, in the order of the label columns."""
    prompt_names: tuple[str, ...]
    """What goes into the prompts in their place."""
    context_length: PositiveInt = 16
    """Learned vectors before the class name, from N(0, 0.02) (DualCoOp: 16)."""
    class_specific_context: bool = True
    """One context for each class, or one for all (DualCoOp: one each)."""
    prompt_suffix: str = "."
    """Text right after the class name (DualCoOp)."""
    region_sharpness: PositiveFloat = 20.0
    """Factor on the cosines in the softmax over locations (DualCoOp: 20); the start if learned."""
    scale: PositiveFloat = 50.0
    """Factor on the difference of both cosines (TaI-DPT's rerun: 50, DualCoOp: 100); the start if
    learned."""
    learned_scales: bool = True
    """Learn both factors, by their logarithms (TaI-DPT's rerun: true, DualCoOp: false)."""
    gamma_negative: NonNegativeFloat = 2.0
    """Focus of the loss on hard absent classes (DualCoOp: 2)."""
    gamma_positive: NonNegativeFloat = 1.0
    """Focus of the loss on hard present classes (DualCoOp: 1)."""
    clip: Share = 0.05
    """An absent class costs nothing up to this probability (DualCoOp: 0.05)."""
    known_labels: Share = 1.0
    """Share of labels that are known; the others are left out."""
    method: Literal["dualcoop"] = "dualcoop"
    """Which method's config this is."""

    def __post_init__(self) -> None:
        check_fields(self)
        require_prompt_names(self.class_names, self.prompt_names)

    def numbers(self) -> "Numbers":
        """What trials of one stack may differ in; scales that are learned only start from these."""
        return Numbers(*(getattr(self, name) for name in Numbers._fields))

    def build(self, backbone: FrozenBackbone, seed: int = 0) -> "DualCoOp":
        """The method with its start drawn from `seed`."""
        return DualCoOp(self, backbone, seed=seed)


class Numbers(NamedTuple):
    """The config's numbers that a step works with; tensors in a stack of trials."""

    region_sharpness: Any
    scale: Any
    gamma_negative: Any
    gamma_positive: Any
    clip: Any
    known_labels: Any


@dataclass(frozen=True)
class DualCoOpScorer:
    """Both embeddings of each class, and the two scales."""

    config: DualCoOpConfig
    positive: Float[Tensor, "classes width"]
    """Normalized."""
    negative: Float[Tensor, "classes width"]
    """Normalized."""
    region_sharpness: Float[Tensor, ""]
    scale: Float[Tensor, ""]
    stacked: Numbers | None = None
    """In place of the config's numbers, for one of several trials that are trained at once."""

    @property
    def numbers(self) -> Numbers:
        """What it computes with, but for scales that are learned."""
        return self.config.numbers() if self.stacked is None else self.stacked

    @property
    def device(self) -> torch.device:
        """Where the constants are."""
        return self.positive.device

    def scores(self, images: FeatureSet) -> Float[Tensor, "images classes"]:
        """Logits: scale * sum_r w_r (cos+_r - cos-_r), w_r = softmax_r(sharpness * cos+_r)."""
        locations = images.local_features.to(self.positive.dtype)
        both = scoring.local_similarities(locations, torch.cat([self.positive, self.negative]))
        positive, negative = both.chunk(2, dim=1)
        weights = torch.softmax(self.region_sharpness * positive, dim=-1)
        return self.scale * scoring.aggregate(positive - negative, weights)

    def heatmap(
        self, local_features: Float[Tensor, "images locations width"]
    ) -> Float[Tensor, "images classes locations"]:
        """w_r: how much each location counts for each class."""
        locations = local_features.to(self.positive.dtype)
        similarities = scoring.local_similarities(locations, self.positive)
        return torch.softmax(self.region_sharpness * similarities, dim=-1)

    @staticmethod
    def shapes(config: DualCoOpConfig) -> dict[str, tuple[str, ...]]:
        """Name -> dimensions of each stored tensor."""
        matrices = dict.fromkeys(("positive", "negative"), ("classes", "width"))
        return {**matrices, "region_sharpness": (), "scale": ()}

    @classmethod
    def from_tensors(cls, config: DualCoOpConfig, tensors: Mapping[str, Tensor]) -> Self:
        """The scorer of tensors that have `shapes`."""
        names = "positive", "negative", "region_sharpness", "scale"
        positive, negative, region_sharpness, scale = (tensors[name] for name in names)
        return cls(config, positive, negative, region_sharpness, scale)


class DualCoOp(nn.Module):
    """Learned contexts before a frozen CLIP.

    Args:
        config: what to compute.
        backbone: the frozen CLIP; no part of the module.
        seed: of the random start.
    """

    uses_images, uses_texts = True, False
    num_sets = 2
    """Contexts of a class: a positive and a negative one."""
    scorer_type = DualCoOpScorer

    def __init__(self, config: DualCoOpConfig, backbone: FrozenBackbone, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self._backbone = backbone.identity
        self.prompts = LearnedPrompts(config, backbone, num_sets=self.num_sets, seed=seed)
        self.log_scales = None
        if config.learned_scales:
            logs = [math.log(config.region_sharpness), math.log(config.scale)]
            self.log_scales = nn.Parameter(torch.tensor(logs, device=self.prompts.contexts.device))

    def prepare(self, data: TrainingFeatures) -> None:
        """Checks that there are labelled images."""
        require_labelled(data, self.config.method, self.config.known_labels)

    def embeddings(self) -> tuple[Float[Tensor, "classes width"], Float[Tensor, "classes width"]]:
        """The positive and the negative ones."""
        positive, negative = self.prompts()
        return positive, negative

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
        """The asymmetric loss of the known labels, sum over classes and mean over images."""
        assert images is not None
        scorer = self.scorer(stacked)
        numbers = scorer.numbers
        with torch.autocast(scorer.device.type, enabled=False):  # logits and loss are float32's
            logits = scorer.scores(images)
            losses = asymmetric_losses(
                logits,
                images.labels.to(logits.dtype),
                known(images, numbers.known_labels),
                numbers.gamma_negative,
                numbers.gamma_positive,
                numbers.clip,
            )
            return mean_loss(losses, image_weights, num_images)

    def parameter_groups(self, training: Any) -> list[dict[str, Any]]:
        """The contexts, and the scales where they are learned."""
        return [{"params": [*self.parameters()], "peak_lr": training.lr}]

    def scorer(self, stacked: Numbers | None = None) -> DualCoOpScorer:
        """Current embeddings and scales with their graph."""
        numbers = self.config.numbers() if stacked is None else stacked
        positive, negative = self.embeddings()
        if self.log_scales is None:
            one = positive.new_ones(())
            scales = one * numbers.region_sharpness, one * numbers.scale
        else:
            scales = self.log_scales.exp().unbind()
        return self.scorer_type(self.config, positive, negative, *scales, stacked=stacked)

    @torch.no_grad()
    def export(self) -> Recognizer:
        """The recognizer as constants, independent of any later step."""
        return Recognizer(detached(self.scorer()), self._backbone)
