"""What makes a loaded pipeline faster, put into it.

Knows a diffusers pipeline by its methods alone.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from t2ipal.diffusion.config import AccelerationConfig

MOST_SHAPES = 64
"""Shapes that a block is compiled for: Stable Diffusion has four, twice where guidance ends."""


def accelerate(pipeline: Any, config: AccelerationConfig) -> Callable[[], None]:
    """Makes a pipeline faster in place.

    Args:
        pipeline: on its device, with all hooks that change what the UNet is given.
        config: what to do.

    Returns:
        What frees the memory of the caches; to be called after each call of the pipeline.
    """
    import torch

    from t2ipal.diffusion.faster_unet import DeepCache, TextCache, quantize

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


def one_at_a_time(name: str) -> FileLock:
    """Lets one process of a user on this machine at a time into the `with` block of that name.

    Processes that torch may have forked to compile do not keep it from the next one.
    """
    return FileLock(Path(tempfile.gettempdir()) / f"{name}-{os.getuid()}.lock")
