"""The world's AutoencoderKL: 64 px scenes to 8x8x32 latents and back, in diffusers' own format."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from t2ipal.features import Backbone
from t2ipal.pictovoc.pretraining import (
    PretrainConfig,
    rank_and_world,
    step_generator,
    train_steps,
)
from t2ipal.pictovoc.scenes import draw_scene
from t2ipal.torchvision_repair import repair_torchvision

LATENT_CHANNELS, LATENT_SIDE = 32, 8
ARCHITECTURE: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (16, 32, 64, 128),
    "layers_per_block": 1,
    "latent_channels": LATENT_CHANNELS,
    "norm_num_groups": 8,
    "sample_size": 64,
}


@dataclass(frozen=True)
class AutoencoderConfig:
    """How the small autoencoder is trained."""

    optim: PretrainConfig = field(
        default_factory=lambda: PretrainConfig(
            3300, 32, learning_rate=1.5e-3, warmup_steps=100, ema_decay=0.995
        )
    )
    """Steps, batch and learning rate."""
    edge_weight: float = 1.0
    """Weight of the difference of neighboring pixels' differences: keeps outlines sharp."""
    perceptual_weight: float = 0.5
    """Weight of the distance between the small CLIP's early feature maps: keeps small things."""
    kl_weight: float = 1e-4
    """Weight of the divergence from a unit normal, mean over the latent's numbers."""


def to_pixels(images: UInt8[np.ndarray, "batch side side 3"]) -> Float[Tensor, "batch 3 side side"]:
    """Stable Diffusion's range: -1 to 1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_images(pixels: Float[Tensor, "batch 3 side side"]) -> UInt8[np.ndarray, "batch side side 3"]:
    """Back from -1..1 to uint8 RGB."""
    scaled = (pixels.float().clamp(-1, 1) + 1) * 127.5
    return scaled.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def reconstruction_loss(
    output: Float[Tensor, "batch 3 side side"],
    target: Float[Tensor, "batch 3 side side"],
    edge_weight: float,
) -> Float[Tensor, ""]:
    """Mean absolute error of the pixels and, weighted, of the differences between neighbors."""
    error = output - target
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return error.abs().mean() + edge_weight * edges / 2


def perceptual_loss(
    backbone: Backbone,
    output: Float[Tensor, "batch 3 side side"],
    target: Float[Tensor, "batch 3 side side"],
) -> Float[Tensor, ""]:
    """Squared distance of the visual encoder's channel-normalised maps: stem and two stages."""
    visual, loss = backbone.model.visual, torch.zeros((), device=output.device)
    maps = visual.stem(torch.cat([output, target]))
    for stage in (visual.layer1, visual.layer2):
        ours, theirs = F.normalize(maps.float(), dim=1).chunk(2)
        loss = loss + (ours - theirs.detach()).square().sum(dim=1).mean()
        maps = stage(maps)
    ours, theirs = F.normalize(maps.float(), dim=1).chunk(2)
    return loss + (ours - theirs.detach()).square().sum(dim=1).mean()


def scene_pixels(split: str, first: int, count: int) -> Float[Tensor, "batch 3 side side"]:
    """Consecutive scenes of a split as input of the autoencoder."""
    return to_pixels(np.stack([draw_scene(split, first + k).image for k in range(count)]))


def train_autoencoder(
    config: AutoencoderConfig,
    backbone: Backbone,
    work_dir: Path,
    output_dir: Path,
    device: str = "cpu",
) -> dict[str, float]:
    """Trains the autoencoder (resuming from `work_dir`) and writes the pipeline's `vae` folder."""
    repair_torchvision()
    from diffusers import AutoencoderKL

    torch.manual_seed(config.optim.seed)
    # Contiguous memory on purpose: on a CPU the backward of GroupNorm is slow in channels_last.
    model: Any = AutoencoderKL(**ARCHITECTURE)
    model.to(device)
    size = config.optim.batch_size

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        generator = step_generator(config.optim, step)
        rank, world = rank_and_world()
        share = size // world
        pixels = scene_pixels("train", step * size + rank * share, share).to(device)
        with torch.autocast(device, torch.bfloat16):
            posterior = model.encode(pixels).latent_dist
            shape = (size, LATENT_CHANNELS, LATENT_SIDE, LATENT_SIDE)
            noise = torch.randn(shape, generator=generator)[rank * share : (rank + 1) * share]
            noise = noise.to(device)
            output = model.decode(posterior.mean + posterior.std * noise).sample.float()
            seen = perceptual_loss(backbone, output, pixels)
        loss = reconstruction_loss(output, pixels, config.edge_weight)
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        absolute = F.l1_loss(output.detach(), pixels).item() * 127.5
        loss = loss + config.perceptual_weight * seen + config.kl_weight * divergence
        return loss, {
            "perceptual": seen.item(),
            "absolute_error": absolute,
            "kl": divergence.item(),
        }

    result = train_steps("autoencoder", model, loss_of_step, config.optim, work_dir, config)
    if rank_and_world()[0] > 0:
        return result
    with torch.no_grad():
        latents = model.encode(scene_pixels("train", 10_000_000, 256).to(device)).latent_dist.mean
    model.register_to_config(scaling_factor=1.0 / float(latents.std()))
    model.half().save_pretrained(output_dir / "vae")
    (output_dir / "vae.json").write_text(json.dumps(result) + "\n")
    return result
