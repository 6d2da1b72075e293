"""Where features are read off a CLIP's towers, as functions of its modules.

The visual towers are open_clip's ModifiedResNet and VisionTransformer, and timm's ViTs; no weights
are loaded here.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def resize_and_crop(height: int, width: int, side: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Size of an image whose shorter side is `side`, and top and left of its center crop.

    Rounded as torchvision does it for CLIP, so that no crop is off by a pixel.
    """
    shorter = min(height, width)
    size = height * side // shorter, width * side // shorter
    return size, (round((size[0] - side) / 2), round((size[1] - side) / 2))


def text_positions(
    model: Any,
    embeddings: Float[Tensor, "batch positions text"],
    masks: Float[Tensor, "batch positions positions"] | None = None,
) -> Float[Tensor, "batch positions text"]:
    """The text tower's output at every position, after its last norm; any length that it has.

    Args:
        model: open_clip's CLIP, or what holds its text tower.
        embeddings: of tokens, without positions.
        masks: of each text, to be added to its attention; None: the tower's own, if it has one.
    """
    length = embeddings.shape[1]
    hidden = embeddings + model.positional_embedding[:length]
    if masks is not None:
        mask = masks.repeat_interleave(model.transformer.resblocks[0].attn.num_heads, dim=0)
    else:
        mask = None if model.attn_mask is None else model.attn_mask[:length, :length]
    hidden = model.transformer(hidden, attn_mask=mask)
    return model.ln_final(hidden)


def resnet_locations(visual: Any, pixels: Tensor) -> Float[Tensor, "batch locations channels"]:
    """The last feature map, location by location."""
    grid = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(pixels)))))
    return grid.flatten(2).transpose(1, 2)


def local_projection(
    pool: Any, locations: Float[Tensor, "batch locations channels"]
) -> Float[Tensor, "batch locations width"]:
    """The attention pool's value path, without attention and without positions."""
    return pool.c_proj(pool.v_proj(locations))


def region_projection(
    pool: Any, locations: Float[Tensor, "batch locations channels"]
) -> Float[Tensor, "batch regions width"]:
    """The value path with positions, of the mean location first and then of each (DualCoOp).

    Positions are interpolated where the map is of another size than the pool's own.
    """
    first, grid = pool.positional_embedding.split([1, len(pool.positional_embedding) - 1])
    sides = math.isqrt(len(grid)), math.isqrt(locations.shape[1])
    if sides[0] != sides[1]:
        grid = grid.T.unflatten(1, (sides[0], sides[0])).unsqueeze(0)
        grid = F.interpolate(grid, (sides[1], sides[1]), mode="bilinear", align_corners=False)
        grid = grid[0].flatten(1).T
    tokens = torch.cat([locations.mean(dim=1, keepdim=True), locations], dim=1)
    return local_projection(pool, tokens + torch.cat([first, grid]))


def resnet_features(
    visual: Any, pixels: Tensor, local: Callable[[Any, Tensor], Tensor] = local_projection
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention pooling without positions, local features, CLIP's own pooling.

    `local` is `local_projection` or `region_projection`.
    """
    locations, pool = resnet_locations(visual, pixels), visual.attnpool
    tokens = torch.cat([locations.mean(dim=1, keepdim=True), locations], dim=1)
    return (
        _attention_pool(pool, tokens),
        local(pool, locations),
        _attention_pool(pool, tokens + pool.positional_embedding),
    )


def _attention_pool(pool: Any, tokens: Float[Tensor, "batch tokens channels"]) -> Tensor:
    """CLIP's attention pool for its first query alone, the only one that is read."""
    batch, length, channels = tokens.shape
    shape = (batch, length, pool.num_heads, channels // pool.num_heads)
    query = pool.q_proj(tokens[:, :1]).view(batch, 1, *shape[2:]).transpose(1, 2)
    key = pool.k_proj(tokens).view(shape).transpose(1, 2)
    value = pool.v_proj(tokens).view(shape).transpose(1, 2)
    mixed = F.scaled_dot_product_attention(query, key, value)
    return pool.c_proj(mixed.transpose(1, 2).reshape(batch, channels))


def _vit_features(
    visual: Any, pixels: Tensor, dense_features: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Class and patch tokens through ln_post and proj; optionally the last block's value path."""
    hidden = visual._embeds(pixels)
    blocks = visual.transformer.resblocks
    for block in blocks[:-1]:
        hidden = block(hidden)
    last = blocks[-1]
    output = last(hidden)
    dense = output
    if dense_features == "value":
        normed = last.ln_1(hidden)
        weight, bias = last.attn.in_proj_weight, last.attn.in_proj_bias
        width = normed.shape[-1]
        value = F.linear(normed, weight[2 * width :], bias[2 * width :])
        dense = hidden + last.ls_1(last.attn.out_proj(value))
        dense = dense + last.ls_2(last.mlp(last.ln_2(dense)))
    pooled = visual.ln_post(output[:, 0]) @ visual.proj
    return pooled, visual.ln_post(dense[:, 1:]) @ visual.proj, pooled


def pooled_vit_features(visual: Any, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The output of a ViT with an attention pool (CoCa), and its value path of each patch."""
    tokens = visual.transformer(visual._embeds(pixels))
    pooled = visual._pool(tokens)[0] @ visual.proj
    attention = visual.attn_pool.attn
    same_width = attention.in_proj_weight is not None
    weight = attention.in_proj_weight.chunk(3)[2] if same_width else attention.v_proj_weight
    value = F.linear(
        visual.attn_pool.ln_k(tokens[:, 1:]), weight, attention.in_proj_bias.chunk(3)[2]
    )
    return pooled, visual.ln_post(attention.out_proj(value)) @ visual.proj, pooled


def is_pooled_vit(visual: Any) -> bool:
    """Whether `pooled_vit_features` knows the tower."""
    has_pool = getattr(visual, "attn_pool", None) is not None
    return has_pool and visual.pool_type == "tok" and visual.attn_pool_contrastive is None


def timm_features(visual: Any, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A timm ViT's own output, and its patches as the head would see each of them alone.

    An attention pool among one token gives its value path: v, the projection, and what follows.
    """
    trunk = visual.trunk
    tokens = trunk.forward_features(pixels)
    pooled = visual.head(trunk.forward_head(tokens))
    patches = tokens[:, trunk.num_prefix_tokens :]
    if trunk.attn_pool is not None:
        pool = trunk.attn_pool
        patches = pool.proj(pool.kv(patches).chunk(2, dim=-1)[1])
        if pool.mlp is not None:
            patches = patches + pool.mlp(pool.norm(patches))
    return pooled, visual.head(trunk.head(trunk.fc_norm(patches))), pooled


def is_timm_vit(visual: Any) -> bool:
    """Whether `timm_features` knows the tower: patches, and a token or a query for the whole."""
    trunk = getattr(visual, "trunk", None)
    if not all(hasattr(trunk, name) for name in ("num_prefix_tokens", "fc_norm", "attn_pool")):
        return False
    pool: Any = trunk.attn_pool  # type: ignore[union-attr]
    if pool is None:
        return trunk.global_pool == "token"  # type: ignore[union-attr]
    return hasattr(pool, "kv") and pool.pos_embed is None and pool.latent_len == 1
