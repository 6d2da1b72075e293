"""The text tower on prompts that begin alike: what they share goes through it once.

A causal tower's output at a position depends on the positions before it alone. So the start token
and a shared context are encoded once, and of every class only its few own tokens, packed without
padding, which attend to the shared ones and to their own. The same numbers as `text_positions`
gives at the end tokens, for a small part of the work.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

GROUP_SIZE = 200
"""Classes whose activations lie in memory at once, some 0.5 GB with CLIP's text tower."""


def can_share_prefix(model: Any) -> bool:
    """Whether the tower is one that `encode_shared` knows: CLIP's, pre-norm and causal."""
    blocks = model.transformer.resblocks
    names = {"ln_1", "attn", "ls_1", "ln_2", "mlp", "ls_2"}
    return model.attn_mask is not None and all(
        {name for name, _ in block.named_children()} == names
        and type(block.attn) is nn.MultiheadAttention
        and block.attn.in_proj_weight is not None
        and block.attn.bias_k is None
        for block in blocks
    )


def encode_shared(
    model: Any,
    embeddings: Float[Tensor, "sets classes positions text"],
    end: Int[Tensor, " classes"],
    num_shared: int,
    group_size: int = GROUP_SIZE,
) -> Float[Tensor, "sets classes text"]:
    """The tower's output at each class's end token, after its last norm.

    Args:
        model: open_clip's CLIP.
        embeddings: of the prompts' tokens, without positions.
        end: position of each class's end token, at least `num_shared`.
        num_shared: first positions that are the same for all classes of a set.
        group_size: classes whose activations are kept at once; more are encoded in groups, and once
            more in the backward pass.
    """
    if embeddings.shape[1] <= group_size:
        return _encode(model, embeddings, end, num_shared)
    prefix = embeddings[:, :1, :num_shared]
    outputs = []
    for names, ends in zip(
        embeddings[:, :, num_shared:].split(group_size, dim=1), end.split(group_size)
    ):
        whole = torch.cat([prefix.expand(-1, names.shape[1], -1, -1), names], dim=2)
        outputs.append(checkpoint(_encode, model, whole, ends, num_shared, use_reentrant=False))
    return torch.cat(outputs, dim=1)


def _encode(
    model: Any,
    embeddings: Float[Tensor, "sets classes positions text"],
    end: Int[Tensor, " classes"],
    num_shared: int,
) -> Float[Tensor, "sets classes text"]:
    _, classes, length, _ = embeddings.shape
    own = torch.arange(num_shared, length, device=end.device) <= end[:, None]
    packed = own.flatten().nonzero().squeeze(1)
    place = (own.flatten().cumsum(0) - 1).clamp(min=0).view(own.shape)
    last = place[torch.arange(classes, device=end.device), end - num_shared]
    tokens = _OwnTokens(num_shared, packed, place, last)
    hidden = embeddings + model.positional_embedding[:length]
    hidden = torch.cat([hidden[:, 0, :num_shared], tokens.pack(hidden[:, :, num_shared:])], dim=1)
    blocks = model.transformer.resblocks
    for block in blocks[:-1]:
        attended = _attention(block.attn, block.ln_1(hidden), tokens)
        hidden = _behind_attention(block, hidden, attended)
    block = blocks[-1]
    # Nothing but the end tokens is read behind the last block.
    attended = _attention(block.attn, block.ln_1(hidden), tokens)[:, num_shared:][:, last]
    hidden = _behind_attention(block, hidden[:, num_shared:][:, last], attended)
    return model.ln_final(hidden)


@dataclass(frozen=True)
class _OwnTokens:
    """Where the tokens lie that are not shared: class after class, without padding."""

    num_shared: int
    packed: Int[Tensor, " packed"]
    """Place of each in [classes, own], flattened."""
    place: Int[Tensor, "classes own"]
    """And back; what stands for padding is never looked at."""
    last: Int[Tensor, " classes"]
    """The end token of each class."""

    def pack(
        self, part: Float[Tensor, "sets classes own text"]
    ) -> Float[Tensor, "sets packed text"]:
        return part.flatten(1, 2)[:, self.packed]

    def by_class(
        self, part: Float[Tensor, "sets heads packed head"]
    ) -> Float[Tensor, "sets heads classes own head"]:
        return part[:, :, self.place]


def _behind_attention(block: Any, hidden: Tensor, attended: Tensor) -> Tensor:
    hidden = hidden + block.ls_1(block.attn.out_proj(attended))
    return hidden + block.ls_2(block.mlp(block.ln_2(hidden)))


def _attention(
    attention: nn.MultiheadAttention,
    normed: Float[Tensor, "sets tokens text"],
    tokens: _OwnTokens,
) -> Float[Tensor, "sets tokens text"]:
    """What every token gathers, before the output projection.

    An own token sees the shared ones and those of its class up to itself. Its scores with both are
    computed apart, so that the shared keys and values are not copied for each class.
    """
    heads, num_shared = attention.num_heads, tokens.num_shared
    both = F.linear(normed, attention.in_proj_weight, attention.in_proj_bias)
    query, key, value = both.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    begun, shared_key, shared_value = (part[:, :, :num_shared] for part in (query, key, value))
    first = F.scaled_dot_product_attention(begun, shared_key, shared_value, is_causal=True)
    query, key, value = (part[:, :, num_shared:] for part in (query, key, value))
    query = query * query.shape[-1] ** -0.5
    with_shared = query @ shared_key.transpose(-1, -2)
    with_own = tokens.by_class(query) @ tokens.by_class(key).transpose(-1, -2)
    length = with_own.shape[-1]
    seen = torch.ones(length, length, dtype=torch.bool, device=normed.device).tril()
    with_own = with_own.masked_fill(~seen, float("-inf")).flatten(2, 3)[:, :, tokens.packed]
    weights = torch.softmax(torch.cat([with_shared, with_own], dim=-1), dim=-1)
    to_shared, to_own = weights.split([num_shared, length], dim=-1)
    own = (
        to_shared @ shared_value
        + (tokens.by_class(to_own) @ tokens.by_class(value)).flatten(2, 3)[:, :, tokens.packed]
    )
    return torch.cat([first, own], dim=2).transpose(1, 2).flatten(2)
