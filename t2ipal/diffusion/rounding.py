"""Weights that autocast rounds at every call, rounded once: half the memory, the same images."""

from pathlib import Path
from typing import Any

ROUNDED = ("unet", "text_encoder", "text_encoder_2")
"""Parts of a pipeline that autocast holds for."""


def stored_types(folder: Path) -> dict[str, Any]:
    """Half precision of those parts of a pipeline folder that are stored in one, by their names.

    A part that is loaded as it is stored lies in its file until it is rounded.
    """
    import torch
    from safetensors import safe_open

    halves = {("F16",): torch.float16, ("BF16",): torch.bfloat16}
    types = {}
    for name in ROUNDED:
        kinds = set()
        for path in (folder / name).glob("*.safetensors"):
            with safe_open(path, "pt") as weights:
                keys = weights.keys()  # it is no dict
                kinds |= {weights.get_slice(key).get_dtype() for key in keys}
        if (*kinds,) in halves:
            types[name] = halves[(*kinds,)]
    return types


def round_weights(model: Any, dtype: Any) -> None:
    """Rounds what autocast to `dtype` would round; all else becomes float32, as autocast wants it.

    The layer of the first weight is left as it is, for that weight tells the model's precision.
    """
    import torch

    first = next(model.parameters())
    for layer in model.modules():
        rounded = isinstance(layer, torch.nn.Linear | torch.nn.Conv2d) and layer.weight is not first
        kind = dtype if rounded else torch.float32
        for values in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
            if values.is_floating_point():
                values.data = values.data.to(kind, copy=True)  # no longer in the file
