"""The text tower on prompts that begin alike: what they share goes through it once.

A causal tower's output at a position depends on the positions before it alone. So the start token
and a shared context are encoded once, and of every class only its few own tokens, packed without
padding, which attend to the shared ones and to their own. The same numbers as `text_positions`
gives at the end tokens, for a small part of the work.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


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
) -> Float[Tensor, "sets classes text"]:
    """The tower's output at each class's end token, after its last norm.

    Args:
        model: open_clip's CLIP.
        embeddings: of the prompts' tokens, without positions.
        end: position of each class's end token, at least `num_shared`.
        num_shared: first positions that are the same for all classes of a set.
    """
    _, classes, length, _ = embeddings.shape
    own = torch.arange(num_shared, length, device=end.device) <= end[:, None]
    # Place of each class's own tokens among the packed ones; those of padding are never looked at.
    place = (own.flatten().cumsum(0) - 1).clamp(min=0).view(own.shape)
    packed = own.flatten().nonzero().squeeze(1)
    last = place[torch.arange(classes, device=end.device), end - num_shared]
    hidden = embeddings + model.positional_embedding[:length]
    hidden = torch.cat(
        [hidden[:, 0, :num_shared], hidden[:, :, num_shared:].flatten(1, 2)[:, packed]], dim=1
    )
    # Every own token sees the shared ones, and its class's up to itself.
    ones = torch.ones(own.shape[1], length, dtype=torch.bool, device=end.device)
    seen = ones.tril(num_shared)
    blocks = model.transformer.resblocks
    for block in blocks[:-1]:
        attended = _attention(block.attn, block.ln_1(hidden), num_shared, place, packed, seen)
        hidden = _behind_attention(block, hidden, attended)
    block = blocks[-1]
    attended = _attention_at(block.attn, block.ln_1(hidden), num_shared, place, last, seen, end)
    hidden = _behind_attention(block, hidden[:, num_shared:][:, last], attended)
    return model.ln_final(hidden)


def _behind_attention(block: Any, hidden: Tensor, attended: Tensor) -> Tensor:
    hidden = hidden + block.ls_1(block.attn.out_proj(attended))
    return hidden + block.ls_2(block.mlp(block.ln_2(hidden)))


def _attention(
    attention: nn.MultiheadAttention,
    normed: Float[Tensor, "sets tokens text"],
    num_shared: int,
    place: Int[Tensor, "classes own"],
    packed: Int[Tensor, " packed"],
    seen: Tensor,
) -> Float[Tensor, "sets tokens text"]:
    """What every token gathers, before the output projection."""
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    query, key, value = F.linear(normed, weight, bias).chunk(3, dim=-1)
    heads = attention.num_heads
    shared = [_by_head(part[:, :num_shared], heads) for part in (query, key, value)]
    first = F.scaled_dot_product_attention(*shared, is_causal=True)
    keys, values = (_of_classes(part, num_shared, place, heads) for part in (key, value))
    queries = _by_head(query[:, num_shared:][:, place], heads)
    own = F.scaled_dot_product_attention(queries, keys, values, attn_mask=seen)
    own = own.transpose(2, 3).flatten(3).flatten(1, 2)[:, packed]
    return torch.cat([first.transpose(1, 2).flatten(2), own], dim=1)


def _attention_at(
    attention: nn.MultiheadAttention,
    normed: Float[Tensor, "sets tokens text"],
    num_shared: int,
    place: Int[Tensor, "classes own"],
    last: Int[Tensor, " classes"],
    seen: Tensor,
    end: Int[Tensor, " classes"],
) -> Float[Tensor, "sets classes text"]:
    """As `_attention`, of the end tokens alone: in the last block nothing else is read."""
    width, heads = normed.shape[-1], attention.num_heads
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    query = F.linear(normed[:, num_shared:][:, last], weight[:width], bias[:width])
    key, value = F.linear(normed, weight[width:], bias[width:]).chunk(2, dim=-1)
    keys, values = (_of_classes(part, num_shared, place, heads) for part in (key, value))
    queries = _by_head(query.unsqueeze(2), heads)
    mask = seen[end - num_shared].view(len(end), 1, 1, -1)
    attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    return attended.transpose(2, 3).flatten(3).squeeze(2)


def _of_classes(
    part: Float[Tensor, "sets tokens text"],
    num_shared: int,
    place: Int[Tensor, "classes own"],
    heads: int,
) -> Float[Tensor, "sets classes heads positions head"]:
    """Keys or values as each class sees them: the shared ones, then its own."""
    shared = _by_head(part[:, :num_shared], heads).unsqueeze(1).expand(-1, len(place), -1, -1, -1)
    return torch.cat([shared, _by_head(part[:, num_shared:][:, place], heads)], dim=3)


def _by_head(
    part: Float[Tensor, "*batch tokens text"], heads: int
) -> Float[Tensor, "*batch heads tokens head"]:
    return part.unflatten(-1, (heads, -1)).transpose(-2, -3)
