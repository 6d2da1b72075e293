"""The judge: a classifier trained on labeled scenes, used only to ask what an image shows.

It never teaches any other model; the share of named classes it finds says how faithful images are.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from t2ipal.devices import bf16_autocast
from t2ipal.pictovoc.autoencoder import to_pixels
from t2ipal.pictovoc.pretraining import PretrainConfig, step_generator, train_steps
from t2ipal.pictovoc.scenes import CLASS_NAMES, draw_scene

WIDTHS = (32, 64, 128)


@dataclass(frozen=True)
class JudgeConfig:
    """How the judge is trained."""

    optim: PretrainConfig = field(
        default_factory=lambda: PretrainConfig(1500, 64, learning_rate=2e-3, ema_decay=0.998)
    )
    """Steps, batch and learning rate."""
    blur_share: float = 0.3
    """Share of images seen at half resolution: a decoder's images are softer than drawn ones."""
    scene_offset: int = 20_000_000
    """First train scene: the judge sees scenes that no other model was trained on."""


class _Block(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, width: int):
        super().__init__()
        self.conv1, self.norm1 = (
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.conv2, self.norm2 = (
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(x)))
        return F.relu(x + self.norm2(self.conv2(inner)))


class Judge(nn.Module):
    """Class evidence at every place of an 8x8 map, pooled by a soft maximum."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width, blocks in zip(WIDTHS, (1, 2, 2)):
            layers += [
                nn.Conv2d(before, width, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width),
            ]
            layers += [nn.ReLU(), *(_Block(width) for _ in range(blocks))]
            before = width
        self.body = nn.Sequential(*layers)
        self.context = nn.Conv2d(before, before, 3, padding=2, dilation=2)
        self.head = nn.Conv2d(before, len(CLASS_NAMES), 1)

    def forward(self, pixels: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch classes"]:
        """Logit of each class."""
        features = self.body(pixels)
        evidence = self.head(features + F.relu(self.context(features)))
        return torch.logsumexp(evidence.flatten(2), dim=2)

    @torch.no_grad()
    def probs(
        self, images: UInt8[np.ndarray, "batch side side 3"]
    ) -> Float[np.ndarray, "batch classes"]:
        """Probability of each class in uint8 RGB images; other sizes are brought to 64 px."""
        parts = []
        for first in range(0, len(images), 256):
            pixels = to_pixels(images[first : first + 256])
            if pixels.shape[-1] != 64:
                pixels = F.interpolate(pixels, (64, 64), mode="bicubic", antialias=True)
            parts.append(self(pixels).sigmoid())
        return torch.cat(parts).numpy()


def train_judge(
    config: JudgeConfig, work_dir: Path, output_dir: Path, device: str = "cpu"
) -> dict[str, float]:
    """Trains the judge (resuming from `work_dir`) and writes its folder."""
    torch.manual_seed(config.optim.seed)
    model = Judge().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    nn.init.constant_(model.head.bias, -6.0)
    size = config.optim.batch_size

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        generator = step_generator(config.optim, step)
        scenes = [draw_scene("train", config.scene_offset + step * size + k) for k in range(size)]
        pixels = to_pixels(np.stack([scene.image for scene in scenes]))
        blurred = torch.rand(size, generator=generator) < config.blur_share
        if blurred.any():
            soft = F.interpolate(pixels[blurred], scale_factor=0.5, mode="bilinear", antialias=True)
            pixels[blurred] = F.interpolate(soft, size=pixels.shape[2:], mode="bicubic")
        labels = torch.from_numpy(np.stack([scene.labels for scene in scenes])).float().to(device)
        with bf16_autocast(device):
            logits = model(pixels.to(device, memory_format=torch.channels_last)).float()
        loss = F.binary_cross_entropy_with_logits(logits, labels)
        return loss, {"loss": loss.item()}

    result = train_steps("judge", model, loss_of_step, config.optim, work_dir, config)
    output_dir.mkdir(parents=True, exist_ok=True)
    state = {
        k: v.half().contiguous() if v.is_floating_point() else v
        for k, v in model.state_dict().items()
    }
    save_file(state, output_dir / "judge.safetensors")
    (output_dir / "config.json").write_text(json.dumps({"class_names": CLASS_NAMES}) + "\n")
    return result


def load_judge(folder: Path) -> Judge:
    """The trained judge, ready to look at images.

    Raises:
        FileNotFoundError: `folder` holds no judge.
    """
    path = folder / "judge.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            f"No judge in {folder}. Run jobs/pretrain_pictovoc.py --stage judge first."
        )
    model = Judge()
    model.load_state_dict(
        {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
    )
    return model.eval()
