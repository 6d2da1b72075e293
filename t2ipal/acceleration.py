"""What makes a loaded pipeline faster, and what each of it does to the images.

Options, models of few steps, guidance in some steps only. Knows a diffusers pipeline by its methods
alone, and loads no torch before one is loaded: a command line's help needs none.
"""

import contextlib
import fcntl
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2ipal.config import added, one_of, require

QUANTIZATIONS = ("none", "int8")
MOST_SHAPES = 64
"""Shapes that a block is compiled for: Stable Diffusion has four, twice where guidance ends."""

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
    filled up. A minute or more when a machine's first worker starts; the others wait for what it
    leaves in TORCHINDUCTOR_CACHE_DIR (torch's own: a folder of the user's in /tmp). Shows in last
    bits."""
    fuse_qkv: bool = False
    """The projections of an attention as one product; shows in an image's last bits."""
    cache_text: bool = False
    """Compute the keys and values of the text once a batch, not in each step: the same images. They
    stay in memory for the batch, for SDXL 51 MB a guided image in half precision."""
    deep_cache: int = 1
    """Compute the UNet's deep blocks in each Nth step only and reuse them between (DeepCache, Ma et
    al., 2024); 1: in every step. Changes the images, the more the larger."""
    quantize: str = "none"
    """none, or int8: the linear layers of the UNet's transformer blocks with 8-bit weights, one
    scale an output, and 8-bit activations, one scale a token. Changes the images slightly; needs
    compile to be fast on a GPU, and is slow on a CPU."""
    decode_bf16: bool = added(False)
    """With precision fp16: decode in bfloat16, whose range suffices, where the autoencoder
    overflows in half precision (`force_upcast` in its configuration). SDXL's decodes in fp32
    otherwise."""

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

    from t2ipal.faster_unet import DeepCache, TextCache, quantize

    unet, vae = pipeline.unet, pipeline.vae
    if config.decode_bf16:
        decode_in_bf16(vae)
    if config.channels_last:
        unet.to(memory_format=torch.channels_last)
        vae.to(memory_format=torch.channels_last)
    if config.fuse_qkv:
        for part in (unet, vae):
            if hasattr(part, "fuse_qkv_projections"):  # a tiny autoencoder has no attention
                part.fuse_qkv_projections()
    if config.quantize == "int8":
        quantize(unet)
    caches: list[Any] = []
    if config.cache_text:
        caches.append(TextCache(unet))
    if config.deep_cache > 1:
        caches.append(DeepCache(unet, config.deep_cache))
    if config.compile:
        # Beyond its limit torch would go on uncompiled, and only a log would tell.
        limits = torch._dynamo.config
        limits.recompile_limit = max(limits.recompile_limit, MOST_SHAPES)
        unet.compile_repeated_blocks(dynamic=False)

    def forget() -> None:
        for cache in caches:
            cache.clear()

    return forget


def decode_in_bf16(vae: Any) -> None:
    """Makes an autoencoder decode in bfloat16, whatever precision its latents come in."""
    import torch

    decode = vae.to(torch.bfloat16).decode

    def decode_in_bf16(latents: Any, *args: Any, **settings: Any) -> Any:
        with torch.autocast(latents.device.type, enabled=False):  # a CPU's half precision
            return decode(latents.to(torch.bfloat16), *args, **settings)

    vae.decode = decode_in_bf16


@contextlib.contextmanager
def one_at_a_time(name: str) -> Iterator[None]:
    """Lets one process of a user on this machine at a time into the `with` block of that name."""
    with (Path(tempfile.gettempdir()) / f"{name}-{os.getuid()}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            # Closing alone would leave it to the children that torch may have forked to compile.
            fcntl.flock(file, fcntl.LOCK_UN)


def require_few_steps(config: Any) -> None:
    """Refuses a SynthesisConfig under which a model of PRESETS would draw what nobody can use."""
    weights = config.unet_weights and re.sub("@[^/]*", "", config.unet_weights)
    for name, preset in PRESETS.items():
        if (config.pipeline, weights) != (preset["pipeline"], preset.get("unet_weights")):
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
    """Loads what `unet_weights` names into a UNet."""
    from huggingface_hub import hf_hub_download
    from safetensors.torch import load_file

    path = unet_weights_path(name)
    if path is None:
        repository, revision, file = hub_file(name)
        path = hf_hub_download(repository, file, revision=revision)
    unet.load_state_dict(load_file(path))


def unet_weights_path(name: str) -> Path | None:
    """The file of this machine that `unet_weights` names; None where it is one of the hub.

    Raises:
        FileNotFoundError: it is neither.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if name.startswith((".", "/", "~")) or name.count("/") < 2:
        raise FileNotFoundError(
            f"unet_weights must be a file or owner/name@revision/file, got {name}."
        )
    return None


def hub_file(name: str) -> tuple[str, str | None, str]:
    """(owner/name, revision or None, file) of owner/name/file or owner/name@revision/file."""
    owner, model, file = name.split("/", 2)
    model, _, revision = model.partition("@")
    return f"{owner}/{model}", revision or None, file


def interval(num_steps: int, first: float, end: float) -> range:
    """The steps within two shares of all, one at least."""
    start = min(round(first * num_steps), num_steps - 1)
    return range(start, max(start + 1, round(end * num_steps)))


def guide_steps(
    pipeline: Any, steps: range, num_steps: int, scale: float, empty: dict[str, Any]
) -> dict[str, Any]:
    """The arguments with which a diffusers pipeline guides these steps; the others cost half.

    In each step it asks for its scale, and runs the captions alone where that is 1.

    Args:
        pipeline: that will be called.
        steps: to be guided.
        num_steps: of all; a sampler that takes some more (PNDM one) is guided in these as in the
            last.
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
        if step + 1 == steps.stop < num_steps:
            pipeline._guidance_scale = 1.0
            # The first half of each belongs to the empty caption.
            return {name: tensor.chunk(2)[1] for name, tensor in tensors.items()}
        return {}

    return {
        "guidance_scale": 1.0 if steps.start else scale,
        "callback_on_step_end": after_step,
        "callback_on_step_end_tensor_inputs": names,
    }
