"""Stable Diffusions of a few thousand random weights, in diffusers' own folder format."""

import json
import string
from pathlib import Path
from typing import Any

LETTERS = "!" + string.ascii_lowercase + string.digits + ".,'-"
TOKENS = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]


def _tokenizer(folder: Path, **options: Any) -> Any:
    from transformers import CLIPTokenizer

    words = folder / "words"
    words.mkdir(parents=True, exist_ok=True)
    (words / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(TOKENS)}))
    (words / "merges.txt").write_text("#version: 0.2\n")
    files = str(words / "vocab.json"), str(words / "merges.txt")
    return CLIPTokenizer(*files, model_max_length=77, **options)


def _text_config(**changes: Any) -> Any:
    from transformers import CLIPTextConfig

    values = {
        "vocab_size": len(TOKENS),
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "bos_token_id": len(TOKENS) - 2,
        "eos_token_id": len(TOKENS) - 1,
        "pad_token_id": len(TOKENS) - 1,
    }
    return CLIPTextConfig(**{**values, **changes})


def _vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(4, 4),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=2,
    )


def _unet(**changes: Any) -> Any:
    from diffusers import UNet2DConditionModel

    values = {
        "sample_size": 16,
        "block_out_channels": (4, 8),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 2,
        "norm_num_groups": 2,
        "cross_attention_dim": 8,
    }
    return UNet2DConditionModel(**{**values, **changes})


def write_tiny_stable_diffusion(folder: Path, **changes: Any) -> Path:
    """Writes the folder: 32 px images, 77 tokens of single letters, one block per level.

    Args:
        folder: to be written.
        changes: options of a part by its name, where they are other than those of version 1.
    """
    from t2ipal.torchvision_repair import repair_torchvision

    repair_torchvision()
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline
    from transformers import CLIPTextModel

    torch.manual_seed(0)
    scheduler = {"clip_sample": False, "steps_offset": 1, **changes.get("scheduler", {})}
    pipeline = StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_text_config(**changes.get("text_encoder", {}))),
        tokenizer=_tokenizer(folder, **changes.get("tokenizer", {})),
        unet=_unet(**changes.get("unet", {})),
        scheduler=DDIMScheduler(**scheduler),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def write_tiny_stable_diffusion_2(folder: Path) -> Path:
    """The same of Stable Diffusion 2.1: OpenCLIP's text encoder without its last layer, velocity.

    As the folder of stabilityai/stable-diffusion-2-1 has it: the text encoder's own activation,
    width and padding, linear projections around each attention, heads in number by level.
    """
    return write_tiny_stable_diffusion(
        folder,
        tokenizer={"pad_token": "!"},
        text_encoder={
            "hidden_act": "gelu",
            "hidden_size": 12,
            "intermediate_size": 48,
            "num_attention_heads": 3,
            "num_hidden_layers": 2,
            "projection_dim": 6,
        },
        unet={
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "attention_head_dim": [1, 2],
            "cross_attention_dim": 12,
            "use_linear_projection": True,
            "upcast_attention": True,
        },
        scheduler={
            "prediction_type": "v_prediction",
            "set_alpha_to_one": False,
            "beta_schedule": "scaled_linear",
            "beta_start": 0.00085,
            "beta_end": 0.012,
        },
    )


def write_tiny_stable_diffusion_xl(folder: Path) -> Path:
    """The same of Stable Diffusion XL: two text encoders, and the image size as a condition."""
    from t2ipal.torchvision_repair import repair_torchvision

    repair_torchvision()
    import torch
    from diffusers import DDIMScheduler, StableDiffusionXLPipeline
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(0)
    pipeline = StableDiffusionXLPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_text_config()),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(projection_dim=8)),
        tokenizer=_tokenizer(folder),
        tokenizer_2=_tokenizer(folder),
        unet=_unet(
            cross_attention_dim=16,
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=6 * 4 + 8,
        ),
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


WRITERS = {
    "sd": write_tiny_stable_diffusion,
    "sd2": write_tiny_stable_diffusion_2,
    "sdxl": write_tiny_stable_diffusion_xl,
}
"""Each kind that there is."""
