"""How the judge is trained: on labelled scenes that no other model was trained on."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from t2ipal.devices import bf16_autocast
from t2ipal.pictovoc.judge import Judge
from t2ipal.pictovoc.pixels import to_pixels
from t2ipal.pictovoc.scenes import CLASS_NAMES, draw_scene
from t2ipal.pretraining.loop import PretrainConfig, step_generator, train_steps


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
