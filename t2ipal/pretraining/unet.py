"""The world's small Stable Diffusion: a UNet conditioned on the small CLIP's text tower.

Latents are encoded once and cached. Written in diffusers' own folder format, so that `Synthesizer`
loads it as it loads any other.
"""

import gzip
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from t2ipal.config import require
from t2ipal.devices import bf16_autocast
from t2ipal.features.backbone import Backbone
from t2ipal.pictovoc.captions import caption_scene
from t2ipal.pretraining.autoencoder import LATENT_CHANNELS, LATENT_SIDE, draw_scenes, known_latents
from t2ipal.pretraining.loop import PretrainConfig, step_generator, train_steps
from t2ipal.pretraining.processes import rank_and_world
from t2ipal.store import Store
from t2ipal.torchvision_repair import repair_torchvision

PROMPT_TOKENS = 32
"""Tokens of a prompt: COCO's captions average 13 words, and the UNet attends to every position."""
CHUNK_SCENES = 2000
ARCHITECTURE: dict[str, Any] = {
    "sample_size": LATENT_SIDE,
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    "layers_per_block": 1,
    "block_out_channels": (32, 96, 160),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    # The number of heads, whatever it is called.
    "attention_head_dim": 2,
    "norm_num_groups": 16,
}
NOISE_SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "steps_offset": 1,
    "clip_sample": False,
}


@dataclass(frozen=True)
class DiffusionConfig:
    """How the small UNet is trained."""

    optim: PretrainConfig = field(
        default_factory=lambda: PretrainConfig(
            3000, 128, learning_rate=1.2e-3, matrix_learning_rate=6e-3, ema_decay=0.999
        )
    )
    """Steps, batch (over all processes together) and learning rate."""
    num_scenes: int = 80_000
    """Scenes whose latents are cached; training passes over them again and again."""
    captions_per_scene: int = 4
    """Captions written for each scene; one of them is drawn each time."""
    dropped_captions: float = 0.1
    """Share of samples trained with the empty caption, for classifier-free guidance."""
    start: str | None = None
    """Pipeline folder whose UNet and text tower training goes on with; its latents may have fewer
    channels. None: a new UNet on the text tower of the CLIP."""

    def __post_init__(self) -> None:
        scenes, batch = self.num_scenes, self.optim.batch_size
        require(scenes >= batch, f"num_scenes must be >= {batch}, a batch, got {scenes}.")


def text_encoder_from(backbone: Backbone) -> Any:
    """The backbone's text tower as transformers' CLIPTextModel: same weights and hidden states."""
    repair_torchvision()
    from transformers import CLIPTextConfig, CLIPTextModel

    state = backbone.model.state_dict()
    blocks = backbone.model.transformer.resblocks
    config = CLIPTextConfig(
        vocab_size=len(state["token_embedding.weight"]), hidden_size=backbone.text_width,
        intermediate_size=blocks[0].mlp.c_fc.out_features, num_hidden_layers=len(blocks),
        num_attention_heads=blocks[0].attn.num_heads, hidden_act="gelu",
        max_position_embeddings=backbone.context_length, projection_dim=backbone.embed_dim,
    )  # fmt: skip
    named = {
        "embeddings.token_embedding.weight": state["token_embedding.weight"],
        "embeddings.position_embedding.weight": state["positional_embedding"],
        "final_layer_norm.weight": state["ln_final.weight"],
        "final_layer_norm.bias": state["ln_final.bias"],
    }
    layers = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    layers["attn.out_proj"] = "self_attn.out_proj"
    for index in range(len(blocks)):
        source, target = f"transformer.resblocks.{index}.", f"encoder.layers.{index}."
        for kind in ("weight", "bias"):
            for theirs, ours in layers.items():
                named[f"{target}{ours}.{kind}"] = state[f"{source}{theirs}.{kind}"]
            joined = state[f"{source}attn.in_proj_{kind}"].chunk(3)
            for letter, part in zip("qkv", joined):
                named[f"{target}self_attn.{letter}_proj.{kind}"] = part
    model = CLIPTextModel(config)
    keys = model.state_dict().keys()
    prefix = "text_model." if all(key.startswith("text_model.") for key in keys) else ""
    model.load_state_dict({prefix + key: value for key, value in named.items()}, strict=True)
    return model.eval().requires_grad_(False)


def clip_tokenizer() -> Any:
    """CLIP's own tokenizer for transformers, from the vocabulary that open_clip ships."""
    repair_torchvision()
    import open_clip.tokenizer as source
    from transformers import CLIPTokenizer

    with gzip.open(source.default_bpe()) as file:
        merges = file.read().decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    letters = list(source.bytes_to_unicode().values())
    words = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        *("".join(m.split()) for m in merges),
    ]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    pairs: Any = [tuple(merge.split()) for merge in merges]
    return CLIPTokenizer(vocab=vocabulary, merges=pairs, model_max_length=PROMPT_TOKENS)


def weights_digest(*modules: Any) -> str:
    """Differs wherever a weight of the modules does."""
    digest = hashlib.sha256()
    for module in modules:
        for value in module.state_dict().values():
            digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()


def claim_cache(note: Path, made_with: dict[str, Any]) -> None:
    """Notes what cached latents are made with, before the first of them is written.

    Raises:
        ValueError: the note is there and names something else.
    """
    if note.exists():
        require(
            json.loads(note.read_text()) == made_with,
            f"{note.parent} must hold latents made with {', '.join(made_with)} as now, but they "
            f"were made with others. Give another --work-dir or remove {note.stem}* from it.",
        )
    elif rank_and_world()[0] == 0:
        Store(note.parent).write(note.name, f"{json.dumps(made_with)}\n".encode())


def cache_latents(vae: Any, config: DiffusionConfig, work_dir: Path) -> list[Path]:
    """Encodes the first train scenes by chunks; each process its share, finished ones stay.

    Raises:
        ValueError: `work_dir` holds latents of another autoencoder.
    """
    rank, world = rank_and_world()
    work_dir.mkdir(parents=True, exist_ok=True)
    # The decoder may be tuned later: the latents stay what they are.
    made_with = {
        "encoder": weights_digest(vae.encoder),
        "captions_per_scene": config.captions_per_scene,
    }
    claim_cache(work_dir / "latents.json", made_with)
    chunks = -(-config.num_scenes // CHUNK_SCENES)
    paths = [work_dir / f"latents-{chunk:05d}.safetensors" for chunk in range(chunks)]
    for chunk in tqdm(range(rank, chunks, world), desc="latents", mininterval=10, disable=rank > 0):
        if paths[chunk].exists():
            continue
        latents, captions = [], []
        for first in range(chunk * CHUNK_SCENES, (chunk + 1) * CHUNK_SCENES, 50):
            scenes = draw_scenes("train", first, 50)
            for k, scene in enumerate(scenes):
                rng = Random(first + k)
                captions.append(
                    [caption_scene(scene, rng) for _ in range(config.captions_per_scene)]
                )
            latents.append(known_latents(vae, scenes).half().contiguous())
        paths[chunk].with_suffix(".json").write_text(json.dumps(captions))
        data = safetensors.torch.save({"latents": torch.cat(latents)})
        Store(work_dir).write(paths[chunk].name, data)
    return paths


def rows_of_step(num_rows: int, batch_size: int, step: int, seed: int) -> Int[Tensor, "batch"]:
    """Rows of one step: pass after pass over all rows, each in an order of its own."""
    per_epoch = num_rows // batch_size
    epoch, place = divmod(step, per_epoch)
    generator = torch.Generator().manual_seed(seed * 7919 + epoch)
    return torch.randperm(num_rows, generator=generator)[
        place * batch_size : (place + 1) * batch_size
    ]


@torch.no_grad()
def load_narrower(model: Any, state: dict[str, Tensor]) -> None:
    """Loads weights of a UNet whose latents may have fewer channels; the new ones begin at zero."""
    for name, value in model.state_dict().items():
        value.zero_()[tuple(slice(size) for size in state[name].shape)] = state[name]


def velocity_loss(
    predicted: Float[Tensor, "batch channels side side"],
    clean: Float[Tensor, "batch channels side side"],
    noise: Float[Tensor, "batch channels side side"],
    alphas_cumprod: Float[Tensor, "batch"],
) -> Float[Tensor, ""]:
    """Mean of |v - v_hat|^2 with v = sqrt(a) noise - sqrt(1 - a) clean (Salimans and Ho, 2022).

    Every noise level weighs the same: what a picture shows is decided where the noise is high,
    and there min-SNR's weights vanish.
    """
    alpha = alphas_cumprod.sqrt()[:, None, None, None]
    sigma = (1 - alphas_cumprod).sqrt()[:, None, None, None]
    return F.mse_loss(predicted, alpha * noise - sigma * clean)


def train_diffusion(
    config: DiffusionConfig, backbone: Backbone, vae_dir: Path, work_dir: Path, output_dir: Path,
    device: str = "cpu",
) -> dict[str, float]:  # fmt: skip
    """Trains the UNet (resuming from `work_dir`) and writes the whole pipeline's folder."""
    repair_torchvision()
    from diffusers import (
        AutoencoderTiny,
        DDIMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from diffusers.models.attention_processor import AttnProcessor

    vae: Any = AutoencoderTiny.from_pretrained(vae_dir, dtype=torch.float32)
    vae.to(device).eval()
    paths = cache_latents(vae, config, work_dir)
    rank, world = rank_and_world()
    if world > 1:
        torch.distributed.barrier()
    latents = torch.cat([load_file(path)["latents"] for path in paths])
    captions = [row for path in paths for row in json.loads(path.with_suffix(".json").read_text())]
    tokenizer = clip_tokenizer()
    torch.manual_seed(config.optim.seed)
    # Contiguous memory on purpose: on a CPU the backward of GroupNorm is slow in channels_last.
    unet: Any = UNet2DConditionModel(**ARCHITECTURE, cross_attention_dim=backbone.text_width)
    if config.start:
        started = StableDiffusionPipeline.from_pretrained(config.start, dtype=torch.float32)
        text_encoder = started.text_encoder.requires_grad_(False)
        load_narrower(unet, started.unet.state_dict())
    else:
        text_encoder = text_encoder_from(backbone)
    unet.to(device)
    text_encoder.to(device)
    if device == "cpu":
        # Plain matrix products: there the backward of the fused attention takes a third of a step.
        unet.set_attn_processor(AttnProcessor())
    noise_scheduler = DDIMScheduler(**NOISE_SCHEDULE)
    alphas_cumprod = noise_scheduler.alphas_cumprod.to(device)
    scale, batch = float(vae.config.scaling_factor), config.optim.batch_size

    def loss_of_step(step: int) -> tuple[Tensor, dict[str, float]]:
        generator = step_generator(config.optim, step)
        rows = rows_of_step(len(latents), batch, step, config.optim.seed)
        choice = torch.randint(config.captions_per_scene, (batch,), generator=generator)
        dropped = torch.rand(batch, generator=generator) < config.dropped_captions
        time = torch.randint(
            0, NOISE_SCHEDULE["num_train_timesteps"], (batch,), generator=generator
        )
        noise = torch.randn((batch, *latents.shape[1:]), generator=generator)
        mine = slice(rank, None, world)
        texts = [
            "" if d else captions[r][c]
            for r, c, d in zip(rows.tolist(), choice.tolist(), dropped.tolist())
        ]
        tokens = tokenizer(
            texts[mine], padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        clean = (latents[rows[mine]].float() * scale).to(device)
        noise, time = noise[mine].to(device), time[mine].to(device)
        with bf16_autocast(device):
            with torch.no_grad():
                hidden = text_encoder(tokens.to(device)).last_hidden_state
            noisy = noise_scheduler.add_noise(clean, noise, time)  # type: ignore[arg-type]
            predicted = unet(noisy, time, hidden).sample.float()
        loss = velocity_loss(predicted, clean, noise, alphas_cumprod[time])
        return loss, {"loss": loss.item()}

    result = train_steps("diffusion", unet, loss_of_step, config.optim, work_dir, config)
    if rank == 0:
        pipeline = StableDiffusionPipeline(
            vae, text_encoder, tokenizer, unet, noise_scheduler,  # type: ignore[arg-type]
            safety_checker=None, feature_extractor=None, requires_safety_checker=False,  # type: ignore[arg-type]
        )  # fmt: skip
        pipeline.to(torch.float16).save_pretrained(output_dir)
    return result
