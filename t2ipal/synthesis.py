"""Images from captions by Stable Diffusion; the only file of the core that imports diffusers.

Owns loading a pipeline and the randomness of a sample. Knows nothing of stores, shards or Ray.
"""

import dataclasses
import hashlib
import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from safetensors import SafetensorError

from t2ipal.config import added, one_of, require
from t2ipal.images import ENDINGS, SUBSAMPLINGS
from t2ipal.pictovoc import WEIGHTS_DIR

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
SCHEDULERS = {
    "default": "",
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}
"""Option -> diffusers' class; `default` is what the pipeline's folder names."""
POSITIVE_INPUTS = ("prompt_embeds", "pooled_prompt_embeds")
NEGATIVE_INPUTS = ("negative_prompt_embeds", "negative_pooled_prompt_embeds")
"""The text inputs of a pipeline; the second ones are SDXL's."""
MISFITS = ("size mismatch", "mismatched", "expected shape", "Unable to load weights")
"""Words of diffusers and transformers where a file of weights is damaged or of another shape."""
PART_FILES = {
    "scheduler": "scheduler_config.json",
    "tokenizer": "tokenizer_config.json",
    **dict.fromkeys(("text_encoder", "unet", "vae"), "config.json"),
}
"""File that each part of a pipeline folder must hold; without some, a library takes defaults."""
MAX_REASON = 600
"""Letters of a library's report that reach a message."""


@dataclass(frozen=True)
class SynthesisConfig:
    """How images are made from captions."""

    pipeline: str = "pictovoc"
    """`pictovoc` (the embedded small Stable Diffusion), a folder in diffusers' format, or a hub
    name such as stabilityai/stable-diffusion-2-1 or stabilityai/stable-diffusion-xl-base-1.0."""
    revision: str | None = None
    """Git revision of a hub model; None: its main branch."""
    images_per_caption: int = 1
    """Images made for each caption; the paper settles on 6 (Table IX)."""
    guidance_scale: float = 2.0
    """Classifier-free guidance; 1 is none. For training recognizers, published sweeps are best near
    2."""
    guidance_until: float = 1.0
    """Share of the steps, from pure noise on, that are guided; the others cost half. The first
    decide what an image shows (Kynkaanniemi et al., 2024, guide in an interval too)."""
    composition: float = 0.0
    """Weight with which each class that the caption names guides beside the caption itself
    (Composable Diffusion, Liu et al., 2022); 0 is none. A class costs half as much as a caption."""
    class_prompts: tuple[str, ...] = ()
    """Prompt of each class, for `composition`; the jobs take them from the vocabulary."""
    num_inference_steps: int = 20
    """Diffusion steps per image."""
    scheduler: str = "dpm++"
    """Sampler: default (the pipeline's own), ddim, euler, dpm++ or unipc."""
    image_size_px: int | None = None
    """Side of the square images in pixels; None: the pipeline's own."""
    negative_prompt: str = ""
    """What the images should not show."""
    seed: int = 0
    """Seed of the run; a sample's own is sha256(seed, caption id, k)."""
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
            0 < self.guidance_until <= 1,
            f"guidance_until must be > 0 and <= 1, got {self.guidance_until}.",
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
        one_of("precision", self.precision, PRECISIONS)
        require(bool(self.pipeline), "pipeline must name a model or a folder, got ''.")


def with_class_prompts(config: SynthesisConfig, prompt_names: Sequence[str]) -> SynthesisConfig:
    """The config with "a photo of a {}." of each class, where it composes and has none."""
    if not config.composition or config.class_prompts:
        return config
    prompts = tuple(f"a photo of a {name}." for name in prompt_names)
    return dataclasses.replace(config, class_prompts=prompts)


def sample_seed(run_seed: int, caption_id: str, k: int) -> int:
    """Seed of one sample: it depends on nothing but the run, the caption and k."""
    digest = hashlib.sha256(f"{run_seed}\n{caption_id}\n{k}".encode()).digest()
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
        from t2ipal.devices import computes_bf16

        self.config = config
        self._torch = torch
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        precision = config.precision
        if precision == "auto":
            precision = "bf16" if computes_bf16(self.device) else "fp32"
        # On a CPU half precision means autocast: latents and sampler stay in float32.
        self._autocast = self.device == "cpu" and precision != "fp32"
        dtype = "fp32" if self._autocast else precision
        names = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        self._half = names[precision]
        self._unguided: dict[str, Any] = {}
        self._classes: Any = None
        self.pipeline: Any = load_pipeline(config, names[dtype]).to(self.device)
        self._conjunction = None
        if config.composition:
            require(bool(config.class_prompts), "composition needs class_prompts, got none.")
            self._conjunction = Conjunction(self.pipeline.unet, config.composition)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Adds `image`, `seed`, `status` and `reason` to a batch of `caption_id`, `caption`, `k`.

        `labels`, the classes that each caption names, are needed where they are composed. An image
        that is black or not finite gets status "failed" with its reason; the rest "ok".
        """
        torch, config = self._torch, self.config
        seeds = [
            sample_seed(config.seed, str(i), int(k))
            for i, k in zip(batch["caption_id"], batch["k"])
        ]
        with (
            torch.inference_mode(),
            torch.autocast(self.device, self._half, enabled=self._autocast),
        ):
            labels = batch["labels"] if self._conjunction else [()] * len(seeds)
            prompts = [str(caption) for caption in batch["caption"]]
            images, reasons = self._draw(prompts, [list(row) for row in labels], seeds)
        return {
            **batch,
            "image": images,
            "seed": np.array(seeds, dtype=np.uint64),
            "status": np.array(["failed" if reason else "ok" for reason in reasons]),
            "reason": np.array(reasons),
        }

    def _draw(
        self, prompts: list[str], labels: list[list[int]], seeds: list[int]
    ) -> tuple[UInt8[np.ndarray, "batch height width 3"], list[str]]:
        """Images and what is wrong with each, "" for nothing; in halves where memory is short."""
        torch, config = self._torch, self.config
        try:
            output = self.pipeline(
                **self._conditions(prompts, labels), guidance_scale=config.guidance_scale,
                num_inference_steps=config.num_inference_steps,
                generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
                height=config.image_size_px, width=config.image_size_px, output_type="pt",
                **_stop_guidance(self.pipeline, config),
            )  # fmt: skip
        except torch.OutOfMemoryError:
            if len(prompts) == 1:
                raise
        else:
            flagged = getattr(output, "nsfw_content_detected", None) or [False] * len(prompts)
            # Still on the device: a quarter of the bytes has to leave it.
            images = output.images.float()
            peaks = images.flatten(1).amax(dim=1).tolist()
            reasons = [_fault(peak, bool(flag)) for peak, flag in zip(peaks, flagged)]
            uint8 = (images.nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8)
            return uint8.permute(0, 2, 3, 1).contiguous().cpu().numpy(), reasons
        # Only here, outside of the except, are the tensors free that the error's frames held.
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()
        middle = len(prompts) // 2
        parts = [
            self._draw(prompts[part], labels[part], seeds[part])
            for part in (slice(middle), slice(middle, None))
        ]
        return np.concatenate([images for images, _ in parts]), [r for _, rs in parts for r in rs]

    def _conditions(self, prompts: list[str], labels: list[list[int]]) -> dict[str, Any]:
        """The pipeline's text inputs; each distinct caption is encoded once, the empty one ever."""
        config, guided = self.config, self.config.guidance_scale > 1
        encode = partial(self.pipeline.encode_prompt, device=self.device, num_images_per_prompt=1)
        if guided and not self._unguided:
            encoded = encode(
                prompt="", do_classifier_free_guidance=True,
                negative_prompt=config.negative_prompt or None,
            )  # fmt: skip
            self._unguided = dict(zip(NEGATIVE_INPUTS, encoded[1::2]))
        distinct = list(dict.fromkeys(prompts))
        encoded = encode(prompt=distinct, do_classifier_free_guidance=False)[::2]
        rows = [distinct.index(prompt) for prompt in prompts]
        inputs = {name: tensor[rows] for name, tensor in zip(POSITIVE_INPUTS, encoded)}
        if self._conjunction is not None:
            if self._classes is None:
                prompts_of = list(config.class_prompts)
                self._classes = encode(prompt=prompts_of, do_classifier_free_guidance=False)[::2]
            chosen = [label for row in labels for label in row]
            image = [number for number, row in enumerate(labels) for _ in row]
            states, pooled = [part[chosen] for part in self._classes], None
            if len(states) > 1:
                pooled = states[1]
            rows_of = self._torch.tensor(image, dtype=self._torch.long, device=self.device)
            self._conjunction.prepare(states[0], pooled, rows_of, len(prompts))
        for name, tensor in self._unguided.items():
            inputs[name] = tensor.expand(len(prompts), *tensor.shape[1:])
        return inputs


def _stop_guidance(pipeline: Any, config: SynthesisConfig) -> dict[str, Any]:
    """The arguments with which diffusers ends guidance after the first steps: halves its batch."""
    last = max(1, round(config.guidance_until * config.num_inference_steps)) - 1
    if config.guidance_scale <= 1 or last + 1 >= config.num_inference_steps:
        return {}
    conditions = ("prompt_embeds", "add_text_embeds", "add_time_ids")  # the last two are SDXL's
    names = [name for name in conditions if name in pipeline._callback_tensor_inputs]

    def after_step(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> Any:
        if step != last:
            return {}
        pipeline._guidance_scale = 1.0
        # The first half of each belongs to the empty caption.
        return {name: tensor.chunk(2)[1] for name, tensor in tensors.items()}

    return {"callback_on_step_end": after_step, "callback_on_step_end_tensor_inputs": names}


def _fault(peak: float, flagged: bool) -> str:
    """What is wrong with an image of this largest value; a single NaN makes that NaN too."""
    if flagged:
        return "flagged by the safety checker"
    if not isfinite(peak):
        return "not finite"
    return "black" if peak < 2 / 255 else ""


@contextmanager
def _remarks() -> Iterator[list[str]]:
    """Collects what diffusers and transformers have to say, in place of printing it."""
    remarks: list[str] = []
    listener = logging.Handler(logging.WARNING)
    listener.emit = lambda record: remarks.append(record.getMessage())
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [listener], False
        logger.setLevel(logging.WARNING)
    try:
        yield remarks
    finally:
        for logger, (handlers, level, propagate) in zip(loggers, before):
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)


def load_pipeline(config: SynthesisConfig, dtype: Any) -> Any:
    """The diffusers pipeline that `config` names, with its scheduler, from safetensors only."""
    from t2ipal.torchvision_repair import repair_torchvision

    repair_torchvision()
    import diffusers

    name = (
        str(WEIGHTS_DIR / "stable-diffusion") if config.pipeline == "pictovoc" else config.pipeline
    )
    local = name.startswith((".", "/", "~")) or Path(name).expanduser().exists()
    source = Path(name).expanduser() if local else name
    if local and not (Path(source) / "model_index.json").is_file():
        raise FileNotFoundError(
            f"A pipeline folder must hold model_index.json; {source} does not. "
            "Give a folder written by diffusers' save_pretrained, a hub name, or pictovoc."
        )
    if local:
        _check_folder(Path(source))
    diffusers.utils.logging.disable_progress_bar()
    with _remarks() as remarks:
        try:
            pipeline: Any = diffusers.DiffusionPipeline.from_pretrained(
                str(source), revision=config.revision, dtype=dtype, use_safetensors=True,
            )  # fmt: skip
        except (
            OSError, RuntimeError, ValueError, AttributeError, KeyError, TypeError, SafetensorError
        ) as error:  # fmt: skip
            others = [remark for remark in remarks if str(error) not in remark]
            text = re.sub(r"\x1b\[[0-9;]*m", "", " ".join(" ".join([str(error), *others]).split()))
            shown = text if len(text) <= MAX_REASON else text[: MAX_REASON - 3] + "..."
            if isinstance(error, SafetensorError) or any(sign in text for sign in MISFITS):
                raise ValueError(f"The weights in {source} do not fit: {shown}") from error
            if local and any(Path(source).glob("*/*.bin")):
                shown += " A .bin file may run code when it is read: convert it to safetensors."
            raise FileNotFoundError(
                f"The pipeline {source} could not be loaded: {shown}"
            ) from error
    require(
        hasattr(pipeline, "encode_prompt"),
        f"{source} must hold a Stable Diffusion (1.x, 2.x, XL) that reads captions, got a "
        f"{type(pipeline).__name__}.",
    )
    _require_complete(pipeline, str(source), remarks)
    _require_possible(pipeline, config)
    if config.scheduler != "default":
        kind = getattr(diffusers, SCHEDULERS[config.scheduler])
        pipeline.scheduler = kind.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    return pipeline


def _check_folder(folder: Path) -> None:
    """Raises where a pipeline folder lacks a part's own file, or names no pipeline at all."""
    index = _read_mapping(folder / "model_index.json")
    require(
        isinstance(index.get("_class_name"), str),
        f"{folder}/model_index.json must name the pipeline's _class_name, as diffusers writes it.",
    )
    for name, part in index.items():
        file = PART_FILES.get(name.removesuffix("_2"))
        if file is None or not isinstance(part, list) or part[:1] == [None]:
            continue
        if not (folder / name / file).is_file():
            raise FileNotFoundError(
                f"{folder} must hold {name}/{file}, for its model_index.json names the {name}. "
                "Copy the whole folder."
            )
        _read_mapping(folder / name / file)


def _read_mapping(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is no valid JSON: {error}.") from error
    require(isinstance(values, dict), f"{path} must be a JSON mapping, got {str(values)[:60]}.")
    return values


def _require_possible(pipeline: Any, config: SynthesisConfig) -> None:
    """Raises where each sample would fail for what the config asks of this pipeline."""
    steps = getattr(pipeline.scheduler.config, "num_train_timesteps", None)
    require(
        steps is None or config.num_inference_steps < steps,
        f"num_inference_steps must be < {steps}, the steps that {config.pipeline} was trained "
        f"with, got {config.num_inference_steps}.",
    )
    size, shrinks = config.image_size_px, getattr(pipeline, "vae_scale_factor", 8)
    require(
        size is None or size % shrinks == 0,
        f"image_size_px must be a multiple of {shrinks}, by which the autoencoder of "
        f"{config.pipeline} shrinks, got {size}.",
    )


def _require_complete(pipeline: Any, source: str, remarks: list[str]) -> None:
    """Raises where a library filled in random weights, or a tokenizer that knows no words."""
    for remark in remarks:
        missing = "newly initialized" in remark
        require(
            not missing, f"The weights in {source} must be complete: {' '.join(remark.split())}"
        )
    for name, part in pipeline.components.items():
        if name.startswith("tokenizer") and part is not None and not _knows_words(part):
            raise FileNotFoundError(f"No vocabulary of the {name} in {source}. Add its files.")


def _knows_words(tokenizer: Any) -> bool:
    return len(tokenizer.get_vocab()) > len(tokenizer.all_special_tokens)
