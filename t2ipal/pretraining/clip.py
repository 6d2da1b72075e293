"""The world's small CLIP: a ModifiedResNet and a text tower, trained on scenes and their captions.

Written in open_clip's folder format, so that `load_backbone` reads it as it reads any other.
"""

import json
from dataclasses import dataclass, field
from math import log
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from safetensors.torch import save_file
from torch import Tensor

from t2ipal.devices import bf16_autocast
from t2ipal.features.backbone import WEIGHTS_FILE, Backbone
from t2ipal.features.config import BackboneConfig
from t2ipal.features.towers import resnet_features, text_positions
from t2ipal.pictovoc.captions import alt_text, caption_scene
from t2ipal.pictovoc.scenes import draw_scene
from t2ipal.pretraining.loop import PretrainConfig, step_generator, train_steps
from t2ipal.torchvision_repair import repair_torchvision

PREPROCESSING = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
FIRST_WORD_TOKEN, END_TOKEN = 512, 49407


@dataclass(frozen=True)
class ClipConfig:
    """How the small CLIP is trained."""

    optim: PretrainConfig = field(default_factory=lambda: PretrainConfig(1900, 128))
    """Steps, batch and learning rate; scenes are never repeated."""
    layers: tuple[int, int, int, int] = (1, 1, 1, 1)
    """Blocks of the ResNet's four stages; the deeper CLIP that ships has 2 2 2 2."""
    width: int = 24
    """Channels of its first stage."""
    blur_share: float = 0.2
    """Share of images seen at half resolution, so that a decoder's soft ones are not foreign."""
    stray_word_share: float = 0.4
    """Share of captions with one to three random words put in: real ones have words that the world
    lacks."""
    domain: str = "web"
    """Look of the scenes: drawings in every palette more than photographs, as on the web."""
    local_weight: float = 0.4
    """Weight of the same loss on the mean of the local features: what a location says of a class
    is then learned, not left over."""
    logit_scale: float = 100.0
    """Inverse temperature of the loss, fixed at the value real CLIPs end with: it keeps the two
    towers' features in cones apart, the modality gap."""

    @property
    def architecture(self) -> dict[str, Any]:
        """What open_clip builds the model from."""
        vision = {"image_size": 128, "layers": [*self.layers], "width": self.width}
        text = {"context_length": 77, "vocab_size": 49408, "width": 96, "heads": 4, "layers": 3}
        return {"embed_dim": 128, "vision_cfg": {**vision, "patch_size": None}, "text_cfg": text}


def draw_batch(
    split: str, first: int, count: int, caption_stream: int = 1, domain: str = "photo"
) -> tuple[UInt8[np.ndarray, "batch side side 3"], list[str], UInt8[np.ndarray, "batch classes"]]:
    """Images, one text each, and labels of `count` consecutive scenes of a split.

    Pictures of the web come with alt texts, those of every other domain with captions.
    """
    write = alt_text if domain == "web" else caption_scene
    scenes = [draw_scene(split, first + k, domain=domain) for k in range(count)]
    rngs = [Random((first + k) * 31 + caption_stream) for k in range(count)]
    captions = [write(scene, rng) for scene, rng in zip(scenes, rngs)]
    return np.stack([s.image for s in scenes]), captions, np.stack([s.labels for s in scenes])


def _add_stray_words(
    tokens: Int[Tensor, "batch context"], share: float, generator: torch.Generator
) -> Int[Tensor, "batch context"]:
    ends = tokens.argmax(dim=-1)
    tokens = tokens.clone()
    chosen = torch.nonzero(torch.rand(len(tokens), generator=generator) < share).flatten()
    for row in chosen.tolist():
        for _ in range(int(torch.randint(1, 4, (), generator=generator))):
            place = int(torch.randint(1, int(ends[row]) + 1, (), generator=generator))
            word = torch.randint(FIRST_WORD_TOKEN, END_TOKEN - 1, (1,), generator=generator)
            tokens[row] = torch.cat([tokens[row, :place], word, tokens[row, place:-1]])
    return tokens


def contrastive_loss(
    images: Float[Tensor, "batch width"],
    texts: Float[Tensor, "batch width"],
    logit_scale: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """CLIP's symmetric cross-entropy over the batch."""
    logits = logit_scale * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def train_clip(
    config: ClipConfig, work_dir: Path, output_dir: Path, device: str = "cpu"
) -> dict[str, float]:
    """Trains the small CLIP (resuming from `work_dir`) and writes its folder."""
    repair_torchvision()
    from open_clip import SimpleTokenizer
    from open_clip.model import CLIP

    torch.manual_seed(config.optim.seed)
    model = CLIP(**config.architecture).to(device, memory_format=torch.channels_last)  # type: ignore[arg-type]
    model.visual.preprocess_cfg = {"size": 128, **PREPROCESSING}  # type: ignore[assignment]
    tokenizer = SimpleTokenizer()
    preprocess = Backbone(model, tokenizer, BackboneConfig(device=device)).preprocess
    model.requires_grad_(True)
    model.logit_scale.requires_grad_(False).fill_(log(config.logit_scale))

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        generator = step_generator(config.optim, step)
        size = config.optim.batch_size
        images, captions, _ = draw_batch("train", step * size, size, domain=config.domain)
        pixels = preprocess(torch.from_numpy(images))
        blurred = torch.rand(size, generator=generator) < config.blur_share
        if blurred.any():
            soft = F.interpolate(
                pixels[blurred], scale_factor=0.25, mode="bilinear", antialias=True
            )
            pixels[blurred] = F.interpolate(soft, size=pixels.shape[2:], mode="bicubic")
        tokens = _add_stray_words(tokenizer(captions), config.stray_word_share, generator).to(
            device
        )
        end = tokens.argmax(dim=-1)
        with bf16_autocast(device):
            embeddings = model.token_embedding(tokens[:, : int(end.max()) + 1])
            hidden = text_positions(model, embeddings)[torch.arange(size, device=device), end]
            texts = hidden @ model.text_projection
            pixels = pixels.to(memory_format=torch.channels_last)
            _, local, visual = resnet_features(model.visual, pixels)
            everywhere = local.mean(dim=1)
        scale, pairs = model.logit_scale.exp(), F.cosine_similarity(visual, texts)
        loss = contrastive_loss(visual.float(), texts.float(), scale)
        locally = contrastive_loss(everywhere.float(), texts.float(), scale)
        loss = (1 - config.local_weight) * loss + config.local_weight * locally
        return loss, {"loss": loss.item(), "cosine_of_pairs": pairs.mean().item()}

    result = train_steps("clip", model, loss_of_step, config.optim, work_dir, config)
    save_clip(model, config, output_dir)
    return result


def save_clip(model: torch.nn.Module, config: ClipConfig, output_dir: Path) -> None:
    """Writes open_clip's folder: configuration and half-precision safetensors."""
    output_dir.mkdir(parents=True, exist_ok=True)
    written = {"model_cfg": config.architecture, "preprocess_cfg": PREPROCESSING}
    (output_dir / "open_clip_config.json").write_text(json.dumps(written, indent=2) + "\n")
    state = {
        k: v.half().contiguous() if v.is_floating_point() else v
        for k, v in model.state_dict().items()
    }
    save_file(state, output_dir / WEIGHTS_FILE)
