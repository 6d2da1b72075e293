"""Images from captions by Stable Diffusion.

Owns what decides an image and the randomness of a sample. Knows nothing of stores, shards or Ray.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from math import inf, isfinite
from typing import Any

import numpy as np
from jaxtyping import UInt8

from t2ipal.acceleration import (
    AccelerationConfig,
    accelerate,
    guide_steps,
    interval,
    one_at_a_time,
    require_few_steps,
)
from t2ipal.config import added, fingerprint, one_of, require, to_dict
from t2ipal.images import ENDINGS, SUBSAMPLINGS
from t2ipal.pipelines import SCHEDULERS, TIMESTEP_SPACINGS, load_pipeline

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
POSITIVE_INPUTS = ("prompt_embeds", "pooled_prompt_embeds")
NEGATIVE_INPUTS = ("negative_prompt_embeds", "negative_pooled_prompt_embeds")
"""The text inputs of a pipeline; the second ones are SDXL's."""


@dataclass(frozen=True)
class SynthesisConfig:
    """How images are made from captions."""

    pipeline: str = "pictovoc"
    """`pictovoc` (the embedded small Stable Diffusion), a folder in diffusers' format, or a hub
    name such as stabilityai/stable-diffusion-2-1 or stabilityai/stable-diffusion-xl-base-1.0."""
    revision: str | None = None
    """Branch, tag or commit of a hub model; None: its main branch. A run keeps the commit that it
    was begun with."""
    unet_weights: str | None = added(None)
    """Safetensors file that replaces the pipeline's UNet weights: a path, or owner/name/file or
    owner/name@revision/file of the hub (a revision without "/"), such as
    ByteDance/SDXL-Lightning/sdxl_lightning_4step_unet.safetensors."""
    vae: str | None = added(None)
    """Autoencoder in place of the pipeline's own: a folder in diffusers' format (safetensors), or
    owner/name or owner/name@revision of the hub, such as madebyollin/sdxl-vae-fp16-fix, with which
    SDXL decodes in half precision."""
    images_per_caption: int = 1
    """Images made for each caption; the paper settles on 6 (Table IX)."""
    guidance_scale: float = 2.0
    """Classifier-free guidance; 1 is none. For training recognizers, published sweeps are best near
    2."""
    guidance_until: float = 1.0
    """Share of the steps, from pure noise on, after which guidance ends; unguided steps cost half.
    The first decide what an image shows."""
    guidance_from: float = added(0.0)
    """Share of the steps before which nothing is guided: guidance in an interval (Kynkaanniemi et
    al., 2024). Less alike images, at the risk of missing what the caption names."""
    composition: float = 0.0
    """Weight with which each class that the caption names guides beside the caption itself
    (Composable Diffusion, Liu et al., 2022); 0 is none. A class costs half as much as a caption."""
    class_prompts: tuple[str, ...] = ()
    """Prompt of each class, for `composition`; the jobs take them from the vocabulary."""
    num_inference_steps: int = 20
    """Diffusion steps per image."""
    scheduler: str = "dpm++"
    """Sampler: default (the pipeline's own), ddim, euler, dpm++, unipc or lcm."""
    timestep_spacing: str = added("default")
    """Which noise levels the steps visit: default (the pipeline's own), leading, linspace or
    trailing, which models of few steps need."""
    image_size_px: int | None = None
    """Side of the square images in pixels; None: the pipeline's own."""
    negative_prompt: str = ""
    """What the images should not show."""
    seed: int = 0
    """Seed of the run; a sample's own is sha256(seed, caption id, k), and of the attempt where it
    failed before."""
    batch_size: int = 16
    """Images generated at once; it shows in an image's last bits, most of all in half precision."""
    precision: str = "auto"
    """fp32, bf16, fp16, or auto: bf16 on devices that compute it in hardware, else fp32."""
    jpeg_quality: int = 95
    """Quality of a stored JPEG or WebP, 1 to 100; a PNG has none."""
    image_format: str = added("jpeg")
    """How images are stored: jpeg, png (every pixel is kept: five times the bytes, and twenty times
    as long to encode) or webp (lossy, at `jpeg_quality`: three quarters of a JPEG's bytes, ten
    times as long)."""
    jpeg_subsampling: str = added("4:2:0")
    """Color resolution of a JPEG: 4:2:0 (a quarter, as photographs on the web have it), 4:2:2
    (half) or 4:4:4 (all)."""
    acceleration: AccelerationConfig = added(AccelerationConfig())  # noqa: RUF009

    def __post_init__(self) -> None:
        for name in ("images_per_caption", "num_inference_steps", "batch_size"):
            require(getattr(self, name) > 0, f"{name} must be > 0, got {getattr(self, name)}.")
        for name in ("guidance_scale", "composition"):
            value = getattr(self, name)
            require(value >= 0, f"{name} must be >= 0, got {value}.")
            require(isfinite(value), f"{name} must be finite, got {value}.")
        require(
            not self.composition or self.guidance_scale > 1,
            f"composition needs guidance: guidance_scale must be > 1, got {self.guidance_scale}.",
        )
        require(
            not self.negative_prompt or self.guidance_scale > 1,
            "negative_prompt needs guidance: guidance_scale must be > 1, got "
            f"{self.guidance_scale}.",
        )
        require(
            0 < self.guidance_until <= 1,
            f"guidance_until must be > 0 and <= 1, got {self.guidance_until}.",
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
            1 <= self.jpeg_quality <= 100,
            f"jpeg_quality must be in 1..100, got {self.jpeg_quality}.",
        )
        size = self.image_size_px
        require(
            size is None or (size > 0 and size % 8 == 0),
            f"image_size_px must be a positive multiple of 8, got {size}.",
        )
        one_of("image_format", self.image_format, ENDINGS)
        one_of("jpeg_subsampling", self.jpeg_subsampling, SUBSAMPLINGS)
        require(
            self.image_format == "jpeg" or self.jpeg_subsampling == "4:2:0",
            f"jpeg_subsampling needs image_format jpeg, got {self.image_format}: WebP is always "
            "4:2:0, and PNG keeps every pixel.",
        )
        one_of("scheduler", self.scheduler, SCHEDULERS)
        one_of("timestep_spacing", self.timestep_spacing, TIMESTEP_SPACINGS)
        one_of("precision", self.precision, PRECISIONS)
        require(bool(self.pipeline), "pipeline must name a model or a folder, got ''.")
        require(self.unet_weights != "", "unet_weights must name a file or be None, got ''.")
        require(self.vae != "", "vae must name a model or a folder, or be None, got ''.")
        require(
            self.precision == "fp16" or not self.acceleration.decode_bf16,
            "acceleration.decode_bf16 needs precision fp16, got "
            f"{self.precision}: other precisions decode in their own, which does not overflow.",
        )
        require_few_steps(self)


def with_class_prompts(config: SynthesisConfig, prompt_names: Sequence[str]) -> SynthesisConfig:
    """The config with "a photo of a {}." of each class, where it composes and has none.

    Raises:
        ValueError: it has prompts, and not one for each class.
    """
    given, wanted = len(config.class_prompts), len(prompt_names)
    require(
        given in (0, wanted),
        f"class_prompts must hold one prompt for each of the {wanted} classes of the vocabulary, "
        f"in its order, got {given}.",
    )
    if not config.composition or config.class_prompts:
        return config
    prompts = tuple(f"a photo of a {name}." for name in prompt_names)
    return dataclasses.replace(config, class_prompts=prompts)


def sample_seed(run_seed: int, caption_id: str, k: int, attempt: int = 0) -> int:
    """Seed of one sample: it depends on nothing but the run, the caption, k and the attempt."""
    name = f"{run_seed}\n{caption_id}\n{k}"
    if attempt:  # in front, where it is no part of a caption's id
        name = f"attempt {attempt}\n{name}"
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class Synthesizer:
    """Loads a pipeline once; then turns batches of captions into images."""

    def __init__(self, config: SynthesisConfig, device: str | None = None):
        """Loads the pipeline that `config` names.

        Raises:
            FileNotFoundError: the folder, or a file in it, is missing.
            ValueError: the weights are damaged, incomplete or do not fit the configuration.
        """
        import torch

        from t2ipal.composition import Conjunction
        from t2ipal.devices import computes_bf16, device_name

        self.config = config
        self._torch = torch
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        precision = config.precision
        if precision == "auto":
            precision = "bf16" if computes_bf16(self.device) else "fp32"
        self.versions = {
            "torch": torch.__version__,
            "diffusers": version("diffusers"),
            "device": device_name(self.device),
            "precision": precision,
        }
        """What an image's last bits depend on beside its config."""
        # On a CPU half precision means autocast: latents and sampler stay in float32.
        autocast = self.device == "cpu" and precision != "fp32"
        names = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        self._autocast = torch.autocast(self.device, names[precision], enabled=autocast)
        self._unguided: dict[str, Any] = {}
        self._classes: Any = None
        self._most_at_once = inf  # images; fewer where memory turns out to be short
        self.pipeline: Any = load_pipeline(config, names["fp32" if autocast else precision])
        self.pipeline.to(self.device)
        unet = self.pipeline.unet
        # A consistency model is told the scale and guides itself, in a batch of one width.
        guides_itself = unet.config.time_cond_proj_dim is not None
        self._guided = config.guidance_scale > 1 and not guides_itself
        guidance = (config.guidance_from, config.guidance_until, config.composition)
        require(
            not guides_itself or ((*guidance, config.negative_prompt) == (0, 1, 0, "")),
            f"{config.pipeline} guides itself: leave out guidance_from, guidance_until, "
            "composition and negative_prompt.",
        )
        self._conjunction = None
        if config.composition:
            require(bool(config.class_prompts), "composition needs class_prompts, got none.")
            self._conjunction = Conjunction(unet, config.composition)
        # Behind the conjunction, whose hooks decide what the UNet is given.
        self._forget = accelerate(self.pipeline, config.acceleration)
        if config.acceleration.compile:
            # All workers of a node would compile the same: those that come later find it done.
            with one_at_a_time(f"t2ipal-compile-{fingerprint(to_dict(config))}"):
                self._warm_up()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Adds `image`, `seed`, `status` and `reason` to a batch of `caption_id`, `caption`, `k`.

        `labels`, the classes that each caption names, are needed where they are composed, and
        `attempt`, how often each was tried before, where it is not 0. An image that is black or not
        finite gets status "failed" with its reason; the rest "ok".
        """
        attempts = batch.get("attempt", [0] * len(batch["k"]))
        seeds = [
            sample_seed(self.config.seed, str(i), int(k), int(attempt))
            for i, k, attempt in zip(batch["caption_id"], batch["k"], attempts)
        ]
        with self._torch.inference_mode(), self._autocast:
            labels = batch["labels"] if self._conjunction else [()] * len(seeds)
            prompts = [str(caption) for caption in batch["caption"]]
            rows = [(p, list(row), seed) for p, row, seed in zip(prompts, labels, seeds)]
            if self.config.acceleration.compile:  # for one number of images alone
                rows += rows[-1:] * (self.config.batch_size - len(rows))
            images, reasons = self._draw(*map(list, zip(*rows)), **self._guidance())
        reasons = reasons[: len(seeds)]
        return {
            **batch,
            "image": images[: len(seeds)],
            "seed": np.array(seeds, dtype=np.uint64),
            "status": np.array(["failed" if reason else "ok" for reason in reasons]),
            "reason": np.array(reasons),
        }

    def _draw(
        self, prompts: list[str], labels: list[list[int]], seeds: list[int], **settings: Any
    ) -> tuple[UInt8[np.ndarray, "batch height width 3"], list[str]]:
        """Images and what is wrong with each, "" for nothing; in halves where memory is short."""
        if len(prompts) <= self._most_at_once:
            try:
                return self._draw_at_once(prompts, labels, seeds, **settings)
            except self._torch.OutOfMemoryError:
                if len(prompts) == 1:
                    raise
                # Sizes below are still tried: so the parts are those of a worker that forgets.
                self._most_at_once = len(prompts) - 1
            # Only here, outside of the except, are the tensors free that the error's frames held.
            if self.device.startswith("cuda"):
                self._torch.cuda.empty_cache()
        middle = len(prompts) // 2
        parts = [
            self._draw(prompts[part], labels[part], seeds[part], **settings)
            for part in (slice(middle), slice(middle, None))
        ]
        return np.concatenate([images for images, _ in parts]), [r for _, rs in parts for r in rs]

    def _draw_at_once(
        self, prompts: list[str], labels: list[list[int]], seeds: list[int], **settings: Any
    ) -> tuple[UInt8[np.ndarray, "batch height width 3"], list[str]]:
        """As `_draw`, in one call of the pipeline."""
        torch, config = self._torch, self.config
        try:
            output = self.pipeline(
                **self._conditions(prompts, labels), **settings,
                generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
                height=config.image_size_px, width=config.image_size_px, output_type="pt",
            )  # fmt: skip
        finally:
            self._forget()
        flagged = getattr(output, "nsfw_content_detected", None) or [False] * len(prompts)
        # Still on the device: a quarter of the bytes has to leave it.
        images = output.images.float()
        peaks = images.flatten(1).amax(dim=1).tolist()
        reasons = [_fault(peak, bool(flag)) for peak, flag in zip(peaks, flagged)]
        uint8 = (images.nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8)
        return uint8.permute(0, 2, 3, 1).contiguous().cpu().numpy(), reasons

    def _conditions(self, prompts: list[str], labels: list[list[int]]) -> dict[str, Any]:
        """The pipeline's text inputs; each distinct caption is encoded once, the empty one ever."""
        encode = partial(self.pipeline.encode_prompt, device=self.device, num_images_per_prompt=1)
        if self._guided and not self._unguided:
            encoded = encode(
                prompt="", do_classifier_free_guidance=True,
                negative_prompt=self.config.negative_prompt or None,
            )  # fmt: skip
            self._unguided.update(zip(NEGATIVE_INPUTS, encoded[1::2]))
        distinct = list(dict.fromkeys(prompts))
        encoded = encode(prompt=distinct, do_classifier_free_guidance=False)[::2]
        rows = [distinct.index(prompt) for prompt in prompts]
        inputs = {name: tensor[rows] for name, tensor in zip(POSITIVE_INPUTS, encoded)}
        if self._conjunction is not None:
            if self._classes is None:
                prompts_of = list(self.config.class_prompts)
                self._classes = encode(prompt=prompts_of, do_classifier_free_guidance=False)[::2]
            chosen = [label for row in labels for label in row]
            image = [number for number, row in enumerate(labels) for _ in row]
            states, pooled = [*(part[chosen] for part in self._classes), None][:2]
            rows_of = self._torch.tensor(image, dtype=self._torch.long, device=self.device)
            self._conjunction.prepare(states, pooled, rows_of, len(prompts))
        for name, tensor in self._unguided.items():
            inputs[name] = tensor.expand(len(prompts), *tensor.shape[1:])
        return inputs

    def _guidance(self) -> dict[str, Any]:
        """The pipeline's arguments that guide the steps of the interval and no others."""
        scale, steps = self.config.guidance_scale, self.config.num_inference_steps
        guided = interval(steps, self.config.guidance_from, self.config.guidance_until)
        settings = {"num_inference_steps": steps, "guidance_scale": scale}
        if self._guided and guided != range(steps):
            settings |= guide_steps(self.pipeline, guided, steps, scale, self._unguided)
        return settings

    def _warm_up(self) -> None:
        """Compiles what the steps call, guided and not, before the first images are waited for."""
        count, ends = self.config.batch_size, "callback_on_step_end" in self._guidance()
        batch = [""] * count, [[]] * count, [0] * count
        with self._torch.inference_mode(), self._autocast:
            for scale in (self.config.guidance_scale, *([1.0] if ends else [])):
                self._draw(*batch, guidance_scale=scale, num_inference_steps=1)


def _fault(peak: float, flagged: bool) -> str:
    """What is wrong with an image of this largest value; a single NaN makes that NaN too."""
    if flagged:
        return "flagged by the safety checker"
    if not isfinite(peak):
        return "not finite"
    return "black" if peak < 2 / 255 else ""
