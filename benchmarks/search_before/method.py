"""T2I-PAL at commit 8b9862c: what was learned, the loss, and the recognizer that came of it.

A copy of that day's `t2ipal/methods.py` and `recognizer.py`, without the variants that the demo's
recipe does not use. Configs and features are today's: their fields are the same.
"""

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from benchmarks.search_before import scoring
from benchmarks.search_before.scoring import TextTower, prompt_tokens, ranking_losses, with_context
from t2ipal.features.sets import FeatureSet
from t2ipal.methods.t2ipal import T2IPALConfig


class Losses(NamedTuple):
    """The total and its two terms before weighting."""

    total: Float[Tensor, ""]
    image: Float[Tensor, ""]
    text: Float[Tensor, ""]


class BranchScores(NamedTuple):
    """Both scores of every class, adapter included."""

    global_scores: Float[Tensor, "batch classes"]
    local_scores: Float[Tensor, "batch classes"]


@dataclass(frozen=True)
class Recognizer:
    """The constants that recognition needs."""

    config: T2IPALConfig
    global_embeddings: Float[Tensor, "classes width"]
    local_embeddings: Float[Tensor, "classes width"]
    prototypes: Float[Tensor, "classes width"]
    temperature_factor: Float[Tensor, ""]
    residual_ratio: Float[Tensor, ""]

    def branch_scores(
        self,
        global_features: Float[Tensor, "batch width"],
        local_features: Float[Tensor, "batch locations width"],
        mask: Bool[Tensor, "batch locations"] | None,
        temperature: float,
    ) -> BranchScores:
        """p and phat' of images or captions (paper, eq. 2 to 6)."""
        global_features = global_features.to(self.global_embeddings.dtype)
        global_scores = global_features @ self.global_embeddings.T
        local_features = local_features.to(self.local_embeddings.dtype)
        similarities = scoring.local_similarities(local_features, self.local_embeddings)
        heatmap = scoring.class_wise_heatmap(
            similarities, mask, temperature * self.temperature_factor
        )
        local_scores = scoring.aggregate(similarities, heatmap)
        attended = scoring.attend(heatmap, local_features)
        affinities = scoring.affinity(attended, self.prototypes, self.config.sharpness)
        return BranchScores(global_scores, local_scores + self.residual_ratio * affinities)

    def predict(self, images: FeatureSet) -> Float[Tensor, "images classes"]:
        """(p + phat') / 2 of images."""
        branch = self.branch_scores(
            images.global_features, images.local_features, None, self.config.image_temperature
        )
        return (branch.global_scores + branch.local_scores) / 2


class T2IPAL(nn.Module):
    """Learnable context, and prototypes shared by captions and images, before a frozen CLIP."""

    _tokens: Tensor
    _end: Tensor

    def __init__(self, config: T2IPALConfig, backbone: TextTower, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self._encode = backbone.encode_token_embeddings
        tokens = prompt_tokens(
            config.prompt_names, backbone, config.context_length, config.prompt_suffix
        )
        self.register_buffer("_tokens", tokens.embeddings, persistent=False)
        self.register_buffer("_end", tokens.end.to(tokens.embeddings.device), persistent=False)
        start = tokens.embeddings[0, 1 : 1 + tokens.num_context].clone()
        generator = torch.Generator().manual_seed(seed)
        self.global_context = nn.Parameter(_context_start(start, generator))
        self.local_context = nn.Parameter(_context_start(start, generator))
        with torch.no_grad():
            _, local_embeddings = self.class_embeddings()
        self.prototypes = nn.Parameter(local_embeddings.clone())

    def class_embeddings(
        self,
    ) -> tuple[Float[Tensor, "classes width"], Float[Tensor, "classes width"]]:
        """G and L: the text encoder's output for the learned prompts (paper, eq. 1)."""
        prompts = with_context(self._tokens, self.global_context)
        prompts = torch.cat([prompts, with_context(self._tokens, self.local_context)])
        embeddings = self._encode(prompts, torch.cat([self._end, self._end]))
        first, second = embeddings.to(self._tokens.dtype).chunk(2)
        return first, second

    def recognizer(self) -> Recognizer:
        """Current class embeddings and prototypes with their graph."""
        global_embeddings, local_embeddings = self.class_embeddings()
        one = torch.ones((), device=self._tokens.device)
        return Recognizer(
            self.config,
            global_embeddings,
            local_embeddings,
            self.prototypes,
            one,
            one * self.config.residual_ratio,
        )

    @torch.no_grad()
    def export(self) -> Recognizer:
        """The recognizer as constants."""
        live = self.recognizer()
        copies = {
            field.name: getattr(live, field.name).clone()
            for field in fields(live)
            if isinstance(getattr(live, field.name), Tensor)
        }
        return replace(live, **copies)

    def loss(
        self, images: FeatureSet, texts: FeatureSet, *, num_images: int, num_texts: int
    ) -> Losses:
        """lambda L_image + (1 - lambda) L_text, each the ranking loss of p plus that of phat'."""
        recognizer, weight = self.recognizer(), self.config.image_weight
        branch = recognizer.branch_scores(
            images.global_features,
            images.local_features,
            images.mask,
            self.config.image_temperature,
        )
        image_loss = self._branch_loss(branch, images.labels, num_images)
        branch = recognizer.branch_scores(
            texts.global_features,
            texts.local_features,
            texts.mask,
            self.config.text_temperature,
        )
        text_loss = self._branch_loss(branch, texts.labels, num_texts)
        return Losses(weight * image_loss + (1 - weight) * text_loss, image_loss, text_loss)

    def _branch_loss(self, branch: BranchScores, labels: Tensor, count: int) -> Tensor:
        labels = labels.to(branch.global_scores.dtype)
        losses = [
            ranking_losses(scores, labels, self.config.margin, self.config.scale).sum()
            for scores in branch
        ]
        return torch.stack(losses).sum() / count


def _context_start(words: Tensor, generator: torch.Generator) -> Tensor:
    return (torch.randn(words.shape, generator=generator) * 0.02).to(words.device)
