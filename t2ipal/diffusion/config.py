"""What decides an image: model, sampler, guidance, format, and what makes it faster.

Plain values; loads nothing, so that a command line can be parsed.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from t2ipal.config import (
    Bounds,
    NonNegativeFloat,
    PositiveInt,
    added,
    check_fields,
    require,
)
from t2ipal.places import ModelPlace

SCHEDULERS = {
    "default": "",
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "lcm": "LCMScheduler",
}
"""Option -> diffusers' class; `default` is what the pipeline's folder names."""

MOST_STEPS = 8
"""Of a few-step model: the most that the cards of those below speak of."""
TURBO = {"num_inference_steps": 1, "guidance_scale": 1.0, "scheduler": "default"}
PRESETS: dict[str, dict[str, Any]] = {
    "sd-turbo": {"pipeline": "stabilityai/sd-turbo", **TURBO},
    "sdxl-turbo": {"pipeline": "stabilityai/sdxl-turbo", **TURBO, "image_size_px": 512},
    "sdxl-lightning": {
        "pipeline": "stabilityai/stable-diffusion-xl-base-1.0",
        "unet_weights": "ByteDance/SDXL-Lightning/sdxl_lightning_4step_unet.safetensors",
        "num_inference_steps": 4,
        "guidance_scale": 1.0,
        "scheduler": "euler",
        "timestep_spacing": "trailing",
    },
    "lcm": {
        "pipeline": "SimianLuo/LCM_Dreamshaper_v7",
        "num_inference_steps": 4,
        "guidance_scale": 8.0,
        "scheduler": "default",
    },
}
"""What each model of few steps needs of SynthesisConfig's fields, after its card."""


@dataclass(frozen=True)
class AccelerationConfig:
    """What makes images faster. docs/synthesis.md says what each option does to them and when."""

    channels_last: bool = False
    """Convolutions in the memory order that tensor cores read; shows in an image's last bits."""
    compile: bool = False
    """torch.compile of the UNet's transformer blocks, for whole batches: a short last batch is
    filled up. A minute or more when a machine's first worker starts; the others wait for what it
    leaves in TORCHINDUCTOR_CACHE_DIR (torch's own: a folder of the user's in /tmp). Shows in last
    bits."""
    fuse_qkv: bool = False
    """The projections of an attention as one product; shows in an image's last bits."""
    cache_text: bool = False
    """Compute the keys and values of the text once a batch, not in each step: the same images. They
    stay in memory for the batch, for SDXL 51 MB a guided image in half precision."""
    deep_cache: PositiveInt = 1
    """Compute the UNet's deep blocks in each Nth step only and reuse them between (DeepCache, Ma et
    al., 2024); 1: in every step. Changes the images, the more the larger."""
    quantize: Literal["none", "int8"] = "none"
    """none, or int8: the linear layers of the UNet's transformer blocks with 8-bit weights, one
    scale an output, and 8-bit activations, one scale a token. Changes the images slightly; needs
    compile to be fast on a GPU, and is slow on a CPU."""
    decode_bf16: bool = added(False)
    """With precision fp16: decode in bfloat16, whose range suffices, where the autoencoder
    overflows in half precision (`force_upcast` in its configuration). SDXL's decodes in fp32
    otherwise."""

    def __post_init__(self) -> None:
        check_fields(self)


def require_few_steps(config: "SynthesisConfig") -> None:
    """Refuses a SynthesisConfig under which a model of PRESETS would draw what nobody can use."""
    weights = config.unet_weights and re.sub("@[^/]*", "", config.unet_weights)
    for name, preset in PRESETS.items():
        if (config.pipeline, weights) != (preset["pipeline"], preset.get("unet_weights")):
            continue
        steps, scale = config.num_inference_steps, config.guidance_scale
        advice = f"with {preset.get('unet_weights', config.pipeline)}, got"
        require(
            steps <= MOST_STEPS,
            f"num_inference_steps must be <= {MOST_STEPS} {advice} {steps}. Take --preset {name}.",
        )
        require(
            scale <= 1 or preset["guidance_scale"] > 1,
            f"guidance_scale must be <= 1 {advice} {scale}. Take --preset {name}.",
        )


@dataclass(frozen=True)
class SynthesisConfig:
    """How images are made from captions."""

    pipeline: ModelPlace = "pictovoc"
    """`pictovoc` (the embedded small Stable Diffusion), a folder in diffusers' format, or a hub
    name such as stabilityai/stable-diffusion-2-1 or stabilityai/stable-diffusion-xl-base-1.0."""
    revision: str | None = None
    """Branch, tag or commit of a hub model; None: its main branch. A run keeps the commit that it
    was begun with."""
    unet_weights: ModelPlace | None = added(None)  # noqa: RUF009
    """Safetensors file that replaces the pipeline's UNet weights: a path, or owner/name/file or
    owner/name@revision/file of the hub (a revision without "/"), such as
    ByteDance/SDXL-Lightning/sdxl_lightning_4step_unet.safetensors."""
    vae: ModelPlace | None = added(None)  # noqa: RUF009
    """Autoencoder in place of the pipeline's own: a folder in diffusers' format (safetensors), or
    owner/name or owner/name@revision of the hub, such as madebyollin/sdxl-vae-fp16-fix, with which
    SDXL decodes in half precision."""
    images_per_caption: PositiveInt = 1
    """Images made for each caption; the paper settles on 6 (Table IX)."""
    guidance_scale: NonNegativeFloat = 2.0
    """Classifier-free guidance; 1 is none. For training recognizers, published sweeps are best near
    2."""
    guidance_until: Annotated[float, Bounds(gt=0, le=1)] = 1.0
    """Share of the steps, from pure noise on, after which guidance ends; unguided steps cost half.
    The first decide what an image shows."""
    guidance_from: float = added(0.0)
    """Share of the steps before which nothing is guided: guidance in an interval (Kynkaanniemi et
    al., 2024). Less alike images, at the risk of missing what the caption names."""
    composition: NonNegativeFloat = 0.0
    """Weight with which each class that the caption names guides beside the caption itself
    (Composable Diffusion, Liu et al., 2022); 0 is none. A class costs half as much as a caption."""
    class_prompts: tuple[str, ...] = ()
    """Prompt of each class, for `composition`; the jobs take them from the vocabulary."""
    num_inference_steps: PositiveInt = 20
    """Diffusion steps per image."""
    scheduler: Literal["default", "ddim", "euler", "dpm++", "unipc", "lcm"] = "dpm++"
    """Sampler: default (the pipeline's own), ddim, euler, dpm++, unipc or lcm."""
    timestep_spacing: Literal["default", "leading", "linspace", "trailing"] = added("default")
    """Which noise levels the steps visit: default (the pipeline's own), leading, linspace or
    trailing, which models of few steps need."""
    image_size_px: Annotated[int, Bounds(gt=0, multiple_of=8)] | None = None
    """Side of the square images in pixels; None: the pipeline's own."""
    negative_prompt: str = ""
    """What the images should not show."""
    seed: int = 0
    """Seed of the run; a sample's own is sha256(seed, caption id, k), and of the attempt where it
    failed before."""
    batch_size: PositiveInt = 16
    """Images generated at once; it shows in an image's last bits, most of all in half precision."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """fp32, bf16, fp16, or auto: bf16 on devices that compute it in hardware, else fp32."""
    jpeg_quality: Annotated[int, Bounds(ge=1, le=100)] = 95
    """Quality of a stored JPEG or WebP, 1 to 100; a PNG has none."""
    image_format: Literal["jpeg", "png", "webp"] = added("jpeg")
    """How images are stored: jpeg, png (every pixel is kept: five times the bytes, and twenty times
    as long to encode) or webp (lossy, at `jpeg_quality`: three quarters of a JPEG's bytes, ten
    times as long)."""
    jpeg_subsampling: Literal["4:2:0", "4:2:2", "4:4:4"] = added("4:2:0")
    """Color resolution of a JPEG: 4:2:0 (a quarter, as photographs on the web have it), 4:2:2
    (half) or 4:4:4 (all)."""
    acceleration: AccelerationConfig = added(AccelerationConfig())  # noqa: RUF009

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("composition", "negative_prompt"):
            require(
                not getattr(self, name) or self.guidance_scale > 1,
                f"{name} needs guidance: guidance_scale must be > 1, got {self.guidance_scale}.",
            )
        require(
            0 <= self.guidance_from < self.guidance_until,
            f"guidance_from must be >= 0 and < guidance_until ({self.guidance_until}), got "
            f"{self.guidance_from}.",
        )
        require(
            not (self.composition and self.acceleration.compile),
            "compile needs batches of one width, which composition does not give: leave out one "
            "of the two.",
        )
        require(
            self.image_format == "jpeg" or self.jpeg_subsampling == "4:2:0",
            f"jpeg_subsampling needs image_format jpeg, got {self.image_format}: WebP is always "
            "4:2:0, and PNG keeps every pixel.",
        )
        require(bool(self.pipeline), "pipeline must name a model or a folder, got ''.")
        require(self.unet_weights != "", "unet_weights must name a file or be None, got ''.")
        require(self.vae != "", "vae must name a model or a folder, or be None, got ''.")
        require(
            self.precision == "fp16" or not self.acceleration.decode_bf16,
            "acceleration.decode_bf16 needs precision fp16, got "
            f"{self.precision}: other precisions decode in their own, which does not overflow.",
        )
        require_few_steps(self)
