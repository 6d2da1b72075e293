"""PVP (TaI++): images in pixels learned for every class, then text prompts beside them.

Stage 1 learns a global and a local image of each class through the frozen visual tower, so that its
feature is near those of the captions that name the class. Stage 2 goes on with these images, and
learns text prompts as TaI-DPT's; a pair of adapters and a contrastive loss bring the two sets of
class embeddings together. One `fit` does both: the last epochs are stage 2.

Where the text that we have says no more, the readings taken here are: pixels are colors in 0 to 1
before CLIP's normalization; a class's local image gives one embedding, its global feature; one
adapter is for the text's class embeddings and one for the images'; the contrastive loss is CLIP's.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from t2ipal.config import NonNegativeFloat, PositiveFloat, PositiveInt, Share, check_fields, require
from t2ipal.features.sets import FeatureSet, TrainingFeatures
from t2ipal.methods import scoring
from t2ipal.methods.contract import FrozenBackbone, Losses
from t2ipal.methods.losses import ranking_losses, require_known_labels
from t2ipal.methods.prompts import (
    PromptTokens,
    prompt_tokens,
    require_prompt_names,
    with_context,
)
from t2ipal.methods.recognizer import Recognizer, detached


@dataclass(frozen=True)
class PVPConfig:
    """What PVP computes for one set of classes."""

    class_names: tuple[str, ...]
    """The data set's own names, in the order of the label columns."""
    prompt_names: tuple[str, ...]
    """What goes into the prompts in their place."""
    text_share: Share = 0.0
    """Share of the epochs that are stage 2, with text prompts; 0: images alone (PVP: 20 of 120)."""
    context_length: PositiveInt = 16
    """Learned vectors before the class name, N(0, 0.02) (TaI-DPT)."""
    prompt_suffix: str = "."
    """Text right after the class name (TaI-DPT)."""
    noise: NonNegativeFloat = 0.04
    """Standard deviation of what is added to captions' features while images are learned (PVP)."""
    local_weight: NonNegativeFloat = 0.1
    """Of the local images' ranking loss (PVP)."""
    stage2_lr: PositiveFloat = 5e-5
    """Learning rate of prompts and images in stage 2 (PVP); in stage 1 it is the training's."""
    adapter_lr: PositiveFloat = 1e-3
    """Of both adapters (PVP)."""
    adapter_ratio: Share = 0.4
    """r of an adapter: (1 - r) x + r MLP(x) (PVP)."""
    dropout: Share = 0.6
    """In the adapters (PVP)."""
    alignment_weight: NonNegativeFloat = 1.0
    """Of the contrastive loss between both sets of class embeddings (our reading)."""
    alignment_temperature: PositiveFloat = 0.01
    """Of its softmax over classes (CLIP's; our reading)."""
    text_temperature: PositiveFloat = 0.02
    """tau_s over the tokens of a caption (TaI-DPT)."""
    image_temperature: PositiveFloat = 0.025
    """tau_s over the locations of a test image (TaI-DPT: 0.025, NUS-WIDE 0.25)."""
    margin: PositiveFloat = 1.0
    """m of the ranking loss (TaI-DPT)."""
    scale: PositiveFloat = 4.0
    """s, factor on every score inside the ranking loss (TaI-DPT)."""
    method: Literal["pvp"] = "pvp"
    """Which method's config this is."""

    needs_visual_tower = True

    def __post_init__(self) -> None:
        check_fields(self)
        require_prompt_names(self.class_names, self.prompt_names)
        count = len(self.class_names)
        require(count >= 2, f"Ranking needs 2 classes or more, got {count}.")

    def build(self, backbone: FrozenBackbone, seed: int = 0) -> "PVP":
        """The method with its start drawn from `seed`."""
        return PVP(self, backbone, seed)


class Embeddings(NamedTuple):
    """Class embeddings, normalized."""

    whole: Float[Tensor, "classes width"]
    local: Float[Tensor, "classes width"]


@dataclass(frozen=True)
class PVPScorer:
    """Class embeddings of learned images, and of learned prompts after stage 2."""

    config: PVPConfig
    image_global: Float[Tensor, "classes width"]
    image_local: Float[Tensor, "classes width"]
    text_global: Float[Tensor, "classes width"] | None = None
    text_local: Float[Tensor, "classes width"] | None = None

    @property
    def device(self) -> torch.device:
        """Where the constants are."""
        return self.image_global.device

    def scores(self, images: FeatureSet) -> Float[Tensor, "images classes"]:
        """The sum of all logits: of images and, after stage 2, of prompts; global and local."""
        total: Any = 0
        for embeddings in self._sets():
            both = ranked(embeddings, images, None, self.config.image_temperature)
            total = total + both[0] + both[1]
        return total

    def heatmap(
        self, local_features: Float[Tensor, "images locations width"]
    ) -> Float[Tensor, "images classes locations"]:
        """softmax_j(P_ij / tau_s), mean over both sets of class embeddings."""
        maps = [
            scoring.class_wise_heatmap(
                scoring.local_similarities(local_features.to(each.local.dtype), each.local),
                None,
                self.config.image_temperature,
                "weighted",
            )
            for each in self._sets()
        ]
        return torch.stack(maps).mean(dim=0)

    def _sets(self) -> list[Embeddings]:
        sets = [Embeddings(self.image_global, self.image_local)]
        if self.text_global is not None and self.text_local is not None:
            sets.append(Embeddings(self.text_global, self.text_local))
        return sets

    @staticmethod
    def shapes(config: PVPConfig) -> dict[str, tuple[str, ...]]:
        """Name -> dimensions of each stored tensor."""
        names = ["image_global", "image_local"]
        names += ["text_global", "text_local"] if config.text_share > 0 else []
        return dict.fromkeys(names, ("classes", "width"))

    @staticmethod
    def from_tensors(config: PVPConfig, tensors: Mapping[str, Tensor]) -> "PVPScorer":
        """The scorer of tensors that have `shapes`."""
        return PVPScorer(config, **tensors)


def ranked(
    embeddings: Embeddings,
    features: FeatureSet,
    mask: Bool[Tensor, "batch locations"] | None,
    temperature: float,
) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch classes"]]:
    """p and p' of images or captions (T2I-PAL's paper, eq. 2 and 3)."""
    dtype = embeddings.whole.dtype
    similarities = scoring.local_similarities(features.local_features.to(dtype), embeddings.local)
    heatmap = scoring.class_wise_heatmap(similarities, mask, temperature, "weighted")
    whole = features.global_features.to(dtype) @ embeddings.whole.T
    return whole, scoring.aggregate(similarities, heatmap)


class PVP(nn.Module):
    """Learned images of every class, and prompts and adapters in stage 2.

    Args:
        config: what to compute.
        backbone: the frozen CLIP with its visual tower; it is no part of the module.
        seed: of images, context, adapters, noise and dropout.
    """

    uses_images, uses_texts = False, True
    _tokens: Tensor
    _end: Tensor

    def __init__(self, config: PVPConfig, backbone: FrozenBackbone, seed: int = 0) -> None:
        super().__init__()
        self.config, self._seed, self._backbone = config, seed, backbone.identity
        # Bound methods, not the backbone: its weights are neither trained nor saved with ours.
        self._encode_pixels, self._encode = backbone.encode_pixels, backbone.encode_token_embeddings
        self._stage2_from = 0
        generator, device = torch.Generator().manual_seed(seed), backbone.device
        size, side = len(config.class_names), backbone.image_size_px
        mean, std = (
            torch.tensor(colors).view(-1, 1, 1)
            for colors in (backbone.identity.mean, backbone.identity.std)
        )
        start = mean + std * torch.randn(2, size, 3, side, side, generator=generator)
        self.pixels = nn.Parameter(start.to(device))
        self.context: nn.Parameter | None = None
        if config.text_share > 0:
            tokens: PromptTokens = prompt_tokens(
                config.prompt_names,
                backbone,
                context_length=config.context_length,
                suffix=config.prompt_suffix,
            )
            self.register_buffer("_tokens", tokens.embeddings, persistent=False)
            self.register_buffer("_end", tokens.end.to(device), persistent=False)
            self._layout = backbone.prompt_layout(self._end, 1 + tokens.num_context)
            shape = (2, tokens.num_context, tokens.embeddings.shape[-1])
            self.context = nn.Parameter((torch.randn(shape, generator=generator) * 0.02).to(device))
            with torch.no_grad():
                width = self._of_prompts().whole.shape[-1]
            self.adapters = nn.ModuleList(_mlp(width, generator) for _ in range(2)).to(device)
        self.start_epoch(0)

    def prepare(self, data: TrainingFeatures) -> None:
        """Checks that every label is known.

        Raises:
            ValueError: it is not.
        """
        require_known_labels(data, "PVP")

    def start_epoch(self, epoch: int) -> None:
        """Noise and dropout come from the epoch's number alone, so a resumed run has the same."""
        self._generator = torch.Generator().manual_seed(self._seed * 1_000_003 + epoch)
        self._in_stage2 = self.context is not None and epoch >= self._stage2_from
        for parameter in self.parameters():
            parameter.requires_grad_(self._in_stage2 or parameter is self.pixels)

    def parameter_groups(self, training: Any) -> list[dict[str, Any]]:
        """Images in both stages, prompts and adapters in the second one alone."""
        config, num_epochs = self.config, training.num_epochs
        last = math.ceil(round(num_epochs * config.text_share, 6))
        first = num_epochs - last
        self._stage2_from = first
        own = [(first, training.lr)] if first else []
        images = [*own, (last, config.stage2_lr)] if last else own
        groups = [{"params": [self.pixels], "stages": images}]
        if self.context is not None:
            before = [(first, 0.0)] if first else []
            prompts = {"params": [self.context], "stages": [*before, (last, config.stage2_lr)]}
            adapters = [*self.adapters.parameters()]
            groups += [
                prompts,
                {"params": adapters, "stages": [*before, (last, config.adapter_lr)]},
            ]
        return groups

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
        """Ranking losses of images and prompts on captions; and their contrast, in stage 2.

        Args:
            images: not looked at.
            texts: captions of the batch with their labels.
            num_images: not looked at.
            num_texts: divisor of the captions' mean where this is one part of a larger batch.
            image_weights: not looked at.
            stacked: must be None: trials are not stacked.
        """
        assert texts is not None and stacked is None
        config, of_images = self.config, self._of_images()
        others: Any = 0.0
        if self._in_stage2:
            of_prompts, of_images = self._adapted(self._of_prompts(), of_images, train=True)
            pairs = zip(of_prompts, of_images)
            contrast = sum(_contrast(a, b, config.alignment_temperature) for a, b in pairs)
            others = self._ranking(of_prompts, texts, 1.0) + config.alignment_weight * contrast
        mean = others + self._ranking(of_images, self._noisy(texts), config.local_weight)
        total = mean * len(texts) / (num_texts or len(texts))
        return Losses(total, torch.zeros_like(total), total)

    def _ranking(self, embeddings: Embeddings, texts: FeatureSet, local: float) -> Tensor:
        config, dtype = self.config, embeddings.whole.dtype
        both = torch.stack(ranked(embeddings, texts, texts.mask, config.text_temperature))
        losses = ranking_losses(both, texts.labels.to(dtype), config.margin, config.scale)
        return losses[0].mean() + local * losses[1].mean()

    def _noisy(self, texts: FeatureSet) -> FeatureSet:
        """The captions with noise on every feature, normalized again."""
        noisy = {}
        for name in ("global_features", "local_features"):
            features = getattr(texts, name)
            noise = torch.randn(features.shape, generator=self._generator).to(features.device)
            noisy[name] = F.normalize(features + self.config.noise * noise, dim=-1)
        return FeatureSet(**noisy, mask=texts.mask, labels=texts.labels)

    def _of_images(self) -> Embeddings:
        features = self._encode_pixels(self.pixels.flatten(0, 1)).global_features
        return Embeddings(*features.chunk(2))

    def _of_prompts(self) -> Embeddings:
        assert self.context is not None
        prompts = with_context(self._tokens, self.context)
        both = self._encode(prompts.own, self._end, prompts.shared, self._layout)
        return Embeddings(*both.to(self._tokens.dtype))

    def _adapted(
        self, of_prompts: Embeddings, of_images: Embeddings, train: bool
    ) -> tuple[Embeddings, Embeddings]:
        """x <- normalized (1 - r) x + r MLP(x), with an adapter of each set's own."""
        ratio, sets = self.config.adapter_ratio, []
        for adapter, embeddings in zip(self.adapters, (of_prompts, of_images)):
            hidden, x = adapter[0], torch.stack(embeddings)  # type: ignore
            inner = F.relu(hidden(x))
            if train:
                keep = torch.rand(inner.shape, generator=self._generator) >= self.config.dropout
                inner = inner * keep.to(inner.device) / max(1 - self.config.dropout, 1e-12)
            mixed = (1 - ratio) * x + ratio * adapter[1](inner)  # type: ignore
            sets.append(Embeddings(*F.normalize(mixed, dim=-1)))
        return sets[0], sets[1]

    def scorer(self, stacked: Any = None) -> PVPScorer:
        """Current class embeddings with their graph."""
        of_images = self._of_images()
        if self.context is None:
            return PVPScorer(self.config, *of_images)
        of_prompts, of_images = self._adapted(self._of_prompts(), of_images, train=False)
        return PVPScorer(self.config, *of_images, *of_prompts)

    @torch.no_grad()
    def export(self) -> Recognizer:
        """The recognizer as constants: neither pixels nor towers are needed at test time."""
        return Recognizer(detached(self.scorer()), self._backbone)


def _mlp(width: int, generator: torch.Generator) -> nn.ModuleList:
    """Two layers as torch starts them, drawn from `generator`."""
    layers = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
    with torch.no_grad():
        for parameter in layers.parameters():
            bound = 1 / math.sqrt(width)
            parameter.copy_((2 * torch.rand(parameter.shape, generator=generator) - 1) * bound)
    return layers


def _contrast(
    ours: Float[Tensor, "classes width"], theirs: Float[Tensor, "classes width"], temperature: float
) -> Tensor:
    """CLIP's loss: each class's embedding finds that of the same class among the others."""
    logits, own = ours @ theirs.T / temperature, torch.arange(len(ours), device=ours.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
