"""Reads from a picture of the world what class is where; teaches the decoder to draw legibly.

It learns from rendered scenes alone. The judge, which measures, shares neither its scenes nor its
design.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from t2ipal.devices import bf16_autocast
from t2ipal.pictovoc.scenes import CLASS_NAMES, Scene
from t2ipal.pretraining.autoencoder import LATENT_SIDE, draw_scenes, scene_pixels
from t2ipal.pretraining.loop import PretrainConfig, step_generator, train_steps

KINDS = 1 + len(CLASS_NAMES)
"""What a cell can show: no class, or one of them."""
OBJECT_WEIGHT = 4.0
"""Of a cell that shows a class, where one that shows none weighs 1: most show none."""


@dataclass(frozen=True)
class SegmenterConfig:
    """How the segmenter is trained."""

    optim: PretrainConfig = field(
        default_factory=lambda: PretrainConfig(900, 48, learning_rate=2e-3, warmup_steps=50)
    )
    """Steps, batch and learning rate."""
    scene_offset: int = 40_000_000
    """First train scene: neither those of the other models nor those of the judge."""


class Segmenter(nn.Module):
    """Logits of what each cell of 4x4 pixels shows, from maps of two resolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(
            _layer(3, 24),
            _layer(24, 32, stride=2),
            _layer(32, 32),
            _layer(32, 64, stride=2),
            _layer(64, 64),
        )
        self.coarse = _layer(64, 96, stride=2)
        self.around = nn.Sequential(_layer(96, 96), _layer(96, 96, dilation=2), _layer(96, 96))
        self.joined = _layer(64 + 96, 96)
        self.head = nn.Conv2d(96, KINDS, 1)

    def forward(
        self, pixels: Float[Tensor, "batch 3 side side"]
    ) -> Float[Tensor, "batch kinds cells cells"]:
        """Logits for pictures in -1..1; four pixels a cell."""
        fine = self.fine(pixels)
        coarse = self.coarse(fine)
        coarse = coarse + self.around(coarse)
        wide = F.interpolate(coarse, scale_factor=2.0, mode="nearest")
        return self.head(self.joined(torch.cat([fine, wide], dim=1)))


def _layer(before: int, width: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    kernel = nn.Conv2d(before, width, 3, stride, dilation, dilation=dilation, bias=False)
    return nn.Sequential(kernel, nn.BatchNorm2d(width), nn.ReLU())


def class_shares(scenes: list[Scene]) -> Float[Tensor, "batch kinds latent_side latent_side"]:
    """Share of each cell's pixels that show no class, or each of them; of scenes `with_map`."""
    maps = np.stack([scene.class_map for scene in scenes if scene.class_map is not None])
    one_hot = F.one_hot(torch.from_numpy(maps).long(), KINDS).permute(0, 3, 1, 2).float()
    return F.adaptive_avg_pool2d(one_hot, LATENT_SIDE)


def reading_loss(
    logits: Float[Tensor, "batch kinds cells cells"],
    shares: Float[Tensor, "batch kinds cells cells"],
) -> Float[Tensor, ""]:
    """Cross-entropy of what the cells show, those with a class weighing more."""
    weights = OBJECT_WEIGHT - (OBJECT_WEIGHT - 1) * shares[:, 0]
    return -(weights * (shares * logits.log_softmax(dim=1)).sum(dim=1)).mean()


def seen_worse(
    pixels: Float[Tensor, "batch 3 side side"], generator: torch.Generator
) -> Float[Tensor, "batch 3 side side"]:
    """The pictures at half resolution, through noise, or as they are: what can be read must hold
    under either."""
    draw = torch.rand(2, generator=generator)
    if draw[0] < 0.3:
        soft = F.interpolate(pixels, scale_factor=0.5, mode="bilinear", antialias=True)
        return F.interpolate(soft, size=pixels.shape[2:], mode="bicubic")
    if draw[0] < 0.6:
        noise = torch.randn(pixels.shape, generator=generator)
        return pixels + 0.1 * float(draw[1]) * noise.to(pixels)
    return pixels


def train_segmenter(
    config: SegmenterConfig, work_dir: Path, device: str = "cpu"
) -> tuple[Segmenter, dict[str, float]]:
    """Trains the segmenter (resuming from `work_dir`, its only place); returns it frozen."""
    torch.manual_seed(config.optim.seed)
    model = Segmenter().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    size = config.optim.batch_size

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        generator = step_generator(config.optim, step)
        scenes = draw_scenes("train", config.scene_offset + step * size, size)
        pixels = seen_worse(scene_pixels(scenes), generator)
        shares = class_shares(scenes).to(device)
        with bf16_autocast(device):
            logits = model(pixels.to(device, memory_format=torch.channels_last)).float()
        loss = reading_loss(logits, shares)
        right = (logits.argmax(dim=1) == shares.argmax(dim=1))[shares[:, 0] < 0.3]
        return loss, {"loss": loss.item(), "objects_read": right.float().mean().item()}

    result = train_steps("segmenter", model, loss_of_step, config.optim, work_dir, config)
    return model.requires_grad_(False), result
