"""Prompts around learnable context: which tokens they are made of, and how the context is placed.

Owns equation 1; does not know the scores that the class embeddings are for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

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


def require_prompt_names(class_names: tuple[str, ...], prompt_names: tuple[str, ...]) -> None:
    """Raises ValueError unless there are classes, and each has a name for its prompt."""
    require(len(class_names) > 0, "class_names must name a class, got none.")
    require(
        len(class_names) == len(prompt_names),
        f"Every class needs one prompt name, got {len(prompt_names)} for {len(class_names)}.",
    )


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
    require(
        context_words is not None or num_context == context_length,
        f"The text encoder must take each stand-in of a context as one token, got {num_context} "
        f"tokens for {context_length}; take another backbone.",
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


class LearnedPrompts(nn.Module):
    """Sets of learned contexts before the class names, encoded by a frozen CLIP.

    Args:
        config: of a method, for its prompt_names, context_length, class_specific_context and
            prompt_suffix.
        encoder: the frozen CLIP; it is called, and is no part of the module.
        num_sets: how many contexts each class has.
        seed: of the start, N(0, 0.02).
    """

    _tokens: Tensor
    _end: Tensor

    def __init__(self, config: Any, encoder: PromptEncoder, *, num_sets: int, seed: int) -> None:
        super().__init__()
        names, length = config.prompt_names, config.context_length
        class_specific = config.class_specific_context
        # A bound method, not the backbone: its weights are neither trained nor saved with ours.
        self._encode = encoder.encode_token_embeddings
        tokens = prompt_tokens(names, encoder, context_length=length, suffix=config.prompt_suffix)
        device = tokens.embeddings.device
        self.register_buffer("_tokens", tokens.embeddings, persistent=False)
        self.register_buffer("_end", tokens.end.to(device), persistent=False)
        num_shared = 1 + (0 if class_specific else length)
        self._layout = encoder.prompt_layout(self._end, num_shared)
        classes = [len(names)] if class_specific else []
        shape = num_sets, *classes, length, tokens.embeddings.shape[-1]
        start = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.02
        self.contexts = nn.Parameter(start.to(device))

    def forward(self) -> Float[Tensor, "sets classes width"]:
        """Class embeddings of each set, normalized (paper, eq. 1)."""
        prompts = with_context(self._tokens, self.contexts)
        embeddings = self._encode(prompts.own, self._end, prompts.shared, self._layout)
        return embeddings.to(self._tokens.dtype)
