"""What is put into the UNet of a loaded pipeline to make it faster: two caches, 8-bit layers.

Written so that a compiled block sees tensors of plain modules, the same code in all its places.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from t2ipal.config import require


class Remembered(nn.Module):
    """Stands in for a linear layer: gives what it gave for an input that stays the same."""

    def __init__(self, linear: nn.Module):
        super().__init__()
        self.linear, self.output = linear, None

    def forward(self, states: Tensor) -> Tensor | None:
        """The remembered output, whatever comes in."""
        return self.output


class TextCache:
    """Keys and values of the text, computed when the text changes and not in every step."""

    def __init__(self, unet: Any):
        """Hooks into the UNet, behind the hooks that it has."""
        self._layers: list[Remembered] = []
        for part in list(unet.modules()):
            # An attention that normalizes the text first gives its projections another input.
            if not getattr(part, "is_cross_attention", False) or part.norm_cross:
                continue
            for name in ("to_kv",) if hasattr(part, "to_kv") else ("to_k", "to_v"):
                setattr(part, name, Remembered(getattr(part, name)))
                self._layers.append(getattr(part, name))
        self.clear()
        unet.register_forward_pre_hook(self._compute, with_kwargs=True)

    def clear(self) -> None:
        """Frees the keys and values."""
        self._states = None
        for layer in self._layers:
            layer.output = None

    def _compute(self, unet: Any, args: Any, kwargs: dict[str, Any]) -> None:
        states = kwargs["encoder_hidden_states"]
        if states is self._states:  # held, so that no other tensor can take its identity
            return
        self._states = states
        for layer in self._layers:
            layer.output = layer.linear(states)


class DeepCache:
    """All blocks but the outermost, computed in each Nth step (DeepCache, Ma et al., 2024).

    Where the batch becomes wider or narrower, as guidance begins or ends, they are computed too.
    """

    def __init__(self, unet: Any, interval: int):
        """Replaces the forward of the deep blocks."""
        require(len(unet.down_blocks) > 1, "deep_cache needs a UNet of two levels or more, got 1.")
        self.interval = interval
        for block in (*unet.down_blocks[1:], unet.mid_block, *unet.up_blocks[:-1]):
            if block is not None:
                block.forward = partial(self._forward, block, block.forward)
        self.clear()
        unet.register_forward_pre_hook(self._advance)

    def clear(self) -> None:
        """Frees the features; the next step computes them."""
        self._features: dict[Any, Any] = {}
        self._width = self._step = 0

    def _advance(self, unet: Any, args: Any) -> None:
        width = len(args[0])
        self._step = self._step + 1 if width == self._width else 0
        self._width = width

    def _forward(self, block: Any, compute: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._step % self.interval == 0:
            self._features[block] = compute(*args, **kwargs)
        return self._features[block]


class Int8Linear(nn.Module):
    """A linear layer in 8-bit integers: one scale an output of the weight, one a token."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(dim=1).clamp(min=1e-12) / 127
        self.weight = nn.Buffer((weight / scale[:, None]).round().to(torch.int8))
        self.scale = nn.Buffer(scale)
        self.bias = linear.bias

    def forward(self, inputs: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch outputs"]:
        """Rounds each token by its largest value, multiplies integers, scales back."""
        tokens = inputs.flatten(0, -2).float()
        scale = tokens.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
        numbers = (tokens / scale).round().to(torch.int8)
        product = torch._int_mm(numbers, self.weight.t()) * scale * self.scale
        if self.bias is not None:
            product = product + self.bias
        return product.to(inputs.dtype).unflatten(0, inputs.shape[:-1])


def quantize(unet: Any) -> None:
    """Puts 8-bit layers in place of the linear ones of the transformer blocks."""
    blocks = [b for b in unet.modules() if type(b).__name__ in unet._repeated_blocks]
    for part in [part for block in blocks for part in block.modules()]:
        for name, layer in part.named_children():
            if isinstance(layer, nn.Linear):
                setattr(part, name, Int8Linear(layer))
