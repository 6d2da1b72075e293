"""Prompts around learnable context: which tokens they are made of, and how the context is placed.

Owns equation 1; does not know the scores that the class embeddings are for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

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

    def prompt_layout(self, end: Tensor, num_shared: int) -> Any:
        """What `encode_token_embeddings` may work out beforehand, of texts that begin alike."""
        ...

    def encode_token_embeddings(
        self, embeddings: Tensor, end: Tensor, shared: Tensor | None = None, layout: Any = None
    ) -> Tensor:
        """L2-normalized [sets, texts, width] at the `end` tokens; differentiable.

        All texts of a set begin with `shared` [sets, tokens, text width].
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


@torch.no_grad()
def averaged_templates(
    prompt_names: tuple[str, ...], templates: Sequence[str], encoder: PromptEncoder
) -> Float[Tensor, "classes width"]:
    """Class embeddings of fixed prompts: normalized, averaged over the templates, normalized."""
    total: Any = 0
    for template in templates:
        tokens = encoder.tokenize([template.format(name) for name in prompt_names])
        end = tokens.argmax(dim=-1)
        embeddings = encoder.embed_tokens(tokens[:, : int(end.max()) + 1])
        total = total + encoder.encode_token_embeddings(embeddings, end).detach()
    return torch.nn.functional.normalize(total, dim=-1)


class Prompts(NamedTuple):
    """Token embeddings of sets of prompts, those of one set with the same beginning."""

    shared: Float[Tensor, "sets shared text_width"]
    own: Float[Tensor, "#sets classes own text_width"]
    """What comes behind it; one set where it is the same in all."""


def with_context(
    tokens: Float[Tensor, "classes tokens text_width"],
    contexts: Float[Tensor, "sets context text_width"]
    | Float[Tensor, "sets classes context text_width"],
) -> Prompts:
    """The prompts with each of `contexts` after the start token (paper, eq. 1).

    Args:
        tokens: of `prompt_tokens`.
        contexts: shared by all classes, or one per class.
    """
    start = tokens[:1, :1].expand(len(contexts), -1, -1)
    rest = tokens[None, :, 1 + contexts.shape[-2] :]
    if contexts.dim() == 3:
        return Prompts(torch.cat([start, contexts], dim=1), rest)
    return Prompts(start, torch.cat([contexts, rest.expand(len(contexts), -1, -1, -1)], dim=2))
