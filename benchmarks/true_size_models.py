"""Stable Diffusion 1.5, 2.1 and XL at true size with random weights: as slow as the real ones.

Owns their configurations, after the models' own files. What they draw is noise; what they cost,
in operations and memory, is what the trained ones cost.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
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
    prediction_type: str = "epsilon"
    """What the UNet predicts, as schedulers call it."""
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
OPEN_CLIP_H: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
    "projection_dim": 512,
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
SD21 = ModelSize(
    name="SD2.1",
    image_size_px=768,
    guidance_scale=7.5,
    unet={
        **SD15.unet,
        "sample_size": 96,
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
        "upcast_attention": True,
    },
    vae={**VAE, "sample_size": 768, "scaling_factor": 0.18215},
    text_encoders=(OPEN_CLIP_H,),
    prediction_type="v_prediction",
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
SIZES = {"sd15": SD15, "sd21": SD21, "sdxl": SDXL}


def write_model(size: ModelSize, folder: Path, device: str, dtype: Any) -> Path:
    """Makes random weights on the device and writes the pipeline in diffusers' own format.

    One part after another, so that no more than the largest is in memory.
    """
    from t2ipal.torchvision_repair import repair_torchvision

    repair_torchvision()
    import diffusers  # noqa: TID251  builds what t2ipal.diffusion.pipelines loads
    import torch

    from t2ipal.pretraining.unet import clip_tokenizer

    tokenizer = clip_tokenizer()
    tokenizer.model_max_length = MAX_TOKENS
    torch.manual_seed(0)
    makers = _makers(size, tokenizer)
    with torch.device("meta"):  # for the index of the folder alone
        parts: dict[str, Any] = {name: make() for name, make in makers.items()}
    tokenizers = {name.replace("text_encoder", "tokenizer") for name in makers if "text" in name}
    parts |= dict.fromkeys(sorted(tokenizers), tokenizer)
    scheduler: Any = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
        timestep_spacing="leading", prediction_type=size.prediction_type,
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
    pipeline.save_config(folder)
    for name in ("scheduler", *tokenizers):
        getattr(pipeline, name).save_pretrained(folder / name)
    for name, make in makers.items():
        with _weights_on(device, dtype):
            part = make()
        part.save_pretrained(folder / name, safe_serialization=True)
        del part
    return folder


def _makers(size: ModelSize, tokenizer: Any) -> dict[str, Callable[[], Any]]:
    """What makes each part that has weights, by its name in a pipeline."""
    import diffusers  # noqa: TID251
    import transformers

    kinds = [transformers.CLIPTextModel, transformers.CLIPTextModelWithProjection]
    makers: dict[str, Callable[[], Any]] = {
        "unet": partial(diffusers.UNet2DConditionModel, **size.unet),
        "vae": partial(diffusers.AutoencoderKL, **size.vae),
    }
    for number, values in enumerate(size.text_encoders):
        config = transformers.CLIPTextConfig(
            vocab_size=len(tokenizer), max_position_embeddings=MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, **values,
        )  # fmt: skip
        makers["text_encoder" + ("_2" if number else "")] = partial(kinds[number], config)
    return makers


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
