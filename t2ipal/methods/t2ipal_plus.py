"""T2I-PAL+: T2I-PAL, and discriminants of synthetic images beside it (this project's own).

Equation 7 ranks the classes of one image, mAP ranks the images of one class. So a class also gets a
linear discriminant of the whole image and one of its locations, learned from synthetic images whose
labels are known, on whitened features. Their evidence, T2I-PAL's scores and zero-shot CLIP's, each
image's normalized, are brought to the same spread over training images, and added:

    e = w x + b + log mean_j exp(v y_j)                                    x, y_j whitened
    score = e / sd(e) + s / sd(s) + z / sd(z)

s are T2I-PAL's scores, z zero-shot CLIP's. Nothing of a test image but its features is looked at,
once; nothing of other test images.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from t2ipal.captions import PHOTO_PROMPT
from t2ipal.config import NonNegativeFloat, PositiveFloat, Share, require
from t2ipal.features.sets import FeatureSet, FeatureTable, TrainingFeatures, spread_evenly
from t2ipal.features.table import GLOBAL, LOCAL, POOLED
from t2ipal.methods.contract import FrozenBackbone, Losses
from t2ipal.methods.labelled import mean_loss
from t2ipal.methods.prompts import averaged_templates
from t2ipal.methods.recognizer import FULL, Recognizer, detached, scorer_tensors
from t2ipal.methods.t2ipal import T2IPAL, T2IPALConfig, T2IPALScorer
from t2ipal.methods.whitening import Whitening, whitening_of

WHITENED = 8192
"""Images that a whitening is taken from at most, spread evenly over all."""
REFERENCE = 512
"""Images over which the spreads are taken at most, spread evenly too."""
BLOCK_VALUES = 2**24
"""Of local features in memory at once, 64 MB."""
FEW_CLASSES = 4
"""Of fewer, zero-shot scores stay as they are: two normalized ones are always 1 and -1."""


@dataclass(frozen=True)
class T2IPALPlusConfig(T2IPALConfig):
    """What T2I-PAL+ computes for one set of classes: T2I-PAL's options, and its own.

    Its own defaults were chosen on the embedded world's validation scenes; docs/log.md.
    """

    method: Literal["t2ipal_plus"] = "t2ipal_plus"  # type: ignore
    """Which method's config this is."""
    image_weight: Share = 0.0
    """lambda, share of the images' loss in T2I-PAL's part; next to no difference beside
    discriminants, and 0 needs no images there."""
    discriminant_weight: NonNegativeFloat = 1.0
    """Of the discriminants' evidence in a score; 0 leaves it out."""
    prompt_weight: NonNegativeFloat = 1.0
    """Of T2I-PAL's scores."""
    zero_shot_weight: NonNegativeFloat = 1.0
    """Of zero-shot CLIP's scores."""
    ridge: NonNegativeFloat = 3e-3
    """Weight of half of the discriminants' squared weights in their loss; SGD's weight decay comes
    on top, as on everything learned."""
    discriminant_lr: PositiveFloat = 0.2
    """Learning rate of the discriminants at the cosine's start."""
    shrinkage: PositiveFloat = 0.1
    """Of the covariance towards its mean variance."""
    patches: bool = True
    """False leaves the locations' discriminants out."""

    def numbers(self) -> "PlusNumbers":  # type: ignore
        """What trials of one stack may differ in."""
        return PlusNumbers(*(getattr(self, name) for name in PlusNumbers._fields))

    def build(self, backbone: FrozenBackbone, seed: int = 0) -> "T2IPALPlus":  # type: ignore
        """The method with its start drawn from `seed`."""
        return T2IPALPlus(self, backbone, seed=seed)

    @property
    def reads_images(self) -> bool:
        """Trials of a stack must have the same images: the whitening is taken from them."""
        return True


class PlusNumbers(NamedTuple):
    """T2I-PAL's numbers and its own; each a float, or a tensor where trials are stacked."""

    residual_ratio: Any
    sharpness: Any
    image_weight: Any
    text_temperature: Any
    image_temperature: Any
    margin: Any
    scale: Any
    discriminant_weight: Any
    prompt_weight: Any
    zero_shot_weight: Any
    ridge: Any
    discriminant_lr: Any


class Parts(NamedTuple):
    """What a score is made of, before each part is brought to the same spread."""

    evidence: Float[Tensor, "images classes"]
    prompts: Float[Tensor, "images classes"]
    """s."""
    zero_shot: Float[Tensor, "images classes"]
    """z."""


@dataclass(frozen=True)
class T2IPALPlusScorer:
    """The constants that recognition needs."""

    config: T2IPALPlusConfig
    global_embeddings: Float[Tensor, "classes width"]
    local_embeddings: Float[Tensor, "classes width"]
    prototypes: Float[Tensor, "classes width"] | None
    temperature_factor: Float[Tensor, ""]
    residual_ratio: Float[Tensor, ""]
    zero_shot_embeddings: Float[Tensor, "classes width"]
    """Of fixed prompts, normalized."""
    global_weights: Float[Tensor, "classes width"]
    """w, on features as they are, like all of these."""
    pooled_weights: Float[Tensor, "classes width"]
    bias: Float[Tensor, " classes"]
    patch_weights: Float[Tensor, "classes width"] | None
    """v; None without patches."""
    patch_bias: Float[Tensor, " classes"] | None
    spreads: Float[Tensor, " parts"]
    """sd of each part: over images, mean over classes."""
    stacked: PlusNumbers | None = None
    """In place of the config's numbers, for one of several trials that are trained at once."""

    @property
    def numbers(self) -> PlusNumbers:
        """What it computes with."""
        return self.config.numbers() if self.stacked is None else self.stacked

    @property
    def device(self) -> torch.device:
        """Where the constants are."""
        return self.global_embeddings.device

    @property
    def prompted(self) -> T2IPALScorer:
        """T2I-PAL's part."""
        return T2IPALScorer(
            self.config,
            self.global_embeddings,
            self.local_embeddings,
            self.prototypes,
            self.temperature_factor,
            self.residual_ratio,
            self.stacked,  # type: ignore
        )

    def scores(self, images: FeatureSet) -> Float[Tensor, "images classes"]:
        """Predictions for images: higher is more likely; no probabilities."""
        numbers = self.numbers
        weights = numbers.discriminant_weight, numbers.prompt_weight, numbers.zero_shot_weight
        parts = zip(weights, self.parts(images), self.spreads)
        return sum(weight * part / spread for weight, part, spread in parts)  # type: ignore

    def parts(self, images: FeatureSet) -> Parts:
        """Evidence, and both scores."""
        whole, pooled = global_and_pooled(images, self.bias.dtype)
        evidence = whole @ self.global_weights.T + pooled @ self.pooled_weights.T + self.bias
        if self.patch_weights is not None:
            patches = self._patches(images.local_features)
            evidence = evidence + log_mean_exp(patches)
        zero_shot = pooled @ self.zero_shot_embeddings.T
        if len(self.config.class_names) >= FEW_CLASSES:
            zero_shot = FULL(zero_shot)
        return Parts(evidence, self.prompted.scores(images), zero_shot)

    def heatmap(
        self, local_features: Float[Tensor, "images locations width"]
    ) -> Float[Tensor, "images classes locations"]:
        """How much each location counts for its class's evidence; T2I-PAL's where that has none."""
        if self.patch_weights is None or self.config.discriminant_weight == 0:
            return self.prompted.heatmap(local_features)
        return torch.softmax(self._patches(local_features), dim=1).mT

    def _patches(
        self, local_features: Float[Tensor, "images locations width"]
    ) -> Float[Tensor, "images locations classes"]:
        assert self.patch_weights is not None and self.patch_bias is not None
        return local_features.to(self.bias.dtype) @ self.patch_weights.T + self.patch_bias

    @staticmethod
    def shapes(config: T2IPALPlusConfig) -> dict[str, tuple[str, ...]]:
        """Name -> dimensions of each stored tensor."""
        matrices = ["zero_shot_embeddings", "global_weights", "pooled_weights"]
        matrices += ["patch_weights"] if config.patches else []
        vectors = ["bias"] + (["patch_bias"] if config.patches else [])
        return {
            **T2IPALScorer.shapes(config),
            **dict.fromkeys(matrices, ("classes", "width")),
            **dict.fromkeys(vectors, ("classes",)),
            "spreads": ("parts",),
        }

    @staticmethod
    def from_tensors(config: T2IPALPlusConfig, tensors: Mapping[str, Tensor]) -> "T2IPALPlusScorer":
        """The scorer of tensors that have `shapes`."""
        absent = {"prototypes": None, "patch_weights": None, "patch_bias": None}
        return T2IPALPlusScorer(config, **{**absent, **tensors})


class T2IPALPlus(nn.Module):
    """T2I-PAL with discriminants beside it; no gradient goes from one to the other.

    Args:
        config: what to compute.
        backbone: the frozen CLIP.
        seed: of T2I-PAL's start; the discriminants start at the classes' frequencies.
    """

    _zero_shot: Tensor
    uses_images = True

    def __init__(
        self, config: T2IPALPlusConfig, backbone: FrozenBackbone, *, seed: int = 0
    ) -> None:
        super().__init__()
        self.config = config
        self.prompted = T2IPAL(config, backbone, seed=seed)
        self.uses_texts = config.image_weight < 1
        # Whatever it is given: a stack has trials with another lambda than this one.
        self.prompted.uses_images = self.prompted.uses_texts = True
        self._backbone = backbone.identity
        embeddings = averaged_templates(config.prompt_names, (PHOTO_PROMPT,), backbone)
        self.register_buffer("_zero_shot", embeddings.float(), persistent=False)
        classes, width = self._zero_shot.shape

        def start(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(*shape, device=self._zero_shot.device))

        self.weights, self.bias = start(classes, 2 * width), start(classes)
        self.patch_weights = start(classes, width) if config.patches else None
        self._whole: Whitening | None = None
        self._local: Whitening | None = None
        self._reference: tuple[FeatureTable, Sequence[Tensor]] | None = None

    def prepare(self, data: TrainingFeatures) -> None:
        """Takes the whitenings and the classes' frequencies from the images.

        Raises:
            ValueError: no images, or what T2I-PAL cannot learn from.
        """
        self.prompted.prepare(data)
        rows = torch.unique(data.image_of_caption[data.image_of_caption >= 0])
        require(
            data.images is not None and len(rows) > 1,
            f"T2I-PAL+ learns from synthetic images, got {len(rows)}. Synthesize or choose some.",
        )
        assert data.images is not None
        images, device = data.images, self._zero_shot.device
        chosen = rows[spread_evenly(len(rows), WHITENED)]
        one = images.rows(chosen[:1])
        global_and_pooled(one)  # they are there
        block = max(BLOCK_VALUES // one.local_features.numel(), 1)
        wholes = (
            torch.cat([images.column(name, part) for name in (GLOBAL, POOLED)], dim=1)
            for part in chosen.split(block)
        )
        self._whole = whitening_of(wholes, self.config.shrinkage, device)
        if self.patch_weights is not None:
            locals_ = (images.column(LOCAL, part).flatten(0, 1) for part in chosen.split(block))
            self._local = whitening_of(locals_, self.config.shrinkage, device)
        self._reference = images, rows[spread_evenly(len(rows), REFERENCE)].split(block)
        shares = images.labels[rows].float().mean(dim=0)
        least = 1 / (2 * len(rows))  # of a class that is shown by none, or by all
        with torch.no_grad():
            self.bias.copy_(torch.logit(shares.to(device), eps=least))

    def prepare_like(self, other: "T2IPALPlus") -> None:
        """As `prepare` with the images that another one was prepared with, at no cost."""
        self.prompted.prepare_like(other.prompted)
        self._whole, self._local, self._reference = other._whole, other._local, other._reference
        with torch.no_grad():
            self.bias.copy_(other.bias)

    def loss(
        self,
        images: FeatureSet | None,
        texts: FeatureSet | None,
        *,
        num_images: Any = None,
        num_texts: int | None = None,
        image_weights: Float[Tensor, " images"] | None = None,
        stacked: PlusNumbers | None = None,
    ) -> Losses:
        """T2I-PAL's loss, and the discriminants' binary cross-entropy, summed over classes.

        Its options are those of the contract; a part of a batch has its share of the ridge.
        """
        seen = images if self.config.image_weight > 0 or stacked is not None else None
        found = self.prompted.loss(
            seen, texts, num_images=num_images, num_texts=num_texts,
            image_weights=image_weights, stacked=stacked,  # type: ignore
        )  # fmt: skip
        if images is None:
            return found
        numbers = self.config.numbers() if stacked is None else stacked
        with torch.autocast(self._zero_shot.device.type, enabled=False):
            losses = self._discriminant_losses(images) + numbers.ridge / 2 * self._squares()
        mean = mean_loss(losses, image_weights, num_images).total
        return Losses(found.total + mean, found.image + mean, found.text)

    def _discriminant_losses(self, images: FeatureSet) -> Float[Tensor, " images"]:
        assert self._whole is not None
        whole = self._whole(torch.cat(global_and_pooled(images, self.bias.dtype), dim=1))
        logits = whole @ self.weights.T + self.bias
        if self.patch_weights is not None:
            assert self._local is not None
            patches = self._local(images.local_features.to(self.bias.dtype)) @ self.patch_weights.T
            logits = logits + log_mean_exp(patches)
        labels = images.labels.to(logits.dtype)
        return functional.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(-1)

    def _squares(self) -> Float[Tensor, ""]:
        squares = self.weights.square().sum()
        return (
            squares if self.patch_weights is None else squares + self.patch_weights.square().sum()
        )

    def parameter_groups(self, training: Any) -> list[dict[str, Any]]:
        """T2I-PAL's, and the discriminants."""
        mine = [self.weights, self.bias]
        mine += [] if self.patch_weights is None else [self.patch_weights]
        rate = self.config.discriminant_lr
        return [*self.prompted.parameter_groups(training), {"params": mine, "peak_lr": rate}]

    def scorer(self, stacked: PlusNumbers | None = None) -> T2IPALPlusScorer:
        """Current constants with their graph, the discriminants' on features as they are.

        Raises:
            RuntimeError: `prepare` was not called.
        """
        if self._whole is None or self._reference is None:
            raise RuntimeError("prepare must be called with the images before export.")
        prompted = self.prompted.scorer(stacked)  # type: ignore
        weights, bias = self._whole.folded(self.weights)
        of_whole, of_pooled = weights.chunk(2, dim=1)
        tensors = scorer_tensors(prompted) | {
            "zero_shot_embeddings": self._zero_shot,
            "global_weights": of_whole,
            "pooled_weights": of_pooled,
            "bias": self.bias + bias,
            "spreads": torch.ones(len(Parts._fields), device=bias.device),
        }
        if self.patch_weights is not None:
            assert self._local is not None
            patches = self._local.folded(self.patch_weights)
            tensors |= dict(zip(("patch_weights", "patch_bias"), patches))
        even = replace(T2IPALPlusScorer.from_tensors(self.config, tensors), stacked=stacked)
        images, blocks = self._reference
        parts = [even.parts(images.rows(rows, bias.device)) for rows in blocks]
        spreads = torch.stack(
            [torch.cat(part).std(dim=0, correction=0).mean() for part in zip(*parts)]
        )
        # Discriminants that have learned nothing yet say the same of all images.
        return replace(even, spreads=spreads.where(spreads > 0, 1.0))

    @torch.no_grad()
    def export(self) -> Recognizer:
        """The recognizer as constants; raises as `scorer`."""
        return Recognizer(detached(self.scorer()), self._backbone)


def global_and_pooled(
    images: FeatureSet, dtype: torch.dtype = torch.float32
) -> tuple[Float[Tensor, "images width"], Float[Tensor, "images width"]]:
    """Both features of the whole image.

    Raises:
        ValueError: features of before there were pooled ones.
    """
    require(
        images.pooled_features is not None,
        "T2I-PAL+ needs pooled_features; extract the features with them.",
    )
    assert images.pooled_features is not None
    return images.global_features.to(dtype), images.pooled_features.to(dtype)


def log_mean_exp(
    patches: Float[Tensor, "images locations classes"],
) -> Float[Tensor, "images classes"]:
    """log mean_j exp(patches_j): the strongest locations, the more the stronger they are."""
    return torch.logsumexp(patches, dim=1) - math.log(patches.shape[1])
