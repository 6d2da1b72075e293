"""T2I-PAL: its config, how it scores images, and what it learns (paper, equations 1 to 9).

TaI-DPT, TaI and zero-shot CLIP are settings of it (`t2ipal.training.recipes`). Unusual here: the
module holds neither the backbone nor its weights, only a bound method that encodes prompts; and
training and test share one `T2IPALScorer`, once with its graph and once as constants.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from t2ipal.config import (
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Share,
    added,
    check_fields,
    require,
)
from t2ipal.features.backbone import clip_templates
from t2ipal.features.sets import FeatureSet, TrainingFeatures
from t2ipal.methods import scoring
from t2ipal.methods.contract import FrozenBackbone, Losses
from t2ipal.methods.losses import ranking_losses, require_known_labels
from t2ipal.methods.prompts import averaged_templates, prompt_tokens, with_context
from t2ipal.methods.recognizer import Recognizer, detached


@dataclass(frozen=True)
class T2IPALConfig:
    """What T2I-PAL computes for one set of classes; its limits are other methods of the paper."""

    class_names: tuple[str, ...]
    """The data set's own names, in the order of the label columns."""
    prompt_names: tuple[str, ...]
    """What goes into the prompts in their place, e.g. "tv monitor" for "tvmonitor"."""
    context_length: PositiveInt = 16
    """Learned vectors before the class name (M) where `context_init` is "normal" (TaI-DPT: 16)."""
    context_init: str = "normal"
    """"normal": N(0, 0.02) (TaI-DPT); or words such as "a photo of a", which bring their length."""
    class_specific_context: bool = False
    """One context per class instead of one for all (shared in TaI-DPT)."""
    templates: Literal["none", "imagenet"] = added("none")
    """Fixed prompts in place of learned ones: "imagenet" averages over CLIP's 80 templates for
    ImageNet, normalized before and after; the context's options then mean nothing."""
    prompt_suffix: str = "."
    """Text right after the class name (TaI-DPT and zero-shot CLIP: a period)."""
    global_feature: Literal["global", "pooled"] = "global"
    """Image feature of p: "global" (pooled without positional embedding, as in TaI-DPT) or "pooled"
    (CLIP's own output, as in zero-shot CLIP)."""
    local_scores: bool = True
    """False leaves p' and its prompts out of loss and prediction: TaI instead of TaI-DPT."""
    aggregation: Literal["weighted", "mean", "max", "learnable"] = "weighted"
    """Locations to one score (eq. 3): "weighted", its limits "mean" and "max", or "learnable" with
    a learned factor on both temperatures (eq. 8)."""
    text_temperature: PositiveFloat = 0.02
    """tau_s over the tokens of a caption (TaI-DPT)."""
    image_temperature: PositiveFloat = 0.02
    """tau_s over the locations of an image, in training and at test (TaI-DPT tests with 0.025)."""
    adapter: Literal["none", "local", "global"] = "local"
    """Where the prototypes act: "local" (the paper's), "global" (Table VII) or "none"."""
    residual: Literal["add", "mix", "learnable"] = "add"
    """p + alpha phi: "add"; (1 - alpha) p + alpha phi: "mix"; "add" with alpha learned (eq. 9):
    "learnable"."""
    residual_ratio: NonNegativeFloat = 1.0
    """alpha, weight of the prototypes' affinity; the start where learned. 0: no adapter."""
    sharpness: NonNegativeFloat = 5.5
    """beta of the affinity (Tip-Adapter's optimum)."""
    image_weight: Share = 0.6
    """lambda, share of the images' loss: 0 captions only, 1 images only (best at 0.5 to 0.8)."""
    margin: PositiveFloat = 1.0
    """m of the ranking loss (TaI-DPT)."""
    scale: PositiveFloat = 4.0
    """s, factor on every score inside the ranking loss (TaI-DPT)."""
    method: Literal["t2ipal"] = added("t2ipal")
    """Which method's config this is."""

    def __post_init__(self) -> None:
        check_fields(self)
        names = len(self.class_names), len(self.prompt_names)
        require(
            names[0] == names[1],
            f"Every class needs one prompt name, got {names[1]} for {names[0]}.",
        )
        require(names[0] >= 2, f"Ranking needs 2 classes or more, got {names[0]}.")
        require(bool(self.context_init.strip()), 'context_init must be "normal" or words, got "".')
        ratio = self.residual_ratio
        require(
            self.residual != "mix" or ratio <= 1,
            f'residual_ratio must be in 0..1 with residual "mix", got {ratio}.',
        )
        require(
            self.local_scores or self.adapter != "local",
            'adapter "local" needs local_scores; set adapter to "none" or "global".',
        )

    def numbers(self) -> "Numbers":
        """What trials of one stack may differ in."""
        return Numbers(*(getattr(self, name) for name in Numbers._fields))

    def build(self, backbone: FrozenBackbone, seed: int = 0) -> "T2IPAL":
        """The method with its start drawn from `seed`."""
        return T2IPAL(self, backbone, seed=seed)


class Numbers(NamedTuple):
    """The config's numbers that a step works with, each a float.

    Trials that are stacked into one module differ in these, and in what they have learned; there
    each is a tensor.
    """

    residual_ratio: Any
    sharpness: Any
    image_weight: Any
    text_temperature: Any
    image_temperature: Any
    margin: Any
    scale: Any


class BranchScores(NamedTuple):
    """Both scores of every class, adapter included."""

    global_scores: Float[Tensor, "batch classes"]
    """p_i."""
    local_scores: Float[Tensor, "batch classes"] | None
    """phat'_i; None for a method without local scores."""


@dataclass(frozen=True)
class T2IPALScorer:
    """The constants that recognition needs: no text encoder, no CLIP text weights."""

    config: T2IPALConfig
    global_embeddings: Float[Tensor, "classes width"]
    """G, normalized."""
    local_embeddings: Float[Tensor, "classes width"]
    """L, normalized."""
    prototypes: Float[Tensor, "classes width"] | None
    """W; None without adapter."""
    temperature_factor: Float[Tensor, ""]
    """On both temperatures; 1 unless learned (eq. 8)."""
    residual_ratio: Float[Tensor, ""]
    """alpha; the config's unless learned (eq. 9)."""
    stacked: Numbers | None = None
    """In place of the config's numbers, for one of several trials that are trained at once."""

    @property
    def numbers(self) -> Numbers:
        """What it computes with."""
        return self.config.numbers() if self.stacked is None else self.stacked

    @property
    def device(self) -> torch.device:
        """Where the constants are."""
        return self.global_embeddings.device

    def branch_scores(
        self,
        global_features: Float[Tensor, "batch width"],
        local_features: Float[Tensor, "batch locations width"],
        mask: Bool[Tensor, "batch locations"] | None,
        temperature: float | Float[Tensor, ""],
    ) -> BranchScores:
        """p and phat' of images or captions (paper, eq. 2 to 6)."""
        config, prototypes, sharpness = self.config, self.prototypes, self.numbers.sharpness
        global_features = global_features.to(self.global_embeddings.dtype)
        global_scores = global_features @ self.global_embeddings.T
        if prototypes is not None and config.adapter == "global":
            whole = global_features.new_ones(len(global_features), len(prototypes), 1)
            affinities = scoring.attended_affinity(
                whole, global_features.unsqueeze(1), prototypes, sharpness
            )
            global_scores = scoring.residual(
                global_scores, affinities, self.residual_ratio, config.residual
            )
        if not config.local_scores:
            return BranchScores(global_scores, None)
        local_features = local_features.to(self.local_embeddings.dtype)
        similarities = scoring.local_similarities(local_features, self.local_embeddings)
        heatmap = scoring.class_wise_heatmap(
            similarities, mask, temperature * self.temperature_factor, config.aggregation
        )
        local_scores = scoring.aggregate(similarities, heatmap)
        if prototypes is not None and config.adapter == "local":
            affinities = scoring.attended_affinity(heatmap, local_features, prototypes, sharpness)
            local_scores = scoring.residual(
                local_scores, affinities, self.residual_ratio, config.residual
            )
        return BranchScores(global_scores, local_scores)

    def scores(self, images: FeatureSet) -> Float[Tensor, "images classes"]:
        """Predictions for images: (p + phat') / 2, higher is more likely; no probabilities."""
        branch = self.branch_scores(
            image_globals(images, self.config),
            images.local_features,
            None,
            self.numbers.image_temperature,
        )
        if branch.local_scores is None:
            return branch.global_scores
        return (branch.global_scores + branch.local_scores) / 2

    def heatmap(
        self, local_features: Float[Tensor, "batch locations width"]
    ) -> Float[Tensor, "batch classes locations"]:
        """A_ij of images: how much each location counts for each class; sums to 1 (eq. 4)."""
        local_features = local_features.to(self.local_embeddings.dtype)
        return scoring.class_wise_heatmap(
            scoring.local_similarities(local_features, self.local_embeddings),
            None,
            self.numbers.image_temperature * self.temperature_factor,
            self.config.aggregation,
        )

    @staticmethod
    def shapes(config: T2IPALConfig) -> dict[str, tuple[str, ...]]:
        """Name -> dimensions of each stored tensor."""
        matrices = ["global_embeddings", "local_embeddings"]
        matrices += [] if config.adapter == "none" else ["prototypes"]
        scalars = "temperature_factor", "residual_ratio"
        return {
            **dict.fromkeys(matrices, ("classes", "width")),
            **dict.fromkeys(scalars, ()),
        }

    @staticmethod
    def from_tensors(config: T2IPALConfig, tensors: Mapping[str, Tensor]) -> "T2IPALScorer":
        """The scorer of tensors that have `shapes`."""
        return T2IPALScorer(config, **{"prototypes": None, **tensors})


class T2IPAL(nn.Module):
    """Learnable context, and prototypes shared by captions and images, before a frozen CLIP.

    Args:
        config: what to compute.
        backbone: the frozen CLIP; it is called for the prompts, and is no part of the module.
        seed: of the context's random start.
    """

    _tokens: Tensor
    _end: Tensor
    _fixed: Tensor | None

    def __init__(self, config: T2IPALConfig, backbone: FrozenBackbone, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.uses_images, self.uses_texts = config.image_weight > 0, config.image_weight < 1
        self._backbone = backbone.identity
        # A bound method, not the backbone: its weights are neither trained nor saved with ours.
        self._encode = backbone.encode_token_embeddings
        learned, fixed = config.templates == "none", None
        if not learned:
            fixed = averaged_templates(config.prompt_names, clip_templates(), backbone)
        self.register_buffer("_fixed", fixed, persistent=False)
        normal = config.context_init == "normal"
        tokens = prompt_tokens(
            config.prompt_names,
            backbone,
            context_words=None if normal else config.context_init,
            context_length=config.context_length,
            suffix=config.prompt_suffix,
        )
        self.register_buffer("_tokens", tokens.embeddings, persistent=False)
        self.register_buffer("_end", tokens.end.to(tokens.embeddings.device), persistent=False)
        # Behind the start token the prompts go on alike, unless each class has its own context.
        num_shared = 1 + (0 if config.class_specific_context else tokens.num_context)
        self._layout = backbone.prompt_layout(self._end, num_shared)
        self._max_positives = len(config.class_names)
        start = tokens.embeddings[:, 1 : 1 + tokens.num_context]
        start = start.clone() if config.class_specific_context else start[0].clone()
        generator = torch.Generator().manual_seed(seed)
        self.global_context, self.local_context = (
            nn.Parameter(_context_start(start, normal, generator)) if is_used else None
            for is_used in (learned, learned and config.local_scores)
        )
        self.temperature_log_factor = (
            nn.Parameter(torch.zeros((), device=start.device))
            if config.aggregation == "learnable"
            else None
        )
        self.residual_ratio = (
            nn.Parameter(torch.tensor(config.residual_ratio, device=start.device))
            if config.residual == "learnable" and config.adapter != "none"
            else None
        )
        self.prototypes = None
        if config.adapter != "none":
            # A random start would give phi = exp(-beta) everywhere and next to no gradient.
            with torch.no_grad():
                global_embeddings, local_embeddings = self.class_embeddings()
            start = global_embeddings if config.adapter == "global" else local_embeddings
            self.prototypes = nn.Parameter(start.clone())

    def class_embeddings(
        self,
    ) -> tuple[Float[Tensor, "classes width"], Float[Tensor, "classes width"]]:
        """G and L: the text encoder's output for the learned prompts (paper, eq. 1).

        Without local scores L is G, so that a heatmap can still be drawn.
        """
        if self._fixed is not None:
            return self._fixed, self._fixed
        both = self.global_context, self.local_context
        contexts: list[Tensor] = [context for context in both if context is not None]
        prompts = with_context(self._tokens, torch.stack(contexts))
        embeddings = self._encode(prompts.own, self._end, prompts.shared, self._layout)
        embeddings = embeddings.to(self._tokens.dtype)
        return embeddings[0], embeddings[-1]

    def scorer(self, stacked: Numbers | None = None) -> T2IPALScorer:
        """Current class embeddings and prototypes with their graph: training and test share it."""
        numbers = self.config.numbers() if stacked is None else stacked
        global_embeddings, local_embeddings = self.class_embeddings()
        one = torch.ones((), device=self._tokens.device)
        log_factor, ratio = self.temperature_log_factor, self.residual_ratio
        return T2IPALScorer(
            self.config,
            global_embeddings,
            local_embeddings,
            self.prototypes,
            one if log_factor is None else log_factor.exp(),
            one * numbers.residual_ratio if ratio is None else ratio,
            stacked,
        )

    @torch.no_grad()
    def export(self) -> Recognizer:
        """The recognizer as constants, independent of any later step."""
        return Recognizer(detached(self.scorer()), self._backbone)

    def prepare(self, data: TrainingFeatures) -> None:
        """Checks that there are images where they have weight; keeps how many classes a row has.

        Raises:
            ValueError: no images where they have weight, or labels that are not known.
        """
        weight = self.config.image_weight
        require_known_labels(data, "T2I-PAL")
        has_images = data.images is not None and bool((data.image_of_caption >= 0).any())
        require(
            weight == 0 or has_images,
            f"image_weight {weight} needs synthetic images, got none. "
            "Synthesize or choose some, or set image_weight to 0.",
        )
        sets = [features for features in (data.texts, data.images) if features is not None]
        positives = [int(part.labels.sum(dim=1).max()) for part in sets if len(part)]
        self._max_positives = max([1, *positives])

    def prepare_like(self, other: "T2IPAL") -> None:
        """As `prepare` with the data that another one was prepared with."""
        self._max_positives = other._max_positives

    def parameter_groups(self, training: Any) -> list[dict[str, Any]]:
        """Everything learned; the prototypes are a group of their own."""
        prototypes = [] if self.prototypes is None else [self.prototypes]
        others = [p for p in self.parameters() if all(p is not known for known in prototypes)]
        groups = [
            {"params": others, "peak_lr": training.lr},
            {"params": prototypes, "peak_lr": training.prototype_lr or training.lr},
        ]
        return [group for group in groups if group["params"]]

    def loss(
        self,
        images: FeatureSet | None,
        texts: FeatureSet | None,
        *,
        num_images: int | Float[Tensor, ""] | None = None,
        num_texts: int | None = None,
        image_weights: Float[Tensor, " images"] | None = None,
        stacked: Numbers | None = None,
    ) -> Losses:
        """lambda L_image + (1 - lambda) L_text, each the ranking loss of p plus that of phat'.

        Args:
            images: images of the batch with their labels; not looked at where lambda is 0.
            texts: captions of the batch with their labels; not looked at where lambda is 1.
            num_images: divisor of the images' mean where this is one part of a larger batch.
            num_texts: the same for captions.
            image_weights: 0 for an image that another trial of the stack is given; None: all are 1.
            stacked: in place of the config's numbers.
        """
        scorer, device = self.scorer(stacked), self._tokens.device
        numbers = scorer.numbers
        weight = numbers.image_weight
        image_loss = text_loss = torch.zeros((), device=device)
        with torch.autocast(device.type, enabled=False):  # scores and loss are float32's
            if self.uses_images and images is not None:
                branch = scorer.branch_scores(
                    image_globals(images, self.config),
                    images.local_features,
                    images.mask,
                    numbers.image_temperature,
                )
                losses = self._branch_losses(branch, images.labels, numbers)
                weighted = losses if image_weights is None else losses * image_weights
                image_loss = weighted.sum() / (len(images) if num_images is None else num_images)
            if self.uses_texts and texts is not None:
                branch = scorer.branch_scores(
                    texts.global_features,
                    texts.local_features,
                    texts.mask,
                    numbers.text_temperature,
                )
                losses = self._branch_losses(branch, texts.labels, numbers)
                text_loss = losses.sum() / (len(texts) if num_texts is None else num_texts)
        return Losses(weight * image_loss + (1 - weight) * text_loss, image_loss, text_loss)

    def _branch_losses(
        self, branch: BranchScores, labels: Tensor, numbers: Numbers
    ) -> Float[Tensor, "kinds rows"]:
        scores = torch.stack([scores for scores in branch if scores is not None])
        labels = labels.to(scores.dtype)
        return ranking_losses(scores, labels, numbers.margin, numbers.scale, self._max_positives)


def _context_start(words: Tensor, normal: bool, generator: torch.Generator) -> Tensor:
    if not normal:
        return words.clone()
    return (torch.randn(words.shape, generator=generator) * 0.02).to(words.device)


def image_globals(images: FeatureSet, config: T2IPALConfig) -> Float[Tensor, "batch width"]:
    """The image feature that p is computed from."""
    if config.global_feature == "global":
        return images.global_features
    require(
        images.pooled_features is not None,
        'global_feature "pooled" needs pooled_features; extract the features with them.',
    )
    return images.pooled_features  # type: ignore
