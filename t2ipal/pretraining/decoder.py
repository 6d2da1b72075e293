"""The decoder learns to draw from what the UNet makes, not only from what the encoder does.

A small UNet decides well what is where and badly how it looks. So scenes are noised until only
their plan is left and denoised by the UNet; from such latents, as imperfect as those of a whole
sampling run, the decoder learns to draw the scene, in a way that the segmenter can read the plan.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from t2ipal.config import require
from t2ipal.devices import bf16_autocast
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.diffusion.pipelines import load_pipeline
from t2ipal.features.backbone import Backbone
from t2ipal.pictovoc.captions import caption_scene
from t2ipal.pretraining.autoencoder import (
    CLASS_CHANNELS,
    LOOK_CHANNELS,
    class_codes,
    draw_scenes,
    known_latents,
    perceptual_loss,
    reconstruction_loss,
    scene_pixels,
    scene_plan,
)
from t2ipal.pretraining.loop import PretrainConfig, step_generator, train_steps
from t2ipal.pretraining.processes import rank_and_world
from t2ipal.pretraining.segmenter import (
    KINDS,
    SegmenterConfig,
    reading_loss,
    seen_worse,
    train_segmenter,
)
from t2ipal.pretraining.unet import claim_cache, rows_of_step, weights_digest
from t2ipal.store import Store

BATCH = 50
"""Scenes that are noised to one level and denoised together."""
NOISE_LEVELS = (450, 900)
"""Of 1,000: at the lowest the plan is safe, at the highest half of it is made up anew."""
GUIDANCE_SCALES = (1.0, 2.0, 4.0)
STEPS, GUIDED_STEPS = 5, 3
"""Of denoising; the first ones guided, as the demo's are."""
TOLERATED = 4.0
"""Squared distance of two plans of a cell at which they agree by 1/e."""


@dataclass(frozen=True)
class DecoderConfig:
    """How the decoder is tuned to the UNet."""

    optim: PretrainConfig = field(
        default_factory=lambda: PretrainConfig(
            3000, 16, learning_rate=1e-3, matrix_learning_rate=2e-3, warmup_steps=20, ema_decay=0.98
        )
    )
    """Steps, batch (over all processes together) and learning rate."""
    num_scenes: int = 10_000
    """Scenes that the UNet redraws; training passes over them again and again."""
    scene_offset: int = 30_000_000
    """First train scene: none that the UNet or the segmenter learned from."""
    edge_weight: float = 1.0
    """Weight of the difference of neighboring pixels' differences."""
    perceptual_weight: float = 0.3
    """Weight of the distance between the small CLIP's early feature maps."""
    reading_weight: float = 0.08
    """Weight of what the segmenter misreads. At 0.3 the judge found more (docs/log.md), in patterns
    that neither a person nor CLIP takes for the thing."""
    num_blocks: int = 12
    """Residual blocks on the latents' grid; the decoder gets those that it lacks."""
    segmenter: SegmenterConfig = field(default_factory=SegmenterConfig)

    def __post_init__(self) -> None:
        require(
            self.num_scenes >= BATCH and self.num_scenes % BATCH == 0,
            f"num_scenes must be a multiple of {BATCH}, got {self.num_scenes}.",
        )
        size = self.optim.batch_size
        require(
            self.num_scenes >= size,
            f"num_scenes must be >= {size}, a batch, got {self.num_scenes}.",
        )


def redraw(
    pipeline: Any,
    latents: Float[Tensor, "batch channels side side"],
    captions: Sequence[str],
    generator: torch.Generator,
) -> Float[Tensor, "batch channels side side"]:
    """Latents noised to a random level and denoised again, guided at a random scale (DDIM).

    The start of SDEdit (Meng et al., 2022): what the noise leaves of a picture stays, the rest is
    the UNet's.
    """
    unet, scale = pipeline.unet, pipeline.vae.config.scaling_factor
    alphas = pipeline.scheduler.alphas_cumprod
    tokens = pipeline.tokenizer(
        ["", *captions], padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids
    hidden = pipeline.text_encoder(tokens.to(unet.device)).last_hidden_state
    empty, told = hidden[:1].expand(len(captions), -1, -1), hidden[1:]
    start = int(torch.randint(*NOISE_LEVELS, (1,), generator=generator))
    guidance = GUIDANCE_SCALES[int(torch.randint(len(GUIDANCE_SCALES), (1,), generator=generator))]
    times = [round(start * (1 - step / STEPS)) for step in range(STEPS)]
    noise = torch.randn(latents.shape, generator=generator).to(unet.device)
    noisy = alphas[start] ** 0.5 * scale * latents + (1 - alphas[start]) ** 0.5 * noise
    clean = noisy
    for step, time in enumerate(times):
        if guidance > 1 and step < GUIDED_STEPS:
            both = unet(torch.cat([noisy, noisy]), time, torch.cat([empty, told])).sample
            without, velocity = both.chunk(2)
            velocity = without + guidance * (velocity - without)
        else:
            velocity = unet(noisy, time, told).sample
        alpha, sigma = alphas[time] ** 0.5, (1 - alphas[time]) ** 0.5
        clean, noise = alpha * noisy - sigma * velocity, sigma * noisy + alpha * velocity
        if step + 1 < STEPS:
            after = alphas[times[step + 1]]
            noisy = after**0.5 * clean + (1 - after) ** 0.5 * noise
    return clean / scale


def cache_redrawn(pipeline: Any, config: DecoderConfig, work_dir: Path) -> list[Path]:
    """Redraws the scenes by batches; each process its share, finished ones stay.

    Raises:
        ValueError: `work_dir` holds latents of another UNet or autoencoder.
    """
    rank, world = rank_and_world()
    models = weights_digest(pipeline.unet, pipeline.text_encoder, pipeline.vae.encoder)
    made_with = {"models": models, "scene_offset": config.scene_offset}
    claim_cache(work_dir / "redrawn.json", made_with)
    numbers = range(config.num_scenes // BATCH)
    paths = [work_dir / f"redrawn-{number:05d}.safetensors" for number in numbers]
    for number in tqdm(numbers[rank::world], desc="redrawn", mininterval=10, disable=rank > 0):
        if paths[number].exists():
            continue
        first = config.scene_offset + number * BATCH
        scenes = draw_scenes("train", first, BATCH)
        captions = [caption_scene(scene, Random(first + k)) for k, scene in enumerate(scenes)]
        latents = known_latents(pipeline.vae, scenes).to(pipeline.unet.device)
        generator = torch.Generator().manual_seed(first)
        with torch.inference_mode(), bf16_autocast(latents.device.type):
            redrawn = redraw(pipeline, latents, captions, generator)
        latents = {"latents": redrawn.cpu().half().contiguous()}
        Store(work_dir).write(paths[number].name, safetensors.torch.save(latents))
    return paths


def planned(
    latents: Float[Tensor, "batch channels side side"],
) -> Float[Tensor, "batch kinds side side"]:
    """One-hot: the class, or none, whose code is nearest to each cell's class channels."""
    classes = latents[:, LOOK_CHANNELS : LOOK_CHANNELS + CLASS_CHANNELS]
    cells, codes = classes.permute(0, 2, 3, 1), class_codes().to(latents)
    nearest = torch.cdist(cells.flatten(1, 2), codes.expand(len(cells), -1, -1)).argmin(dim=2)
    one_hot = F.one_hot(nearest.view(cells.shape[:3]), KINDS)
    return one_hot.permute(0, 3, 1, 2).float()


def agreement(
    latents: Float[Tensor, "batch channels side side"],
    plan: Float[Tensor, "batch class_and_part_channels side side"],
) -> Float[Tensor, "batch 1 side side"]:
    """How far each cell's plan still is the scene's: 1 where it is, near 0 for another class, one
    tenth for another drawing of the class, two thirds for one shifted by half of its half-width."""
    apart = (latents[:, LOOK_CHANNELS:] - plan).square().sum(dim=1, keepdim=True)
    return torch.exp(-apart / TOLERATED)


def faithful_loss(
    output: Float[Tensor, "batch 3 side side"],
    target: Float[Tensor, "batch 3 side side"],
    agreed: Float[Tensor, "batch 1 cells cells"],
    edge_weight: float,
) -> Float[Tensor, ""]:
    """`reconstruction_loss` where the plan still is the scene's; where the UNet made up another
    thing, the scene's pixels say nothing."""
    around = F.pad(agreed, (1, 1, 1, 1), mode="replicate")
    weight = F.avg_pool2d(around, 3, stride=1).clamp(min=0.05)
    weight = F.interpolate(weight, size=output.shape[2:], mode="nearest")
    return reconstruction_loss(output, target, edge_weight, weight)


def deepen(vae: Any, num_blocks: int) -> None:
    """Adds residual blocks on the latents' own grid until there are so many; none changes anything.

    With them each pixel depends on all of the plan, so that a crooked plan can be drawn straight.
    """
    blocks = list(vae.config.num_decoder_blocks)
    more_blocks = max(num_blocks - blocks[0], 0)
    vae.register_to_config(num_decoder_blocks=(blocks[0] + more_blocks, *blocks[1:]))
    deeper = type(vae).from_config(vae.config).decoder
    last = 2 + blocks[0]  # behind the first layer and its activation
    old, state = vae.decoder.state_dict(), deeper.state_dict()
    for name, value in state.items():
        _, number, rest = name.split(".", 2)
        place = int(number)
        if place < last:
            value.copy_(old[name])
        elif place >= last + more_blocks:
            value.copy_(old[f"layers.{place - more_blocks}.{rest}"])
        elif rest.startswith("conv.4."):
            value.zero_()
    deeper.load_state_dict(state)
    vae.decoder = deeper.to(next(vae.decoder.parameters()))


def train_decoder(
    config: DecoderConfig, backbone: Backbone, work_dir: Path, pipeline_dir: Path,
    device: str = "cpu",
) -> dict[str, float]:  # fmt: skip
    """Tunes the decoder (resuming from `work_dir`) in the pipeline's folder; all else stays.

    It starts from the decoder that is there, which in a new `work_dir` may be a tuned one.
    """
    pipeline = load_pipeline(SynthesisConfig(str(pipeline_dir), scheduler="ddim"), torch.float32)
    pipeline.to(device)
    rank, world = rank_and_world()
    work_dir.mkdir(parents=True, exist_ok=True)
    paths = cache_redrawn(pipeline, config, work_dir)
    segmenter = train_segmenter(config.segmenter, work_dir, device)[0]
    if world > 1:
        torch.distributed.barrier()
    cached = torch.cat([load_file(path)["latents"] for path in paths])
    vae: Any = pipeline.vae.requires_grad_(False)
    deepen(vae, config.num_blocks)
    decoder: nn.Module = vae.decoder.requires_grad_(True).to(memory_format=torch.channels_last)
    size = config.optim.batch_size

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        generator = step_generator(config.optim, step)
        rows = rows_of_step(len(cached), size, step, config.optim.seed)[rank::world]
        latents = cached[rows].float().to(device)
        scenes = [draw_scenes("train", config.scene_offset + row, 1)[0] for row in rows.tolist()]
        pixels = scene_pixels(scenes).to(device, memory_format=torch.channels_last)
        agreed = agreement(latents, scene_plan(scenes).to(device))
        with bf16_autocast(device):
            output = vae.decode(latents).sample.float()
            seen = perceptual_loss(backbone, output, pixels)
            read = segmenter(seen_worse(output, generator)).float()
        picture = faithful_loss(output, pixels, agreed, config.edge_weight)
        misread = reading_loss(read, planned(latents))
        loss = picture + config.perceptual_weight * seen + config.reading_weight * misread
        return loss, {
            "picture": picture.item(),
            "perceptual": seen.item(),
            "misread": misread.item(),
        }

    result = train_steps("decoder", decoder, loss_of_step, config.optim, work_dir, config)
    if rank == 0:
        path = pipeline_dir / "vae" / "diffusion_pytorch_model.safetensors"
        kept = {k: v for k, v in load_file(path).items() if k.startswith("encoder.")}
        tuned = {f"decoder.{k}": v.half().contiguous() for k, v in decoder.state_dict().items()}
        save_file({**kept, **tuned}, path, {"format": "pt"})
        config_path = path.with_name("config.json")
        architecture = json.loads(config_path.read_text())
        architecture["num_decoder_blocks"] = vae.config.num_decoder_blocks
        config_path.write_text(json.dumps(architecture, indent=2) + "\n")
    return result
