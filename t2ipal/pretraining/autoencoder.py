"""The world's autoencoder: 64 px scenes to 16x16 latents and back, in diffusers' AutoencoderTiny.

Eight of the latents' channels say what class is where, four which part of it, the others how it
looks. A denoiser then decides first what the picture shows, and the decoder draws each thing
knowing what it is and how it stands: the idea of dense correspondences (DensePose, Güler et al.,
2018), told to the autoencoder.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from t2ipal.devices import bf16_autocast
from t2ipal.features.backbone import Backbone
from t2ipal.pictovoc.pixels import to_pixels
from t2ipal.pictovoc.scenes import CLASS_NAMES, Scene, draw_scene
from t2ipal.pretraining.loop import PretrainConfig, step_generator, train_steps
from t2ipal.pretraining.processes import rank_and_world
from t2ipal.torchvision_repair import repair_torchvision

LOOK_CHANNELS, CLASS_CHANNELS, PART_CHANNELS, LATENT_SIDE = 4, 8, 4, 16
LATENT_CHANNELS = LOOK_CHANNELS + CLASS_CHANNELS + PART_CHANNELS
CODE_SIZE, POSITION_SIZE = 1.5, 2.5
"""Size of the numbers in the latents that name a class or drawing, and of an edge of a drawing's
unit box; cells without an object are zero."""
ARCHITECTURE: dict[str, Any] = {
    "latent_channels": LATENT_CHANNELS,
    "encoder_block_out_channels": (48,) * 3,
    "decoder_block_out_channels": (48,) * 3,
    "num_encoder_blocks": (1, 1, 3),
    "num_decoder_blocks": (6, 2, 1),
}


@dataclass(frozen=True)
class AutoencoderConfig:
    """How the small autoencoder is trained."""

    optim: PretrainConfig = field(
        default_factory=lambda: PretrainConfig(
            1000, 32, learning_rate=2e-3, matrix_learning_rate=4e-3, ema_decay=0.995
        )
    )
    """Steps, batch and learning rate."""
    edge_weight: float = 1.0
    """Weight of the difference of neighboring pixels' differences: keeps outlines sharp."""
    plan_weight: float = 0.05
    """Weight of the squared error of the classes and parts that the encoder finds by itself."""
    perceptual_weight: float = 0.3
    """Weight of the distance between the small CLIP's early feature maps: keeps small things."""
    latent_noise: float = 0.2
    """Standard deviation of the noise through which the picture is decoded."""
    latent_weight: float = 1e-3
    """Weight of the latents' mean square: holds them near a unit normal's size."""


def reconstruction_loss(
    output: Float[Tensor, "batch 3 side side"],
    target: Float[Tensor, "batch 3 side side"],
    edge_weight: float,
    weight: Float[Tensor, "batch 1 side side"] | None = None,
) -> Float[Tensor, ""]:
    """Mean absolute error of the pixels and, weighted, of the differences between neighbors.

    `weight` says how much each pixel counts; None: all the same.
    """
    error = output - target
    weight = torch.ones_like(error[:, :1]) if weight is None else weight
    edges = (weight[:, :, 1:] * error.diff(dim=2).abs()).mean()
    edges = edges + (weight[..., 1:] * error.diff(dim=3).abs()).mean()
    return (weight * error.abs()).mean() + edge_weight * edges / 2


def perceptual_loss(
    backbone: Backbone,
    output: Float[Tensor, "batch 3 side side"],
    target: Float[Tensor, "batch 3 side side"],
) -> Float[Tensor, ""]:
    """Squared distance of the visual encoder's channel-normalized maps: stem and two stages."""
    visual, loss = backbone.model.visual, torch.zeros((), device=output.device)
    maps = visual.stem(torch.cat([output, target]))
    for stage in (visual.layer1, visual.layer2):
        ours, theirs = F.normalize(maps.float(), dim=1).chunk(2)
        loss = loss + (ours - theirs.detach()).square().sum(dim=1).mean()
        maps = stage(maps)
    ours, theirs = F.normalize(maps.float(), dim=1).chunk(2)
    return loss + (ours - theirs.detach()).square().sum(dim=1).mean()


def draw_scenes(split: str, first: int, count: int) -> list[Scene]:
    """Consecutive scenes of a split, without grain and with their class maps."""
    return [draw_scene(split, first + k, grain=False, with_map=True) for k in range(count)]


def scene_pixels(scenes: Sequence[Scene]) -> Float[Tensor, "batch 3 side side"]:
    """The pictures of scenes as input of the autoencoder."""
    return to_pixels(np.stack([scene.image for scene in scenes]))


def scene_plan(
    scenes: Sequence[Scene],
) -> Float[Tensor, "batch class_and_part_channels latent_side latent_side"]:
    """What is where in scenes drawn `with_map`: each cell's mean of what its pixels show.

    The code of the class; two signs that number its drawing; x and y in the drawing's unit box.
    """
    # Every other pixel is enough for a mean over a cell of 4 x 4.
    classes = torch.from_numpy(_stacked([scene.class_map for scene in scenes])).long()
    parts = torch.from_numpy(_stacked([scene.part_map for scene in scenes]))
    number = parts[..., 0].long()
    signs = torch.stack([number // 2, number % 2], dim=-1) * 2.0 - 1.0
    inside = torch.cat([signs * CODE_SIZE, parts[..., 1:] * POSITION_SIZE], dim=-1)
    inside = inside * (classes > 0)[..., None]
    plan = torch.cat([class_codes()[classes], inside], dim=-1).permute(0, 3, 1, 2)
    return F.adaptive_avg_pool2d(plan, LATENT_SIDE)


def _stacked(maps: Sequence[np.ndarray | None]) -> np.ndarray:
    return np.stack([part[::2, ::2] for part in maps if part is not None])


@torch.no_grad()
def known_latents(
    model: Any, scenes: Sequence[Scene]
) -> Float[Tensor, "batch channels latent_side latent_side"]:
    """Latents of scenes as the UNet learns them: the look encoded, the plan as it is."""
    pixels = scene_pixels(scenes).to(model.device)
    with bf16_autocast(model.device.type):
        look = model.encode(pixels).latents[:, :LOOK_CHANNELS].float().cpu()
    return torch.cat([look, scene_plan(scenes)], dim=1)


@cache
def class_codes() -> Float[Tensor, "classes_and_none class_channels"]:
    """Corners of a cube, any two of them differing in at least two numbers; zeros for no class."""
    numbers = [n for n in range(2**CLASS_CHANNELS) if n.bit_count() % 2 == 0]
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(numbers), generator=generator)[: len(CLASS_NAMES)].tolist()
    bits = [[(numbers[k] >> bit) & 1 for bit in range(CLASS_CHANNELS)] for k in chosen]
    corners = (2.0 * torch.tensor(bits) - 1.0) * CODE_SIZE
    return torch.cat([torch.zeros(1, CLASS_CHANNELS), corners])


def train_autoencoder(
    config: AutoencoderConfig,
    backbone: Backbone,
    work_dir: Path,
    output_dir: Path,
    device: str = "cpu",
) -> dict[str, float]:
    """Trains the autoencoder (resuming from `work_dir`) and writes the pipeline's `vae` folder."""
    repair_torchvision()
    from diffusers import AutoencoderTiny

    torch.manual_seed(config.optim.seed)
    model: Any = AutoencoderTiny(**ARCHITECTURE)
    model.to(device, memory_format=torch.channels_last)
    size = config.optim.batch_size

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        generator = step_generator(config.optim, step)
        rank, world = rank_and_world()
        share = size // world
        scenes = draw_scenes("train", step * size + rank * share, share)
        pixels = scene_pixels(scenes).to(device, memory_format=torch.channels_last)
        plan = scene_plan(scenes).to(device)
        shape = (size, LATENT_CHANNELS, LATENT_SIDE, LATENT_SIDE)
        noise = torch.randn(shape, generator=generator)[rank * share : (rank + 1) * share]
        with bf16_autocast(device):
            latents = model.encode(pixels).latents
            look, found = latents.split([LOOK_CHANNELS, CLASS_CHANNELS + PART_CHANNELS], dim=1)
            known = torch.cat([look, plan], dim=1) + config.latent_noise * noise.to(device)
            output = model.decode(known).sample.float()
            seen = perceptual_loss(backbone, output, pixels)
        picture = reconstruction_loss(output, pixels, config.edge_weight)
        plan_error = F.mse_loss(found.float(), plan)
        spread = look.float().square().mean()
        loss = picture + config.perceptual_weight * seen
        loss = loss + config.plan_weight * plan_error + config.latent_weight * spread
        return loss, {
            "absolute_error": F.l1_loss(output.detach(), pixels).item() * 127.5,
            "perceptual": seen.item(),
            "plan_error": plan_error.item(),
            "look_square": spread.item(),
        }

    result = train_steps("autoencoder", model, loss_of_step, config.optim, work_dir, config)
    if rank_and_world()[0] > 0:
        return result
    latents = known_latents(model, draw_scenes("train", 10_000_000, 256))
    model.register_to_config(scaling_factor=1.0 / float(latents.std()))
    model.half().save_pretrained(output_dir / "vae")
    (output_dir / "vae.json").write_text(json.dumps(result) + "\n")
    return result
