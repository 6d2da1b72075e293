"""Prompts around learnable context: which tokens they are made of, and how the context is placed.

Owns equation 1; does not know the scores that the class embeddings are for.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from t2ipal.config import require


class PromptEncoder(Protocol):
    """What prompts need of a frozen CLIP; `t2ipal.features.backbone.Backbone` is one."""

    context_length: int

    def tokenize(self, texts: list[str]) -> Tensor:
        """Tokens [texts, context_length]; the end token has the highest number."""
        ...

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """Token embeddings [texts, tokens, text width], without positions."""
        ...

    def encode_token_embeddings(
        self, embeddings: Tensor, end: Tensor, num_shared: int = 0
    ) -> Tensor:
        """L2-normalized [..., texts, width] at the `end` tokens; differentiable in `embeddings`.

        The first `num_shared` tokens are the same in all texts, and may be encoded once.
        """
        ...


@dataclass(frozen=True)
class PromptTokens:
    """Frozen token embeddings of `start, context, class name, end` for every class."""

    embeddings: Float[Tensor, "classes tokens text_width"]
    """Cut behind the longest end token: later positions change nothing, the encoder is causal."""
    end: Int[Tensor, " classes"]
    """Position of each prompt's end token."""
    num_context: int
    """How many positions after the start token belong to the context (M)."""


def prompt_tokens(
    prompt_names: tuple[str, ...],
    encoder: PromptEncoder,
    *,
    context_words: str | None = None,
    context_length: int = 16,
    suffix: str = ".",
) -> PromptTokens:
    """Token embeddings of the prompts, class name last (paper, eq. 1).

    The context's places hold `context_words`, or `context_length` stand-ins that `with_context`
    replaces.

    Raises:
        ValueError: a prompt longer than the text encoder takes.
    """
    words = context_words or " ".join(["x"] * context_length)
    num_context = int(encoder.tokenize([words]).argmax(dim=-1)) - 1
    tokens = encoder.tokenize([f"{words} {name}{suffix}" for name in prompt_names])
    # Numbers grow in the order tokens were learned and the end token was added last.
    end = tokens.argmax(dim=-1)
    for name, position in zip(prompt_names, end.tolist()):
        require(
            num_context + 1 < position < encoder.context_length - 1,
            f"The prompt for {name!r} must fit into {encoder.context_length} tokens with its "
            f"{num_context} context vectors; shorten the name or the context.",
        )
    tokens = tokens[:, : int(end.max()) + 1]
    with torch.no_grad():
        embeddings = encoder.embed_tokens(tokens).detach().float()
    return PromptTokens(embeddings, end, num_context)


def with_context(
    tokens: Float[Tensor, "classes tokens text_width"],
    context: Float[Tensor, "context text_width"] | Float[Tensor, "classes context text_width"],
) -> Float[Tensor, "classes tokens text_width"]:
    """The prompts with `context`, shared or one per class, after the start token (paper, eq. 1)."""
    context = context.expand(len(tokens), *context.shape[-2:])
    rest = tokens[:, 1 + context.shape[1] :]
    return torch.cat([tokens[:, :1], context, rest], dim=1)
