"""What a trial computed at commit 8b9862c: prompts, the text tower, scores, the ranking loss.

A copy of that day's `t2ipal/prompts.py`, `scoring.py`, `losses.py` and of what `features.py` reads
of the text tower, without messages and without what the demo's recipe does not use. Every prompt
goes through the tower whole, and every pair of classes is ranked.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional


class TextTower:
    """A frozen CLIP, read as prompts were encoded then.

    Args:
        backbone: a `t2ipal.features.backbone.Backbone`, which is loaded as it was then.
    """

    def __init__(self, backbone: Any) -> None:
        self.model = backbone.model
        self.tokenize, self.embed_tokens = backbone.tokenize, backbone.embed_tokens

    def encode_token_embeddings(
        self, embeddings: Float[Tensor, "classes positions text"], end: Int[Tensor, " classes"]
    ) -> Float[Tensor, "classes width"]:
        """Class embeddings of prompts given as token embeddings, read at their end token."""
        positions = text_positions(self.model, embeddings)
        hidden = positions[torch.arange(len(end), device=end.device), end]
        projected = hidden @ self.model.text_projection
        return functional.normalize(projected.float(), dim=-1)


def text_positions(
    model: Any, embeddings: Float[Tensor, "batch positions text"]
) -> Float[Tensor, "batch positions text"]:
    """The text tower's output at every position, after its last norm; any length up to 77."""
    length = embeddings.shape[1]
    hidden = embeddings + model.positional_embedding[:length]
    hidden = model.transformer(hidden, attn_mask=model.attn_mask[:length, :length])
    return model.ln_final(hidden)


@dataclass(frozen=True)
class PromptTokens:
    """Frozen token embeddings of `start, context, class name, end` for every class."""

    embeddings: Float[Tensor, "classes tokens text_width"]
    end: Int[Tensor, " classes"]
    num_context: int


def prompt_tokens(
    prompt_names: tuple[str, ...], encoder: TextTower, context_length: int, suffix: str
) -> PromptTokens:
    """Token embeddings of the prompts, class name last (paper, eq. 1)."""
    words = " ".join(["x"] * context_length)
    num_context = int(encoder.tokenize([words]).argmax(dim=-1)) - 1
    tokens = encoder.tokenize([f"{words} {name}{suffix}" for name in prompt_names])
    end = tokens.argmax(dim=-1)
    tokens = tokens[:, : int(end.max()) + 1]
    with torch.no_grad():
        embeddings = encoder.embed_tokens(tokens).detach().float()
    return PromptTokens(embeddings, end, num_context)


def with_context(
    tokens: Float[Tensor, "classes tokens text_width"], context: Float[Tensor, "context text_width"]
) -> Float[Tensor, "classes tokens text_width"]:
    """The prompts with `context` after the start token (paper, eq. 1)."""
    context = context.expand(len(tokens), *context.shape[-2:])
    rest = tokens[:, 1 + context.shape[1] :]
    return torch.cat([tokens[:, :1], context, rest], dim=1)


def local_similarities(
    local_features: Float[Tensor, "batch locations width"],
    local_embeddings: Float[Tensor, "classes width"],
) -> Float[Tensor, "batch classes locations"]:
    """P_ij = <z_j, L_i>, the cosine of every location with every class (paper, eq. 2)."""
    return torch.einsum("bnd,cd->bcn", local_features, local_embeddings)


def class_wise_heatmap(
    similarities: Float[Tensor, "batch classes locations"],
    mask: Bool[Tensor, "batch locations"] | None,
    temperature: Float[Tensor, ""],
) -> Float[Tensor, "batch classes locations"]:
    """softmax_j(P_ij / temperature); locations outside `mask` get 0 (paper, eq. 4)."""
    counts = None if mask is None else mask.unsqueeze(1).expand_as(similarities)
    logits = similarities / temperature
    if counts is not None:
        logits = logits.masked_fill(~counts, float("-inf"))
    return torch.softmax(logits, dim=-1)


def aggregate(
    similarities: Float[Tensor, "batch classes locations"],
    heatmap: Float[Tensor, "batch classes locations"],
) -> Float[Tensor, "batch classes"]:
    """p'_i = sum_j A_ij P_ij, the local score before the adapter (paper, eq. 3)."""
    return (heatmap * similarities).sum(dim=-1)


def attend(
    heatmap: Float[Tensor, "batch classes locations"],
    local_features: Float[Tensor, "batch locations width"],
) -> Float[Tensor, "batch classes width"]:
    """zhat_i = sum_j A_ij z_j, not normalized (paper, eq. 4)."""
    return torch.einsum("bcn,bnd->bcd", heatmap, local_features)


def affinity(
    attended: Float[Tensor, "batch classes width"],
    prototypes: Float[Tensor, "classes width"],
    sharpness: float,
) -> Float[Tensor, "batch classes"]:
    """phi_i = exp(-beta (1 - <zhat_i, W_i>)), both normalized (paper, eq. 5)."""
    attended = functional.normalize(attended, dim=-1)
    cosine = torch.einsum("bcd,cd->bc", attended, functional.normalize(prototypes, dim=-1))
    return torch.exp(-sharpness * (1 - cosine))


def ranking_losses(
    scores: Float[Tensor, "batch classes"],
    labels: Float[Tensor, "batch classes"],
    margin: float,
    scale: float,
) -> Float[Tensor, " batch"]:
    """Sum over positive i, negative j of max(0, m - s p_i + s p_j), one per row (paper, eq. 7)."""
    scaled = scale * scores
    hinge = torch.relu(margin - scaled.unsqueeze(2) + scaled.unsqueeze(1))
    return torch.einsum("bij,bi,bj->b", hinge, labels, 1 - labels)
