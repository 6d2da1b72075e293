"""Images from captions by Stable Diffusion: one pipeline, and the randomness of a sample.

Knows nothing of stores, shards or Ray.
"""

import hashlib
from functools import partial
from importlib.metadata import version
from math import isfinite
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from t2ipal.config import fingerprint, require, to_dict
from t2ipal.devices import Halving, computes_bf16, device_name
from t2ipal.diffusion.acceleration import accelerate, one_at_a_time
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.diffusion.guidance import Conjunction, guide_steps, interval
from t2ipal.diffusion.pipelines import load_pipeline

POSITIVE_INPUTS = ("prompt_embeds", "pooled_prompt_embeds")
NEGATIVE_INPUTS = ("negative_prompt_embeds", "negative_pooled_prompt_embeds")
"""The text inputs of a pipeline; the second ones are SDXL's."""


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
        self.config = config
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
        self._halving = Halving()
        # What quantizes wants weights that were not rounded before.
        rounded = autocast and config.acceleration.quantize == "none"
        dtype = names["fp32" if autocast else precision]
        self.pipeline: Any = load_pipeline(config, dtype, names[precision] if rounded else None)
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
        with torch.inference_mode(), self._autocast:
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
        parts = self._halving(
            lambda rows: self._draw_at_once(prompts[rows], labels[rows], seeds[rows], **settings),
            len(prompts),
            "images",
        )
        return np.concatenate([images for images, _ in parts]), [r for _, rs in parts for r in rs]

    def _draw_at_once(
        self, prompts: list[str], labels: list[list[int]], seeds: list[int], **settings: Any
    ) -> tuple[UInt8[np.ndarray, "batch height width 3"], list[str]]:
        """As `_draw`, in one call of the pipeline."""
        config = self.config
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
            rows_of = torch.tensor(image, dtype=torch.long, device=self.device)
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
        with torch.inference_mode(), self._autocast:
            for scale in (self.config.guidance_scale, *([1.0] if ends else [])):
                self._draw(*batch, guidance_scale=scale, num_inference_steps=1)


def _fault(peak: float, flagged: bool) -> str:
    """What is wrong with an image of this largest value; a single NaN makes that NaN too."""
    if flagged:
        return "flagged by the safety checker"
    if not isfinite(peak):
        return "not finite"
    return "black" if peak < 2 / 255 else ""
