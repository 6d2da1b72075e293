"""What makes a loaded pipeline faster, and what each of it does to the images.

Works on the modules of a diffusers pipeline by their own methods and hooks. Knows nothing of
captions, and loads no torch before it is used.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from t2ipal.config import one_of, require

QUANTIZATIONS = ("none", "int8")
CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
SHAPES = 64
"""Shapes that one block may be compiled for: of SD's four levels, guided and not, both counted."""

MOST_STEPS = 8
"""Of a few-step model: the most that the cards of those below speak of."""
TURBO = {"num_inference_steps": 1, "guidance_scale": 1.0, "scheduler": "default"}
PRESETS: dict[str, dict[str, Any]] = {
    "sd-turbo": {"pipeline": "stabilityai/sd-turbo", **TURBO},
    "sdxl-turbo": {"pipeline": "stabilityai/sdxl-turbo", **TURBO, "image_size_px": 512},
    "sdxl-lightning": {
        "pipeline": "stabilityai/stable-diffusion-xl-base-1.0",
        "unet_weights": "ByteDance/SDXL-Lightning/sdxl_lightning_4step_unet.safetensors",
        "num_inference_steps": 4,
        "guidance_scale": 1.0,
        "scheduler": "euler",
        "timestep_spacing": "trailing",
    },
    "lcm": {
        "pipeline": "SimianLuo/LCM_Dreamshaper_v7",
        "num_inference_steps": 4,
        "guidance_scale": 8.0,
        "scheduler": "default",
    },
}
"""What each model of few steps needs of SynthesisConfig's fields, after its card."""


@dataclass(frozen=True)
class AccelerationConfig:
    """What makes images faster. README.md says what each option does to them and when it helps."""

    channels_last: bool = False
    """Convolutions in the memory order that tensor cores read; shows in an image's last bits."""
    compile: bool = False
    """torch.compile of the UNet's transformer blocks, for whole batches: a short last batch is
    filled up. A minute or more at the start of the first worker of a machine; the others find its
    results in TORCHINDUCTOR_CACHE_DIR. Shows in an image's last bits."""
    fuse_qkv: bool = False
    """The projections of an attention as one product; shows in an image's last bits."""
    cache_text: bool = False
    """Compute the keys and values of the text once a batch, not in each step: the same images. They
    stay in memory for the batch, for SDXL 28 MB a guided image in half precision."""
    deep_cache: int = 1
    """Compute the UNet's deep blocks in each Nth step only and reuse them between (DeepCache, Ma et
    al., 2024); 1: in every step. Changes the images, the more the larger."""
    quantize: str = "none"
    """none, or int8: the linear layers of the UNet's transformer blocks with 8-bit weights, one
    scale an output, and 8-bit activations, one scale a token. Changes the images slightly."""

    def __post_init__(self) -> None:
        require(self.deep_cache > 0, f"deep_cache must be > 0, got {self.deep_cache}.")
        one_of("quantize", self.quantize, QUANTIZATIONS)


def accelerate(pipeline: Any, config: AccelerationConfig) -> Callable[[], None]:
    """Makes a pipeline faster in place.

    Args:
        pipeline: on its device, with all hooks that change what the UNet is given.
        config: what to do.

    Returns:
        What frees the memory of the caches; to be called after each call of the pipeline.
    """
    import torch

    unet, vae = pipeline.unet, pipeline.vae
    if config.channels_last:
        unet.to(memory_format=torch.channels_last)
        vae.to(memory_format=torch.channels_last)
    if config.fuse_qkv:
        for part in (unet, vae):
            if hasattr(part, "fuse_qkv_projections"):  # a tiny autoencoder has no attention
                part.fuse_qkv_projections()
    if config.quantize == "int8":
        for block in transformer_blocks(unet):
            for linear in [part for part in block.modules() if isinstance(part, torch.nn.Linear)]:
                _quantize(linear)
    caches: list[Any] = []
    if config.cache_text:
        caches.append(TextCache(unet))
    if config.deep_cache > 1:
        caches.append(DeepCache(unet, config.deep_cache))
    if config.compile:
        compile_blocks(unet)

    def forget() -> None:
        for cache in caches:
            cache.clear()

    return forget


def transformer_blocks(unet: Any) -> list[Any]:
    """The blocks that diffusers says repeat; for Stable Diffusion those with the attentions."""
    names = unet._repeated_blocks
    return [block for block in unet.modules() if type(block).__name__ in names]


def compile_blocks(unet: Any) -> None:
    """Compiles each transformer block at its first call, once for each shape."""
    import torch

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    os.environ.setdefault(CACHE_VARIABLE, str(cache / "t2ipal" / "torchinductor"))
    # Beyond its limit torch would go on uncompiled, and only a log would tell.
    settings = torch._dynamo.config
    settings.recompile_limit = max(settings.recompile_limit, SHAPES)
    unet.compile_repeated_blocks(dynamic=False)


def require_few_steps(config: Any) -> None:
    """Refuses a SynthesisConfig under which a model of PRESETS would draw what nobody can use."""
    for name, preset in PRESETS.items():
        if any(getattr(config, part) != preset.get(part) for part in ("pipeline", "unet_weights")):
            continue
        steps, scale = config.num_inference_steps, config.guidance_scale
        advice = f"with {preset.get('unet_weights', config.pipeline)}, got"
        require(
            steps <= MOST_STEPS,
            f"num_inference_steps must be <= {MOST_STEPS} {advice} {steps}. Take --preset {name}.",
        )
        require(
            scale <= 1 or preset["guidance_scale"] > 1,
            f"guidance_scale must be <= 1 {advice} {scale}. Take --preset {name}.",
        )


def load_unet_weights(unet: Any, name: str) -> None:
    """Loads a safetensors file, by its path or as owner/name/file of the hub, into a UNet."""
    from huggingface_hub import hf_hub_download
    from safetensors.torch import load_file

    path, parts = Path(name).expanduser(), name.split("/", 2)
    if not path.is_file():
        if name.startswith((".", "/", "~")) or len(parts) < 3:
            raise FileNotFoundError(f"unet_weights must be a file or owner/name/file, got {name}.")
        path = hf_hub_download(f"{parts[0]}/{parts[1]}", parts[2])
    unet.load_state_dict(load_file(path))


def interval(num_steps: int, first: float, end: float) -> range:
    """The steps within two shares of all, one at least."""
    start = min(round(first * num_steps), num_steps - 1)
    return range(start, max(start + 1, round(end * num_steps)))


def guide_steps(pipeline: Any, steps: range, scale: float, empty: dict[str, Any]) -> dict[str, Any]:
    """The arguments with which a diffusers pipeline guides these steps; the others cost half.

    In each step it asks for its scale, and runs the captions alone where that is 1.

    Args:
        pipeline: that will be called.
        steps: to be guided.
        scale: of guidance.
        empty: the empty caption's states and, for SDXL, its pooled ones, when it is called.
    """
    import torch

    # The loop's own tensors; the last two are SDXL's, whose image sizes are the same for both.
    names = ["prompt_embeds", "add_text_embeds", "add_time_ids"]
    names = [name for name in names if name in pipeline._callback_tensor_inputs]

    def after_step(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> Any:
        others = dict(zip(names, empty.values()))  # known since the captions were encoded
        if step + 1 == steps.start:
            pipeline._guidance_scale = scale
            return {
                name: torch.cat([others.get(name, tensor).expand_as(tensor), tensor])
                for name, tensor in tensors.items()
            }
        if step + 1 == steps.stop:
            pipeline._guidance_scale = 1.0
            # The first half of each belongs to the empty caption.
            return {name: tensor.chunk(2)[1] for name, tensor in tensors.items()}
        return {}

    return {
        "guidance_scale": 1.0 if steps.start else scale,
        "callback_on_step_end": after_step,
        "callback_on_step_end_tensor_inputs": names,
    }


class TextCache:
    """Keys and values of the text, computed when the text changes and not in every step."""

    def __init__(self, unet: Any):
        """Hooks into the UNet behind the hooks that it has."""
        self._linears = []
        for part in unet.modules():
            # An attention that normalizes the text first gives its projections another input.
            if getattr(part, "is_cross_attention", False) and not part.norm_cross:
                names = ["to_kv"] if hasattr(part, "to_kv") else ["to_k", "to_v"]
                self._linears += [getattr(part, name) for name in names]
        self._computed = [linear.forward for linear in self._linears]
        for linear in self._linears:
            # Plain attributes, since a compiled block may neither see nor ask for anything else.
            linear.forward = partial(_remembered, linear)
        self.clear()
        unet.register_forward_pre_hook(self._compute, with_kwargs=True)

    def clear(self) -> None:
        """Frees the keys and values."""
        self._states = None
        for linear in self._linears:
            linear.remembered = None

    def _compute(self, unet: Any, args: Any, kwargs: dict[str, Any]) -> None:
        states = kwargs["encoder_hidden_states"]
        if states is self._states:  # held, so that no other tensor can take its identity
            return
        self._states = states
        for linear, compute in zip(self._linears, self._computed):
            linear.remembered = compute(states)


def _remembered(linear: Any, states: Any) -> Any:
    return linear.remembered


class DeepCache:
    """All blocks of a UNet but the outermost, computed in each Nth step (Ma et al., 2024, eq. 4).

    Another width of the batch, as where guidance begins or ends, is computed anew.
    """

    def __init__(self, unet: Any, interval: int):
        """Replaces the forward of the deep blocks."""
        self.interval = interval
        deep = [*unet.down_blocks[1:], unet.mid_block, *unet.up_blocks[:-1]]
        require(len(unet.down_blocks) > 1, "deep_cache needs a UNet of two levels or more, got 1.")
        for block in deep:
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


def _quantize(linear: Any) -> None:
    """Replaces the weight of a linear layer by its nearest 8-bit numbers and a scale an output."""
    import torch

    weight = linear.weight.detach().float()
    scale = weight.abs().amax(dim=1).clamp(min=1e-12) / 127
    numbers = (weight / scale[:, None]).round().to(torch.int8)
    linear.weight = torch.nn.Parameter(numbers, requires_grad=False)
    linear.register_buffer("weight_scale", scale)
    linear.forward = partial(_int8_linear, linear)


def _int8_linear(linear: Any, inputs: Any) -> Any:
    """Rounds each token to 8 bits by its largest value, multiplies integers, scales back."""
    import torch

    tokens = inputs.flatten(0, -2).float()
    scale = tokens.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
    numbers = (tokens / scale).round().to(torch.int8)
    product = torch._int_mm(numbers, linear.weight.t()) * scale * linear.weight_scale
    if linear.bias is not None:
        product = product + linear.bias
    return product.to(inputs.dtype).unflatten(0, inputs.shape[:-1])
