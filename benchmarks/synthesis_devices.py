"""Parts c and d of benchmarks/synthesis.py: the synthesizer on one device.

Against stock diffusers at batch 1 and at its own best batch, against what the device can multiply,
and with each option against itself without it. No Ray, no store.
"""

import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.synthesis_table import Row, ratio
from benchmarks.true_size_models import ModelSize, write_model
from t2ipal.config import field_paths, override, require
from t2ipal.diffusion.config import SynthesisConfig
from t2ipal.diffusion.pipelines import load_pipeline
from t2ipal.diffusion.synthesizer import Synthesizer

MLPERF = "published: 2.37 images/s on an H200 with TensorRT in 8 bits (MLPerf v5.0)"
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
THINGS = ("dog on a beach", "cat beside a sofa", "bus in a street", "boat on a lake")


@dataclass(frozen=True)
class DeviceSizes:
    """How much parts c and d make."""

    device_batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    """Batch sizes that stock diffusers and the synthesizer are measured with, up to the first that
    does not fit into memory."""
    num_inference_steps: int = 20
    """Euler steps of part c; MLPerf has 20."""
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    """Of part c's models, stock and ours: fp32, bf16 or fp16."""
    matrix_size: int = 8192
    """Side of the matrices whose product shows what the device can do."""
    options: tuple[str, ...] = (
        "acceleration.channels_last=true",
        "acceleration.compile=true",
        "acceleration.fuse_qkv=true",
        "acceleration.cache_text=true",
        "acceleration.deep_cache=3",
        "acceleration.quantize=int8",
        "guidance_until=0.6",
        "guidance_from=0.15",
        "precision=fp32",
        "scheduler=euler",
        "scheduler=unipc",
        "acceleration.channels_last=true,acceleration.compile=true,acceleration.cache_text=true",
    )
    """Changes to the synthesizer's settings, as name=value with dotted names, several joined by
    commas; each is measured against the synthesizer without it."""


@dataclass(frozen=True)
class Flops:
    """Floating-point operations, a multiplication and an addition counted as two."""

    unet: float
    """Of one forward pass of the UNet for one image."""
    vae: float
    """Of decoding one image."""

    def image(self, config: SynthesisConfig) -> float:
        """Of one image; a guided step runs the UNet twice. The text encoders are left out."""
        return 2 * config.num_inference_steps * self.unet + self.vae


def captions(count: int) -> list[str]:
    """So many different ones."""
    return [f"A photo of a {THINGS[n % len(THINGS)]}, number {n}." for n in range(count)]


def batch_of(count: int) -> dict[str, Any]:
    """A micro-batch for the synthesizer."""
    texts = captions(count)
    return {
        "caption_id": np.array([str(n) for n in range(count)]),
        "caption": np.array(texts),
        "k": np.zeros(count, dtype=np.int64),
        "labels": [()] * count,
    }


def take_turns(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every call in each round, after one call of each that does not count."""
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            started = time.monotonic()
            call()  # gives arrays in the processor's memory, so that the device is done
            seconds[name].append(time.monotonic() - started)
    return seconds


def matrix_flops(device: str, dtype: torch.dtype, size: int, rounds: int) -> list[float]:
    """FLOP/s of a product of two large matrices, round by round."""
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    times = 10

    def multiply() -> None:
        for _ in range(times):
            product = left @ right
        product[0, 0].item()

    seconds = take_turns({"product": multiply}, rounds)["product"]
    return [2 * size**3 * times / s for s in seconds]


def count_flops(pipeline: Any, size_px: int) -> Flops:
    """Counts a forward pass of the UNet and of the decoder for one image."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    unet, vae = pipeline.unet, pipeline.vae
    side = size_px // pipeline.vae_scale_factor
    like = {"device": unet.device, "dtype": unet.dtype}
    latents = torch.zeros(1, unet.config.in_channels, side, side, **like)
    width, extra = unet.config.cross_attention_dim, {}
    if unet.config.addition_embed_type == "text_time":
        pooled = pipeline.text_encoder_2.config.projection_dim
        extra = {
            "added_cond_kwargs": {
                "text_embeds": torch.zeros(1, pooled, **like),
                "time_ids": torch.zeros(1, 6, **like),
            }
        }
    tokens = pipeline.tokenizer.model_max_length
    text = torch.zeros(1, tokens, width, **like)

    def counted(call: Callable[[], Any]) -> float:
        # As plain products: the counter does not know every device's fused attention.
        with (
            torch.inference_mode(),
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False) as counter,
        ):
            call()
        return float(counter.get_total_flops())

    return Flops(
        unet=counted(lambda: unet(latents, 1, encoder_hidden_states=text, **extra)),
        vae=counted(lambda: vae.decode(latents.to(vae.dtype))),
    )


def measure_models(
    sizes: Sequence[ModelSize], options: DeviceSizes, rounds: int, device: str = "cuda"
) -> list[Row]:
    """The rows of part c."""
    dtype = PRECISIONS[options.precision]
    peak = matrix_flops(device, dtype, options.matrix_size, rounds)
    product = f"product of {options.matrix_size} x {options.matrix_size} matrices, TFLOP/s"
    rows = [Row("c", "device", product, tuple(f / 1e12 for f in peak), options.precision)]
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            write_model(size, Path(folder), device, dtype)
            rows += measure_model(size, folder, options, rounds, device, statistics.median(peak))
    return rows


def model_config(size: ModelSize, folder: str, options: DeviceSizes) -> SynthesisConfig:
    """Of the synthesizer; stock diffusers is called with the same numbers."""
    return SynthesisConfig(
        pipeline=folder, scheduler="euler", num_inference_steps=options.num_inference_steps,
        guidance_scale=size.guidance_scale, image_size_px=size.image_size_px,
        precision=options.precision,
    )  # fmt: skip


def measure_model(
    size: ModelSize, folder: str, options: DeviceSizes, rounds: int, device: str, peak: float
) -> list[Row]:
    """Stock diffusers, ours, and each option of ours, with one model."""
    config = model_config(size, folder, options)
    stock = load_pipeline(config, PRECISIONS[options.precision]).to(device)
    flops = count_flops(stock, size.image_size_px)
    rates = race(stock, Synthesizer(config, device), config, options, rounds)
    del stock
    if not rates:
        note = f"not measured: batch {options.device_batches[0]} does not fit the device's memory"
        return [Row("c", size.name, "images/s", note=note)]
    rows, best = [], {}
    for name in ("stock diffusers", "synthesizer"):
        found = {batch: of[name] for batch, of in rates.items()}
        best[name] = max(found, key=lambda batch: found[batch].median)
        rows += [dataclasses.replace(row, subject=size.name) for row in found.values()]
    ours = rates[best["synthesizer"]]["synthesizer"]
    stock_best, first = best["stock diffusers"], min(rates)
    for batch in dict.fromkeys((first, stock_best)):
        what = f"synthesizer at its best batch over stock diffusers at batch {batch}"
        note = "its best" if batch == stock_best else ""
        rows.append(ratio("c", size.name, ours, rates[batch]["stock diffusers"], what, note))
    anchor = f"published: {size.unet_tflop}" if size.unet_tflop else ""
    rows += [
        Row("c", size.name, "UNet forward pass, TFLOP an image", (flops.unet / 1e12,), anchor),
        Row("c", size.name, "decoder, TFLOP an image", (flops.vae / 1e12,)),
        Row(
            "c", size.name, "**model FLOP/s over the matrix product's**",
            tuple(rate * flops.image(config) / peak for rate in ours.values),
        ),
        conditions_row(size, options, ours.values),
    ]  # fmt: skip
    release(device)
    best_batch = best["synthesizer"]
    return rows + measure_options("c", size.name, config, options, best_batch, rounds, device)


def conditions_row(size: ModelSize, options: DeviceSizes, rates: tuple[float, ...] = ()) -> Row:
    """Ours without options, beside MLPerf's number where the conditions are MLPerf's."""
    guidance, steps = size.guidance_scale, options.num_inference_steps
    what = f"{size.image_size_px} px, {steps} Euler steps, guidance {guidance:g}, images/s"
    same = (size.image_size_px, steps, guidance) == (1024, 20, 8.0)
    return Row("c", size.name, what, rates, MLPERF if same else "")


def race(
    stock: Any, ours: Synthesizer, config: SynthesisConfig, options: DeviceSizes, rounds: int
) -> dict[int, dict[str, Row]]:
    """Images a second of both at each batch size, up to the first that does not fit."""
    rates: dict[int, dict[str, Row]] = {}
    for batch in tqdm(options.device_batches, desc="batches", unit="batch"):
        calls = {
            "stock diffusers": partial(
                stock, prompt=captions(batch), guidance_scale=config.guidance_scale,
                num_inference_steps=config.num_inference_steps,
                height=config.image_size_px, width=config.image_size_px,
            ),
            "synthesizer": partial(ours, batch_of(batch)),
        }  # fmt: skip
        try:
            seconds = take_turns(calls, rounds)
        except torch.OutOfMemoryError:
            break
        rates[batch] = {
            name: Row("c", "", f"{name}, batch {batch}, images/s", tuple(batch / s for s in of))
            for name, of in seconds.items()
        }
    return rates


def measure_options(
    part: str, subject: str, config: SynthesisConfig, options: DeviceSizes, batch: int,
    rounds: int, device: str,
) -> list[Row]:  # fmt: skip
    """Each option against the synthesizer without it: speed, and what it does to the pixels."""
    config = dataclasses.replace(config, batch_size=batch)
    plain, given = Synthesizer(config, device), batch_of(batch)
    before = plain(given)["image"]
    rows = []
    for text in tqdm(options.options, desc="options", unit="option"):
        changes = parse_changes(text)
        missing = [name for name in changes if name not in field_paths(config)]
        what = option_title(text)
        if missing:
            rows.append(Row(part, subject, what, note=f"no such option: {', '.join(missing)}"))
            continue
        started = time.monotonic()
        try:
            changed = Synthesizer(override(config, changes), device)
            after = changed(given)["image"]
        except (RuntimeError, ValueError, ImportError) as error:
            # An option may lack something here, such as a compiler; the others can be measured.
            note = f"fails here: {type(error).__name__}: {str(error).strip().splitlines()[0]}"
            rows.append(Row(part, subject, what, note=note))
            continue
        loaded = time.monotonic() - started
        calls = {"with": partial(changed, given), "without": partial(plain, given)}
        seconds = take_turns(calls, rounds)
        faster = tuple(b / a for a, b in zip(seconds["with"], seconds["without"], strict=True))
        difference = float(np.abs(after.astype(int) - before.astype(int)).mean())
        note = f"pixels differ by {difference:.2f} of 255; first images after {loaded:.0f} s"
        rate = batch / statistics.median(seconds["with"])
        rows.append(Row(part, subject, what, faster, f"{rate:.3g} images/s; {note}"))
        del changed, calls
        release(device)
    return rows


def option_title(text: str) -> str:
    """What the row of an option says."""
    return f"**{text.replace(',', ', ')}: speed over that without**"


def parse_changes(text: str) -> dict[str, Any]:
    """`name=value,name=value` as names and values; a value that is no JSON is a text."""
    changes = {}
    for part in text.split(","):
        name, sign, value = part.partition("=")
        require(bool(sign), f"An option must read name=value, got {part!r}.")
        try:
            changes[name.strip()] = json.loads(value)
        except ValueError:
            changes[name.strip()] = value
    return changes


def release(device: str) -> None:
    """Gives the device the memory of what is no longer used."""
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def measure_embedded(embedded: SynthesisConfig, options: DeviceSizes, rounds: int) -> list[Row]:
    """The rows of part d: each option with the embedded Stable Diffusion, on one core.

    Compared with all steps guided, since ending guidance is one of the options.
    """
    before, whole = torch.get_num_threads(), dataclasses.replace(embedded, guidance_until=1.0)
    torch.set_num_threads(1)
    try:
        return measure_options(
            "d", "embedded, 1 core", whole, options, whole.batch_size, rounds, "cpu"
        )
    finally:
        torch.set_num_threads(before)


def not_measured(sizes: Sequence[ModelSize], options: DeviceSizes) -> list[Row]:
    """What part c would have measured, where there is no GPU."""
    note = "needs a GPU"
    rows = []
    for size in sizes:
        whats = [
            "stock diffusers, batch 1, images/s", "stock diffusers at its best batch, images/s",
            "synthesizer at its best batch, images/s", "**model FLOP/s over the matrix product's**",
            *map(option_title, options.options),
        ]  # fmt: skip
        rows += [Row("c", size.name, what, note=note) for what in whats]
        conditions = conditions_row(size, options)
        notes = filter(None, (note, conditions.note))
        rows.append(dataclasses.replace(conditions, note="; ".join(notes)))
    return rows
