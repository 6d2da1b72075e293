"""Stable Diffusion 1.5 and XL at their true sizes with random weights: as slow as the real ones.

Owns their configurations, after the models' own files. What they draw is noise; what they cost,
in operations and memory, is what the trained ones cost.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_TOKENS = 77
"""Tokens of a prompt, as in CLIP."""


@dataclass(frozen=True)
class ModelSize:
    """A latent diffusion model as diffusers' configurations of its parts."""

    name: str
    image_size_px: int
    guidance_scale: float
    """Usual guidance; for SDXL that of MLPerf."""
    unet: dict[str, Any]
    """Arguments of UNet2DConditionModel."""
    vae: dict[str, Any]
    """Arguments of AutoencoderKL."""
    text_encoders: tuple[dict[str, Any], ...]
    """Arguments of CLIPTextConfig: one encoder, or SDXL's two."""
    unet_tflop: float | None = None
    """Published TFLOP of one forward pass for one image, to check the count against."""


VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
CLIP_L: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "quick_gelu",
    "projection_dim": 768,
}
CLIP_BIG_G: dict[str, Any] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "projection_dim": 1280,
}
SD15 = ModelSize(
    name="SD1.5",
    image_size_px=512,
    guidance_scale=7.5,
    unet={
        "sample_size": 64,
        "block_out_channels": (320, 640, 1280, 1280),
        "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
    },
    vae={**VAE, "sample_size": 512, "scaling_factor": 0.18215},
    text_encoders=(CLIP_L,),
    unet_tflop=0.803,
)
SDXL = ModelSize(
    name="SDXL",
    image_size_px=1024,
    guidance_scale=8.0,
    unet={
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", *("CrossAttnDownBlock2D",) * 2),
        "up_block_types": (*("CrossAttnUpBlock2D",) * 2, "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    vae={**VAE, "sample_size": 1024, "scaling_factor": 0.13025},
    text_encoders=(CLIP_L, CLIP_BIG_G),
    unet_tflop=6.761,
)
SIZES = {"sd15": SD15, "sdxl": SDXL}


def write_model(size: ModelSize, folder: Path, device: str, dtype: Any) -> Path:
    """Makes random weights on the device and writes the pipeline in diffusers' own format."""
    from t2ipal.torchvision_repair import repair_torchvision

    repair_torchvision()
    import diffusers  # noqa: TID251  builds what t2ipal.diffusion.pipelines loads
    import torch
    import transformers

    from t2ipal.pretraining.unet import clip_tokenizer

    tokenizer = clip_tokenizer()
    tokenizer.model_max_length = MAX_TOKENS
    torch.manual_seed(0)
    kinds = [transformers.CLIPTextModel, transformers.CLIPTextModelWithProjection]
    with _weights_on(device, dtype):
        parts: dict[str, Any] = {
            "unet": diffusers.UNet2DConditionModel(**size.unet),
            "vae": diffusers.AutoencoderKL(**size.vae),
        }
        for number, values in enumerate(size.text_encoders, 1):
            config = transformers.CLIPTextConfig(
                vocab_size=len(tokenizer), max_position_embeddings=MAX_TOKENS,
                bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, **values,
            )  # fmt: skip
            ending = "" if number == 1 else f"_{number}"
            parts[f"text_encoder{ending}"] = kinds[number - 1](config)
            parts[f"tokenizer{ending}"] = tokenizer
    scheduler: Any = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
        timestep_spacing="leading",
    )  # fmt: skip
    if len(size.text_encoders) == 1:
        pipeline: Any = diffusers.StableDiffusionPipeline(
            **parts, scheduler=scheduler, safety_checker=None, feature_extractor=None,  # type: ignore[arg-type]
            requires_safety_checker=False,
        )  # fmt: skip
    else:
        pipeline = diffusers.StableDiffusionXLPipeline(
            **parts, scheduler=scheduler, add_watermarker=False
        )
    pipeline.to(dtype).save_pretrained(folder, safe_serialization=True)
    return folder


@contextlib.contextmanager
def _weights_on(device: str, dtype: Any) -> Iterator[None]:
    """New modules get their weights there and in that precision."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)
