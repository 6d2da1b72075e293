"""T2I-PAL as one module; TaI-DPT, TaI and zero-shot CLIP are settings of it (`t2ipal.recipes`).

Owns what is learned and the loss; does not know how batches come about or who steps the optimizer.
"""

import dataclasses
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from t2ipal.features import FeatureSet
from t2ipal.losses import ranking_losses
from t2ipal.prompts import PromptEncoder, prompt_tokens, with_context
from t2ipal.recognizer import BranchScores, MethodConfig, Recognizer, image_globals


class Losses(NamedTuple):
    """The total and its two terms before weighting."""

    total: Float[Tensor, ""]
    image: Float[Tensor, ""]
    text: Float[Tensor, ""]


class T2IPAL(nn.Module):
    """Learnable context, and prototypes shared by captions and images, before a frozen CLIP.

    Args:
        config: what to compute.
        backbone: the frozen CLIP; it is called for the prompts, and is no part of the module.
        seed: of the context's random start.
    """

    _tokens: Tensor
    _end: Tensor

    def __init__(self, config: MethodConfig, backbone: PromptEncoder, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        # A bound method, not the backbone: its weights are neither trained nor saved with ours.
        self._encode = backbone.encode_token_embeddings
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
        start = tokens.embeddings[:, 1 : 1 + tokens.num_context]
        start = start.clone() if config.class_specific_context else start[0].clone()
        generator = torch.Generator().manual_seed(seed)
        self.global_context = nn.Parameter(_context_start(start, normal, generator))
        self.local_context = (
            nn.Parameter(_context_start(start, normal, generator)) if config.local_scores else None
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
        prompts = with_context(self._tokens, self.global_context)
        if self.local_context is None:
            embeddings = self._encode(prompts, self._end).to(self._tokens.dtype)
            return embeddings, embeddings
        prompts = torch.cat([prompts, with_context(self._tokens, self.local_context)])
        embeddings = self._encode(prompts, torch.cat([self._end, self._end]))
        first, second = embeddings.to(self._tokens.dtype).chunk(2)
        return first, second

    def recognizer(self) -> Recognizer:
        """Current class embeddings and prototypes with their graph: training and test share it."""
        global_embeddings, local_embeddings = self.class_embeddings()
        one = torch.ones((), device=self._tokens.device)
        log_factor, ratio = self.temperature_log_factor, self.residual_ratio
        return Recognizer(
            self.config,
            global_embeddings,
            local_embeddings,
            self.prototypes,
            one if log_factor is None else log_factor.exp(),
            one * self.config.residual_ratio if ratio is None else ratio,
        )

    @torch.no_grad()
    def export(self) -> Recognizer:
        """The recognizer as constants, independent of any later step."""
        live = self.recognizer()
        copies = {
            field.name: getattr(live, field.name).clone()
            for field in dataclasses.fields(live)
            if isinstance(getattr(live, field.name), Tensor)
        }
        return dataclasses.replace(live, **copies)

    def loss(
        self,
        images: FeatureSet | None,
        texts: FeatureSet | None,
        *,
        num_images: int | None = None,
        num_texts: int | None = None,
    ) -> Losses:
        """lambda L_image + (1 - lambda) L_text, each the ranking loss of p plus that of phat'.

        Args:
            images: images of the batch with their labels; not looked at where lambda is 0.
            texts: captions of the batch with their labels; not looked at where lambda is 1.
            num_images: divisor of the images' mean where this is one part of a larger batch.
            num_texts: the same for captions.
        """
        recognizer, weight = self.recognizer(), self.config.image_weight
        zero = torch.zeros((), device=self._tokens.device)
        image_loss = text_loss = zero
        if weight > 0 and images is not None:
            branch = recognizer.branch_scores(
                image_globals(images, self.config),
                images.local_features,
                images.mask,
                self.config.image_temperature,
            )
            image_loss = self._branch_loss(branch, images.labels, num_images)
        if weight < 1 and texts is not None:
            branch = recognizer.branch_scores(
                texts.global_features,
                texts.local_features,
                texts.mask,
                self.config.text_temperature,
            )
            text_loss = self._branch_loss(branch, texts.labels, num_texts)
        return Losses(weight * image_loss + (1 - weight) * text_loss, image_loss, text_loss)

    def _branch_loss(self, branch: BranchScores, labels: Tensor, count: int | None) -> Tensor:
        labels = labels.to(branch.global_scores.dtype)
        losses = [
            ranking_losses(scores, labels, self.config.margin, self.config.scale).sum()
            for scores in branch
            if scores is not None
        ]
        return torch.stack(losses).sum() / (len(labels) if count is None else count)


def _context_start(words: Tensor, normal: bool, generator: torch.Generator) -> Tensor:
    if not normal:
        return words.clone()
    return (torch.randn(words.shape, generator=generator) * 0.02).to(words.device)
