"""The text tower on prompts that begin alike: what they share goes through it once.

A causal tower's output at a position depends on the positions before it alone. So the start token
and a shared context are encoded once, and of every class only its few own tokens, which lie side by
side in bins and attend to the shared ones and to their own. The same numbers as `text_positions`
gives at the end tokens, for a small part of the work. Where each token lies is a `PromptLayout`,
made once: every step then has the same shapes, and asks the device nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from t2ipal.features.towers import text_positions

BIN_TOKENS = 64
"""Own tokens of a bin at most, but for what does not fit; 24 to 128 take the same time."""
KEPT_TOKENS = 1024
"""Tokens of a set whose activations are kept for the backward pass, some 0.7 GB of two sets of
CLIP's text tower. More are encoded in groups of half as many, and again in the backward pass."""
all_kept = ContextVar("all_kept", default=False)
"""Whether all activations are kept, however many: nothing is encoded again under `vmap`."""


@dataclass(frozen=True)
class PackedClasses:
    """Own tokens of some classes, side by side in bins of one size."""

    own: Int[Tensor, " slots"]
    """Which of [classes, own positions], flattened, lies in each slot; 0 where none does."""
    position: Int[Tensor, " slots"]
    """In its prompt."""
    seen: Bool[Tensor, "bins size keys"]
    """Whether a slot sees each shared token (all do), and each slot of its bin: those of its class
    up to itself. Where there is one bin, the shared tokens' own rows come before the slots'."""
    last: Int[Tensor, " classes"]
    """The slot of each class's end token."""


@dataclass(frozen=True)
class PromptLayout:
    """Where the tokens lie that prompts do not share."""

    num_shared: int
    """First positions, the same for all classes of a set."""
    groups: tuple[PackedClasses, ...]
    """Classes in their order; the activations of one group at a time are kept where there are
    several."""


def lay_out(
    end: Int[Tensor, " classes"], num_shared: int, kept_tokens: int = KEPT_TOKENS
) -> PromptLayout:
    """The layout of prompts with their end tokens at `end`, each at least `num_shared`."""
    counts = [position + 1 - num_shared for position in end.tolist()]
    longest = max(counts)
    step = _group_size(len(counts), sum(counts), kept_tokens)
    groups = [
        _pack(counts[first : first + step], first, longest, num_shared)
        for first in range(0, len(counts), step)
    ]
    return PromptLayout(
        num_shared,
        tuple(
            PackedClasses(*(part.to(end.device) for part in vars(group).values()))
            for group in groups
        ),
    )


def _group_size(classes: int, tokens: int, kept_tokens: int) -> int:
    """How many classes are encoded at once; all where their tokens may be kept."""
    num_groups = 1 if tokens <= kept_tokens else -(-2 * tokens // kept_tokens)
    return -(-classes // num_groups)


def _pack(counts: list[int], first: int, length: int, num_shared: int) -> PackedClasses:
    """Classes from number `first` on, that have `counts` own tokens of `length` with padding."""
    least = -(-sum(counts) // BIN_TOKENS)
    more = range(least, least + least // 4 + 2)
    size, bins = min((_bins(counts, number) for number in more), key=lambda b: b[0] * len(b[1]))
    num_bins = len(bins)
    own, owner = torch.zeros(num_bins, size, dtype=torch.long), torch.full((num_bins, size), -1)
    position, last = own + num_shared, torch.zeros(len(counts), dtype=torch.long)
    for at, names in enumerate(bins):
        start = 0
        for name in names:
            slots, tokens = slice(start, start + counts[name]), torch.arange(counts[name])
            own[at, slots] = (first + name) * length + tokens
            position[at, slots] = num_shared + tokens
            owner[at, slots] = name
            start += counts[name]
            last[name] = at * size + start - 1
    of_class = (owner[:, :, None] == owner[:, None, :]).tril()
    seen = torch.cat([of_class.new_ones(num_bins, size, num_shared), of_class], dim=2)
    if num_bins == 1:
        begun = seen.new_ones(1, num_shared, num_shared + size).tril()
        seen = torch.cat([begun, seen], dim=1)
    return PackedClasses(own.flatten(), position.flatten(), seen, last)


def _bins(counts: list[int], num_bins: int) -> tuple[int, list[list[int]]]:
    """The least size of so many bins, and the classes of each."""
    size = max(max(counts), -(-sum(counts) // num_bins))
    while (bins := _fill(counts, num_bins, size)) is None:
        size += 1
    return size, bins


def _fill(counts: list[int], num_bins: int, size: int) -> list[list[int]] | None:
    """The classes of each bin, the longest placed first; None where they do not fit."""
    bins: list[list[int]] = [[] for _ in range(num_bins)]
    room = [size] * num_bins
    for name in sorted(range(len(counts)), key=lambda name: -counts[name]):
        at = next((at for at in range(num_bins) if room[at] >= counts[name]), None)
        if at is None:
            return None
        bins[at].append(name)
        room[at] -= counts[name]
    return bins


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


def encode_plain(
    model: Any,
    embeddings: Float[Tensor, "*sets classes positions text"],
    end: Int[Tensor, " classes"],
    kept_tokens: int = KEPT_TOKENS,
    masks: Float[Tensor, "classes positions positions"] | None = None,
) -> Float[Tensor, "*sets classes text"]:
    """The tower's output at a position of each class, after its last norm.

    Args:
        model: open_clip's CLIP.
        embeddings: of the prompts' tokens, without positions.
        end: that position: of the end token, where the tower is causal.
        kept_tokens: of a set, padding included; see `KEPT_TOKENS`.
        masks: as in `text_positions`.
    """

    def encode(part: Tensor, ends: Tensor, mask: Tensor | None = None) -> Tensor:
        texts = part.flatten(0, -3)
        if mask is not None:
            mask = mask.repeat(len(texts) // len(ends), 1, 1)
        with _differentiable_attention():
            hidden = text_positions(model, texts, mask).view(part.shape)
        return hidden[..., torch.arange(len(ends), device=ends.device), ends, :]

    group = _group_size(len(end), len(end) * embeddings.shape[-2], kept_tokens)
    if group == len(end):
        return encode(embeddings, end, masks)
    columns = [embeddings.split(group, dim=-3), end.split(group)]
    columns += [] if masks is None else [masks.split(group)]
    parts = zip(*columns)
    return torch.cat([_again(encode, *part) for part in parts], dim=-2)


@contextmanager
def _differentiable_attention() -> Iterator[None]:
    """torch's attention has a faster way without gradients, and takes it under `vmap` wrongly."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fast and not all_kept.get())
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def joined(
    shared: Float[Tensor, "sets shared text"], own: Float[Tensor, "#sets classes own text"]
) -> Float[Tensor, "sets classes positions text"]:
    """Whole prompts, for a tower that takes no others."""
    classes, sets = own.shape[1], len(shared)
    shared = shared.unsqueeze(1).expand(-1, classes, -1, -1)
    return torch.cat([shared, own.expand(sets, -1, -1, -1)], dim=2)


def encode_shared(
    model: Any,
    shared: Float[Tensor, "sets shared text"],
    own: Float[Tensor, "#sets classes own text"],
    layout: PromptLayout,
) -> Float[Tensor, "sets classes text"]:
    """The same of prompts that begin alike, on a tower that `can_share_prefix`.

    Args:
        model: open_clip's CLIP.
        shared: embeddings of the tokens that all classes of a set begin with, without positions.
        own: of each class's tokens after those, cut behind the longest end.
        layout: of these prompts.
    """
    shared = shared + model.positional_embedding[: layout.num_shared]
    own = own.flatten(1, 2)
    if len(layout.groups) == 1:
        return _encode(model, shared, own, layout.groups[0])
    outputs = [_again(_encode, model, shared, own, group) for group in layout.groups]
    return torch.cat(outputs, dim=1)


def _again(encode: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """What `encode` gives; its activations are computed again in the backward pass."""
    return encode(*inputs) if all_kept.get() else checkpoint(encode, *inputs, use_reentrant=False)


def _encode(
    model: Any,
    shared: Float[Tensor, "sets shared text"],
    own: Float[Tensor, "#sets all_own text"],
    classes: PackedClasses,
) -> Float[Tensor, "sets classes text"]:
    packed = own.index_select(1, classes.own) + model.positional_embedding[classes.position]
    hidden = torch.cat([shared, packed.expand(len(shared), -1, -1)], dim=1)
    mask = torch.zeros_like(classes.seen, dtype=hidden.dtype)
    mask = mask.masked_fill(~classes.seen, float("-inf")).repeat(len(shared), 1, 1)
    attend = _attention_in_one_bin if len(classes.seen) == 1 else _attention
    *blocks, final = model.transformer.resblocks
    for block in blocks:
        attended = attend(block.attn, block.ln_1(hidden), mask)
        hidden = _behind_attention(block, hidden, attended)
    # Nothing but the end tokens is read behind the last block.
    last = shared.shape[1] + classes.last
    if len(classes.seen) == 1:
        attended = _attention_in_one_bin(final.attn, final.ln_1(hidden), mask, last)
    else:
        attended = _attention(final.attn, final.ln_1(hidden), mask)[:, last]
    return model.ln_final(_behind_attention(final, hidden[:, last], attended))


def _behind_attention(block: Any, hidden: Tensor, attended: Tensor) -> Tensor:
    hidden = hidden + block.ls_1(block.attn.out_proj(attended))
    return hidden + block.ls_2(block.mlp(block.ln_2(hidden)))


def _attention_in_one_bin(
    attention: nn.MultiheadAttention,
    normed: Float[Tensor, "sets tokens text"],
    mask: Float[Tensor, "sets tokens tokens"],
    rows: Int[Tensor, " rows"] | None = None,
) -> Float[Tensor, "sets rows text"]:
    """As `_attention`, where all tokens lie side by side; for some rows alone, or for all."""
    width, heads = normed.shape[-1], attention.num_heads
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    if rows is None:
        both = F.linear(normed, weight, bias).unflatten(-1, (3, heads, -1))
        query, key, value = both.permute(2, 0, 3, 1, 4).unbind()
    else:
        both = F.linear(normed, weight[width:], bias[width:]).unflatten(-1, (2, heads, -1))
        key, value = both.permute(2, 0, 3, 1, 4).unbind()
        query = F.linear(normed[:, rows], weight[:width], bias[:width])
        query, mask = query.unflatten(-1, (heads, -1)).transpose(1, 2), mask[:, rows]
    attended = _attend(query, key, value, mask.unsqueeze(1).to(query.dtype))
    return attended.transpose(1, 2).flatten(2)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """What torch's attention gives; under `vmap` on a CPU, where torch has none for it, plainly."""
    # A compiler cannot look into a context variable; what it compiles is not under `vmap`.
    if torch.compiler.is_compiling() or not all_kept.get() or query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    logits = (query * query.shape[-1] ** -0.5) @ key.mT + mask
    return torch.softmax(logits, dim=-1) @ value


def _attention(
    attention: nn.MultiheadAttention,
    normed: Float[Tensor, "sets tokens text"],
    mask: Float[Tensor, "bins_of_sets size keys"],
) -> Float[Tensor, "sets tokens text"]:
    """What every token gathers, before the output projection: the shared ones first, then bins."""
    sets, size = len(normed), mask.shape[1]
    num_shared, bins = mask.shape[2] - size, len(mask) // sets
    both = F.linear(normed, attention.in_proj_weight, attention.in_proj_bias)
    both = both.unflatten(-1, (3, attention.num_heads, -1))
    begun, own = both.split([num_shared, bins * size], dim=1)
    query, shared_key, shared_value = begun.permute(2, 0, 3, 1, 4).unbind()
    first = F.scaled_dot_product_attention(query, shared_key, shared_value, is_causal=True)
    query, key, value = own.reshape(sets * bins, size, *own.shape[2:]).permute(2, 0, 3, 1, 4)

    def behind_shared(beginning: Tensor, rest: Tensor) -> Tensor:
        return torch.cat([beginning.repeat_interleave(bins, dim=0), rest], dim=2)

    rest = _attend(
        query,
        behind_shared(shared_key, key),
        behind_shared(shared_value, value),
        mask.unsqueeze(1).to(query.dtype),
    )
    rest = rest.transpose(1, 2).reshape(sets, bins * size, -1)
    return torch.cat([first.transpose(1, 2).flatten(2), rest], dim=1)
